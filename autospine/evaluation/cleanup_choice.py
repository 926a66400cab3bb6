"""Choice of the post-processing of each class by held-out cases."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product

import numpy as np
from jaxtyping import Float, Integer

from autospine.core.labels import LabelSpace
from autospine.evaluation.cleanup_trials import CaseTrial, CleanupEffect, CleanupRules
from autospine.evaluation.overlap import Confusion
from autospine.evaluation.postprocessing import FORMAT_VERSION, ClassCleanup, Cleanup, Postprocessing

VOLUMES_MM3 = (30.0, 100.0, 300.0, 1000.0, 3000.0)
"""Least volumes of a component that are tried; C1, the smallest vertebra, has about 10 000 mm^3."""

LEAST_GAIN = 0.001
"""Gain of the mean Dice, 0 to 1, below which a post-processing is not worth having."""

STANDARD_ERRORS = 2.0
"""Number of its own standard errors by which the mean gain must exceed zero."""

WORST_LOSS = 0.01
"""Largest loss of Dice, 0 to 1, that a single case may have, of the class and of the mean over classes."""

WORST_FOREGROUND_LOSS = 0.002
"""Largest loss, 0 to 1, of the Dice and of the recall of the foreground that a single case may have."""

FEWEST_CASES = 3
"""Number of cases below which a gain cannot be told from noise."""

_ROUNDING = 1e-9
"""Differences of means below this are errors of rounding."""

MOST_TO_BACKGROUND_MM3 = 3000.0
"""Largest component, in mm^3, that becomes background. C1, the smallest vertebra, has about 10 000 mm^3: what
is larger than a third of it may be bone by another name, however often its removal did no harm before."""

RIVAL_SHARE = 0.5
"""Share of the largest component's volume from which another one is kept beside it: neighbouring vertebrae
differ by less than a third, so that what is half as large or more may be a whole one of the right name."""

_REMOVALS = (
    *(Cleanup(least_mm3=volume, most_to_background_mm3=MOST_TO_BACKGROUND_MM3) for volume in VOLUMES_MM3),
    Cleanup(keep_largest=True, rival_share=RIVAL_SHARE, most_to_background_mm3=MOST_TO_BACKGROUND_MM3),
)

CANDIDATES: tuple[Cleanup, ...] = (
    *(Cleanup(), Cleanup(fill_holes=True)),
    *(
        variant
        for removal, fill in product(_REMOVALS, (False, True))
        for variant in (
            replace(removal, fill_holes=fill),
            replace(removal, fill_holes=fill, removed_to="neighbour"),
        )
    ),
)
"""The post-processings that are tried, of equal ones the preferred one first. The first does nothing."""

Measures = Float[np.ndarray, " M"]
"""Dice of each stored index from 1 on, then Dice and recall of the foreground; NaN where undefined."""

_Chosen = Integer[np.ndarray, " C"]
"""Place in `CANDIDATES` for each stored index from 1 on."""


class CleanupChoice:
    """Chooses post-processings by some or all of the held-out cases.

    What each candidate does to each class alone is found once. Combinations are scored when they are needed,
    and only in the cases in which something changes.

    Args:
        trials: Tables of each held-out case, by its name.
        labels: The label space that they were made with.
        predicted: Choice among the same cases as they were predicted, where something has been removed since:
            a class that is gone where it should not be counts as found. None if nothing was removed.
    """

    def __init__(
        self,
        trials: Mapping[str, CaseTrial],
        labels: LabelSpace,
        predicted: "CleanupChoice | None" = None,
    ) -> None:
        self._names, self._trials, self._labels = tuple(trials), tuple(trials.values()), labels
        self._n_classes = len(labels.integers)
        nothing = _rules(self._nothing())
        base = [measure(trial.confusion(nothing)) for trial in self._trials]
        self._base = np.asarray(base).reshape(-1, self._n_classes + 2)
        if predicted is not None:
            self._base = _with_gone(self._base, predicted._base)
        self._effects = np.zeros((len(base), self._n_classes, len(CANDIDATES)), dtype=np.int64)
        changes = [np.zeros(self._n_classes + 2)]
        for row, trial in enumerate(self._trials):
            for position in range(self._n_classes):
                self._try_alone(row, trial, position, changes)
        self._changes = np.stack(changes)
        self._combined: dict[bytes, Measures] = {}

    def choose(self, left_out: Collection[str] = ()) -> Postprocessing:
        """Choose a post-processing by all cases but those that are left out.

        A candidate of a class is eligible if

        - the class gains `LEAST_GAIN` and `STANDARD_ERRORS` of its standard errors of the mean Dice (over the
          cases, in pairs), in at least `FEWEST_CASES` cases;
        - neither the mean class Dice nor the mean Dice and recall of the foreground fall;
        - no case loses more than `WORST_LOSS` of the class's Dice or of its mean over the classes, or more
          than `WORST_FOREGROUND_LOSS` of the Dice or recall of its foreground.

        Of all classes and candidates, the one with the largest gain of the mean class Dice comes first. Each
        further one is added if it is eligible together with those before it: gains and means are compared
        with theirs, the losses of single cases with no post-processing at all.
        """
        rows = self._rows(left_out)
        chosen, base = self._nothing(), self._base[rows]
        before = base
        for position, candidate in self._ranked(rows):
            if chosen[position]:
                continue
            wanted = chosen.copy()
            wanted[position] = candidate
            changed = self._effects[rows, position, candidate] > 0
            after = before.copy()
            after[changed] = self._measured(rows[changed], wanted)
            if self._is_eligible(base, before, after, position):
                chosen, before = wanted, after
        return self._described(chosen, base, before)

    def unchanged(self, left_out: Collection[str] = ()) -> Postprocessing:
        """Return the post-processing that does nothing, with the measures of all cases but some."""
        base = self._base[self._rows(left_out)]
        return self._described(self._nothing(), base, base)

    def measures(self, left_out: Collection[str] = ()) -> Float[np.ndarray, "N M"]:
        """Return the measures of all cases but some without post-processing: a row of `Measures` each."""
        measures: np.ndarray = self._base[self._rows(left_out)]
        return measures

    def confusion(self, name: str, chosen: Postprocessing) -> Confusion:
        """Return the voxels of a case by index in the reference and after a post-processing."""
        by_integer = {each.integer: each.cleanup for each in chosen.classes}
        rules = CleanupRules.of([by_integer[integer] for integer in self._labels.integers])
        return self._trials[self._names.index(name)].confusion(rules)

    def _rows(self, left_out: Collection[str]) -> Integer[np.ndarray, " N"]:
        return np.asarray([row for row, name in enumerate(self._names) if name not in left_out], dtype=int)

    def _nothing(self) -> _Chosen:
        return np.zeros(self._n_classes, dtype=np.int64)

    def _try_alone(self, row: int, trial: CaseTrial, position: int, changes: list[Measures]) -> None:
        """Add what each candidate of a class changes in a case, and note its number; 0 for nothing."""
        known: dict[CleanupEffect | None, int] = {None: 0}
        for candidate, cleanup in enumerate(CANDIDATES):
            effect = trial.effect(position + 1, cleanup)
            if effect not in known:
                alone = self._nothing()
                alone[position] = candidate
                after = _with_gone(measure(trial.confusion(_rules(alone))), self._base[row])
                known[effect] = len(changes)
                changes.append(np.nan_to_num(after - self._base[row]))
            self._effects[row, position, candidate] = known[effect]

    def _ranked(self, rows: Integer[np.ndarray, " N"]) -> list[tuple[int, int]]:
        """Return the classes and candidates that help alone, the largest gain of all classes first."""
        ranked = []
        n, occurs = self._n_classes, ~np.isnan(self._base[rows])
        weights = occurs / np.maximum(occurs.sum(axis=0), 1)
        for position, candidate in product(range(n), range(1, len(CANDIDATES))):
            numbers = self._effects[rows, position, candidate]
            if not numbers.any():
                continue
            change = self._changes[numbers]
            if trusted_gain(change[occurs[:, position], position]) > 0:
                gains = (change * weights).sum(axis=0)
                order = (-round(gains[:n].sum(), 9), -round(gains[n], 9), candidate, position)
                ranked.append((order, (position, candidate)))
        return [place for _, place in sorted(ranked)]

    def _measured(self, rows: Integer[np.ndarray, " N"], chosen: _Chosen) -> Float[np.ndarray, "N M"]:
        """Measure cases after a combination, each once for all combinations that do the same to it."""
        measures, rules = [], _rules(chosen)
        # Numbers of effects belong to one case each, so that they stand for the case as well.
        effects = self._effects[rows[:, None], np.arange(self._n_classes), chosen]
        for row, effect in zip(rows.tolist(), effects, strict=True):
            key = effect.tobytes()
            if key not in self._combined:
                after = measure(self._trials[row].confusion(rules))
                self._combined[key] = _with_gone(after, self._base[row])
            measures.append(self._combined[key])
        return np.asarray(measures)

    def _is_eligible(
        self,
        base: Float[np.ndarray, "N M"],
        before: Float[np.ndarray, "N M"],
        after: Float[np.ndarray, "N M"],
        position: int,
    ) -> bool:
        """Return whether a candidate may be added; the rule is that of `choose`.

        Args:
            base: Measures of each case without post-processing.
            before: Measures after the post-processing that has been chosen so far.
            after: Measures with the candidate.
            position: Class of the candidate.
        """
        n, occurs = self._n_classes, ~np.isnan(base)
        gained, lost = np.where(occurs, after - before, 0.0), np.where(occurs, base - after, 0.0)
        means = gained.sum(axis=0) / np.maximum(occurs.sum(axis=0), 1)
        lost_by_case = lost[:, :n].sum(axis=1) / np.maximum(occurs[:, :n].sum(axis=1), 1)
        return bool(
            trusted_gain(gained[occurs[:, position], position]) > 0
            and means[:n].sum() >= -_ROUNDING
            and means[n:].min() >= -_ROUNDING
            and lost[:, position].max(initial=0.0) <= WORST_LOSS + _ROUNDING
            and lost_by_case.max(initial=0.0) <= WORST_LOSS + _ROUNDING
            and lost[:, n:].max(initial=0.0) <= WORST_FOREGROUND_LOSS + _ROUNDING
        )

    def _described(
        self, chosen: _Chosen, base: Float[np.ndarray, "N M"], after: Float[np.ndarray, "N M"]
    ) -> Postprocessing:
        before_by_measure, after_by_measure = _means(base), _means(after)
        order = [self._labels.integers.index(integer) for integer in self._labels.painted]
        return Postprocessing(
            format_version=FORMAT_VERSION,
            n_cases=len(base),
            classes=tuple(
                ClassCleanup(
                    name=name,
                    integer=integer,
                    cleanup=CANDIDATES[chosen[position]],
                    n_cases=int(np.count_nonzero(~np.isnan(base[:, position]))),
                    dice_before=before_by_measure[position],
                    dice_after=after_by_measure[position],
                )
                for name, integer, position in zip(
                    self._labels.names, self._labels.painted, order, strict=True
                )
            ),
            foreground_dice_before=before_by_measure[-2],
            foreground_dice_after=after_by_measure[-2],
            foreground_recall_before=before_by_measure[-1],
            foreground_recall_after=after_by_measure[-1],
        )


def measure(confusion: Confusion) -> Measures:
    """Return the Dice of each class, and the Dice and the recall of the foreground; NaN where undefined."""
    hits, predicted, present = np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    found, marked, true = confusion[1:, 1:].sum(), predicted[1:].sum(), present[1:].sum()
    parts = np.asarray([*(2 * hits[1:]), 2 * found, found], dtype=np.float64)
    wholes = np.asarray([*(predicted + present)[1:], marked + true, true], dtype=np.float64)
    measures: np.ndarray = np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)
    return measures


def _rules(chosen: _Chosen) -> CleanupRules:
    return CleanupRules.of([CANDIDATES[candidate] for candidate in chosen.tolist()])


def _with_gone(
    after: Float[np.ndarray, "*N M"], base: Float[np.ndarray, "*N M"]
) -> Float[np.ndarray, "*N M"]:
    """Return measures in which what is gone where it should not be counts as 1."""
    return np.where(np.isnan(after) & ~np.isnan(base), 1.0, after)


def trusted_gain(differences: Float[np.ndarray, " N"]) -> float:
    """Return the mean difference of Dice over the cases, or 0 where it is not to be trusted."""
    if len(differences) < FEWEST_CASES:
        return 0.0
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return mean if mean >= max(LEAST_GAIN, STANDARD_ERRORS * error) else 0.0


def _means(measures: Float[np.ndarray, "N M"]) -> list[float | None]:
    """Return the mean of each measure over the cases where it is defined; None if there are none."""
    defined = [column[~np.isnan(column)] for column in measures.T]
    return [round(float(column.mean()), 6) if len(column) else None for column in defined]
