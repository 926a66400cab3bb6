"""predictions.json: the record of how each label map in a folder was made."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from autospine.core.errors import FormatError, WorkspaceError
from autospine.core.types import Modality, Shape3, Vector3
from autospine.evaluation.postprocessing import LabelChange
from autospine.storage.locks import waiting_lock
from autospine.storage.part_folders import part_folders
from autospine.storage.serialization import many, read_json, stored_as, write_json

RECORD = "predictions.json"
LOCK = ".predictions.lock"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class UsedModel:
    """A model that took part."""

    folder: str
    """Path as the user gave it."""

    folds: tuple[str, ...]
    """Folds whose networks took part."""

    digest: str
    """SHA-256 of its plan and of these weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedCase:
    """Status of one case, and how its label map was made."""

    case: str
    status: Literal["written", "kept", "failed"]
    """`kept` means that its label map was there already and nothing is known about it."""

    error: str | None = None
    """Reason for its failure."""

    images: tuple[str, ...] = ()
    """Absolute paths of its image, one for each channel; none in records of earlier versions."""

    models: tuple[UsedModel, ...] = ()
    """Models that predicted together."""

    versions: dict[str, str] | None = None
    """Versions of AutoSpine and PyTorch."""

    device: str | None = None
    modality: Modality | None = None
    shape: Shape3 | None = None
    """Voxels of the image along S, P, L."""

    spacing_mm: Vector3 | None = None
    tiles: int | None = None
    """Number of tiles that would cover the image."""

    tiles_run: int | None = None
    """Number of tiles that were run."""

    near: Literal["everything", "body", "spine"] | None = None
    """Region of interest: the part of the image that tiles were run for."""

    finders: tuple[str, ...] = ()
    """Configurations of the localizers, if the region of interest was the spine."""

    mirrored: bool = False
    """Whether tiles were also run with left and right exchanged (option `mirror`)."""

    counted_with: str | None = None
    """Model by which vertebrae were counted before they were named; None for none."""

    cleaned: tuple[str, ...] = ()
    """Classes that were post-processed."""

    changes: tuple[LabelChange, ...] = ()
    """Changes by post-processing in this case, the largest volume first."""

    renamed: tuple[LabelChange, ...] = ()
    """Vertebrae, or pieces of them, that were given the name of another level, the largest volume first."""

    naming_error: str | None = None
    """Why the vertebrae could not be named, so that the label map has the classes as predicted; None if they
    were named, or were not to be."""

    seconds: float | None = None
    """Time from the image in memory to its labels."""

    peak_gb: float | None = None
    """Most RAM that the process had held until then, in 10⁹ bytes."""

    gpu_peak_gb: float | None = None
    """Most memory of the GPU that PyTorch held for this case."""

    probabilities: str | None = None
    """Name of the file of probabilities beside the label map, if they were saved."""

    training_case: str | None = None
    """Training case of the model that shows the same image; None if none is known to do so."""

    warnings: tuple[str, ...] = ()
    """Repairs to the header, and decisions taken from the image."""


@stored_as("the record of predictions")
@dataclass(frozen=True, kw_only=True, slots=True)
class _RecordFile:
    format_version: int
    cases: Annotated[tuple[PredictedCase, ...], many()]


def read_record(folder: Path) -> dict[str, PredictedCase]:
    """Return the entries of a folder's record by case, with those of parts that are not joined yet.

    Raises:
        FormatError: If a file is damaged or of another version.
    """
    entries = _read(folder)
    for part in part_folders(folder):
        entries |= _read(part)
    return entries


def add_to_record(folder: Path, cases: Iterable[PredictedCase]) -> None:
    """Add entries to a folder's record, ordered by name; on an error the record stays as it was.

    Several processes may write to the same folder: entries that another one has added meanwhile stay.

    Raises:
        WorkspaceError: If the folder cannot be written to.
        FormatError: If the record there is damaged or of another version.
    """
    try:
        with waiting_lock(folder / LOCK, f"writes {folder / RECORD}"):
            known = _read(folder) | {case.case: case for case in cases}
            ordered = tuple(known[name] for name in sorted(known))
            write_json(folder / RECORD, _RecordFile(format_version=FORMAT_VERSION, cases=ordered))
    except OSError as error:
        raise WorkspaceError(
            f"expected to write {folder / RECORD}, found {error}; free some space and use --continue"
        ) from None


def _read(folder: Path) -> dict[str, PredictedCase]:
    """Return the entries of `predictions.json` in a folder by case; none if there is no such file."""
    path = folder / RECORD
    if not path.exists():
        return {}
    record = read_json(path, _RecordFile)
    if record.format_version != FORMAT_VERSION:
        raise FormatError(
            f"expected format_version {FORMAT_VERSION} in {path}, found {record.format_version}; "
            "name another output folder, or use the AutoSpine version that made it"
        )
    return {case.case: case for case in record.cases}
