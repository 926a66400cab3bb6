"""The check of a dataset tells every fault of every case at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autospine.core.errors import DatasetError
from autospine.dataset.checks import ignored_files, per_cause, verify, verify_folder
from autospine.dataset.raw import load_dataset
from autospine.io.images import read_volume

RawDataset = Callable[..., Path]
WriteImage = Callable[..., Path]


def test_a_sound_dataset_passes(raw_dataset: RawDataset):
    report = verify(load_dataset(raw_dataset(channels={"0": "CT"})))
    report.raise_if_bad()
    assert report.faults == report.notes == ()


def test_every_fault_of_every_case_is_told(raw_dataset: RawDataset, write_image: WriteImage):
    names = ("cut", "empty", "labels", "moved", "nan", "shape", "sound", "unlabelled")
    folder = raw_dataset(names=names, channels={"0": "CT"})
    images, labels = folder / "imagesTr", folder / "labelsTr"
    plain = np.zeros((6, 7, 8), np.uint8)
    (images / "cut_0000.nii.gz").write_bytes((images / "cut_0000.nii.gz").read_bytes()[:-30])
    write_image(labels / "empty.nii.gz", plain)
    wrong = plain.copy()
    wrong[0, 0, :3] = 7
    wrong[0, 1, :2] = 9
    write_image(labels / "labels.nii.gz", wrong)
    write_image(labels / "moved.nii.gz", plain + 1, origin_mm=(0, 0.25, 0))
    broken = plain.astype(np.float32)
    broken[2, 2, 2] = np.nan
    write_image(images / "nan_0000.nii.gz", broken)
    write_image(labels / "shape.nii.gz", np.ones((6, 7, 9), np.uint8))
    (labels / "unlabelled.nii.gz").unlink()

    report = verify_folder(folder)
    with pytest.raises(DatasetError) as raised:
        report.raise_if_bad()
    lines = str(raised.value).splitlines()
    expected = {
        "unlabelled: image without label": "add labelsTr",
        "cut: expected a readable image, found": "cut_0000.nii.gz damaged",
        "labels: expected the labels [0, 1] of dataset.json": "found 7 (3 voxels), 9 (2 voxels); mend",
        "moved: expected image and labels on one grid": "up to 0.25 mm apart; resample",
        "nan: expected finite voxels in": "found 1 NaN",
        "shape: expected image and labels on one grid": "6x7x8 against 6x7x9 voxels",
    }
    assert "found 6 faults" in lines[0]
    assert len(lines) == 7
    for line, (start, rest) in zip(lines[1:], expected.items(), strict=True):
        assert line.startswith(f"  {start}")
        assert rest in line
    assert report.notes == ("empty: labels are empty: all voxels are background",)
    assert [case.name for case in report.dataset.cases] == [name for name in names if name != "unlabelled"]


def test_a_dataset_without_anything_labelled_is_a_fault(raw_dataset: RawDataset, write_image: WriteImage):
    folder = raw_dataset(names=("a", "b"))
    for name in ("a", "b"):
        write_image(folder / "labelsTr" / f"{name}.nii.gz", np.zeros((6, 7, 8), np.uint8))
    with pytest.raises(DatasetError, match=r"something labelled in at least one case, found .* in all 2"):
        verify_folder(folder).raise_if_bad()


def test_labels_of_another_orientation_but_the_same_place_are_fine(
    raw_dataset: RawDataset, write_image: WriteImage
):
    folder = raw_dataset(names=("a",))
    flipped = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    write_image(
        folder / "labelsTr" / "a.nii.gz", np.ones((6, 7, 8), np.uint8), origin_mm=(7, 0, 0), direction=flipped
    )
    verify_folder(folder).raise_if_bad()


def test_what_was_decided_or_is_odd_is_noted(raw_dataset: RawDataset, write_image: WriteImage):
    folder = raw_dataset(names=("ct", "mr", "shifted"))
    shape = (6, 7, 8)
    write_image(folder / "imagesTr" / "mr_0000.nii.gz", np.arange(6 * 7 * 8).reshape(shape).astype(np.uint16))
    water = np.random.default_rng(0).normal(1060, 40, shape).astype(np.int16)
    water[:2] = 0
    write_image(folder / "imagesTr" / "shifted_0000.nii.gz", water)
    (folder / "imagesTr" / "ct_0000.mha").write_text("x")
    report = verify_folder(folder)
    assert report.faults == ()
    assert report.notes == (
        "imagesTr/ct_0000.mha: ignored, not .nii.gz",
        "ct: taken for CT by its intensities; state it in cases.csv if that is wrong",
        "mr: taken for MR by its intensities; state it in cases.csv if that is wrong",
        "shifted: taken for CT by its intensities; state it in cases.csv if that is wrong",
        "shifted: looks like CT with water at about 1024 instead of 0 HU; subtract 1024, or what was added",
    )


def test_ct_that_is_stated_as_mr_is_noted(raw_dataset: RawDataset, write_image: WriteImage):
    folder = raw_dataset(names=("a",), channels={"0": "T2w"})
    rng = np.random.default_rng(0)
    body = rng.normal(40, 60, (6, 7, 8))
    write_image(folder / "imagesTr" / "a_0000.nii.gz", body.clip(0).astype(np.int16))
    said = "stated as MR, but has the intensities of CT"
    assert not any(said in note for note in verify_folder(folder).notes)
    body[:, :, :3] = rng.normal(-1000, 20, (6, 7, 3))
    write_image(folder / "imagesTr" / "a_0000.nii.gz", body.astype(np.int16))
    assert any(note.startswith(f"a: {said}") for note in verify_folder(folder).notes)


def test_a_class_that_no_case_has_is_noted(raw_dataset: RawDataset):
    labels = {"background": 0, "vertebra": 1, "sacrum": 2, "any": [1, 2]}
    more = {"regions_class_order": [1, 2, 1]}
    notes = verify_folder(raw_dataset(channels={"0": "CT"}, labels=labels, **more)).notes
    assert [note for note in notes if note.startswith("labelled in no case: sacrum;")]


def test_an_image_that_is_trained_on_and_held_out_is_noted(raw_dataset: RawDataset, write_image: WriteImage):
    folder = raw_dataset(names=("a", "b"), channels={"0": "CT"})
    known = read_volume([folder / "imagesTr" / "b_0000.nii.gz"]).array[0]
    write_image(folder / "imagesTr" / "b_0000.nii.gz", known + 1)
    write_image(folder / "imagesTs" / "copy_0000.nii.gz", (known + 1).astype(np.float32))
    write_image(folder / "imagesTs" / "new_0000.nii.gz", known + 2)
    (note,) = verify_folder(folder).notes
    assert note.startswith("copy: its image in imagesTs is that of b in imagesTr")


def test_a_voxel_size_that_no_scanner_makes_is_a_fault(raw_dataset: RawDataset, write_image: WriteImage):
    folder = raw_dataset(names=("a", "b"))
    values = np.arange(6 * 7 * 8).reshape(6, 7, 8)
    for part, array in (("imagesTr/a_0000", values), ("labelsTr/a", values % 2)):
        write_image(folder / f"{part}.nii.gz", array.astype(np.int16), spacing_mm=(0.001, 1.0, 1.0))
    (fault,) = verify_folder(folder).faults
    assert fault.startswith("a: expected voxels of 0.05 to 20 mm, found ")
    with pytest.raises(DatasetError, match="found 1 fault:"):
        verify_folder(folder).raise_if_bad()


def test_images_are_checked_as_they_are_before_a_prediction(raw_dataset: RawDataset, write_image: WriteImage):
    """An image of zeros, a label map in its place, a mask of other values, and a CT that is not in HU."""
    folder = raw_dataset(names=("black", "labels", "mask", "scaled", "sound"), channels={"0": "CT"})
    images = folder / "imagesTr"
    shape = (16, 17, 18)
    rng = np.random.default_rng(0)
    for name in ("black", "labels", "mask", "scaled", "sound"):
        write_image(folder / "labelsTr" / f"{name}.nii.gz", rng.integers(0, 2, shape).astype(np.uint8))
    write_image(images / "black_0000.nii.gz", np.zeros(shape, np.int16))
    write_image(images / "labels_0000.nii.gz", rng.integers(0, 2, shape).astype(np.int16))
    write_image(images / "mask_0000.nii.gz", rng.integers(5, 9, shape).astype(np.int16) * 100)
    write_image(images / "scaled_0000.nii.gz", rng.random(shape).astype(np.float32))
    write_image(images / "sound_0000.nii.gz", rng.normal(0, 300, shape).astype(np.int16))
    report = verify_folder(folder)
    assert [fault.split(";")[0] for fault in report.faults] == [
        "black: the image has the value 0 in every voxel",
        "labels: expected an image, found only the label values of dataset.json in it",
    ]
    mask, scaled = report.notes[-2:]
    assert mask == "mask: has 4 different values; is it a label map?"
    assert "scaled: has values mostly from " in scaled
    assert "cannot be the HU" in scaled


def test_an_image_taken_for_labels_makes_a_short_message(raw_dataset: RawDataset, write_image: WriteImage):
    folder = raw_dataset(names=("a",))
    write_image(folder / "labelsTr" / "a.nii.gz", np.arange(6 * 7 * 8).reshape(6, 7, 8).astype(np.int16))
    (fault,) = verify_folder(folder).faults
    assert "and 324 more" in fault
    assert len(fault) < 300


@pytest.mark.real_data
def test_the_real_dataset_passes(real_data: Path):
    report = verify_folder(real_data / "Dataset001_SpineReal")
    report.raise_if_bad()
    assert [note.split(":")[0] for note in report.notes] == ["ct_cervical", "mr_lumbar"]


def test_ignored_files_are_listed(raw_dataset: RawDataset):
    folder = raw_dataset()
    (folder / "imagesTr" / "a_0000.json").write_text("{}")
    (folder / "labelsTr" / ".hidden").write_text("")
    assert ignored_files(load_dataset(folder)) == ("imagesTr/a_0000.json",)


def test_what_is_said_of_several_cases_is_said_once():
    without = "image without label; add labelsTr/{}.nii.gz or remove the image"
    faults = [f"{name}: {without.format(name)}" for name in ("a", "b", "1")]
    other = ["a: the image has 1 value", "no such: folder"]
    assert per_cause([*faults, *other]) == [f"{faults[0]} (the same in b, 1)", *other]
    assert per_cause(faults, 1) == [f"{faults[0]} (the same in b and 1 more)"]
    assert per_cause(faults[:1]) == faults[:1]


def test_faults_of_one_cause_take_one_line(raw_dataset: RawDataset):
    folder = raw_dataset(names=("a", "b", "c"))
    for name in "abc":
        (folder / f"labelsTr/{name}.nii.gz").unlink()
    with pytest.raises(DatasetError) as raised:
        verify_folder(folder).raise_if_bad()
    head, *lines = str(raised.value).splitlines()
    assert head.endswith("found 3 faults:")
    assert lines == ["  a: image without label; add labelsTr/a.nii.gz or remove the image (the same in b, c)"]


def test_tissue_maps_are_checked(raw_dataset: RawDataset, write_image: WriteImage):
    folder = raw_dataset(
        names=("far", "sound", "unknown"), channels={"0": "CT"}, tissues={"air": 0, "bone": 1}
    )
    codes = np.zeros((6, 7, 8), dtype=np.int32)
    codes[2:4, 2:4, 2:4] = 1
    codes[1, 2:4, 2:4] = 1 + (100 << 16)  # partly air
    write_image(folder / "tissuesTr" / "sound.nii.gz", codes)
    write_image(folder / "tissuesTr" / "far.nii.gz", codes, origin_mm=(0, 3.0, 0))
    codes[1, 2, 2] = 1 + (7 << 8) + (100 << 16)
    write_image(folder / "tissuesTr" / "unknown.nii.gz", codes)
    faults = verify(load_dataset(folder)).faults
    assert [fault.partition(":")[0] for fault in faults] == ["far", "unknown"]
    assert "on the grid of its case, found" in faults[0]
    assert "found 7 (1 voxel)" in faults[1]
