"""Signs that a label map has another scheme than the one that was stated.

Integers alone seldom tell: 25 and 27 to 31 are the sacrum and L5 to L1 in TotalSegmentator's labels, and L6,
T13 and segments of the sacrum in VerSe's. Where they lie does: the levels of a spine are a run of neighbours
from the head down, as far apart as such levels are.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from autospine.core.errors import listed
from autospine.core.geometry import Grid
from autospine.core.types import LabelArray
from autospine.vertebrae.levels import INDEX, LEVELS, SACRUM, UNUSUAL
from autospine.vertebrae.proportions import STEPS_MM
from autospine.vertebrae.schemes import SCHEMES, LabelScheme

SAMPLED_MM = 2.0
"""Distance of the voxels by which the centre of a label is found."""

LEAST_LEVELS = 3
"""Levels, the sacrum among them, from which on there is an opinion."""

LEAST_SHARE = 0.85
"""Share of the levels between the first and the last that a run of neighbours has at least."""

UPWARDS = 0.6
"""Share of levels that lie above the level before them by which a scheme counts from the other end."""

STEP_RATIOS = (0.6, 1.5)
"""Median distance between neighbours, in parts of that of mean spines, that is still plausible. Right maps of
ten real scans have 0.77 to 1.03, since centres of whole vertebrae lie behind those of bodies, and spines are
0.74 to 1.3 times as large as the mean; lumbar vertebrae that are taken for cervical ones have 1.4 to 2."""


class SchemeDoubts(NamedTuple):
    """What speaks against a scheme, and the schemes that fit."""

    reasons: tuple[str, ...]
    """Signs of another scheme, in words."""

    fitting: tuple[str, ...]
    """Names of the schemes whose levels are a plausible spine in this map."""

    def in_words(self, scheme: LabelScheme, option: str = "--scheme") -> str | None:
        """Return the warning; None where nothing speaks against the scheme.

        Args:
            scheme: The scheme that was stated.
            option: Option of the command line that states another one.
        """
        if not self.reasons:
            return None
        others = f": they fit {', '.join(self.fitting)}; state it with {option}" if self.fitting else ""
        return f"its labels may be of another scheme than {scheme.name} ({'; '.join(self.reasons)}){others}"


class _LevelRun(NamedTuple):
    """The levels that a scheme reads in a map, as a spine."""

    levels: tuple[str, ...]
    """From the head down by their names."""

    share: float
    """Share of the levels from the first to the last that are there."""

    step: float | None
    """Median distance of neighbours in parts of that of a mean spine; None with fewer than two distances."""

    reversed: bool
    """Whether they run from the feet to the head by the header."""

    @property
    def plausible(self) -> bool:
        """Whether this may be a spine."""
        return len(self.levels) >= LEAST_LEVELS and not self.gaps and not self.misplaced and not self.reversed

    @property
    def gaps(self) -> bool:
        """Whether too many levels are missing."""
        return self.share < LEAST_SHARE

    @property
    def misplaced(self) -> bool:
        """Whether neighbours lie too near together or too far apart."""
        return self.step is not None and not STEP_RATIOS[0] <= self.step <= STEP_RATIOS[1]


def doubts_of_scheme(labels: LabelArray, grid: Grid, scheme: LabelScheme) -> SchemeDoubts:
    """Find out whether the levels that a scheme reads in a map may be a spine, and which schemes would fit.

    Missing and few levels, as in a map of a weak network or of a small field of view, speak against a scheme
    only where another one fits.

    Args:
        labels: (S, P, L) label values.
        grid: Grid of the map.
        scheme: The scheme that was stated.
    """
    centres = _label_centres(labels, grid)
    run = _run_of(scheme, centres)
    if run.plausible:
        return SchemeDoubts(reasons=(), fitting=())
    fitting = _fitting(centres)
    reasons = []
    if fitting and len(run.levels) < LEAST_LEVELS:
        few = f" but {listed(run.levels)}" if run.levels else ""
        reasons.append(f"no level{few} is read by it")
    elif fitting and run.gaps:
        reasons.append(f"{listed(run.levels, 6)} are no neighbours")
    if run.misplaced:
        reasons.append(
            f"neighbours lie {run.step:.1f} times as far apart as {run.levels[0]} and those below do"
        )
    if run.reversed:
        reasons.append("it counts from the other end, unless the header has exchanged head and feet")
    return SchemeDoubts(reasons=tuple(reasons), fitting=fitting if reasons else ())


def fitting_schemes(labels: LabelArray, grid: Grid) -> tuple[str, ...]:
    """Return the schemes that have every integer of a map (S, P, L), and whose levels may be its spine."""
    return _fitting(_label_centres(labels, grid))


def _fitting(centres_mm: Mapping[int, Float64[np.ndarray, "3"]]) -> tuple[str, ...]:
    return tuple(
        scheme.name
        for scheme in SCHEMES.values()
        if not set(centres_mm) - set(scheme.structures(centres_mm)) - scheme.beside
        and _run_of(scheme, centres_mm).plausible
    )


def _run_of(scheme: LabelScheme, centres_mm: Mapping[int, Float64[np.ndarray, "3"]]) -> _LevelRun:
    """Return the levels that a scheme reads in a map."""
    named = scheme.structures(centres_mm)
    found = {
        named[integer].removeprefix("cut_"): centre
        for integer, centre in centres_mm.items()
        if integer in named
    }
    levels = tuple(level for level in LEVELS if level in found)
    if not levels:
        return _LevelRun(levels=(), share=1.0, step=None, reversed=False)
    between = [
        level
        for level in LEVELS[INDEX[levels[0]] : INDEX[levels[-1]] + 1]
        if level not in UNUSUAL or level in found
    ]
    below = dict(pairwise(between))
    steps = [
        float(np.linalg.norm(found[lower] - found[upper])) / _usual_step_mm(upper)
        for upper, lower in pairwise(levels)
        if below[upper] == lower and lower != SACRUM
    ]
    rising = [found[lower][2] > found[upper][2] for upper, lower in pairwise(levels)]
    return _LevelRun(
        levels=levels,
        share=len(levels) / len(between),
        step=float(np.median(steps)) if len(steps) >= LEAST_LEVELS - 1 else None,
        reversed=len(levels) >= LEAST_LEVELS and float(np.mean(rising)) > UPWARDS,
    )


def _usual_step_mm(level: str) -> float:
    """Return the mean distance from a level to the next below."""
    return STEPS_MM[{"T13": "T12", "L6": "L5"}.get(level, level)]


def _label_centres(labels: LabelArray, grid: Grid) -> dict[int, Float64[np.ndarray, "3"]]:
    """Return the centre (x, y, z) in mm of LPS of each label value but 0, by voxels `SAMPLED_MM` apart."""
    steps = [max(1, int(SAMPLED_MM / spacing)) for spacing in grid.spacing_mm]
    thinned = labels[tuple(slice(None, None, step) for step in steps)]
    indices = np.argwhere(thinned)
    values, places = np.unique(thinned[tuple(indices.T)], return_inverse=True)
    counts = np.bincount(places, minlength=len(values))
    sums = [np.bincount(places, weights=axis, minlength=len(values)) for axis in indices.T]
    centres = grid.physical(np.stack(sums, axis=1) / counts[:, None] * steps)
    return dict(zip(values.tolist(), centres, strict=True))
