"""The meaning of label integers: anatomical schemes, and the label space of one dataset.

Only this module knows the integers of vertebrae; everywhere else a vertebra goes by its name.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TypeGuard

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from autospine.core.errors import DatasetError
from autospine.core.types import LabelArray

VERTEBRAE: tuple[str, ...] = (
    *(f"C{i}" for i in range(1, 8)),
    *(f"T{i}" for i in range(1, 14)),
    *(f"L{i}" for i in range(1, 7)),
)
"""Vertebrae in anatomical order from the head down, the supernumerary T13 and L6 in their place."""

VERSE: Mapping[str, int] = {
    **{f"C{i}": i for i in range(1, 8)},
    **{f"T{i}": 7 + i for i in range(1, 13)},
    **{f"L{i}": 19 + i for i in range(1, 7)},
    "sacrum": 26,
    "coccyx": 27,
    "T13": 28,
    "cord": 60,
    "canal": 61,
}
"""Name -> integer of the VerSe challenge, with TPTBox's additions for cord and canal.

T13 is 28 although it lies between 19 and 20: never sort vertebrae by integer.
"""

DISC_OFFSET = 100
"""A disc's integer is that of the vertebra above it plus this (TPTBox)."""

BACKGROUND = "background"
"""Name of what is no class."""

IGNORE_INDEX = 255
"""Stored index of ignored voxels, which are neither learnt from nor scored."""

_SIDE_WORD = re.compile(r"(?:(?<![a-z])(?:left|right)|Left|Right)(?![a-z])|(?<![A-Z])(?:LEFT|RIGHT)(?![A-Z])")
_SIDE_LETTER = re.compile(r"(?<=[_\-. ])[lrLR]$")


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelSpace:
    """The labels of a dataset, their integers on disk and the network channels that stand for them.

    Inside AutoSpine labels are *indices*: 0 background, then one index per distinct integer in
    `integers`, and `IGNORE_INDEX`. Any integers may stand on disk. A plain dataset has one class per
    integer and one softmax channel per class, background first. A dataset of *regions* has overlapping
    classes (each a set of integers) and one sigmoid channel per region.
    """

    names: tuple[str, ...]
    """Foreground classes in channel order."""

    members: tuple[tuple[int, ...], ...]
    """Label values on disk that belong to each class."""

    painted: tuple[int, ...]
    """Output label of each class: the integer that is written where the class is predicted. Later regions are
    written over earlier ones."""

    regions: bool = False
    """Whether classes overlap and are predicted by one sigmoid channel each."""

    ignore: int | None = None
    """Integer on disk of ignored voxels; None if the dataset has none."""

    def __post_init__(self) -> None:
        if not self.names or not len(self.names) == len(self.members) == len(self.painted):
            raise DatasetError(
                f"expected at least one foreground class, each with its integers, found names {self.names} "
                f"and integers {self.members}; mend `labels` in dataset.json"
            )
        if len(self.integers) >= IGNORE_INDEX:
            raise DatasetError(
                f"expected fewer than {IGNORE_INDEX} distinct labels, found {len(self.integers)}; "
                "leave out classes in dataset.json"
            )

    @property
    def integers(self) -> tuple[int, ...]:
        """Distinct foreground integers on disk, ascending; index i + 1 stands for the i-th."""
        return tuple(sorted(set(chain.from_iterable(self.members))))

    @property
    def known(self) -> frozenset[int]:
        """Every integer that a label file may hold."""
        return frozenset((0, *self.integers, *(() if self.ignore is None else (self.ignore,))))

    @property
    def n_channels(self) -> int:
        """Number of a network's output channels: one per region, or background and the classes."""
        return len(self.names) + (0 if self.regions else 1)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Name of the class that each output channel stands for."""
        return self.names if self.regions else (BACKGROUND, *self.names)

    @property
    def membership(self) -> Bool[np.ndarray, "channels indices"]:
        """Table (channels, indices) of which stored indices count as foreground of which channel."""
        columns = (0, *self.integers)
        rows = [[integer in members for integer in columns] for members in self.members]
        if not self.regions:
            rows.insert(0, [integer == 0 for integer in columns])
        return np.asarray(rows, dtype=bool)

    def encode(self, labels: LabelArray) -> UInt8[np.ndarray, "S P L"]:
        """Convert integers on disk to stored indices, uint8.

        Raises:
            DatasetError: If an integer is not known to this label space.
        """
        indices = np.empty(labels.shape, dtype=np.uint8)
        unknown: set[int] = set()
        for plane, out in zip(labels, indices, strict=True):  # positions in a table take eight bytes each
            values = np.unique(plane)
            unknown |= set(values.tolist()) - self.known
            if not unknown:
                out[...] = self._table(values)[np.searchsorted(values, plane)]
        if unknown:
            raise DatasetError(f"expected labels among {sorted(self.known)}, found {sorted(unknown)}")
        return indices

    def decode(self, channels: np.ndarray) -> np.ndarray:
        """Convert predicted classes to integers on disk.

        Args:
            channels: For plain labels, the argmax over channels at each voxel, 0 for background; for regions,
                a boolean array whose first axis is the region.

        Returns:
            Array of the smallest unsigned (or, with negative labels, signed) type that holds the integers.
        """
        dtype = self.dtype
        if not self.regions:
            written: np.ndarray = np.asarray((0, *self.painted), dtype=dtype)[channels]
            return written
        labels = np.zeros(channels.shape[1:], dtype=dtype)
        for integer, inside in zip(self.painted, channels, strict=True):
            labels[inside] = integer
        return labels

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Smallest integer type that holds every output label."""
        low, high = min(0, *self.painted), max(self.painted)
        return np.min_scalar_type(high if low == 0 else min(low, -high - 1))

    def _table(self, values: Integer[np.ndarray, "n"]) -> UInt8[np.ndarray, "n"]:
        """Return the stored index of each integer on disk."""
        index = {0: 0, **{integer: i for i, integer in enumerate(self.integers, start=1)}}
        if self.ignore is not None:
            index[self.ignore] = IGNORE_INDEX
        return np.asarray([index[int(value)] for value in values], dtype=np.uint8)


