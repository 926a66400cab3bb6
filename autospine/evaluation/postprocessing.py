"""Post-processing of predicted label maps: small connected components removed and holes filled.

Each class has its own post-processing, chosen among `CANDIDATES` by the Dice of held-out cases. The choice
follows the data, not the names of the structures: a class of many vertebrae loses Dice if only its largest
component is kept, so it keeps all of them.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

import cc3d
import fill_voids
import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy import ndimage

from autospine.core.errors import FormatError
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, MaskArray, Vector3
from autospine.evaluation.overlap import Counts
from autospine.storage.serialization import read_json, stored_as

FORMAT_VERSION = 1
POSTPROCESSING = "postprocessing.json"

VOLUMES_MM3 = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Least volumes of a component that are tried; C1, the smallest vertebra, has about 10 000 mm^3."""

LEAST_GAIN = 0.001
"""Gain of the mean Dice, 0 to 1, below which a post-processing is not worth having."""

STANDARD_ERRORS = 2.0
"""Number of its own standard errors by which the mean gain must exceed zero."""

WORST_LOSS = 0.01
"""Largest loss of Dice, 0 to 1, that a single case may have."""

FEWEST_CASES = 3
"""Number of cases below which a gain cannot be told from noise."""

_LEAST_SHELL = 6
"""Number of voxels that it takes to enclose one."""

_CONNECTIVITY: Final = 26
"""Voxels that share a corner belong to one component. Background that they enclose is connected by faces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleanup:
    """The post-processing of one class; its steps are applied in this order."""

    fill_holes: bool = False
    """Background that a component encloses becomes part of it, unless a component of another class that lies
    within encloses it more closely."""

    keep_largest: bool = False
    """All components but the largest become background."""

    least_mm3: float = 0.0
    """Components of a smaller volume, in mm^3, become background."""


CANDIDATES: tuple[Cleanup, ...] = tuple(
    replace(kept, fill_holes=fill)
    for fill, kept in product(
        (False, True),
        (Cleanup(), *(Cleanup(least_mm3=volume) for volume in VOLUMES_MM3), Cleanup(keep_largest=True)),
    )
)
"""The post-processings that are tried; the first does nothing."""

Trial = tuple[tuple[Counts, ...], ...]
"""Overlap in one case, by candidate and class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCleanup:
    """The post-processing of a class, and the Dice that it was chosen by."""

    name: str
    """Name of the class."""

    integer: int
    """Label value of the class on disk."""

    cleanup: Cleanup

    n_cases: int
    """Number of cases in which the class was predicted or present."""

    dice_before: float | None
    """Mean Dice over these cases without post-processing, 0 to 1; None if there are none."""

    dice_after: float | None
    """Mean Dice after it, 0 to 1; a class that is rightly removed from a case counts as 1 there."""


