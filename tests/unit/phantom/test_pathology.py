import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from unit.phantom.drawing import a_skeleton, a_spine

from autospine.phantom.anatomy import Dent, Lesion, Spine, Vertebra
from autospine.phantom.pathology import with_findings
from autospine.phantom.skeleton import Skeleton, paint_discs, paint_vertebrae
from autospine.synthesis.tissues import CODES

PLACE = 21


def drawn(**changes: object) -> tuple[Skeleton, Vertebra]:
    """Draw L3 and its neighbours with changes to L3."""
    spine = a_spine(4)
    vertebrae = [dataclasses.replace(v, crush=1.0) for v in spine.vertebrae]
    vertebrae[PLACE] = dataclasses.replace(vertebrae[PLACE], **changes)
    spine = dataclasses.replace(spine, vertebrae=tuple(vertebrae))
    x, y, z = spine.vertebrae[PLACE].frame.origin_mm
    skeleton = a_skeleton(spine, (float(x), float(y) + 15, float(z)), (110.0, 110.0, 120.0), 1.5)
    paint_discs(skeleton, spine, np.random.default_rng(0))
    paint_vertebrae(skeleton, spine)
    return skeleton, spine.vertebrae[PLACE]


def volume(skeleton: Skeleton, label: int) -> float:
    return float(np.sum(skeleton.labels == label)) * 1.5**3 / 1000


@pytest.fixture(scope="module")
def sound() -> tuple[Skeleton, Vertebra]:
    return drawn()


def found(spine: Spine, before: Spine) -> set[str]:
    names = {
        name
        for v in spine.vertebrae
        for name, there in (
            ("node", v.dents),
            ("bridge", v.bridge),
            ("fusion", v.fused),
            ("wing", v.sacralised),
            ("spur", v.spur > 0),
            *((lesion.kind, True) for lesion in v.lesions),
        )
        if there
    }
    moved = any(
        not np.allclose(a.frame.origin_mm, b.frame.origin_mm)
        for a, b in zip(spine.vertebrae, before.vertebrae, strict=True)
    )
    return names | ({"slip"} if moved else set())


def test_much_pathology_has_every_finding_and_none_has_none() -> None:
    everything: set[str] = set()
    for seed in range(25):
        spine, rng = a_spine(seed), np.random.default_rng(seed)
        everything |= found(with_findings(spine, rng, "much"), spine)
        none = with_findings(spine, rng, "none")
        assert found(none, spine) == set()
        assert all(v.crush == 1 for v in none.vertebrae)
    kinds = {"lytic", "sclerotic", "haemangioma", "cement"}
    assert everything == {"node", "bridge", "fusion", "wing", "spur", "slip"} | kinds


@pytest.mark.parametrize("kind", ["wedge", "biconcave", "burst"])
def test_a_fracture_takes_height_and_the_vertebra_stays_one_piece(
    sound: tuple[Skeleton, Vertebra], kind: str
) -> None:
    broken, vertebra = drawn(crush=0.6, break_kind=kind)
    assert volume(broken, vertebra.label) < 0.96 * volume(sound[0], vertebra.label)
    pieces, _ = ndimage.label(broken.labels == vertebra.label, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    assert sizes.max() / sizes.sum() > 0.99


def test_the_disc_fills_a_node(sound: tuple[Skeleton, Vertebra]) -> None:
    dent = Dent(x_mm=2.0, y_mm=-1.0, radius_mm=7.0, depth_mm=7.0, cranial=False)
    skeleton, vertebra = drawn(dents=(dent,))
    before, after = (volume(s, vertebra.disc_label) for s in (sound[0], skeleton))
    assert after > before + 0.3


def test_spurs_and_wings_are_part_of_their_vertebra(sound: tuple[Skeleton, Vertebra]) -> None:
    for changes in ({"spur": 1.0}, {"bridge": True}, {"sacralised": True}):
        skeleton, vertebra = drawn(**changes)
        assert volume(skeleton, vertebra.label) > volume(sound[0], vertebra.label) + 0.3, changes


@pytest.mark.parametrize(
    ("kind", "tissue"),
    [("lytic", "tumour"), ("sclerotic", "sclerosis"), ("haemangioma", "fat"), ("cement", "cement")],
)
def test_lesions_change_the_tissue_but_not_the_label(
    sound: tuple[Skeleton, Vertebra], kind: str, tissue: str
) -> None:
    lesion = Lesion(kind=kind, centre_mm=(0.0, 0.0, 0.0), radii_mm=(12.0, 10.0, 8.0))
    skeleton, _ = drawn(lesions=(lesion,))
    assert np.array_equal(skeleton.labels, sound[0].labels)
    mixture = skeleton.picture.mixture
    first = np.where(mixture.share > 0.5, mixture.second, mixture.first)
    assert np.sum(first == CODES[tissue]) * 1.5**3 > 800