def parse_labels(
    described: Mapping[str, object], regions_class_order: Sequence[object] | None = None
) -> LabelSpace:
    """Return the label space of an nnU-Net v2 `labels` entry.

    Args:
        described: Name -> integer, or name -> integers for regions; `background` is 0, `ignore` is special,
            both in any capitals.
        regions_class_order: For regions, the output label of each, in the order of `described`.

    Raises:
        DatasetError: If the entry contradicts itself.
    """
    described = dict(described)
    ignore = _special(described, "ignore", None)
    background = _special(described, "background", 0)
    if background != 0:
        raise DatasetError(f"expected label `background` to be 0, found {background}; mend dataset.json")
    members = tuple(_integers(name, value) for name, value in described.items())
    regions = any(not isinstance(value, int) for value in described.values())
    if ignore is not None and (not _is_integer(ignore) or ignore in (0, *chain.from_iterable(members))):
        raise DatasetError(
            f"expected an integer of its own for the label `ignore`, found {ignore}; mend dataset.json"
        )
    return LabelSpace(
        names=tuple(described),
        members=members,
        painted=_painted(tuple(described), members, regions, regions_class_order),
        regions=regions,
        ignore=ignore,
    )


class SidePairs(NamedTuple):
    """Classes that are exchanged by a reflection of left and right, as positions in a list of names."""

    pairs: tuple[tuple[int, int], ...]
    """Positions of left and right of the same name."""

    single: tuple[int, ...]
    """Positions of classes named left or right that have no counterpart."""


def side_pairs(names: Sequence[str]) -> SidePairs:
    """Pair classes that are each other's mirror image by their names.

    `left` and `right` as words (`rib_left_4`, `Costal Process Right`, `hipLeft`), or `l` and `r` as the last
    word (`hip_l`) where both are there: alone they may mean something else.
    """
    sided: dict[tuple[str, bool], dict[str, int]] = {}
    for index, name in enumerate(names):
        word = _SIDE_WORD.search(name)
        if match := word or _SIDE_LETTER.search(name):
            rest = f"{name[: match.start()]}*{name[match.end() :]}".lower()
            sided.setdefault((rest, word is not None), {})[match[0][0].lower()] = index
    pairs = [(found["l"], found["r"]) for found in sided.values() if len(found) == 2]
    single = [i for (_, word), found in sided.items() if word and len(found) == 1 for i in found.values()]
    return SidePairs(pairs=tuple(pairs), single=tuple(single))


def _special(described: dict[str, object], word: str, default: object) -> object:
    """Take the label of this name out, in whichever capitals it is written.

    Raises:
        DatasetError: If there are several.
    """
    found = [name for name in described if name.strip().lower() == word]
    if len(found) > 1:
        raise DatasetError(f"expected the label `{word}` once, found {', '.join(found)}; mend dataset.json")
    return described.pop(found[0]) if found else default


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _integers(name: str, value: object) -> tuple[int, ...]:
    listed = value if isinstance(value, list | tuple) else (value,)
    integers = tuple(integer for integer in listed if _is_integer(integer))
    if not integers or len(integers) < len(listed):
        raise DatasetError(
            f"expected an integer or a list of integers for label {name!r}, found {value!r}; "
            "mend dataset.json"
        )
    if 0 in integers:
        raise DatasetError(
            f"expected a non-zero integer for label {name!r}, found {value!r}; mend dataset.json"
        )
    return integers


def _painted(
    names: Sequence[str], members: tuple[tuple[int, ...], ...], regions: bool, order: Sequence[object] | None
) -> tuple[int, ...]:
    if regions:
        known = sorted(set(chain.from_iterable(members)))
        chosen = tuple(integer for integer in order or () if _is_integer(integer) and integer in known)
        if order is None or not len(chosen) == len(order) == len(members):
            raise DatasetError(
                f"expected `regions_class_order` with one integer among {known} for each of the "
                f"{len(members)} regions, found {order}; mend dataset.json"
            )
        return chosen
    painted = tuple(integers[0] for integers in members)
    if len(set(painted)) != len(painted):
        shared = [f"{name} = {n}" for name, n in zip(names, painted, strict=True) if painted.count(n) > 1]
        raise DatasetError(
            f"expected a different integer for each label, found {', '.join(shared)}; mend dataset.json"
        )
    return painted
