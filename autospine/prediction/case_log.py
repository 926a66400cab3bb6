"""predictions.json: how each label map in a folder came about."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autospine.core.errors import FormatError, WorkspaceError
from autospine.core.types import Modality, Shape3, Vector3
from autospine.storage.locks import alone
from autospine.storage.serialization import read_json, write_json

RECORD = "predictions.json"
LOCK = ".predictions.lock"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class UsedModel:
    """A model that took part."""

    folder: str
    """As it was given."""

    folds: tuple[str, ...]
    """Whose networks took part."""

    digest: str
    """SHA-256 of its plan and of these weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedCase:
    """What became of one case."""

    case: str
    status: Literal["written", "kept", "failed"]
    """`kept`: its label map was there already and nothing is known about it."""

    error: str | None = None
    """Why it failed."""

    models: tuple[UsedModel, ...] = ()
    """Which predicted together."""

    versions: dict[str, str] | None = None
    """Of AutoSpine and of PyTorch."""

    device: str | None = None
    modality: Modality | None = None
    shape: Shape3 | None = None
    """Voxels of the image along S, P, L."""

    spacing_mm: Vector3 | None = None
    tiles: int | None = None
    """That would cover the image."""

    tiles_run: int | None = None
    near: Literal["everything", "body", "spine"] | None = None
    """What tiles were run for."""

    finders: tuple[str, ...] = ()
    """Configurations that found the spine, where that is what tiles were run for."""

    mirrored: bool = False
    """Whether tiles were run with left and right exchanged, too."""

    cleaned: tuple[str, ...] = ()
    """Classes that went through the cleanup."""

    seconds: float | None = None
    """From the image in memory to its labels."""

    peak_gb: float | None = None
    """Most RAM that the process had held until then, in 10⁹ bytes."""

    gpu_peak_gb: float | None = None
    """Most memory of the GPU that PyTorch held for this case."""

    probabilities: str | None = None
    """File beside the label map, where they were saved."""

    warnings: tuple[str, ...] = ()
    """Repairs to the header, and what was decided from the image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _RecordFile:
    format_version: int
    cases: tuple[PredictedCase, ...]


def read_record(folder: Path) -> dict[str, PredictedCase]:
    """The cases that a folder's record knows, by name; none where there is no record.

    Raises:
        FormatError: if the file is damaged or of another version.
    """
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


def add_to_record(folder: Path, cases: Iterable[PredictedCase]) -> None:
    """Put cases into a folder's record, ordered by name, so that it is either complete or unchanged.

    Several processes may write to the same folder: what another one has put there since stays.

    Raises:
        WorkspaceError: if the folder cannot be written to.
        FormatError: if the record there is damaged or of another version.
    """
    try:
        with alone(folder / LOCK, f"writes {folder / RECORD}"):
            known = read_record(folder) | {case.case: case for case in cases}
            ordered = tuple(known[name] for name in sorted(known))
            write_json(folder / RECORD, _RecordFile(format_version=FORMAT_VERSION, cases=ordered))
    except OSError as error:
        raise WorkspaceError(
            f"expected to write {folder / RECORD}, found {error}; free some space and use --continue"
        ) from None
