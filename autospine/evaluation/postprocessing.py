"""Cleaning of predicted label maps: pieces dropped and holes filled, where cross-validation says so.

Each class has its own cleanup, chosen among `CANDIDATES` by what it does to the Dice of held-out cases.
Structures are told apart by the data, not by their names: a class of many vertebrae loses by keeping its
largest piece only, so it keeps all of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.measure import label

from autospine.core.errors import FormatError
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, MaskArray, Vector3
from autospine.evaluation.overlap import Counts
from autospine.storage.serialization import read_json

FORMAT_VERSION = 1
POSTPROCESSING = "postprocessing.json"

VOLUMES_MM3 = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Least volumes of a piece that are tried; the smallest vertebra, C1, has about 10 000 mm^3."""

LEAST_GAIN = 0.001
"""Gain of the mean Dice below which a cleanup is not worth having."""

STANDARD_ERRORS = 2.0
"""By how many of its own standard errors the mean gain must exceed zero."""

WORST_LOSS = 0.01
"""What no single case may lose of its Dice."""

FEWEST_CASES = 3
"""With fewer cases than this there is no telling gain from noise."""

_LEAST_SHELL = 6
"""Voxels that it takes to enclose one."""

_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
"""Voxels that share a corner belong to one piece."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleanup:
    """What is done to the voxels of one class, in this order."""

    fill_holes: bool = False
    """Background that a piece encloses becomes part of it, unless a piece of another class that lies within
    encloses it more closely."""

    keep_largest: bool = False
    """All pieces but the largest become background."""

    least_mm3: float = 0.0
    """Pieces smaller than this become background."""


CANDIDATES: tuple[Cleanup, ...] = tuple(
    replace(pieces, fill_holes=fill)
    for fill, pieces in product(
        (False, True),
        (Cleanup(), *(Cleanup(least_mm3=volume) for volume in VOLUMES_MM3), Cleanup(keep_largest=True)),
    )
)
"""The first does nothing."""

Trial = tuple[tuple[Counts, ...], ...]
"""Overlap in one case: of each candidate, of each class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCleanup:
    """The cleanup of a class, and why."""

    name: str
    """The class."""

    integer: int
    """What stands for it on disk."""

    cleanup: Cleanup

    n_cases: int
    """Cases in which the class was predicted or present."""

    dice_before: float | None
    """Mean over these cases; None if there are none."""

    dice_after: float | None
    """The same cleaned; a class that is gone from a case without it counts as 1 there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postprocessing:
    """`postprocessing.json`: the cleanup of every class of a model's predictions."""

    format_version: int
    n_cases: int
    """Held-out cases by which it was chosen."""

    classes: tuple[ClassCleanup, ...]
    """In the order of the label space."""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"expected {POSTPROCESSING} of format_version {FORMAT_VERSION}, found {self.format_version}; "
                "predict with --no-postprocessing, or use the AutoSpine version that made it"
            )

    @property
    def cleaned_classes(self) -> tuple[str, ...]:
        """Names of the classes to which something is done."""
        return tuple(one.name for one in self.classes if one.cleanup != Cleanup())

    def apply(self, labels: LabelArray, spacing_mm: Vector3) -> LabelArray:
        """A cleaned copy of a label map; the map itself where nothing is to be done.

        Args:
            labels: the dataset's integers.
            spacing_mm: of the map's voxels.
        """
        cleanups = {one.integer: one.cleanup for one in self.classes if one.cleanup != Cleanup()}
        if not cleanups:
            return labels
        filling = frozenset(integer for integer, cleanup in cleanups.items() if cleanup.fill_holes)
        cleaned = _filled(labels, filling) if filling else labels.copy()
        pieces = _find_pieces(cleaned)
        kept = np.ones(len(pieces.sizes), dtype=bool)
        for integer, cleanup in cleanups.items():
            own = pieces.integers == integer
            kept[own] = _kept(pieces.sizes[own], cleanup, spacing_mm)
        cleaned.reshape(-1)[pieces.voxels[~kept[pieces.piece]]] = 0
        return cleaned


def read_postprocessing(folder: Path) -> Postprocessing | None:
    """The cleanup in a model folder; None if cross-validation has left none.

    Raises:
        FormatError: if it is damaged or of another version.
    """
    path = folder / POSTPROCESSING
    return read_json(path, Postprocessing) if path.is_file() else None


