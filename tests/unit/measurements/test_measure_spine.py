"""Measurements of phantoms against the formulas of their anatomy, and of real masks against known points."""

import json
from dataclasses import replace
from pathlib import Path

import makers
import numpy as np
import pytest
import spine_truth as truth
from bone_maps import bone_map

from autospine.core.errors import DatasetError
from autospine.core.geometry import Grid, as_direction, canonical_grid, orientation, vector
from autospine.core.labels import VERSE, parse_labels
from autospine.core.types import LabelArray
from autospine.io.images import read_labels
from autospine.measurements.body_lengths import BodyHeights
from autospine.measurements.measure_spine import MeasuredSpine, measure_spine
from autospine.measurements.measured_labels import SpineLabels, labels_of_dataset, labels_of_scheme
from autospine.phantom.anatomy import sample_posture, sample_spine
from autospine.phantom.generate import Phantom, PhantomSettings, generate
from autospine.phantom.shapes import rotation
from autospine.vertebrae.levels import INDEX
from autospine.vertebrae.schemes import find_scheme

SCHEME = find_scheme("spineps-instance")


def known_labels(labels: LabelArray) -> SpineLabels:
    return labels_of_scheme(SCHEME, set(np.unique(labels).tolist()))


def measured(phantom: Phantom) -> MeasuredSpine:
    turn = orientation(phantom.grid)
    labels, image = turn.to_canonical(phantom.labels), turn.to_canonical(phantom.image)
    return measure_spine("phantom", labels, canonical_grid(phantom.grid), known_labels(labels), image)


def lumbar(**settings) -> Phantom:
    usual = {
        "region": "lumbar",
        "modality": "CT",
        "pathology": "none",
        "metal": False,
        "variant": "usual",
        "size_mm": (150.0, 110.0, 100.0),
    }
    return generate(PhantomSettings(**{**usual, **settings}), seed=2)


@pytest.fixture(scope="module")
def oblique() -> tuple[Phantom, MeasuredSpine]:
    """Anisotropic voxels, axes that lie obliquely, in an unusual order."""
    phantom = lumbar(spacing_mm=(1.2, 1.2, 2.0), orientation="PIR", oblique_deg=12.0)
    return phantom, measured(phantom)


@pytest.fixture(scope="module")
def straight() -> tuple[Phantom, MeasuredSpine]:
    phantom = lumbar(spacing_mm=(1.5, 1.5, 1.5), orientation="LPS", oblique_deg=0.0)
    return phantom, measured(phantom)


@pytest.fixture(scope="module")
def real_spine(real_data: Path):
    def read(path: str) -> MeasuredSpine:
        volume = read_labels(real_data / "real" / path)
        known = labels_of_scheme(find_scheme("verse"), set(np.unique(volume.array[0]).tolist()))
        return measure_spine("real", volume.array[0], volume.grid, known)

    return read


def test_lengths_are_those_of_the_anatomy(oblique) -> None:
    phantom, spine = oblique
    found = [each for each in spine.measurements.vertebrae if each.depth_mm is not None]
    assert len(found) >= 2
    for each in found:
        body = truth.true_body(truth.vertebra_of(phantom.spine, each.level))
        heights = (each.anterior_height_mm, each.middle_height_mm, each.posterior_height_mm)
        assert heights == pytest.approx(body.heights, abs=1.0)
        assert each.depth_mm == pytest.approx(body.depth, abs=1.0)
        assert each.width_mm == pytest.approx(body.width, abs=1.5)
        assert each.wedge_ratio == pytest.approx(BodyHeights(*body.heights).wedge_ratio, abs=0.07)


def test_endplates_have_the_angles_of_the_anatomy(oblique) -> None:
    phantom, spine = oblique
    for found in spine.bodies:
        if found.heights is None or found.body is None:
            continue
        body = truth.true_body(truth.vertebra_of(phantom.spine, found.level))
        for cranial, normal in ((True, body.upper), (False, body.lower)):
            _, own = found.body.endplate(cranial=cranial)
            for plane in ("coronal", "sagittal"):
                assert truth.tilt(own, plane) == pytest.approx(truth.tilt(normal, plane), abs=2.0)
    assert spine.sacrum is not None
    slope = truth.tilt(phantom.spine.sacrum.axes[:, 2], "sagittal")
    assert truth.tilt(spine.sacrum.normal, "sagittal") == pytest.approx(slope, abs=2.0)
    named = {angle.name: angle.degrees for angle in spine.measurements.angles}
    assert named["sacral slope"] == pytest.approx(slope, abs=2.0)


