"""Writes DICOM files of any kind with pydicom: single slices, and files with several frames."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

SOP_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "enhanced CT": "1.2.840.10008.5.1.4.1.1.2.1",
    "legacy converted CT": "1.2.840.10008.5.1.4.1.1.2.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "enhanced MR": "1.2.840.10008.5.1.4.1.1.4.1",
    "legacy converted MR": "1.2.840.10008.5.1.4.1.1.4.4",
    "PET": "1.2.840.10008.5.1.4.1.1.128",
    "enhanced PET": "1.2.840.10008.5.1.4.1.1.130",
    "legacy converted PET": "1.2.840.10008.5.1.4.1.1.128.1",
    "secondary capture": "1.2.840.10008.5.1.4.1.1.7",
    "multi-frame byte secondary capture": "1.2.840.10008.5.1.4.1.1.7.2",
    "multi-frame word secondary capture": "1.2.840.10008.5.1.4.1.1.7.3",
    "X-ray 3D angiography": "1.2.840.10008.5.1.4.1.1.13.1.1",
    "X-ray 3D craniofacial": "1.2.840.10008.5.1.4.1.1.13.1.2",
    "breast tomosynthesis": "1.2.840.10008.5.1.4.1.1.13.1.3",
    "X-ray angiography": "1.2.840.10008.5.1.4.1.1.12.1",
    "enhanced X-ray angiography": "1.2.840.10008.5.1.4.1.1.12.1.1",
    "radiofluoroscopy": "1.2.840.10008.5.1.4.1.1.12.2",
    "enhanced radiofluoroscopy": "1.2.840.10008.5.1.4.1.1.12.2.1",
    "computed radiography": "1.2.840.10008.5.1.4.1.1.1",
    "nuclear medicine": "1.2.840.10008.5.1.4.1.1.20",
    "radiotherapy image": "1.2.840.10008.5.1.4.1.1.481.1",
    "a private class": "1.2.3.4.5",
}
"""UIDs of kinds of images (DICOM PS3.4, annex B.5)."""

Change = Callable[[Any], None]


def written(header: Any, path: Path) -> Path:
    """Write a dataset, whatever is wrong with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    syntax = header.file_meta.TransferSyntaxUID
    header.save_as(
        path,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        enforce_file_format=True,
    )
    return path


def write_slices(
    folder: Path,
    array: np.ndarray,
    positions_mm: Sequence[Sequence[float]],
    *,
    kind: str = "CT",
    orientation: Sequence[float] = AXIAL,
    pixel_mm: tuple[float, float] = (0.5, 0.7),
    rescale: tuple[float, float] | None = None,
    change: Change | None = None,
    syntax: str = ExplicitVRLittleEndian,
) -> list[Path]:
    """Write one file for each plane of an array (n, rows, columns), whose names say nothing of the order.

    Args:
        folder: Folder to write to.
        array: Stored numbers: uint8, int16 or uint16.
        positions_mm: Position of each slice.
        kind: Key of `SOP_CLASSES`.
        orientation: Image Orientation (Patient).
        pixel_mm: Width and height of a pixel.
        rescale: Slope and intercept.
        change: Changes the dataset of each slice before it is written.
        syntax: Transfer syntax.
    """
    files = []
    for index, (plane, position) in enumerate(zip(array, positions_mm, strict=True)):
        header = _image(plane, kind, f"1.2.3.{index + 1}", syntax)
        header.InstanceNumber = index + 1
        header.ImagePositionPatient = list(map(_decimal, position))
        header.ImageOrientationPatient = list(map(_decimal, orientation))
        header.PixelSpacing = list(map(_decimal, pixel_mm[::-1]))
        if rescale is not None:
            header.RescaleSlope, header.RescaleIntercept = map(_decimal, rescale)
        if change is not None:
            change(header)
        files.append(written(header, folder / f"IM{(index * 7 + 3) % 101:03d}"))
    return files


def write_frames(
    path: Path,
    array: np.ndarray,
    positions_mm: Sequence[Sequence[float]],
    *,
    kind: str = "enhanced CT",
    orientation: Sequence[float] = AXIAL,
    pixel_mm: tuple[float, float] = (0.5, 0.7),
    rescales: Sequence[tuple[float, float]] | None = None,
    change: Change | None = None,
    syntax: str = ExplicitVRLittleEndian,
) -> Path:
    """Write an array (n, rows, columns) as frames of one file, placed by its functional groups.

    The arguments are those of `write_slices`; each frame has its own rescaling, if there is any.
    """
    header = _image(array, kind, "1.2.3.1", syntax)
    header.NumberOfFrames = len(array)
    header.SharedFunctionalGroupsSequence = [Dataset()]
    shared = header.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = list(map(_decimal, pixel_mm[::-1]))
    shared.PixelMeasuresSequence[0].SliceThickness = "1"
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(map(_decimal, orientation))
    groups = []
    for index, position in enumerate(positions_mm):
        group = Dataset()
        group.PlanePositionSequence = [Dataset()]
        group.PlanePositionSequence[0].ImagePositionPatient = list(map(_decimal, position))
        if rescales is not None:
            group.PixelValueTransformationSequence = [Dataset()]
            slope, intercept = map(_decimal, rescales[index])
            group.PixelValueTransformationSequence[0].RescaleSlope = slope
            group.PixelValueTransformationSequence[0].RescaleIntercept = intercept
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    if change is not None:
        change(header)
    return written(header, path)


def _image(pixels: np.ndarray, kind: str, instance: str, syntax: str) -> Any:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = UID(syntax)
    header.file_meta.MediaStorageSOPClassUID = UID(SOP_CLASSES[kind])
    header.file_meta.MediaStorageSOPInstanceUID = UID(instance)
    header.SOPClassUID, header.SOPInstanceUID = SOP_CLASSES[kind], instance
    header.PatientID, header.PatientName, header.PatientBirthDate, header.PatientSex = "p", "p", "", ""
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2", "1.2.3"
    header.StudyID, header.StudyDate, header.StudyTime, header.AccessionNumber = "", "", "", ""
    header.FrameOfReferenceUID, header.PositionReferenceIndicator = "1.2.9", ""
    header.Modality = "MR" if "MR" in kind else "PT" if "PET" in kind else "CT"
    header.SeriesDescription = "spine"
    header.Rows, header.Columns = pixels.shape[-2:]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = 8 * pixels.dtype.itemsize
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    header.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    header["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    return header


def _decimal(number: float) -> Any:
    return pydicom.valuerep.DSfloat(float(number), auto_format=True)
