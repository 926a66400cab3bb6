from dataclasses import replace

import makers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.errors import DatasetError
from autospine.fingerprint import Fingerprint, dataset_key, local_thickness_mm, measure
from autospine.images import write_array
from autospine.labels import parse_labels
from autospine.serialization import from_json, to_json

SPACINGS = st.tuples(*[st.sampled_from([0.5, 1.0, 3.0])] * 3)


def block(voxels: int, value: int = 3, shape=(12, 10, 8)) -> np.ndarray:
    """A label map with the first voxels of its middle planes set."""
    labels = np.zeros(shape, dtype=np.uint8)
    labels[4:8].reshape(-1)[:voxels] = value
    return labels


@given(st.integers(0, 2), st.integers(1, 8), SPACINGS)
@settings(deadline=None, max_examples=40)
def test_a_plates_thickness_is_found_to_within_a_voxel(axis, voxels, spacing):
    mask = np.ones([100 if a == axis else 60 for a in range(3)], dtype=bool)
    mask.swapaxes(0, axis)[voxels:] = False
    thickness = voxels * spacing[axis]
    # The plate's edges take away a little, more where it is short for its thickness.
    edges = 0.5 * thickness**2 * sum(1 / (60 * spacing[a]) for a in range(3) if a != axis)
    found = local_thickness_mm(mask, spacing)
    assert thickness - edges - spacing[axis] <= found <= thickness + spacing[axis]


def test_a_long_rod_gives_two_thirds_of_its_diameter():
    across = np.hypot(*np.mgrid[-20:21, -20:21]) <= 12
    rod = np.repeat(across[None], 300, axis=0)
    assert local_thickness_mm(rod, (1.0, 1.0, 1.0)) == pytest.approx(16, abs=2)


def test_a_ball_gives_half_its_diameter():
    ball = np.linalg.norm(np.mgrid[-20:21, -20:21, -20:21], axis=0) <= 15
    assert local_thickness_mm(ball, (2.0, 2.0, 2.0)) == pytest.approx(30, abs=4)


@given(st.floats(0.1, 10), st.integers(0, 3))
@settings(deadline=None, max_examples=20)
def test_thickness_has_a_unit_and_no_place(scale, offset):
    rng = np.random.default_rng(0)
    mask = rng.random((8, 9, 7)) < 0.7
    thickness = local_thickness_mm(mask, (1.0, 2.0, 3.0))
    moved = np.pad(mask, [(offset, 3 - offset)] * 3)
    scaled = (scale, 2 * scale, 3 * scale)
    assert local_thickness_mm(moved, scaled) == pytest.approx(scale * thickness, rel=1e-4)


