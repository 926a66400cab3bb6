"""Real odd DICOM: each folder and file is read as it should be, or refused with its reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_makers import written

from autospine.core.errors import ImageError
from autospine.io.dicom import find_series
from autospine.io.dicom_header import is_dicom, read_header
from autospine.io.images import read_volume
from autospine.io.slice_stack import StraightenedGrid

pytestmark = pytest.mark.real_data

REFUSED = {
    "dicom_broken_series/notavolume/001": r"found 3 at the position of another \(002\.dcm",
    "dicom_broken_series/sliceincrement/001": r"5 mm apart .*a step of 10 mm after IM-0001-0009-0001",
    "dicom_broken_series/sliceincrement/002": r"a step of 1\.5 mm after IM-0001-0003\.dcm; add the missing",
    "dicom_broken_series/sliceorientation/001": r"parallel slices .*different orientations; give each stack",
    "dicom_transfer_syntaxes": r"found 1\.dcm and 8 more \(a mosaic of slices .*; export the original",
    "dicom_seg/24x38x3/seg": r"found label\.seg \(a segmentation\); export",
    "dicom_seg/23x38x3/seg": r"found label\.seg \(a segmentation\); export",
    "dicom_seg/liver.dcm": r"found liver\.dcm \(a segmentation\); export",
    "dicom_seg/partial_overlaps.dcm": r"found partial_overlaps\.dcm \(a segmentation\); export",
    "dicom_seg/sparse-labelmap-noppv.dcm": r"\(a segmentation\); export",
    "dicom_seg/sparse-labelmap-ppv5.dcm": r"\(a segmentation\); export",
    "dicom_seg_bits": r"at least two slices in .*, found 1; add the others",
    "dicom_seg_bits/ct_image.dcm": r"at least two slices in .*, found 1; add the others",
    "dicom_seg_bits/dx_image.dcm": r"found dx_image\.dcm \(without Image Position \(Patient\)\); export",
    "dicom_seg_bits/sr_document.dcm": r"\(no image \(Comprehensive 3D SR Storage\)\); export",
    "dicom_seg_bits/sr_document_with_multiple_groups.dcm": r"\(no image \(Comprehensive 3D SR Storage\)\)",
    "dicom_seg_bits/sm_annotations.dcm": r"\(no image \(Microscopy Bulk Simple Annotations Storage\)\)",
    **{f"dicom_transfer_syntaxes/{n}.dcm": rf"found {n}\.dcm \(a mosaic of slices" for n in range(1, 10)},
}
"""Paths below `odd`, and what the message says."""

READ = {
    "ct_gantry_tilt",
    "dicom_broken_series/gantrytilting/001",
    "dicom_broken_series/slicecount/001",
    "dicom_seg/23x38x3/image",
    "dicom_seg/23x38x3/multiframe",
    "dicom_seg/24x38x3/image",
    "dicom_seg/24x38x3/multiframe",
    "dicom_seg/ct-3slice",
}


@pytest.fixture(scope="module")
def odd(real_data: Path) -> Path:
    if not (real_data / "odd").is_dir():
        pytest.skip(f"no odd files under {real_data}")
    return real_data / "odd"


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_refused_is_refused_for_its_reason(path: str, odd: Path):
    with pytest.raises(ImageError, match=REFUSED[path]):
        read_volume(odd / path)


def test_every_folder_and_file_is_accounted_for(odd: Path):
    stated = {odd / path for path in (*REFUSED, *READ)}
    dicom = [
        file for file in odd.glob("*/**/*") if file.is_file() and "nifti" not in str(file) and is_dicom(file)
    ]
    assert len(dicom) > 100 - 30
    missed = [file for file in dicom if not stated & {file, file.parent}]
    assert missed == []


def test_segmentations_and_microscopy_are_no_images(odd: Path):
    for file in (odd / "dicom_seg_bits").glob("seg_image_*"):
        assert read_header(file).other == "a segmentation"
    for file in (odd / "dicom_seg_bits").glob("sm_image*"):
        assert read_header(file).other == "a microscopy image"


def physical_values(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Values of a reference NIfTI at positions (x, y, z) in LPS, which have to be voxels of it."""
    image: Any = nibabel.load(path)
    array, inverse = np.asarray(image.dataobj), np.linalg.inv(image.affine)

    def at(points_mm: np.ndarray) -> np.ndarray:
        index = (points_mm * (-1, -1, 1)) @ inverse[:3, :3].T + inverse[:3, 3]
        assert np.allclose(index, np.rint(index), atol=0.02)
        i, j, k = np.moveaxis(np.rint(index).astype(int), -1, 0)
        return array[i, j, k]

    return at


