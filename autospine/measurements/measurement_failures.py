"""`measurement_failures.json`: the cases of a folder that could not be measured, and why."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from autospine.core.errors import FormatError
from autospine.storage.serialization import read_json, stored_as, write_json

FAILURES = "measurement_failures.json"
FORMAT_VERSION = 1


@stored_as("the failures of measurements")
@dataclass(frozen=True, kw_only=True, slots=True)
class _FailuresFile:
    format_version: int
    cases: dict[str, str]
    """Reason of each failure by the name of its case."""


def read_failures(folder: Path) -> dict[str, str]:
    """Return the reason of each case of a folder that could not be measured; none if there is no file.

    Raises:
        FormatError: If the file is damaged or of another version.
    """
    path = folder / FAILURES
    if not path.is_file():
        return {}
    content = read_json(path, _FailuresFile)
    if content.format_version != FORMAT_VERSION:
        raise FormatError(
            f"expected format_version {FORMAT_VERSION} in {path}, found {content.format_version}; run "
            "`autospine anatomy measure` again"
        )
    return content.cases


def record_failures(folder: Path, failed: Mapping[str, str], measured: Collection[str]) -> None:
    """Add failures to those of a folder, and take cases that have been measured since out of them.

    Args:
        folder: Folder of the measurements.
        failed: Reason of each failure by the name of its case.
        measured: Cases that were measured.
    """
    path = folder / FAILURES
    try:
        known = read_failures(folder)
    except FormatError:  # which is replaced, as it tells nothing
        known = {}
    left = {name: reason for name, reason in known.items() if name not in measured} | dict(failed)
    if left:
        write_json(path, _FailuresFile(format_version=FORMAT_VERSION, cases=dict(sorted(left.items()))))
    else:
        path.unlink(missing_ok=True)
