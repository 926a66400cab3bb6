"""Parts of a list of cases, so that several jobs share the work on it: `--part I/N` of the command line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autospine.core.errors import DatasetError


@dataclass(frozen=True, kw_only=True, slots=True)
class CasePart:
    """The part of one job: every `count`-th case of the list of all cases, from the `number`-th on.

    The list is that of all names, sorted by the code points of their characters. A part is therefore the same
    whatever has been done already, and parts differ in size by at most one case. Neighbours in the list, such
    as the scans of one person, are of about one size and fall to different parts.
    """

    number: int
    """Number of the part, from 1 to `count`."""

    count: int
    """Number of parts, at least 1."""

    def __str__(self) -> str:
        """Return the part as it is written on the command line."""
        return f"{self.number}/{self.count}"

    def of(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names that belong to this part, sorted; none if there are fewer than `number`."""
        return tuple(sorted(names)[self.number - 1 :: self.count])


def parse_part(text: str) -> CasePart:
    """Read a part such as `2/8`.

    Raises:
        DatasetError: If the text is no part: two whole numbers from 1 on, the first not above the second.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise DatasetError(
            f"expected --part I/N with whole numbers and I from 1 to N, such as --part 2/8, found {text!r}; "
            "a job array of N tasks is --array=1-N"
        )
    return CasePart(number=int(match[1]), count=int(match[2]))
