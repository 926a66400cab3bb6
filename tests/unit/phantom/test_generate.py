import dataclasses
import itertools

import numpy as np
import pytest
from scipy import ndimage

from autospine.core.errors import DatasetError
from autospine.core.labels import DISC_OFFSET, VERSE
from autospine.phantom import PhantomSettings, by_structure, generate
from autospine.phantom.anatomy import CANAL, SACRUM, sample_posture, sample_spine, table_size
from autospine.phantom.generate import Phantom
from autospine.phantom.scan import ORIENTATIONS, sample_scan

CT = PhantomSettings(
    modality="CT", spacing_mm=(2.0, 2.0, 2.0), orientation="LPS", oblique_deg=0.0, variant="usual"
)
SPACING = {"CT": (2.5, 1.6, 1.6), "MR": (1.5, 1.5, 4.0)}
WHOLE = dataclasses.replace(CT, region="whole", spacing_mm=(3.0, 3.0, 3.0), size_mm=(720.0, 270.0, 120.0))


@pytest.fixture(scope="module")
def lumbar() -> Phantom:
    return generate(CT, 1)


@pytest.fixture(scope="module")
def whole() -> Phantom:
    return generate(WHOLE, 4)


def centre(phantom: Phantom, label: int) -> np.ndarray:
    return phantom.grid.physical(np.argwhere(phantom.labels == label)).mean(axis=0)


def test_same_seed_gives_the_same_bytes(lumbar: Phantom) -> None:
    again = generate(CT, 1)
    assert lumbar.image.tobytes() == again.image.tobytes()
    assert lumbar.labels.tobytes() == again.labels.tobytes()
    assert lumbar.grid == again.grid


def test_another_seed_gives_another_spine(lumbar: Phantom) -> None:
    other = generate(CT, 2)
    assert other.grid != lumbar.grid or not np.array_equal(other.labels, lumbar.labels)


@pytest.mark.parametrize(
    "wrong", [{"orientation": "LRS"}, {"spacing_mm": (1.0, 0.0, 1.0)}, {"size_mm": (-1.0, 9.0, 9.0)}]
)
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DatasetError, match="expected"):
        dataclasses.replace(CT, **wrong)


def test_types_and_shapes(lumbar: Phantom) -> None:
    assert lumbar.image.dtype == np.int16
    assert lumbar.labels.dtype == np.uint8
    assert lumbar.image.shape == lumbar.labels.shape == lumbar.grid.shape


def test_every_level_of_a_whole_spine_is_there(whole: Phantom) -> None:
    expected = set(range(1, 25)) | {SACRUM, CANAL} | {DISC_OFFSET + i for i in range(2, 25)}
    assert set(np.unique(whole.labels)) - {0} == expected


