"""Datasets whose facts are known, measured as a whole."""

import json
from dataclasses import replace
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.core.errors import DatasetError, FormatError
from autospine.core.labels import parse_labels
from autospine.fingerprint import (
    Fingerprint,
    dataset_key,
    find_warnings,
    group_statistics,
    measure,
    read_fingerprint,
)
from autospine.io.images import write_array
from autospine.storage.serialization import from_json, to_json


def block(voxels: int, value: int = 3, shape=(12, 10, 8)) -> np.ndarray:
    """A label map with the first voxels of its middle planes set."""
    labels = np.zeros(shape, dtype=np.uint8)
    labels[4:8].reshape(-1)[:voxels] = value
    return labels


def two_pieces() -> np.ndarray:
    """Bone in two cubes of 3 and 2 voxels a side, canal in two voxels that touch by a corner."""
    labels = np.zeros((20, 16, 12), dtype=np.uint8)
    labels[2:5, 3:6, 4:7] = 3
    labels[10:12, 3:5, 4:6] = 3
    labels[15, 8, 8] = labels[16, 9, 9] = 7
    return labels


def test_cases_are_measured(tmp_path):
    arrays = {"a": block(80), "b": block(40, 7), "c": block(60, shape=(20, 10, 8))}
    measured = measure(makers.dataset_of(tmp_path, arrays))
    assert [case.name for case in measured.cases] == ["a", "b", "c"]
    assert [case.class_voxels for case in measured.cases] == [(80, 0), (0, 40), (60, 0)]
    assert [case.shape for case in measured.cases] == [(12, 10, 8), (12, 10, 8), (20, 10, 8)]
    first = measured.cases[0]
    assert (first.modality, first.subject, first.site) == ("CT", "a", None)
    assert first.spacing_mm == (1.5, 1.5, 1.5)
    assert first.size_mm == (18.0, 15.0, 12.0)
    assert first.anisotropy == 1.0
    assert first.spine_mm == 1.5
    bone, canal = measured.classes
    assert (bone.name, bone.cases, bone.volume_ml) == ("bone", 2, round(70 * 1.5**3 / 1000, 3))
    assert (canal.cases, canal.volume_ml) == (1, round(40 * 1.5**3 / 1000, 3))
    assert bone.thickness_mm == pytest.approx(1.5, abs=0.3)
    assert from_json(to_json(measured), Fingerprint, "test") == measured


def test_structures_are_measured(tmp_path):
    measured = measure(makers.dataset_of(tmp_path, {"a": two_pieces(), "b": block(40)}))
    bone, canal = measured.cases[0].structures
    assert bone is not None and canal is not None
    assert (bone.voxels, canal.voxels) == (27 + 8, 2)
    assert 1.5 <= bone.thickness_mm < 4.5
    assert canal.thickness_mm == 1.5
    assert measured.cases[0].spine_mm == 15 * 1.5
    assert measured.cases[1].structures[1] is None
    assert measured.classes[1].thickness_mm == 1.5


def test_intensities_are_those_of_the_foreground(tmp_path):
    measured = measure(makers.dataset_of(tmp_path, {"a": block(80), "b": block(80, 7)}))
    facts = measured.intensities["CT"]
    assert set(measured.intensities) == {"CT"}
    assert facts.cases == 2
    assert facts.mean == pytest.approx(50, abs=1)
    assert facts.std == pytest.approx(np.hypot(20, 2), abs=1)
    assert 27 <= facts.percentile_00_5 <= facts.percentile_25 <= 33
    assert 67 <= facts.percentile_75 <= facts.percentile_99_5 <= 73


def test_every_case_weighs_the_same_in_the_intensities(tmp_path, monkeypatch):
    monkeypatch.setattr("autospine.fingerprint.case.SAMPLES_PER_CASE", 40)
    measured = measure(makers.dataset_of(tmp_path, {"a": block(320), "b": block(40, 7)}))
    assert measured.intensities["CT"].mean == pytest.approx(50, abs=1.5)


def sited(folder: Path) -> Fingerprint:
    """Two sites of CT and one of MR; the second site's classes are the brighter ones."""
    arrays = {name: block(60 + i, 7 if i == 1 else 3) for i, name in enumerate("abcd")}
    dataset = makers.dataset_of(folder, arrays)
    facts = [("CT", "x"), ("CT", "y"), ("CT", "x"), ("MR", "z")]
    cases = [
        replace(case, modality=modality, site=site)
        for case, (modality, site) in zip(dataset.cases, facts, strict=True)
    ]
    return measure(replace(dataset, cases=tuple(cases)))


def test_facts_come_by_modality_and_site(tmp_path):
    measured = sited(tmp_path)
    assert {modality: facts.cases for modality, facts in measured.intensities.items()} == {"CT": 3, "MR": 1}
    assert [(one.modality, one.site, one.intensities.cases) for one in measured.sites] == [
        ("CT", "x", 2),
        ("CT", "y", 1),
        ("MR", "z", 1),
    ]
    assert measured.sites[0].intensities.median == pytest.approx(30, abs=3)
    assert measured.sites[1].intensities.median == pytest.approx(70, abs=3)


def test_groups_have_medians_over_their_cases(tmp_path):
    groups = group_statistics(sited(tmp_path))
    # MR has one site only, which would say the same again.
    assert [(group.modality, group.site, group.cases) for group in groups] == [
        ("CT", None, 3),
        ("CT", "x", 2),
        ("CT", "y", 1),
        ("MR", None, 1),
    ]
    whole = groups[0]
    assert whole.size_mm == (18.0, 15.0, 12.0)
    assert whole.spacing_mm == (1.5, 1.5, 1.5)
    assert whole.anisotropy == 1.0
    assert groups[2].intensities is not None
    assert groups[2].intensities.median == pytest.approx(70, abs=3)


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
    assert measured.cases[0].spine_mm == 2 * 1.5
    assert measured.intensities["CT"].percentile_99_5 < 75