@stored_as("a post-processing", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class Postprocessing:
    """The content of `postprocessing.json`: the post-processing of every class of a model's predictions."""

    format_version: int
    n_cases: int
    """Number of held-out cases that it was chosen by."""

    classes: tuple[ClassCleanup, ...]
    """The classes in the order of the label space."""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise FormatError(
                f"expected {POSTPROCESSING} of format_version {FORMAT_VERSION}, found {self.format_version}; "
                "predict with --no-postprocessing, or use the AutoSpine version that made it"
            )

    @property
    def cleaned_classes(self) -> tuple[str, ...]:
        """Names of the classes that have a post-processing."""
        return tuple(each.name for each in self.classes if each.cleanup != Cleanup())

    def apply(self, labels: LabelArray, spacing_mm: Vector3) -> LabelArray:
        """Return a post-processed copy of a label map, or the map itself if no class has a post-processing.

        Args:
            labels: (S, P, L) label values of the dataset.
            spacing_mm: Voxel spacing along S, P and L.
        """
        cleanups = {each.integer: each.cleanup for each in self.classes if each.cleanup != Cleanup()}
        if not cleanups:
            return labels
        filling = frozenset(integer for integer, cleanup in cleanups.items() if cleanup.fill_holes)
        cleaned = _filled(labels, filling) if filling else labels.copy()
        components = _find_components(cleaned)
        kept = np.ones(len(components.sizes), dtype=bool)
        for integer, cleanup in cleanups.items():
            own = components.integers == integer
            kept[own] = _kept(components.sizes[own], cleanup, spacing_mm)
        cleaned.reshape(-1)[components.voxels[~kept[components.component]]] = 0
        return cleaned


def read_postprocessing(folder: Path) -> Postprocessing | None:
    """Read the post-processing in a model folder; None if cross-validation has left none.

    Raises:
        FormatError: If it is damaged or of another version.
    """
    path = folder / POSTPROCESSING
    return read_json(path, Postprocessing) if path.is_file() else None


def try_cleanups(
    prediction: LabelArray, reference: LabelArray, labels: LabelSpace, spacing_mm: Vector3
) -> Trial:
    """Count the overlap of a prediction with its reference after each candidate.

    Components are found once with their holes and once without; the overlap after a candidate is then the sum
    over the components that it keeps.

    Args:
        prediction: (S, P, L) label values of the dataset.
        reference: (S, P, L) label values; voxels to be ignored do not count.
        labels: The dataset's label space, without regions.
        spacing_mm: Voxel spacing of both maps along S, P and L.
    """
    counted = None if labels.ignore is None else reference != labels.ignore
    present = _present(reference, labels)
    filled = _filled(prediction, frozenset(labels.integers))
    tables = {
        fill: _component_tables(part, reference, counted)
        for fill, part in ((False, prediction), (True, filled))
    }
    return tuple(
        tuple(
            _counts(
                tables[cleanup.fill_holes].get(integer, _NO_COMPONENTS), present[integer], cleanup, spacing_mm
            )
            for integer in labels.painted
        )
        for cleanup in CANDIDATES
    )


def choose(trials: Sequence[Trial], labels: LabelSpace) -> Postprocessing:
    """Choose the candidate that helps each class most, or none.

    A candidate helps if the mean Dice gains at least `LEAST_GAIN` and `STANDARD_ERRORS` of its standard
    errors (over the cases, in pairs), and no case loses more than `WORST_LOSS`.

    Args:
        trials: Overlap of the held-out cases after each candidate.
        labels: The label space that the trials were made with.
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
    """Return a case's overlap after a post-processing, one entry for each class."""
    return tuple(trial[CANDIDATES.index(each.cleanup)][index] for index, each in enumerate(chosen.classes))


def held_out_counts(
    trials: Mapping[str, Trial], folds: Iterable[Sequence[str]], labels: LabelSpace
) -> dict[str, tuple[Counts, ...]]:
    """Return the overlap of each case after the post-processing that the other folds' cases choose.

    A post-processing chosen by the cases that it is then measured on looks better than it is.

    Args:
        trials: Overlap after each candidate, by case.
        folds: Names of the cases of each fold; each has a trial.
        labels: The label space that the trials were made with.
    """
    counts: dict[str, tuple[Counts, ...]] = {}
    for fold in folds:
        chosen = choose([trial for name, trial in trials.items() if name not in fold], labels)
        counts |= {name: cleaned_counts(trials[name], chosen) for name in fold}
    return counts


class _Components(NamedTuple):
    """The connected components of a label map: voxels of one label value that touch one another."""

    voxels: Integer[np.ndarray, " V"]
    """Flat indices of the foreground voxels."""

    component: Integer[np.ndarray, " V"]
    """Number, from 1 on, of the component that each foreground voxel belongs to."""

    integers: Integer[np.ndarray, " N"]
    """Label value of each component by its number; entry 0 stands for no component."""

    sizes: Integer[np.ndarray, " N"]
    """Number of voxels of each component; entry 0 is 0."""

    numbers: Integer[np.ndarray, "S P L"]
    """Number of the component of each voxel, 0 in the background."""


class _ComponentTable(NamedTuple):
    """The components of one label value: an entry for each."""

    size: Integer[np.ndarray, " N"]
    """Number of voxels."""

    predicted: Integer[np.ndarray, " N"]
    """Number of voxels that the reference does not ignore."""

    hits: Integer[np.ndarray, " N"]
    """Number of voxels that have the label value in the reference too."""


_NO_COMPONENTS = _ComponentTable(*(np.zeros(0, dtype=np.int64),) * 3)


def _choose_for_class(name: str, integer: int, cases: Sequence[Sequence[Counts]]) -> ClassCleanup:
    """Choose the candidate for one class.

    Args:
        name: Name of the class.
        integer: Label value of the class.
        cases: Overlap of the class in each case after each candidate.
    """
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


def _gain(differences: Float[np.ndarray, " N"]) -> float:
    """Return the mean difference of Dice, or 0 where it is not to be trusted."""
    if len(differences) < FEWEST_CASES or differences.min() < -WORST_LOSS:
        return 0.0
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return mean if mean >= max(LEAST_GAIN, STANDARD_ERRORS * error) else 0.0


def _counts(table: _ComponentTable, present: int, cleanup: Cleanup, spacing_mm: Vector3) -> Counts:
    kept = _kept(table.size, cleanup, spacing_mm)
    hits, predicted = int(table.hits[kept].sum()), int(table.predicted[kept].sum())
    return Counts(tp=hits, fp=predicted - hits, fn=present - hits)


def _kept(sizes: Integer[np.ndarray, " N"], cleanup: Cleanup, spacing_mm: Vector3) -> Bool[np.ndarray, " N"]:
    """Tell which of a class's components are kept; of two that are largest it is the first."""
    kept: np.ndarray = sizes * math.prod(spacing_mm) >= cleanup.least_mm3
    if cleanup.keep_largest and len(sizes):
        kept &= np.arange(len(sizes)) == np.argmax(sizes)
    return kept


def _present(reference: LabelArray, labels: LabelSpace) -> dict[int, int]:
    """Count the voxels of each label value of the label space in a reference."""
    values, counts = np.unique(reference, return_counts=True)
    by_value = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return {integer: by_value.get(integer, 0) for integer in labels.integers}


def _component_tables(
    prediction: LabelArray, reference: LabelArray, counted: MaskArray | None
) -> dict[int, _ComponentTable]:
    """Measure the components of each label value against the reference.

    Args:
        prediction: (S, P, L) label values.
        reference: (S, P, L) label values.
        counted: (S, P, L) mask of the voxels that count; None for all.
    """
    components = _find_components(prediction)
    true = reference.reshape(-1)[components.voxels]
    counts = slice(None) if counted is None else counted.reshape(-1)[components.voxels]
    right = true == components.integers[components.component]
    n = len(components.sizes)
    predicted = np.bincount(components.component[counts], minlength=n)
    hits = np.bincount(components.component[right], minlength=n)
    tables = {}
    for integer in np.unique(components.integers).tolist():
        own = components.integers == integer
        tables[integer] = _ComponentTable(
            size=components.sizes[own], predicted=predicted[own], hits=hits[own]
        )
    return tables


def _filled(labels: LabelArray, integers: frozenset[int]) -> LabelArray:
    """Return a copy in which background that a component of these label values encloses belongs to it.

    Of several components around it the innermost counts, whatever its label value: so the holes that are
    filled with one label value do not depend on which others are filled.
    """
    filled = labels.copy()
    components = _find_components(labels)
    boxes = ndimage.find_objects(components.numbers)
    large = np.flatnonzero(components.sizes >= _LEAST_SHELL).tolist()
    # From the outside in: the box of a component within another is smaller.
    for number in sorted(large, key=lambda number: -_volume(boxes[number - 1])):
        integer, box = int(components.integers[number]), boxes[number - 1]
        region, empty = filled[box], labels[box] == 0
        if integer in integers or np.any(region[empty]):
            enclosed = _without_holes(components.numbers[box] == number) & empty
            region[enclosed] = integer if integer in integers else 0
    return filled


def _without_holes(mask: MaskArray) -> MaskArray:
    """Return a copy of a mask with the background that it encloses."""
    # Without a rim of background fill_voids takes single voxels at the border for holes (2.1.2).
    whole: MaskArray = fill_voids.fill(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    return whole


def _volume(box: tuple[slice, ...]) -> int:
    return math.prod(span.stop - span.start for span in box)


def _find_components(labels: LabelArray) -> _Components:
    """Find the connected components of every label value in one pass, numbered by their first voxels."""
    # cc3d numbers voxels in the order of the memory, and takes no arrays that must not be written to (4.1.1).
    readable = np.require(labels, requirements=["C_CONTIGUOUS", "WRITEABLE"])
    numbers, n = cc3d.connected_components(readable, connectivity=_CONNECTIVITY, return_N=True)
    voxels = np.flatnonzero(labels)
    component = numbers.reshape(-1)[voxels]
    integers = np.zeros(n + 1, dtype=labels.dtype)
    integers[component] = labels.reshape(-1)[voxels]
    sizes = np.bincount(component, minlength=n + 1)
    return _Components(voxels=voxels, component=component, integers=integers, sizes=sizes, numbers=numbers)