def try_cleanups(
    prediction: LabelArray, reference: LabelArray, labels: LabelSpace, spacing_mm: Vector3
) -> Trial:
    """Overlap of a prediction with its reference after each candidate.

    The map is cut into pieces once with its holes and once without; what a candidate keeps of them is then a
    matter of adding up.

    Args:
        prediction: the dataset's integers.
        reference: likewise; voxels to be ignored do not count.
        labels: without regions.
        spacing_mm: of both maps.
    """
    counted = None if labels.ignore is None else reference != labels.ignore
    present = _present(reference, labels)
    filled = _filled(prediction, frozenset(labels.integers))
    tables = {
        fill: _piece_tables(part, reference, counted) for fill, part in ((False, prediction), (True, filled))
    }
    return tuple(
        tuple(
            _counts(tables[cleanup.fill_holes].get(integer, _NOTHING), present[integer], cleanup, spacing_mm)
            for integer in labels.painted
        )
        for cleanup in CANDIDATES
    )


def choose(trials: Sequence[Trial], labels: LabelSpace) -> Postprocessing:
    """For each class the candidate that helps most, or none.

    A candidate helps if the mean Dice gains at least `LEAST_GAIN` and `STANDARD_ERRORS` of its standard
    errors (over the cases, in pairs), and no case loses more than `WORST_LOSS`.

    Args:
        trials: of the held-out cases.
        labels: those that the trials were made with.
    """
    return Postprocessing(
        format_version=FORMAT_VERSION,
        n_cases=len(trials),
        classes=tuple(
            _choose_for_class(name, integer, [[counts[index] for counts in trial] for trial in trials])
            for index, (name, integer) in enumerate(zip(labels.names, labels.painted, strict=True))
        ),
    )


def cleaned_counts(trial: Trial, chosen: Postprocessing) -> tuple[Counts, ...]:
    """What a case's overlap is after a cleanup, of each class."""
    return tuple(trial[CANDIDATES.index(one.cleanup)][index] for index, one in enumerate(chosen.classes))


def held_out_counts(
    trials: Mapping[str, Trial], folds: Iterable[Sequence[str]], labels: LabelSpace
) -> dict[str, tuple[Counts, ...]]:
    """Of each case its overlap after the cleanup that the other folds' cases choose.

    A cleanup chosen by the cases that it is then measured on looks better than it is.

    Args:
        trials: by case.
        folds: the cases of each fold, all of them tried.
        labels: those that the trials were made with.
    """
    found: dict[str, tuple[Counts, ...]] = {}
    for fold in folds:
        chosen = choose([trial for name, trial in trials.items() if name not in fold], labels)
        found |= {name: cleaned_counts(trials[name], chosen) for name in fold}
    return found


class _Pieces(NamedTuple):
    """The foreground of a label map, voxels of one integer that hang together in one piece."""

    voxels: np.ndarray
    """Flat indices of the foreground."""

    piece: np.ndarray
    """Number of the piece that each of them belongs to."""

    integers: np.ndarray
    """Of each piece; 0 where a number is not used."""

    sizes: np.ndarray
    """Voxels of each piece."""

    numbers: np.ndarray
    """The map of pieces, 0 where there is background."""


class _PieceTable(NamedTuple):
    """The pieces of one integer, as arrays."""

    size: np.ndarray
    """Voxels of each."""

    predicted: np.ndarray
    """Those that count."""

    hits: np.ndarray
    """Those of them that are the integer in the reference too."""


_NOTHING = _PieceTable(*(np.zeros(0, dtype=np.int64),) * 3)


def _choose_for_class(name: str, integer: int, cases: Sequence[Sequence[Counts]]) -> ClassCleanup:
    """Args: `cases` holds of each case the overlap after each candidate."""
    dice = np.asarray([[counts.dice for counts in case] for case in cases]).reshape(-1, len(CANDIDATES))
    dice = dice[~np.isnan(dice[:, 0])]
    dice[np.isnan(dice)] = 1.0  # gone where it should not be
    gains = [_gain(dice[:, index] - dice[:, 0]) for index in range(len(CANDIDATES))]
    best = int(np.argmax(gains))
    return ClassCleanup(
        name=name,
        integer=integer,
        cleanup=CANDIDATES[best],
        n_cases=len(dice),
        dice_before=round(float(dice[:, 0].mean()), 6) if len(dice) else None,
        dice_after=round(float(dice[:, best].mean()), 6) if len(dice) else None,
    )


def _gain(differences: np.ndarray) -> float:
    """The mean, or 0 where it is not to be trusted."""
    if len(differences) < FEWEST_CASES or differences.min() < -WORST_LOSS:
        return 0.0
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return mean if mean >= max(LEAST_GAIN, STANDARD_ERRORS * error) else 0.0