def test_large_structures_are_thinned_not_misjudged(monkeypatch):
    mask = np.zeros((64, 120, 120), dtype=bool)
    mask[20:36] = True
    whole = local_thickness_mm(mask, (1.0, 1.0, 1.0))
    monkeypatch.setattr("autospine.fingerprint.DISTANCE_VOXELS", mask.size // 100)
    assert local_thickness_mm(mask, (1.0, 1.0, 1.0)) == pytest.approx(whole, abs=3)


def test_cases_are_measured(tmp_path):
    arrays = {"a": block(80), "b": block(40, 7), "c": block(60, shape=(20, 10, 8))}
    measured = measure(makers.dataset_of(tmp_path, arrays))
    assert [case.name for case in measured.cases] == ["a", "b", "c"]
    assert [case.class_voxels for case in measured.cases] == [(80, 0), (0, 40), (60, 0)]
    assert [case.shape for case in measured.cases] == [(12, 10, 8), (12, 10, 8), (20, 10, 8)]
    first = measured.cases[0]
    assert first.modality == "CT"
    assert first.spacing_mm == (1.5, 1.5, 1.5)
    assert first.size_mm == (18.0, 15.0, 12.0)
    # A plane of one voxel: its voxels' centres are half a voxel from the surface.
    assert first.class_thickness_mm == (pytest.approx(3.0), None)
    assert measured.foreground_fraction == pytest.approx(180 / (960 + 960 + 1600))
    bone, canal = measured.classes
    assert (bone.name, bone.cases, bone.volume_ml) == ("bone", 2, round(70 * 1.5**3 / 1000, 3))
    assert (canal.cases, canal.volume_ml) == (1, round(40 * 1.5**3 / 1000, 3))
    assert from_json(to_json(measured), Fingerprint, "test") == measured


def test_intensities_are_those_of_the_foreground(tmp_path):
    measured = measure(makers.dataset_of(tmp_path, {"a": block(80), "b": block(80, 7)}))
    facts = measured.intensities["CT"]
    assert set(measured.intensities) == {"CT"}
    assert facts.cases == 2
    # Images are ten times the label, give or take three.
    assert facts.mean == pytest.approx(50, abs=1)
    assert facts.std == pytest.approx(np.hypot(20, 2), abs=1)
    assert 27 <= facts.percentile_00_5 <= 33
    assert 67 <= facts.percentile_99_5 <= 73


def test_every_case_weighs_the_same_in_the_intensities(tmp_path, monkeypatch):
    monkeypatch.setattr("autospine.fingerprint.SAMPLES_PER_CASE", 40)
    measured = measure(makers.dataset_of(tmp_path, {"a": block(320), "b": block(40, 7)}))
    assert measured.intensities["CT"].mean == pytest.approx(50, abs=1.5)


def test_measuring_is_repeatable_and_independent_of_workers(tmp_path):
    dataset = makers.dataset_of(tmp_path, {name: block(30 + i) for i, name in enumerate("abcd")})
    assert measure(dataset, workers=1) == measure(dataset, workers=3) == measure(dataset)


def test_regions_overlap_and_ignored_voxels_count_nowhere(tmp_path):
    labels = parse_labels({"whole": [3, 7], "core": [7], "ignore": 9}, regions_class_order=(3, 7))
    array = block(80)
    array[5, :2, :4] = 7
    array[6, :, :] = 9
    dataset = makers.dataset_of(tmp_path, {"a": array}, labels)
    measured = measure(dataset)
    assert measured.cases[0].class_voxels == (int(np.isin(array, (3, 7)).sum()), 8)
    assert measured.intensities["CT"].percentile_99_5 < 75


def test_a_dataset_without_foreground_is_refused(tmp_path):
    empty = np.zeros((6, 6, 6), dtype=np.uint8)
    with pytest.raises(DatasetError, match="found only background in all 2 cases"):
        measure(makers.dataset_of(tmp_path, {"a": empty, "b": empty}))


def test_one_empty_case_among_others_is_fine(tmp_path):
    measured = measure(makers.dataset_of(tmp_path, {"a": block(9), "b": np.zeros((6, 6, 6), dtype=np.uint8)}))
    assert measured.cases[1].class_voxels == (0, 0)
    assert measured.cases[1].class_thickness_mm == (None, None)


def test_unknown_labels_stop_the_measurement(tmp_path):
    with pytest.raises(DatasetError, match=r"found \[4\]"):
        measure(makers.dataset_of(tmp_path, {"a": block(9, 4)}))


def test_the_key_changes_with_files_labels_and_facts(tmp_path):
    dataset = makers.dataset_of(tmp_path, {"a": block(9), "b": block(12)})
    key = dataset_key(dataset)
    assert measure(dataset).key == key == dataset_key(dataset)
    others = [
        replace(dataset, labels=parse_labels({"bone": 3, "cord": 7})),
        replace(dataset, cases=dataset.cases[:1]),
        replace(dataset, cases=(replace(dataset.cases[0], modality="MR"), dataset.cases[1])),
    ]
    assert len({key, *map(dataset_key, others)}) == 4
    path = dataset.cases[0].labels
    write_array(path, block(10), makers.grid((12, 10, 8), (1.5, 1.5, 1.5)))
    assert dataset_key(dataset) != key