def test_the_canal_and_the_discs_have_their_size(oblique) -> None:
    phantom, spine = oblique
    vertebrae = {each.level: each for each in spine.measurements.vertebrae if each.canal_area_mm2}
    assert len(vertebrae) >= 2
    for level, each in vertebrae.items():
        area, depth = truth.true_canal(truth.vertebra_of(phantom.spine, level))
        assert each.canal_area_mm2 == pytest.approx(area, rel=0.05)
        assert each.canal_depth_mm == pytest.approx(depth, abs=0.8)
        assert each.canal_source == "canal label"
    between = [disc for disc in spine.measurements.discs if disc.lower != "sacrum"]
    for disc in between:
        upper, lower = (truth.vertebra_of(phantom.spine, level) for level in (disc.upper, disc.lower))
        assert disc.height_mm == pytest.approx(truth.true_disc_height(upper, lower), abs=0.7)
    assert between


def test_the_same_spine_in_a_turned_patient_has_the_same_lengths(straight) -> None:
    phantom, spine = straight
    turn = rotation(pitch=8.0, roll=-6.0, yaw=5.0)
    grid = canonical_grid(phantom.grid)
    directions = turn @ np.array(grid.direction).reshape(3, 3)
    turned = replace(grid, direction=as_direction(directions), origin_mm=vector(turn @ grid.origin_mm))
    labels = orientation(phantom.grid).to_canonical(phantom.labels)
    other = measure_spine("turned", labels, turned, known_labels(labels)).measurements
    for one, two in zip(spine.measurements.vertebrae, other.vertebrae, strict=True):
        assert turn @ np.array(one.centre_mm) == pytest.approx(two.centre_mm, abs=0.6)
        if one.depth_mm is not None and two.depth_mm is not None:
            assert two.middle_height_mm == pytest.approx(one.middle_height_mm, abs=0.5)
            assert two.canal_area_mm2 == pytest.approx(one.canal_area_mm2, rel=0.05)


def test_what_the_border_cuts_is_not_measured(oblique) -> None:
    _, spine = oblique
    cut = [each for each in spine.measurements.vertebrae if any("border" in note for note in each.notes)]
    assert cut
    assert all(each.volume_ml is None for each in cut)
    assert all(each.depth_mm is None for each in cut if any("cuts the body" in note for note in each.notes))


def test_touching_endplates_count_as_fused(straight) -> None:
    phantom, _ = straight
    labels = orientation(phantom.grid).to_canonical(phantom.labels).copy()
    # The disc turns to bone, half of it of each neighbour.
    disc = labels == 100 + VERSE["L4"]
    heights = np.flatnonzero(disc.any(axis=(1, 2)))
    upper = np.arange(len(labels))[:, None, None] > heights.mean()
    labels[disc & upper], labels[disc & ~upper] = VERSE["L4"], VERSE["L5"]
    spine = measure_spine("fused", labels, canonical_grid(phantom.grid), known_labels(labels)).measurements
    between = next(disc for disc in spine.discs if disc.upper == "L4")
    assert between.height_mm is None and "touch" in between.notes[0]
    notes = {each.level: each.notes for each in spine.vertebrae}
    assert any("fused with, or not separated from, L5" in note for note in notes["L4"])


def test_metal_hides_the_density(straight) -> None:
    phantom, plain = straight
    turn = orientation(phantom.grid)
    labels, image = turn.to_canonical(phantom.labels), turn.to_canonical(phantom.image).copy()
    vertebrae = plain.measurements.vertebrae
    density = {each.level: each.trabecular_hu for each in vertebrae if each.trabecular_hu is not None}
    assert density and all(-50 < hu < 350 for hu in density.values())
    level = next(iter(density))
    image[tuple(np.argwhere(labels == VERSE[level])[::40].T)] = 3000
    metal = measure_spine("metal", labels, canonical_grid(phantom.grid), known_labels(labels), image)
    hidden = next(each for each in metal.measurements.vertebrae if each.level == level)
    assert hidden.trabecular_hu is None and any("metal" in note for note in hidden.notes)


@pytest.mark.parametrize(
    ("folder", "mask", "points"),
    [
        ("verse004", "sub-verse004_seg-vert_msk.nii.gz", "sub-verse004_seg-subreg_ctd.json"),
        ("verse010", "labels_verse.nii.gz", "centroids.json"),
        pytest.param("gl003", "labels_verse.nii.gz", "centroids.json", marks=pytest.mark.slow),
    ],
)
def test_centroids_are_those_that_verse_publishes(real_data: Path, real_spine, folder, mask, points) -> None:
    spine = real_spine(f"{folder}/{mask}")
    stored = read_labels(real_data / "real" / folder / mask).stored
    published = json.loads((real_data / "real" / folder / points).read_text(encoding="utf-8"))[1:]
    found = {VERSE[each.level]: each.centre_mm for each in spine.measurements.vertebrae}
    assert found.keys() == {entry["label"] for entry in published}
    for entry in published:
        own = stored.physical(np.array([entry["Z"], entry["Y"], entry["X"]]))
        assert np.linalg.norm(own - found[entry["label"]]) < 2.0


