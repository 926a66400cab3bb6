"""File formats of images and label maps, told by the endings of file names; and what lies beside images."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from autospine.core.errors import MENTIONED, DatasetError, listed
from autospine.storage.file_names import check_file

NRRD_ENDINGS = (".seg.nrrd", ".nrrd", ".nhdr")
"""Endings of NRRD files; 3D Slicer opens the first as a segmentation instead of an image."""

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", *NRRD_ENDINGS)
"""Endings of the file formats that are read and written."""

DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
"""Endings that DICOM files may have; most have none, or a number."""

SIDE_FILES = (
    *(".txt", ".md", ".csv", ".tsv", ".json", ".yaml", ".xml", ".html", ".pdf", ".log", ".bval", ".bvec"),
    *(".png", ".jpg", ".jpeg", ".gif"),
    *(".raw", ".zraw"),  # voxels of .mhd and .nhdr
)
"""Endings of files that lie beside images and that nobody expects to be predicted."""

_SIDE_NAMES = {"readme", "version", "license", "licence", "lockfile", "dirfile", "contents", "changes"}
"""Names without ending of files that lie beside images on discs."""

_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
"""Files that systems put into every folder; others of them begin with a dot."""

_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".tar", ".tgz")
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".filepart", ".opdownload", ".tmp")
_OTHER_IMAGES = (".hdr", ".img", ".mgz", ".mgh", ".mnc", ".tif", ".tiff", ".nii.zst", ".npy", ".npz")


def file_ending(path: Path) -> str | None:
    """Return which of `ENDINGS` a file name has, None if it has none."""
    name = path.name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def has_dicom_mark(path: Path) -> bool:
    """Return whether a file has the mark of DICOM after its preamble of 128 bytes."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_dicom_input(path: Path) -> bool:
    """Return whether an input is one of DICOM: a folder of slices, or a file of none of the other formats."""
    return path.is_dir() or file_ending(path) is None


def is_named_dicom(path: Path) -> bool:
    """Return whether a file has the ending of DICOM, perhaps within that of an archive or of a download."""
    return not path.name.startswith(".") and _unwrapped(path.name.lower()).endswith(DICOM_ENDINGS)


def is_side_file(path: Path) -> bool:
    """Return whether nobody expects a file to be an image, by its name."""
    name = path.name.lower()
    return name.startswith(".") or name in _SYSTEM_FILES or name.endswith(SIDE_FILES) or name in _SIDE_NAMES


def slice_fault(path: Path, slices: Collection[Path]) -> str | None:
    """Say what is wrong with a file beside slices that may have been one of them; None if it is none.

    Args:
        path: File in the folder of the slices, or link there, that is no DICOM file.
        slices: The DICOM files of the folder.
    """
    name = path.name.lower()
    inner = _unwrapped(name)
    named = is_named_dicom(path) or _pattern(inner) in {_pattern(file.name) for file in slices}
    if is_side_file(path):
        return None
    if inner != name:
        # What is there unpacked as well is a copy.
        if not named or inner in {file.name.lower() for file in slices}:
            return None
        return "an unfinished download" if name.endswith(_UNFINISHED) else "packed; unpack it"
    ending = _last_ending(name)
    endings = {_last_ending(file.name.lower()) for file in slices}
    if not (named or ending in endings or (not ending and re.search(r"\d", name))):
        return None
    try:
        check_file(path)
        has_dicom_mark(path)
        if path.stat().st_size == 0:
            return "an empty file"
    except OSError as error:
        return error.strerror or str(error)
    return "named as DICOM, and none by its content" if is_named_dicom(path) else "no DICOM by its content"


def _unwrapped(name: str) -> str:
    """Return a name without the endings of archives and unfinished downloads."""
    while (inner := re.sub(r"\.\w+$", "", name)) and name.endswith((*_PACKED, *_UNFINISHED)):
        name = inner
    return name


def _pattern(name: str) -> str:
    """Return what the names of a series have in common: all but the numbers."""
    return re.sub(r"\d+", "#", name.lower())


def _last_ending(name: str) -> str:
    """Return the ending of a name, empty if it is none or a part of a UID."""
    ending = Path(name).suffix
    return "" if re.fullmatch(r"\.\d+", ending) else ending


def grouped(faults: Iterable[tuple[str, str]]) -> str:
    """List files with what is wrong with them in brackets, once for all that have the same fault."""
    by_fault: dict[str, list[str]] = {}
    for name, fault in faults:
        by_fault.setdefault(fault, []).append(name)
    return listed(
        [
            f"{', '.join(names) if len(names) <= MENTIONED else f'{names[0]} and {len(names) - 1} more'} "
            f"({fault})"
            for fault, names in by_fault.items()
        ],
        longest=None,
    )


def unread_names(paths: Iterable[Path]) -> list[str]:
    """Return the names of files that are not read, those first that look like images, without side files."""
    names = [path.name for path in paths if not is_side_file(path)]
    like = (*_PACKED, *_UNFINISHED, *_OTHER_IMAGES, *DICOM_ENDINGS, *ENDINGS)
    images = [name for name in names if name.lower().endswith(like)]
    # An image that has no ending but that of a download comes before archives of anything.
    images.sort(key=lambda name: not _unwrapped(name.lower()).endswith((*ENDINGS, *DICOM_ENDINGS, ".nii")))
    return [*images, *(name for name in names if name not in images)]


def check_inputs(paths: Iterable[Path]) -> None:
    """Refuse to predict where one of the paths is neither an image nor a folder; names all of them.

    Raises:
        DatasetError: If nothing is there, or a file of another kind.
    """
    faults = []
    for path in paths:
        try:
            check_input(path)
        except DatasetError as error:
            faults.append(str(error))
    if faults:
        raise DatasetError("\n".join(faults))


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
