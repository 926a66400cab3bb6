"""Marks that a person has given to cases on the page of a report, and has saved as a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from autospine.core.errors import FormatError
from autospine.storage.serialization import between, read_json, stored_as

FORMAT_VERSION = 1
KIND = "autospine marks"
"""Value of `kind` in a file of marks, by which it is told from other JSON."""

Judgement = Literal["", "pass", "fail", "artefact"]
"""Judgement of a person on a prediction; the empty text is no judgement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseMark:
    """Mark of one case by a person."""

    mark: Judgement
    grade: Annotated[int, between(0, 9)] | None
    note: str


@stored_as("a file of marks")
@dataclass(frozen=True, kw_only=True, slots=True)
class MarksFile:
    """The content of a file of marks."""

    format_version: int
    kind: str
    report: str
    """Title of the report."""

    folder: str
    """Folder that the report was about."""

    cases: dict[str, CaseMark]
    """Marks by case."""


def read_marks(path: Path) -> Mapping[str, CaseMark]:
    """Read the marks that the page of a report has saved as JSON.

    Raises:
        FormatError: If the file is missing, damaged, of another version or something else.
    """
    content = read_json(path, MarksFile)
    if (content.kind, content.format_version) != (KIND, FORMAT_VERSION):
        raise FormatError(
            f"expected {KIND} of format_version {FORMAT_VERSION} in {path}, found {content.kind} of "
            f"{content.format_version}; save the marks of the report as JSON again"
        )
    return content.cases


def cases_marked(path: Path, *judgements: Judgement) -> dict[str, str]:
    """Return the cases of a file of marks that have one of these judgements, with their notes.

    Raises:
        FormatError: If there is none, or the file cannot be read.
    """
    found = {name: each.note for name, each in read_marks(path).items() if each.mark in judgements}
    if not found:
        raise FormatError(
            f"expected cases marked {' or '.join(judgements)} in {path}, found none; mark them in the report "
            "and save the marks as JSON"
        )
    return found