def _counts(table: _PieceTable, present: int, cleanup: Cleanup, spacing_mm: Vector3) -> Counts:
    kept = _kept(table.size, cleanup, spacing_mm)
    hits, predicted = int(table.hits[kept].sum()), int(table.predicted[kept].sum())
    return Counts(tp=hits, fp=predicted - hits, fn=present - hits)


def _kept(sizes: np.ndarray, cleanup: Cleanup, spacing_mm: Vector3) -> np.ndarray:
    """Which of a class's pieces stay; of two largest the first."""
    kept: np.ndarray = sizes * math.prod(spacing_mm) >= cleanup.least_mm3
    if cleanup.keep_largest and len(sizes):
        kept &= np.arange(len(sizes)) == np.argmax(sizes)
    return kept


def _present(reference: LabelArray, labels: LabelSpace) -> dict[int, int]:
    """Voxels of each integer of the label space in a reference."""
    values, counts = np.unique(reference, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return {integer: found.get(integer, 0) for integer in labels.integers}


def _piece_tables(
    prediction: LabelArray, reference: LabelArray, counted: MaskArray | None
) -> dict[int, _PieceTable]:
    """The pieces of each integer, measured against the reference; `counted` is where voxels count."""
    pieces = _find_pieces(prediction)
    true = reference.reshape(-1)[pieces.voxels]
    counts = slice(None) if counted is None else counted.reshape(-1)[pieces.voxels]
    right = true == pieces.integers[pieces.piece]
    n = len(pieces.sizes)
    predicted = np.bincount(pieces.piece[counts], minlength=n)
    hits = np.bincount(pieces.piece[right], minlength=n)
    tables = {}
    for integer in np.unique(pieces.integers).tolist():
        own = pieces.integers == integer
        tables[integer] = _PieceTable(size=pieces.sizes[own], predicted=predicted[own], hits=hits[own])
    return tables


def _filled(labels: LabelArray, integers: frozenset[int]) -> LabelArray:
    """A copy in which background that a piece of these integers encloses belongs to it.

    Of several pieces around it the innermost counts, whatever its integer: so what is filled of one integer
    does not depend on which others are filled.
    """
    filled = labels.copy()
    pieces = _find_pieces(labels)
    boxes = ndimage.find_objects(pieces.numbers)
    large = np.flatnonzero(pieces.sizes >= _LEAST_SHELL).tolist()
    # From the outside in: the box of what lies within is smaller.
    for number in sorted(large, key=lambda number: -_voxels(boxes[number - 1])):
        integer, box = int(pieces.integers[number]), boxes[number - 1]
        region, empty = filled[box], labels[box] == 0
        if integer in integers or np.any(region[empty]):
            enclosed = ndimage.binary_fill_holes(pieces.numbers[box] == number) & empty
            region[enclosed] = integer if integer in integers else 0
    return filled


def _voxels(box: tuple[slice, ...]) -> int:
    return math.prod(span.stop - span.start for span in box)


def _find_pieces(labels: LabelArray) -> _Pieces:
    """Cut a label map into its pieces.

    Foreground that hangs together is found first, whatever its integers: it takes little time and memory, and
    most of what is stray is of one integer and finished with. Only what holds several is looked at again, in
    its own box.
    """
    foreground = labels != 0
    numbers, n = ndimage.label(foreground, _NEIGHBOURS)
    voxels = np.flatnonzero(foreground)
    values, cluster = labels.reshape(-1)[voxels], numbers.reshape(-1)[voxels]
    some = np.zeros(n + 1, dtype=labels.dtype)
    some[cluster] = values
    mixed = np.unique(cluster[some[cluster] != values]).tolist()
    boxes = ndimage.find_objects(numbers) if mixed else []
    for index in mixed:
        region = numbers[boxes[index - 1]]
        inside = region == index
        parts = label(np.where(inside, labels[boxes[index - 1]], 0), background=0, connectivity=3)  # type: ignore[no-untyped-call]
        region[inside] = parts[inside] + n
        n += int(parts.max())
    piece = numbers.reshape(-1)[voxels]
    integers = np.zeros(n + 1, dtype=labels.dtype)
    integers[piece] = values
    sizes = np.bincount(piece, minlength=n + 1)
    return _Pieces(voxels=voxels, piece=piece, integers=integers, sizes=sizes, numbers=numbers)
