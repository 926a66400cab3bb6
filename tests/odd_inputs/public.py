"""Public odd files, where they are present, each with its reference or the reason to refuse it.

They lie in `../shared/data/odd`, or in the folder `odd` of `$AUTOSPINE_REAL_DATA`. References are read with
nibabel and pydicom alone, by the rules of their formats: the affine of a NIfTI, and position, orientation and
PixelSpacing of DICOM slices.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from odd_inputs.trial import Accepted, Outcome, Refused, Right, Trial

NO_IMAGE = (".nii.gz", ".nii")
"""Endings of the images of `nifti_variants` that are read; all others are refused by their names."""

FOUR_AXES = ("functional.nii", "example4d.nii.gz", "example_nifti2.nii.gz")
NOT_FINITE = ("resampled_anat_moved.nii",)
NO_VOLUME = ("row_major.dconn.nii",)


def public_folder() -> Path:
    """The folder of the odd files; it need not exist."""
    given = os.environ.get("AUTOSPINE_REAL_DATA")
    return (Path(given) if given else Path(__file__).parents[3] / "shared" / "data") / "odd"


def public_trials() -> Iterator[Trial]:
    folder = public_folder()
    if folder.is_dir():
        yield from _axis_orders(folder / "nifti_axis_orders")
        yield from _variants(folder / "nifti_variants")
        yield from _series(folder)
        yield from _single_files(folder)


def _trial(name: str, source: Path, expect: Outcome) -> Trial:
    def make(folder: Path) -> Path:
        target = folder / source.name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        return target

    return Trial(kind="public", name=name, make=make, expect=expect)


def nifti_reference(path: Path) -> Right:
    """Read a NIfTI with nibabel."""
    image: Any = nibabel.load(path)
    array = np.asanyarray(image.dataobj)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    return Right(array=array.transpose(2, 1, 0), affine=affine, tolerance=1e-3)


def _axis_orders(folder: Path) -> Iterator[Trial]:
    for path in sorted(folder.glob("*.nii.gz")):
        yield _trial(f"axis order {path.name}", path, nifti_reference(path))


def _variants(folder: Path) -> Iterator[Trial]:
    for path in sorted(folder.iterdir()):
        expect: Outcome
        if not path.name.endswith(NO_IMAGE):
            expect = Refused(says=(path.stem.split(".")[0][:12].replace("+", r"\+"),))
        elif path.name in FOUR_AXES:
            expect = Refused(says=("4 axes|point in time",))
        elif path.name in NOT_FINITE:
            expect = Refused(says=("finite", path.name))
        elif path.name in NO_VOLUME:
            expect = Refused(says=("row_major",))
        else:
            expect = nifti_reference(path)
        yield _trial(f"variant {path.name}", path, expect)


def slices_reference(folder: Path) -> Right:
    """Stack slices by their positions, read with pydicom; the step is that of the first two."""
    import pydicom

    headers = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    row, column = np.reshape(headers[0].ImageOrientationPatient, (2, 3)).astype(float)
    normal = np.cross(row, column)
    headers.sort(key=lambda header: float(normal @ np.asarray(header.ImagePositionPatient, float)))
    places = np.asarray([header.ImagePositionPatient for header in headers], float)
    down, along = (float(value) for value in headers[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * along, column * down
    affine[:3, 2] = (places[-1] - places[0]) / (len(places) - 1)
    affine[:3, 3] = places[0]
    planes = [
        header.pixel_array * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))
        for header in headers
    ]
    return Right(array=np.stack(planes), affine=affine, tolerance=1e-3)


def _series(folder: Path) -> Iterator[Trial]:
    broken, segmented = folder / "dicom_broken_series", folder / "dicom_seg"
    tilted = Accepted(says=("tilt",))
    yield _trial("series ct_gantry_tilt", folder / "ct_gantry_tilt", tilted)
    yield _trial("series gantrytilting", broken / "gantrytilting" / "001", tilted)
    yield _trial(
        "series notavolume", broken / "notavolume" / "001", Refused(says=("double|one slice per position",))
    )
    yield _trial(
        "series slicecount", broken / "slicecount" / "001", slices_reference(broken / "slicecount" / "001")
    )
    for number in ("001", "002"):
        yield _trial(
            f"series sliceincrement {number}",
            broken / "sliceincrement" / number,
            Refused(says=("missing|step",)),
        )
    yield _trial(
        "series sliceorientation",
        broken / "sliceorientation" / "001",
        Refused(says=("parallel|orientation|size",)),
    )
    for name in ("23x38x3", "24x38x3"):
        reference = slices_reference(segmented / name / "image")
        yield _trial(f"series {name}", segmented / name / "image", reference)
        yield _trial(f"frames {name}", segmented / name / "multiframe" / "mf.dcm", reference)
    yield _trial("series ct-3slice", segmented / "ct-3slice", slices_reference(segmented / "ct-3slice"))
    yield _trial(
        "a folder of one image in nine encodings",
        folder / "dicom_transfer_syntaxes",
        Refused(says=("slice|mosaic",)),
    )


def _single_files(folder: Path) -> Iterator[Trial]:
    single: Sequence[Path] = [
        *sorted((folder / "dicom_transfer_syntaxes").glob("*.dcm")),
        *sorted((folder / "dicom_seg_bits").glob("*.dcm")),
        *sorted((folder / "dicom_seg").glob("*.dcm")),
    ]
    for path in single:
        yield _trial(f"file {path.parent.name}/{path.name}", path, Refused(says=(path.stem,)))
    for path in sorted((folder / "dicom_seg").glob("*.nrrd")):
        yield _trial(f"file {path.name}", path, itk_reference(path))


def itk_reference(path: Path) -> Right:
    """Read a sound file with ITK, which wrote it."""
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return Right(array=sitk.GetArrayFromImage(image), affine=affine)