def test_two_slices_are_those_of_the_reference(odd: Path):
    folder = odd / "dicom_broken_series" / "slicecount"
    volume = read_volume(folder / "001")
    index = np.moveaxis(np.indices(volume.grid.shape), 0, -1)
    for name in ("001_ground_truth.nii.gz", "001_ground_truth_reoriented.nii.gz"):
        at = physical_values(folder / name)
        assert np.array_equal(at(volume.grid.physical(index)), volume.array[0])


@pytest.mark.parametrize("size", ["23x38x3", "24x38x3"])
def test_frames_of_one_file_are_those_of_the_slices(size: str, odd: Path):
    folder = odd / "dicom_seg" / size
    slices, frames = read_volume(folder / "image"), read_volume(folder / "multiframe" / "mf.dcm")
    assert np.array_equal(slices.array, frames.array)
    assert slices.grid == frames.grid
    reference = sitk.ReadImage(str(folder / "nrrd" / "label.nrrd"))
    assert reference.GetSize() == slices.stored.shape[::-1]
    assert np.allclose(reference.GetSpacing(), slices.stored.spacing_mm[::-1])
    assert np.allclose(reference.GetOrigin(), slices.stored.origin_mm)
    assert np.allclose(reference.GetDirection(), slices.stored.direction)


def test_a_ct_lies_where_its_segmentations_lie(odd: Path):
    volume = read_volume(odd / "dicom_seg" / "ct-3slice")
    reference = sitk.ReadImage(str(odd / "dicom_seg" / "liver_seg.nrrd"))
    point = np.asarray(reference.GetOrigin())
    index = volume.grid.index(point)
    assert np.allclose(index, np.rint(index), atol=1e-3)
    assert np.allclose(reference.GetSpacing()[:2], volume.stored.spacing_mm[:0:-1])
    assert reference.GetSpacing()[2] == pytest.approx(volume.stored.spacing_mm[0], abs=1e-4)


def test_nine_encodings_of_one_image_are_read_alike(odd: Path, tmp_path: Path):
    """As slices one above the other, which the mosaic is not."""
    for n in range(1, 10):
        header: Any = pydicom.dcmread(odd / "dicom_transfer_syntaxes" / f"{n}.dcm")
        header.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        header.ImageOrientationPatient, header.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * n]
        header.SeriesInstanceUID = "1.2.3"
        written(header, tmp_path / f"{n}.dcm")
    volume = read_volume(tmp_path)
    assert volume.array.shape == (1, 9, 384, 384)
    assert volume.array.max() > 1000
    assert all(np.array_equal(plane, volume.array[0, 0]) for plane in volume.array[0])


@pytest.mark.parametrize("folder", ["ct_gantry_tilt", "dicom_broken_series/gantrytilting/001"])
def test_tilted_slices_are_straightened(folder: str, odd: Path):
    """At the places of the slices' own pixels, the straight volume shows what the slices show."""
    series, volume = find_series(odd / folder), read_volume(odd / folder)
    assert series.stack.tilted
    assert isinstance(volume.stored, StraightenedGrid)
    axes = np.asarray(volume.grid.direction).reshape(3, 3)
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    labels = np.zeros(volume.grid.shape, np.uint8)
    assert volume.stored.on_slices(labels).shape == (len(series.slices), 512, 512)
    back = volume.stored.on_slices(volume.array[0])
    for k in (0, 1):
        header: Any = pydicom.dcmread(series.slices[k].path)
        plane = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        if k == 0:  # the slice that the others are moved to
            assert np.array_equal(back[0], plane)
        # Where the slice is smooth, the nearest pixel of the straight grid, half a pixel away, is equal.
        smooth = np.ones_like(plane, dtype=bool)
        for axis, step in ((0, -1), (0, 1), (1, -1), (1, 1)):
            smooth &= np.abs(plane - np.roll(plane, step, axis)) < 20
        assert (np.abs(back[k] - plane)[smooth] <= 20).mean() > 0.9


def test_slices_of_two_thicknesses_have_two_steps(odd: Path):
    series = find_series(odd / "ct_gantry_tilt")
    assert not series.stack.regular
    assert series.stack.step_mm == pytest.approx(4.0, abs=0.01)
    assert len(series.slices) == 28
    assert [note.split(":")[0] for note in series.notes] == [
        "slices are tilted by 18.5 degrees against their stack",
        "steps between slices are 1.08 to 7 mm",
    ]