def test_a_dataset_without_foreground_is_refused(tmp_path):
    empty = np.zeros((6, 6, 6), dtype=np.uint8)
    with pytest.raises(DatasetError, match="found only background in all 2 cases"):
        measure(makers.dataset_of(tmp_path, {"a": empty, "b": empty}))


def test_one_empty_case_among_others_is_fine(tmp_path):
    measured = measure(makers.dataset_of(tmp_path, {"a": block(9), "b": np.zeros((6, 6, 6), dtype=np.uint8)}))
    assert measured.cases[1].class_voxels == (0, 0)
    assert measured.cases[1].spine_mm == 0.0
    assert measured.intensities["CT"].cases == 1


def test_every_case_that_cannot_be_measured_is_named(tmp_path):
    arrays = {"a": block(9, 4), "b": block(20), "c": block(9, 5)}
    with pytest.raises(DatasetError, match=r"2 failed:\n  a: .*found \[4\]\n  c: .*found \[5\]"):
        measure(makers.dataset_of(tmp_path, arrays))


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 0.01), (1000.0, 1.0, 1.0)])
def test_absurd_voxels_are_refused(tmp_path, spacing):
    dataset = makers.dataset_of(tmp_path, {"a": block(30), "b": block(40)})
    odd = makers.grid((12, 10, 8), spacing)
    write_array(dataset.cases[1].images[0], np.zeros((12, 10, 8), dtype=np.int16), odd)
    with pytest.raises(DatasetError, match=r"b: expected voxels of 0\.05 to 20 mm, found"):
        measure(dataset)


def test_image_and_labels_on_different_grids_are_refused(tmp_path):
    dataset = makers.dataset_of(tmp_path, {"a": block(30)})
    write_array(dataset.cases[0].images[0], np.zeros((9, 10, 8), dtype=np.int16), makers.grid((9, 10, 8)))
    with pytest.raises(DatasetError, match="expected labels on the image's grid"):
        measure(dataset)


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
    assert path is not None
    write_array(path, block(10), makers.grid((12, 10, 8), (1.5, 1.5, 1.5)))
    assert dataset_key(dataset) != key


def test_a_sound_dataset_has_no_warnings(tmp_path):
    assert find_warnings(measure(makers.dataset_of(tmp_path, {"a": block(80), "b": block(40, 7)}))) == ()


def test_classes_that_never_occur_are_warned_of(tmp_path):
    measured = measure(makers.dataset_of(tmp_path, {"a": block(80), "b": block(40)}))
    absent = measured.classes[1]
    assert (absent.cases, absent.volume_ml, absent.thickness_mm) == (0, 0.0, None)
    (warning,) = find_warnings(measured)
    assert warning.startswith("canal: in dataset.json but in no label file")


def test_copies_are_warned_of_with_the_line_that_mends_it(tmp_path):
    dataset = makers.dataset_of(tmp_path, {"a": block(80), "b": block(40, 7), "c": block(60)})
    dataset.cases[2].images[0].write_bytes(dataset.cases[0].images[0].read_bytes())
    measured = measure(dataset)
    assert measured.duplicates == (("a", "c"),)
    (warning,) = find_warnings(measured)
    assert warning.startswith("a, c show the same image")
    assert warning.endswith("(case,subject): c,a")
    one = replace(dataset, cases=(*dataset.cases[:2], replace(dataset.cases[2], subject="a")))
    assert find_warnings(measure(one)) == ()


def test_sides_are_paired_and_single_ones_warned_of(tmp_path):
    labels = parse_labels({"rib left": 3, "rib right": 7, "hip left": 8})
    array = two_pieces()
    array[18, 2:9, 3] = 8
    measured = measure(makers.dataset_of(tmp_path, {"a": array}, labels))
    assert measured.side_pairs == (("rib left", "rib right"),)
    (warning,) = find_warnings(measured)
    assert warning.startswith("hip left: left or right without a counterpart")


def test_a_fingerprint_of_version_2_is_read_without_what_was_dropped(tmp_path):
    measured = measure(makers.dataset_of(tmp_path, {"a": block(80), "b": block(40)}))
    described = json.loads(to_json(measured))
    described["format_version"] = 2
    percentiles = {"p10": 1.0, "p50": 2.0, "p90": 3.0}
    for case in described["cases"]:
        case |= {"noise": None, "repairs": ["direction matrix"]}
        for structure in filter(None, case["structures"]):
            structure |= {"components": 1, "extent_mm": [1.5, 1.5, 1.5], "local_thickness_mm": percentiles}
    for facts in described["classes"]:
        facts |= {"components": None, "extent_mm": None, "local_thickness_mm": None}
    described["intensities"]["CT"] |= {"percentile_05": 1.0, "percentile_95": 2.0}
    path = tmp_path / "fingerprint.json"
    path.write_text(json.dumps(described))
    assert read_fingerprint(path) == measured


@pytest.mark.parametrize("text", ["[]", "{", '{"format_version": 1}', '{"format_version": 2, "noise": 1}'])
def test_a_fingerprint_that_cannot_be_read_is_named(tmp_path, text):
    path = tmp_path / "fingerprint.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"fingerprint\.json"):
        read_fingerprint(path)