@pytest.mark.parametrize(
    ("variant", "present", "absent"), [("T13", "T13", None), ("L6", "L6", None), ("four_lumbar", "L4", "L5")]
)
def test_variants_have_their_vertebrae(variant: str, present: str, absent: str | None) -> None:
    settings = dataclasses.replace(
        CT, variant=variant, spacing_mm=(3.0, 3.0, 3.0), size_mm=(260.0, 120.0, 80.0)
    )
    found = set(np.unique(generate(settings, 3).labels))
    assert VERSE[present] in found
    assert absent is None or VERSE[absent] not in found


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("region", ["lumbar", "cervical"])
def test_canal_is_one_piece_from_edge_to_edge(modality: str, region: str) -> None:
    for seed in range(3):
        phantom = generate(
            PhantomSettings(modality=modality, region=region, spacing_mm=SPACING[modality]), seed
        )
        pieces, count = ndimage.label(phantom.labels == CANAL, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert count >= 1
        assert sizes.max() / sizes.sum() > 0.995


def test_a_thoracic_field_of_view_shows_the_chest_alone() -> None:
    found = set(
        np.unique(generate(dataclasses.replace(CT, region="thoracic", spacing_mm=(3.0, 3.0, 3.0)), 2).labels)
    )
    assert VERSE["T7"] in found
    assert not found & {VERSE["C1"], VERSE["L4"], SACRUM}


def test_any_field_of_view_is_drawn_in_place_and_size() -> None:
    settings = PhantomSettings(region="any", modality="CT", orientation="LPS", oblique_deg=0.0)
    phantoms = [
        generate(dataclasses.replace(settings, spacing_mm=(5.0, 5.0, 5.0)), seed) for seed in range(14)
    ]
    extents = np.array([phantom.image.shape for phantom in phantoms]) * 5
    assert extents.min() < 110
    assert extents[:, 2].max() > 300
    seen = [set(phantom.centroids_mm) for phantom in phantoms]
    assert {"C", "T", "L"} <= {name[0] for names in seen for name in names}
    assert min(len(names) for names in seen) < 6


def test_a_large_field_of_view_is_sampled_coarsely_enough_to_be_painted() -> None:
    rng = np.random.default_rng(0)
    spine = sample_spine(rng, sample_posture(rng))
    for seed in range(60):
        scan = sample_scan(
            spine,
            "any",
            ("CT", "T2w")[seed % 2],
            np.random.default_rng(seed),
            spacing_mm=None,
            size_mm=None,
            orientation=None,
            oblique_deg=None,
        )
        assert np.prod(scan.raster.shape) < 5.4e6


def test_discs_lie_between_their_bodies(whole: Phantom) -> None:
    frames = whole.centroids_mm
    names = [name for name in frames if name not in ("C1", "C2")]
    for upper, lower in itertools.pairwise(names):
        disc = centre(whole, DISC_OFFSET + VERSE[upper])
        a, b = np.asarray(frames[upper]), np.asarray(frames[lower])
        along = (disc - a) @ (b - a) / ((b - a) @ (b - a))
        aside = np.linalg.norm(disc - a - along * (b - a))
        assert 0.3 < along < 0.7, (upper, lower)
        assert aside < 0.25 * np.linalg.norm(b - a), (upper, lower)


def test_vertebrae_are_one_piece_each(whole: Phantom) -> None:
    for label in (*range(8, 25), SACRUM):
        pieces, _ = ndimage.label(whole.labels == label, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() / sizes.sum() > 0.97, label


def test_bodies_have_the_sizes_of_the_table() -> None:
    settings = dataclasses.replace(CT, spacing_mm=(1.5, 1.5, 1.5), size_mm=(200.0, 100.0, 70.0))
    ratios = []
    for seed in range(4):
        phantom = generate(settings, seed)
        for name in ("L2", "L3", "L4"):
            # Width of the disc's bed: the extent of the body from side to side in front of the canal.
            index = np.argwhere(phantom.labels == VERSE[name])
            places = phantom.grid.physical(index) - np.asarray(phantom.centroids_mm[name])
            front = places[(places[:, 1] < 0) & (np.abs(places[:, 2]) < 14)]
            ratios.append(np.ptp(front[:, 0]) / table_size(name).width)
    assert 0.85 < np.median(ratios) < 1.15


def test_volumes_of_lumbar_vertebrae_are_those_of_people() -> None:
    settings = dataclasses.replace(CT, spacing_mm=(1.5, 1.5, 1.5), size_mm=(220.0, 140.0, 120.0))
    phantom = generate(settings, 5)
    for name in ("L2", "L3"):
        assert 35 < np.sum(phantom.labels == VERSE[name]) * 1.5**3 / 1000 < 95


def test_orientation_changes_the_storage_only() -> None:
    plain = generate(CT, 6)
    inside = np.argwhere(plain.labels == CANAL)
    for orientation in ORIENTATIONS[::7]:
        stored = generate(dataclasses.replace(CT, orientation=orientation), 6)
        assert stored.orientation == orientation
        assert sorted(stored.image.shape) == sorted(plain.image.shape)
        here = stored.grid.physical(np.argwhere(stored.labels == CANAL))
        assert len(here) == len(inside)
        there = plain.grid.physical(inside)
        assert np.allclose(np.sort(here, axis=0), np.sort(there, axis=0), atol=1e-6)
        assert np.array_equal(np.sort(stored.image, axis=None), np.sort(plain.image, axis=None))


def test_oblique_scan_sees_the_same_spine() -> None:
    settings = dataclasses.replace(CT, size_mm=(160.0, 120.0, 90.0))
    straight, oblique = generate(settings, 7), generate(dataclasses.replace(settings, oblique_deg=12.0), 7)
    for name in set(straight.centroids_mm) & set(oblique.centroids_mm):
        assert np.allclose(straight.centroids_mm[name], oblique.centroids_mm[name])
    label = VERSE["L3"]
    assert np.linalg.norm(centre(straight, label) - centre(oblique, label)) < 4.0


def test_what_is_labelled_can_be_seen_in_ct(lumbar: Phantom) -> None:
    image, labels = lumbar.image.astype(float), lumbar.labels
    bone = (labels > 0) & (labels <= 28)
    disc, canal = labels > DISC_OFFSET, labels == CANAL
    assert np.mean(image[bone]) > np.mean(image[disc]) + 50
    assert np.median(image[disc]) > np.median(image[canal]) + 15


def test_what_is_labelled_can_be_seen_in_mr() -> None:
    phantom = generate(dataclasses.replace(CT, modality="MR", contrast="T2w"), 8)
    image, labels = phantom.image.astype(float), phantom.labels
    canal, bone = labels == CANAL, (labels > 0) & (labels <= 28)
    assert np.median(image[canal]) > 1.4 * np.median(image[bone])


def test_thick_slices_are_painted_finer() -> None:
    settings = PhantomSettings(modality="MR", spacing_mm=(1.5, 1.5, 4.0), orientation="LPS", oblique_deg=0.0)
    phantom = generate(settings, 9)
    assert phantom.grid.spacing_mm == pytest.approx((1.5, 1.5, 4.0))
    assert phantom.labels.shape == phantom.image.shape


def test_metal_is_bright_in_ct_and_dark_in_mr_and_moves_no_label() -> None:
    for modality in ("CT", "MR"):
        settings = dataclasses.replace(CT, modality=modality, size_mm=(200.0, 120.0, 80.0))
        plain, metal = (generate(dataclasses.replace(settings, metal=flag), 3) for flag in (False, True))
        assert np.array_equal(plain.labels, metal.labels)
        change = metal.image.astype(float) - plain.image
        assert change.max() > 1500 if modality == "CT" else change.min() < -plain.image.std()


def test_table_lies_behind_the_patient() -> None:
    settings = dataclasses.replace(CT, spacing_mm=(3.0, 3.0, 3.0), size_mm=(120.0, 300.0, 90.0))
    without, with_table = (generate(dataclasses.replace(settings, table=flag), 3) for flag in (False, True))
    changed = np.argwhere(with_table.image.astype(int) - without.image > 300)
    assert len(changed) > 100
    assert changed[:, 1].min() > np.argwhere(without.labels)[:, 1].max()


def test_cases_vary() -> None:
    phantoms = [generate(PhantomSettings(size_mm=(90.0, 60.0, 40.0)), seed) for seed in range(4)]
    assert len({p.grid.spacing_mm for p in phantoms}) == 4
    assert len({p.orientation for p in phantoms}) > 1


def test_structures_cover_the_levels(whole: Phantom) -> None:
    structures = by_structure(whole.labels)
    assert set(np.unique(structures)) == {0, 1, 2, 3, 4}
    assert np.array_equal(structures > 0, whole.labels > 0)
    assert np.array_equal(structures == 4, whole.labels == SACRUM)
