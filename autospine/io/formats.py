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


def check_input(path: Path) -> None:
    """Refuse to predict from a path that is neither an image nor a folder.

    Raises:
        DatasetError: If nothing is there, or a file of another kind.
    """
    if path.is_dir() or (path.is_file() and file_ending(path)):
        return
    raise DatasetError(
        f"expected an image ({', '.join(ENDINGS)}) or a folder at {path}, found "
        f"{'another kind of file' if path.exists() else 'nothing'}; check -i"
    )
