"""The errors that AutoSpine raises on purpose.

Each message is one sentence: what was expected, what was found, in which file or case, followed by the
change or command that mends it. Any other exception is a fault of AutoSpine.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

MENTIONED = 3
"""Most names that a message lists."""

FAULTS_MENTIONED = 10
"""Most faults that a message lists."""

LONGEST_FAULT = 300
"""Most characters of a fault: keys and values may be of any length."""

_ITK_ERROR = re.compile(r".*ERROR: *(?:\w+\(0x[0-9a-f]+\): *)?(\S.*[^:])$")
"""A line of ITK's that has words of its own."""


class AutospineError(Exception):
    """Base of every error that the user can mend; the command line exits with code 1."""


class WorkspaceError(AutospineError):
    """A folder or dataset is not where it should be, or something stands in the way of writing."""


class DatasetError(AutospineError):
    """A raw dataset's files, labels or description do not fit together."""


class ImageError(AutospineError):
    """A volume cannot be read, or is not a volume that AutoSpine can work on."""


class FailedCasesError(ImageError):
    """Some cases of a folder have failed; the label maps of the others are there.

    Args:
        message: What is wrong.
        written: Label map of each other case by its name.
        failed: Reason of each failure by the name of the case.
    """

    def __init__(self, message: str, written: Mapping[str, Path], failed: Mapping[str, str]) -> None:
        super().__init__(message, dict(written), dict(failed))
        self.written = dict(written)
        self.failed = dict(failed)

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])


class FormatError(AutospineError):
    """A file is damaged, of another kind or version, or was edited into nonsense."""


class VersionError(FormatError):
    """A file is sound but was written by another version of AutoSpine."""


class PlanError(AutospineError):
    """A plan cannot be made, or does not fit what it is used for."""


class TrainingError(AutospineError):
    """Training cannot start or continue."""


class ModelError(AutospineError):
    """A trained model is missing, incomplete or does not fit the images."""


class EvaluationError(AutospineError):
    """Predictions and references cannot be compared."""


def first_line(error: BaseException) -> str:
    """Return the first line of a library's message that tells something, or the error's type if none does.

    ITK puts the line of its source code first, and its class and address in front of its own words.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = [match[1] for line in lines if (match := _ITK_ERROR.match(line))]
    return (words or lines or [type(error).__name__])[0][:200]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, whose plural ends in s: `1 epoch`, `2 epochs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def share(part: int, whole: int, noun: str) -> str:
    """Return a part of things that are there: `1 of these 2 images`, or `this image` where there is one."""
    return f"this {noun}" if whole == 1 else f"{part} of these {counted(whole, noun)}"


def listed(
    items: Sequence[str],
    most: int = MENTIONED,
    separator: str = ", ",
    *,
    longest: int | None = LONGEST_FAULT,
) -> str:
    """Join the first items, and say how many more there are.

    Args:
        items: Names or faults.
        most: Most of them that are listed.
        separator: Text between two of them.
        longest: Most characters of an item; longer ones are cut. None leaves all of them whole.
    """
    more = len(items) - most
    named = [item if longest is None else shortened(item, longest) for item in items[:most]]
    return separator.join(named) + (f" and {more} more" if more > 0 else "")


def listed_faults(faults: Sequence[str]) -> str:
    """Join the first faults of a file or folder, and say how many more there are."""
    return listed(faults, FAULTS_MENTIONED, "; ")


def shortened(text: str, longest: int = LONGEST_FAULT) -> str:
    """Cut a text that is longer than a person reads."""
    return text if len(text) <= longest else f"{text[:longest]}..."
