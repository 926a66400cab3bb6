"""File formats of images and label maps, told by the endings of file names."""

from pathlib import Path

from autospine.core.errors import DatasetError

NRRD_ENDINGS = (".seg.nrrd", ".nrrd", ".nhdr")
"""Endings of NRRD files; 3D Slicer opens the first as a segmentation instead of an image."""

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", *NRRD_ENDINGS)
"""Endings of the file formats that are read and written."""


def file_ending(path: Path) -> str | None:
    """Return which of `ENDINGS` a file name has, None if it has none."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def has_dicom_mark(path: Path) -> bool:
    """Whether a file has the mark of DICOM after its preamble of 128 bytes."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_dicom_input(path: Path) -> bool:
    """Whether an input is one of DICOM: a folder of slices, or a file of none of the other formats."""
    return path.is_dir() or file_ending(path) is None


def check_input(path: Path) -> None:
    """Refuse to predict from a path that is neither an image nor a folder.

    Raises:
        DatasetError: If nothing is there, or a file of another kind.
    """
    if path.is_dir() or (path.is_file() and (file_ending(path) or has_dicom_mark(path))):
        return
    other = "another kind of file; convert it to NIfTI, if it is an image"
    raise DatasetError(
        f"expected an image ({', '.join(ENDINGS)}) or a folder at {path}, found "
        f"{other if path.exists() else 'nothing; check -i'}"
    )