def test_bodies_alone_have_lengths_and_no_canal(real_data: Path) -> None:
    folder = real_data / "Dataset002_LumbarMR"
    volume = read_labels(folder / "labelsTr" / "mr_lumbar_01.nii.gz")
    levels = {f"L{i}": i for i in range(1, 6)}
    spine = measure_spine("mr", volume.array[0], volume.grid, SpineLabels(levels=levels)).measurements
    assert [each.level for each in spine.vertebrae] == list(levels)
    assert all(each.depth_mm and 20 < each.depth_mm < 45 for each in spine.vertebrae)
    assert all(each.canal_area_mm2 is None for each in spine.vertebrae)
    assert any("bodies alone enclose none" in note for note in spine.notes)


def test_a_map_without_vertebrae_says_so() -> None:
    empty = np.zeros((20, 20, 20), dtype=np.uint8)
    grid: Grid = makers.grid(empty.shape)
    spine = measure_spine("empty", empty, grid, labels_of_scheme(find_scheme("verse"), set())).measurements
    assert spine.vertebrae == () and spine.notes == ("there is no vertebra with a level",)


def test_the_sacrum_may_come_in_segments() -> None:
    verse = labels_of_scheme(find_scheme("verse"), {24, 26, 29, 30})
    assert set(verse.sacrum) == {26, 29, 30}
    assert labels_of_scheme(find_scheme("totalsegmentator"), {27, 25, 26}).sacrum == (25, 26)
    space = parse_labels({"L5": 1, "S1": 2, "vertebra_S2": 3, "disc_L5_S1": 4})
    assert labels_of_dataset(space) == SpineLabels(levels={"L5": 1}, sacrum=(2, 3))


def test_a_segment_above_the_rest_of_the_sacrum_bears_its_endplate(real_spine) -> None:
    """The map calls S1 29, and what lies below it 26."""
    spine = real_spine("ct_lumbosacral/labels_verse.nii.gz").measurements
    last = next(each for each in spine.discs if each.upper == "L5")
    assert 3.0 < last.height_mm < 20.0


def test_real_bodies_without_back_wall_make_no_discs(real_spine) -> None:
    """Labels of T12, L1 and L3 fill the front of the canal in this map."""
    found = real_spine("ct_lumbosacral/labels_verse.nii.gz").measurements
    rejected = {each.level for each in found.vertebrae if any("back wall" in note for note in each.notes)}
    assert rejected == {"T12", "L1", "L3"}
    assert [(disc.upper, disc.lower) for disc in found.discs] == [("L4", "L5"), ("L5", "sacrum")]
    assert all(abs(disc.slip_mm) < 4 for disc in found.discs)
    assert "lumbar lordosis" not in {angle.name for angle in found.angles}


def test_a_real_crushed_vertebra_has_its_grade(real_spine) -> None:
    """The map begins at L1, which has lost a quarter at the back and a third in the middle against L2."""
    found = real_spine("verse010/labels_verse.nii.gz").measurements
    grades = {each.level: (each.genant_grade, each.genant_shape) for each in found.vertebrae}
    assert grades["L1"] == (2, "crush")
    assert grades["L2"] == grades["L3"] == grades["L4"] == (0, None)


def test_a_real_map_with_head_and_feet_exchanged_is_refused(real_data: Path) -> None:
    volume = read_labels(real_data / "real" / "ct_lumbosacral" / "labels_verse.nii.gz")
    labels = volume.array[0]
    known = labels_of_scheme(find_scheme("verse"), set(np.unique(labels).tolist()))
    with pytest.raises(DatasetError, match="header"):
        measure_spine("turned", labels[::-1], volume.grid, known)


def test_a_scoliosis_has_its_cobb_angle_and_side() -> None:
    random = np.random.default_rng(3)
    posture = replace(sample_posture(random), scoliosis_mm=20.0)
    vertebrae = sample_spine(random, posture).vertebrae[15:]  # T9 to L5
    labels, grid = bone_map(vertebrae, (1.5, 1.5, 1.5), turned_deg=(6.0, -5.0, 8.0))
    known = SpineLabels(levels={each.name: each.label for each in vertebrae})
    cobb = measure_spine("curve", labels, grid, known).measurements.angles[0]
    true_deg = truth.true_cobb([truth.true_body(each) for each in vertebrae])
    assert true_deg > 20
    assert cobb.degrees == pytest.approx(true_deg, abs=2.0)
    ends = {each.name: each.frame.origin_mm[0] for each in vertebrae}
    first, last = cobb.upper.split()[0], cobb.lower.split()[0]
    between = [each.frame.origin_mm[0] for each in vertebrae if INDEX[first] < INDEX[each.name] < INDEX[last]]
    bulge = np.mean(between) - (ends[first] + ends[last]) / 2
    assert cobb.note == f"convex to the {'left' if bulge > 0 else 'right'}"
