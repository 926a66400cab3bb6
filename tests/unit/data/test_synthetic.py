"""Images made from tissue maps while training: of every kind, normalised as scans are."""

import dataclasses

import makers
import numpy as np
import pytest

from autospine.core.errors import FormatError
from autospine.core.geometry import Box
from autospine.data.patches import PatchSource
from autospine.data.spatial import cut_maps, draw_deformation
from autospine.data.synthetic import Synthesis
from autospine.plan import Normalisation
from autospine.preprocessing.store import StoredCase, find_case
from autospine.synthesis.tissues import CODES

NAMES = {code: name for name, code in CODES.items()}
RULES = makers.normalisation(100.0)
CT = {"CT": Normalisation(scope="dataset", lower=-200, upper=1200, mean=200, std=250)}
SHAPE = (40, 36, 32)


@pytest.fixture
def mapped(store) -> StoredCase:
    """A block of marrow in a shell of cortical bone, in muscle."""
    codes = np.full(SHAPE, CODES["muscle"], dtype=np.int32)
    codes[8:30, 8:28, 8:24] = CODES["cortical"]
    codes[10:28, 10:26, 10:22] = CODES["marrow_L"]
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[8:30, 8:28, 8:24] = 1
    return store("bone", np.zeros(SHAPE), labels, codes, NAMES)


def test_a_tissue_map_is_stored_and_read(mapped: StoredCase) -> None:
    again = find_case(mapped.folder, "bone")
    assert again is not None
    assert again.record.tissues == NAMES
    box = Box(start=(5, 5, 5), stop=(12, 12, 12))
    assert set(np.unique(again.tissues(box))) == {
        CODES["muscle"],
        CODES["cortical"],
        CODES["marrow_L"],
    }
    mapped._path("tissues").unlink()
    assert find_case(mapped.folder, "bone") is None


@pytest.mark.parametrize("deformed", [False, True])
def test_labels_and_tissues_of_a_patch_stay_together(mapped: StoredCase, configure, deformed) -> None:
    strength = configure().augmentation
    rng = np.random.default_rng(0)
    for start in ((4, 4, 4), (-9, 10, 20)):
        deformation = draw_deformation(rng, strength, (24, 24, 24), (1.5,) * 3) if deformed else None
        labels, codes = cut_maps(mapped, start, (24, 24, 24), deformation, (1.5, 1.5, 1.5))
        bone = np.isin(codes, (CODES["cortical"], CODES["marrow_L"]))
        assert bone.any()
        assert np.array_equal(labels == 1, bone)


def test_made_ct_has_the_hounsfield_units_of_its_tissues(mapped: StoredCase) -> None:
    synthesis, codes = Synthesis(CT), mapped.tissues(Box.whole(SHAPE))
    muscle, marrow = [], []
    for seed in range(12):
        image, transform, modality = synthesis(mapped, codes, np.random.default_rng(seed))
        assert modality == "CT"
        assert image.shape == (1, *SHAPE)
        hu = image[0] * transform.std[0] + transform.mean[0]
        muscle.append(np.median(hu[codes == CODES["muscle"]]))
        marrow.append(np.median(hu[12:26, 12:24, 12:20]))
    assert np.median(muscle) == pytest.approx(52, abs=15)
    assert np.ptp(marrow) > 50


def test_made_mr_is_normalised_as_a_scan_of_the_case_would_be(mapped: StoredCase) -> None:
    synthesis, codes = Synthesis({"MR": RULES["MR"]}), mapped.tissues(Box.whole(SHAPE))
    images = [synthesis(mapped, codes, np.random.default_rng(seed))[0] for seed in range(20)]
    assert all(np.isfinite(image).all() for image in images)
    assert np.median([image.mean() for image in images]) == pytest.approx(0, abs=0.5)
    assert np.median([image.std() for image in images]) == pytest.approx(1, abs=0.5)


def test_all_kinds_are_made_where_there_are_rules_for_them(mapped: StoredCase) -> None:
    codes = mapped.tissues(Box.whole(SHAPE))
    made = [Synthesis(RULES)(mapped, codes, np.random.default_rng(seed))[2] for seed in range(40)]
    assert 0.2 < made.count("CT") / len(made) < 0.6


def test_patches_are_made_in_the_planned_share_and_repeat_themselves(mapped: StoredCase, plain) -> None:
    for share, expected in ((0.0, 0.0), (1.0, 1.0)):
        source = PatchSource(
            [mapped], plain(synthesis_probability=share), seed=3, cache_bytes=0, normalisation=RULES
        )
        patches = [source.patch(step, 0)[0] for step in range(8)]
        # The stored image is zero throughout; whatever varies has been made.
        assert np.mean([patch.std() > 0 for patch in patches]) == expected
        assert np.array_equal(source.patch(2, 0)[0], patches[2])


def test_cases_without_a_map_are_scans(cases, plain) -> None:
    source = PatchSource(cases, plain(synthesis_probability=1.0), seed=7, cache_bytes=0, normalisation=RULES)
    usual = PatchSource(cases, plain(), seed=7, cache_bytes=0)
    assert np.array_equal(source.patch(0, 0)[0], usual.patch(0, 0)[0])


def test_cases_of_several_channels_are_scans(mapped: StoredCase, plain) -> None:
    two = dataclasses.replace(mapped.record, channels=2)
    source = PatchSource(
        [StoredCase(folder=mapped.folder, record=two)],
        plain(synthesis_probability=1.0),
        seed=3,
        cache_bytes=0,
        normalisation=RULES,
    )
    # The stored image has one channel, which only reading it tells.
    with pytest.raises(FormatError, match="stored image"):
        source.patch(0, 0)
