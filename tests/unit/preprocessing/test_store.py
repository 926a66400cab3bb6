import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from autospine.core.errors import FormatError
from autospine.core.geometry import Box
from autospine.dataset.raw import load_dataset
from autospine.preprocessing.preprocess import preprocess_dataset
from autospine.preprocessing.store import (
    StoredCase,
    count_labels,
    locate,
    open_case,
    open_cases,
    refresh_record,
)


@pytest.fixture
def cases(raw: Path, make_plan, tmp_path: Path) -> tuple[StoredCase, ...]:
    plan = make_plan()
    return preprocess_dataset(load_dataset(raw), plan, plan.configurations[0], tmp_path / "stored", 1)


def test_boxes_are_parts_of_the_whole(cases):
    for case in cases:
        image, labels = case.read_all()
        assert image.shape == (1, *case.shape)
        assert image.dtype == np.float32
        assert abs(image.mean()) < 3
        box = Box(start=(3, 0, 5), stop=(20, 17, 26))
        np.testing.assert_array_equal(case.image(box), image[(slice(None), *box.slices)])
        np.testing.assert_array_equal(case.labels(box), labels[box.slices])


def test_a_loaded_case_reads_the_same(cases):
    before = cases[0].read_all()
    cases[0].load()
    for a, b in zip(before, cases[0].read_all(), strict=True):
        np.testing.assert_array_equal(a, b)
    image, labels = before
    assert cases[0].nbytes == image.size * 2 + labels.size


def test_locations_lie_on_their_label(cases):
    _, labels = cases[0].read_all()
    assert set(cases[0].locations) == {1, 2}
    for index, voxels in cases[0].locations.items():
        assert (labels[tuple(voxels.T)] == index).all()


def test_a_case_travels_to_another_process(cases):
    cases[0].read_all()
    copy = pickle.loads(pickle.dumps(cases[0]))
    assert copy.record == cases[0].record
    np.testing.assert_array_equal(copy.read_all()[0], cases[0].read_all()[0])


def test_label_counts_and_locations():
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[:10], labels[15, 3, 4], labels[16] = 3, 7, 255
    assert count_labels(labels) == ((0, 8000 - 4000 - 1 - 400), (3, 4000), (7, 1), (255, 400))
    table = locate(labels, limit=50)
    assert table[:50, 0].tolist() == [3] * 50
    assert table[50:].tolist() == [[7, 15, 3, 4]]
    assert len(np.unique(table, axis=0)) == 51
    np.testing.assert_array_equal(table, locate(labels, limit=50))
    assert locate(np.zeros((2, 2, 2), dtype=np.uint8)).shape == (0, 4)


@pytest.mark.parametrize("part", ["image.b2nd", "labels.b2nd", "locations.npy"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing", "pipe"])
def test_a_damaged_file_is_named(cases, part, damage):
    path = cases[0].folder / f"ct_a_{part}"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "garbage":
        path.write_bytes(b"no such format" * 40)
    else:
        path.unlink()
        if damage == "pipe":  # reading it would wait for ever
            os.mkfifo(path)
    case = open_case(cases[0].folder, "ct_a")
    with pytest.raises(FormatError, match=rf"{path.name}.*autospine preprocess"):
        _ = case.read_all(), case.locations


@pytest.mark.parametrize("arrays", ["blosc2", "npy"])
@pytest.mark.parametrize("part", ["image", "labels", "locations", "json"])
def test_a_flipped_bit_is_noticed_and_the_file_named(raw, make_plan, tmp_path, part, arrays):
    plan, folder = make_plan(), tmp_path / "stored"
    settings = (load_dataset(raw), plan, plan.configurations[0], folder, 1)
    preprocess_dataset(*settings, arrays=arrays)
    (path,) = folder.glob(f"ct_a_{part}.*" if part != "json" else "ct_a.json")
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    for place in rng.integers(0, len(whole), 25):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(FormatError, match=path.name):
            case = open_case(folder, "ct_a")
            _ = case.read_all(), case.locations
    path.write_bytes(whole)
    case = open_case(folder, "ct_a")
    assert case.read_all()[0].shape == (1, *case.shape)
    refresh_record(case, key="other", subject="somebody", site=None)
    assert open_case(folder, "ct_a").record.subject == "somebody"


def test_cases_of_version_1_are_read_and_kept(raw, make_plan, tmp_path):
    """They have no checksums; their voxels, and so the folds trained on them, stay valid."""
    plan, folder = make_plan(), tmp_path / "stored"
    settings = (load_dataset(raw), plan, plan.configurations[0], folder, 1)
    before = preprocess_dataset(*settings)
    path = folder / "ct_a.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["checksums"]
    path.write_text(json.dumps(record | {"format_version": 1}), encoding="utf-8")
    image = (folder / "ct_a_image.b2nd").stat()
    after = preprocess_dataset(*settings)
    assert [case.record.content for case in after] == [case.record.content for case in before]
    assert (folder / "ct_a_image.b2nd").stat().st_mtime_ns == image.st_mtime_ns
    old = open_case(folder, "ct_a")
    assert (old.record.format_version, old.record.checksums) == (1, {})
    np.testing.assert_array_equal(old.read_all()[0], before[0].read_all()[0])
    assert set(old.locations) == {1, 2}


@pytest.mark.parametrize("changed", [{"checksums": {}}, {"format_version": 3}, {"format_version": 0}])
def test_a_record_without_its_checksums_is_none(cases, changed):
    path = cases[0].folder / "ct_a.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed), encoding="utf-8")
    with pytest.raises(FormatError, match=r"ct_a\.json.*autospine preprocess"):
        open_case(cases[0].folder, "ct_a")


def test_a_missing_or_foreign_case_is_named(cases):
    folder = cases[0].folder
    with pytest.raises(FormatError, match="case nobody to be preprocessed"):
        open_cases(folder, ["ct_a", "nobody"])
    (folder / "other.json").write_text((folder / "ct_a.json").read_text(encoding="utf-8"))
    with pytest.raises(FormatError, match="expected case other"):
        open_case(folder, "other")
    (folder / "ct_a.json").write_text("{}")
    with pytest.raises(FormatError, match=r"ct_a\.json"):
        open_case(folder, "ct_a")
