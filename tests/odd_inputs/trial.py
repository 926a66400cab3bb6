"""One input, the command that takes it, and what must come of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Right:
    """The input is read right: these voxels (k, j, i) at these places."""

    array: np.ndarray
    affine: np.ndarray
    """From (i, j, k, 1) to (x, y, z, 1) in mm, in DICOM's axes (LPS)."""

    tolerance: float = 0.0
    """Voxels may differ by this much, where a format rounds them."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The input is refused, in words that match each of these patterns (capitals do not matter)."""

    says: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The command succeeds, and its words match each of these patterns (capitals do not matter)."""

    says: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Contained:
    """The command succeeds or refuses; what matters is that nothing outside its folders changes."""


Outcome: TypeAlias = Right | Refused | Accepted | Contained

CommandLine: TypeAlias = Callable[[Path], Sequence[str]]
"""Words of the command line for a folder in which the input was made."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One input and what must come of it."""

    kind: str
    """Kind of fault, one of `KINDS`."""

    name: str
    make: Callable[[Path], Path]
    """Writes the input into an empty folder and returns its path."""

    expect: Outcome
    command: str = "predict"
    """`predict` (the input is given as `-i`), `verify` (the input is a raw dataset's folder), or another
    command, whose words follow in `words`."""

    words: tuple[str, ...] = ()
    hostile: bool = False
    """Whether it tries to read or write where it must not."""


KINDS = {
    "geometry": "what a library fills in is not what the header says",
    "damaged": "damaged compressed data is taken for sound",
    "values": "values that cannot be HU",
    "passed over": "input passed over without a word",
    "segments": "segment names are written and never read",
    "messages": "messages that lead astray",
    "names": "names that look the same",
    "grids": "grids that are the same in space",
    "tilt": "gantry tilt and enhanced files",
    "options": "options given twice",
    "checks": "checks made in prediction and not before training",
    "paths": "a stranger's workspace",
    "leftovers": "left behind and taken for whole",
    "entries": "one bad entry stops the folder",
    "terminal": "terminal sequences",
    "sizes": "sizes believed",
    "internal": "internal errors",
    "sound": "sound files of every format and type",
    "public": "public odd files",
}
"""Kinds of input, and what went wrong with each."""
