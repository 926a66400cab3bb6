"""The most probable level of each vertebra of a spine, with its probability.

A spine is thought of as one of some kinds (`VARIANTS`) and of some size; given these, the vertebrae that were
found are a chain from the head down. Each may be any level, or no vertebra at all; between two of them levels
may be missing. What speaks for a chain is added up: the evidence of each vertebra, its size, the distances,
what is missing, and how much of the spine was in view. None of it can rule a chain out alone, since each
density has a floor. The sums over all chains, kinds and sizes (forward and backward, Rabiner 1989) give the
probability of each level for each vertebra, and the best chain of the most probable spine the names.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from autospine.vertebrae.levels import INDEX, LEVELS, SACRUM, VARIANTS, SpineVariant
from autospine.vertebrae.proportions import (
    ANY_TILT_DEGREES,
    EXTENT_SPREAD,
    LOG_EXTENT_OUTLIER,
    LOG_MISSED,
    LOG_OUTLIER,
    POSITION_ERROR_MM,
    SIZES,
    SPREAD,
    STEPS_MM,
    TILT_SPREAD_DEGREES,
    TILTS_DEGREES,
    TRUST,
    by_variant,
    log_size_prior,
    places_mm,
)

REACH = 5
"""Neighbours down the chain among which the next vertebra is looked for: fewer false ones lie in between."""

CUT_LUMBAR = 0.8
"""Share of the views that end above the last lumbar vertebra which end among the lumbar ones."""

CLUTTER_MM = 100.0
"""Length along the spine over which false hits are spread."""

TILT_FLOOR = 0.05
"""Least that the angle to the next centre makes of a chain's probability."""

TEMPER = 0.85
"""Exponent of everything that speaks for a chain: where the count is off by one all vertebrae of a scan are
wrong together, so that what speaks for each of them is not independent. Of the values from 0.7 to 1 it is the
one at which the probabilities of 150 real scans were nearest to how often the names were right."""

LOG_PARTLY = math.log(0.02)
"""Logarithm of the chance that nothing was looked for beyond what was found, as in a map of chosen vertebrae:
however much room there is, it has no veto."""

STATED = 20.0
"""Evidence of a level that a person states."""

TINY = 1e-300
"""Smallest sum whose logarithm is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundVertebrae:
    """Vertebrae that were found of a spine, from the head down."""

    positions_mm: Float64[np.ndarray, "n 3"]
    """Centres."""

    evidence: Float64[np.ndarray, "n modes levels"]
    """Logarithm of how much likelier what was seen is at each of `LEVELS` than where there is no vertebra, in
    each mode that what has seen it can be in: a tool that miscounts does so from some level on."""

    extents_mm: Float64[np.ndarray, " n"]
    """A measure of each one's size, NaN where there is none."""

    expected_mm: Float64[np.ndarray, "variants levels"]
    """The same measure of each level in each of `VARIANTS`, in a spine of mean size; NaN where unknown."""

    log_modes: Float64[np.ndarray, " modes"] = field(default_factory=lambda: np.zeros(1))
    """Logarithm of the prior of each mode at the first vertebra."""

    log_last_modes: Float64[np.ndarray, " modes"] = field(default_factory=lambda: np.zeros(1))
    """The same at the last one."""

    log_switch: float = 0.0
    """Logarithm of the probability that the mode changes between two vertebrae; unused with a single mode."""

    log_variants: Float64[np.ndarray, " variants"] = field(default_factory=lambda: np.zeros(len(VARIANTS)))
    """Logarithm of how much likelier what was seen of the whole is in each of `VARIANTS`."""

    cut: tuple[float, float] = (0.95, 0.12)
    """Probability that the view begins below C1, and that it ends above the last lumbar vertebra."""

    room_mm: tuple[float | None, float | None] = (None, None)
    """Length of the spine that was seen above the first and below the last of them; None if it is unknown.
    Levels that would fit there count as missed."""


def with_uppermost(found: FoundVertebrae, level: str | None) -> FoundVertebrae:
    """Return vertebrae of which a person has stated the level of the uppermost; the same ones for None."""
    if level is None:
        return found
    evidence = found.evidence.copy()
    evidence[0, :, INDEX[level]] += STATED
    return replace(found, evidence=evidence)


def unfit_statement(decoded: "Decoded", level: str | None) -> list[str]:
    """Return a note where the level that a person has stated of the uppermost vertebra fits no spine."""
    if level is None or decoded.levels[0] == level:
        return []
    return [f"the uppermost vertebra cannot be {level} with those that lie below it"]


class Decoded(NamedTuple):
    """The levels of a spine's vertebrae."""

    levels: tuple[str | None, ...]
    """Level of each one in the most probable chain; None if it is no vertebra."""

    probability: Float64[np.ndarray, "n levels"]
    """Probability of each level for each one; what is missing to 1 is that of no vertebra."""

    variant: SpineVariant
    """The kind of spine of that chain."""

    size: float
    """Size of the spine in parts of the mean."""


def decode(found: FoundVertebrae) -> Decoded:
    """Return the most probable level of each vertebra, and the probability of every level.

    Args:
        found: At least one vertebra.
    """
    chain = _Chain(found)
    forward, backward = chain.forward(), chain.backward()
    # Every chain has one first vertebra, so that these add up to the sum over all chains.
    starts = chain.first[None] + chain.emission + backward
    top = starts.max()
    by_spine = np.exp(starts - top).sum(axis=(0, 2, 3))
    probability = np.exp(forward + backward - top).sum(axis=(1, 2)) / by_spine.sum()
    spine = int(by_spine.argmax())
    return Decoded(
        levels=chain.best(spine),
        probability=probability,
        variant=VARIANTS[spine // len(SIZES)],
        size=float(SIZES[spine % len(SIZES)]),
    )


class _Spines(NamedTuple):
    """Tables of all spines that are thought of; `H` counts kinds times sizes."""

    places_mm: Float64[np.ndarray, "H levels"]
    """Distance of each level below C1; NaN for levels that a spine lacks."""

    log_prior: Float64[np.ndarray, " H"]

    mean_mm: Float64[np.ndarray, "H levels levels"]
    """Expected distance from each level to each below it."""

    spread_mm: Float64[np.ndarray, "H levels levels"]
    """Standard deviation of that distance."""

    tilt: Float64[np.ndarray, "H levels levels"]
    """Expected angle of the line to the next level, in degrees; NaN for levels that are no neighbours."""

    missed: Float64[np.ndarray, "H levels levels"]
    """Probability that all levels between two were missed; 0 where the second is not below the first."""


@cache
def _spines() -> _Spines:
    """Compute the tables once."""
    steps = by_variant(STEPS_MM)
    standard = np.stack([places_mm(*each) for each in zip(VARIANTS, steps, strict=True)])
    places = (standard[:, None] * SIZES[None, :, None]).reshape(-1, len(LEVELS))
    rank = np.cumsum(~np.isnan(places), axis=1).astype(float)
    prior = np.add.outer([variant.log_prior for variant in VARIANTS], log_size_prior()).reshape(-1)
    tilts = np.repeat(by_variant(TILTS_DEGREES), len(SIZES), axis=0)
    mean = places[:, None, :] - places[:, :, None]
    count = rank[:, None, :] - rank[:, :, None]
    possible = (mean > 0) & (count > 0)
    mean, count = np.where(possible, mean, 1.0), np.where(possible, count, 1.0)
    return _Spines(
        places_mm=places,
        log_prior=prior,
        mean_mm=mean,
        spread_mm=np.sqrt(SPREAD**2 * mean**2 / count + 2 * POSITION_ERROR_MM**2),
        tilt=np.where(possible & (count == 1), tilts[:, :, None], np.nan),
        missed=np.where(possible, np.exp(LOG_MISSED * (count - 1)), 0.0),
    )


class _Chain:
    """All chains of levels in every spine that is thought of."""

    def __init__(self, found: FoundVertebrae) -> None:
        self._found, self._spines = found, _spines()
        self._steps: dict[tuple[int, int], np.ndarray] = {}
        places = self._spines.places_mm
        above, below = found.room_mm
        absent = np.where(np.isnan(places), -np.inf, 0.0)
        first, last = (np.repeat(each, len(SIZES), axis=0) for each in _view(*found.cut))
        prior = self._spines.log_prior + np.repeat(found.log_variants, len(SIZES))
        start = prior[:, None] + first + absent + _left_out(places, above, -1)
        self.first = TEMPER * (start[:, None, :] + found.log_modes[None, :, None])
        end = last + absent + _left_out(places, below, 1)
        self.last = TEMPER * (end[:, None, :] + found.log_last_modes[None, :, None])
        self.emission = TEMPER * (found.evidence[:, None] + self._extent_fit()[:, :, None])
        modes = len(found.log_modes)
        changed = np.exp(found.log_switch) / max(modes - 1, 1)
        self._switch = np.where(np.eye(modes, dtype=bool), 1 - (modes - 1) * changed, changed) ** TEMPER

    def _extent_fit(self) -> Float64[np.ndarray, "n H levels"]:
        """Return the logarithm of how well each vertebra's own size fits each level, against any size."""
        found = self._found
        expected = np.log(found.expected_mm)[:, None] + np.log(SIZES)[None, :, None]
        expected = expected.reshape(-1, len(LEVELS))
        off = (np.log(found.extents_mm)[:, None, None] - expected[None]) / EXTENT_SPREAD
        density = np.exp(-0.5 * off**2) / (EXTENT_SPREAD * np.sqrt(2 * np.pi)) + np.exp(LOG_EXTENT_OUTLIER)
        return np.where(np.isnan(off), 0.0, TRUST * np.log(density))

    def _step(self, i: int, j: int) -> Float64[np.ndarray, "H levels levels"]:
        """Return the density of the distance between two vertebrae for each pair of levels."""
        if (i, j) not in self._steps:
            _, _, mean, spread, tilt, missed = self._spines
            line = self._found.positions_mm[j] - self._found.positions_mm[i]
            off = (float(np.linalg.norm(line)) - mean) / spread
            density = np.exp(-0.5 * off * off) / (spread * np.sqrt(2 * np.pi))
            fit = CLUTTER_MM * (density + np.exp(LOG_OUTLIER)) * _tilt_fit(line, tilt)
            self._steps[i, j] = (missed * fit**TRUST) ** TEMPER
        return self._steps[i, j]

    def forward(self) -> Float64[np.ndarray, "n H modes levels"]:
        """Return the logarithm of the sum over all chains down to each vertebra at each level."""
        sums: np.ndarray = np.empty_like(self.emission)
        for j in range(len(sums)):
            parts = [self.first]
            for i in range(max(0, j - REACH), j):
                parts.append(_through(sums[i], self._step(i, j), self._switch))
            sums[j] = self.emission[j] + _summed(parts)
        return sums

    def backward(self) -> Float64[np.ndarray, "n H modes levels"]:
        """Return the logarithm of the sum over all chains on from each vertebra at each level."""
        sums: np.ndarray = np.empty_like(self.emission)
        for i in reversed(range(len(sums))):
            parts = [self.last]
            for j in range(i + 1, min(len(sums), i + 1 + REACH)):
                step = self._step(i, j).transpose(0, 2, 1)
                parts.append(_through(self.emission[j] + sums[j], step, self._switch))
            sums[i] = _summed(parts)
        return sums

    def best(self, spine: int) -> tuple[str | None, ...]:
        """Return the levels of the best chain in one spine (Viterbi 1967)."""
        n, modes, levels = len(self.emission), len(self._switch), len(LEVELS)
        score, before = np.empty((n, modes * levels)), np.full((n, modes * levels, 2), -1)
        switch = np.log(np.maximum(self._switch, TINY))
        for j in range(n):
            score[j] = self.first[spine].reshape(-1)
            for i in range(max(0, j - REACH), j):
                step = np.log(np.maximum(self._step(i, j)[spine], TINY))
                ways = score[i][:, None] + (switch[:, None, :, None] + step[None, :, None]).reshape(
                    modes * levels, -1
                )
                source, best = ways.argmax(axis=0), ways.max(axis=0)
                better = best > score[j]
                score[j] = np.where(better, best, score[j])
                before[j][better] = np.stack([np.full_like(source, i), source], axis=1)[better]
            score[j] += self.emission[j, spine].reshape(-1)
        end = score + self.last[spine].reshape(-1)
        at, state = (int(index) for index in np.unravel_index(end.argmax(), end.shape))
        names: list[str | None] = [None] * n
        while at >= 0:
            names[at] = LEVELS[state % levels]
            at, state = before[at, state].tolist()
        return tuple(names)


def _tilt_fit(
    line_mm: Float64[np.ndarray, "3"], tilt: Float64[np.ndarray, "H levels levels"]
) -> Float64[np.ndarray, "H levels levels"]:
    """Return how much likelier a line to the next centre is between two levels than between any."""
    angle = float(np.degrees(np.arctan2(line_mm[1], -line_mm[2])))
    off, any_off = (angle - tilt) / TILT_SPREAD_DEGREES, angle / ANY_TILT_DEGREES
    ratio = np.exp(0.5 * (any_off**2 - off * off)) * ANY_TILT_DEGREES / TILT_SPREAD_DEGREES
    return np.where(np.isnan(tilt), 1.0, np.clip(ratio, TILT_FLOOR, None))


def _through(
    sums: Float64[np.ndarray, "H modes levels"],
    step: Float64[np.ndarray, "H levels levels"],
    switch: Float64[np.ndarray, "modes modes"],
) -> Float64[np.ndarray, "H modes levels"]:
    """Return the logarithm of the sums after a step."""
    top = sums.max(axis=(1, 2), keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    return np.asarray(np.log(np.maximum(switch @ (np.exp(sums - top) @ step), TINY)) + top)


def _summed(parts: list[np.ndarray]) -> Float64[np.ndarray, "H modes levels"]:
    return np.asarray(np.logaddexp.reduce(np.broadcast_arrays(*parts)))


def _left_out(places: np.ndarray, room_mm: float | None, towards: int) -> Float64[np.ndarray, "H levels"]:
    """Return the logarithm of the chance that what fits into the room above (-1) or below (1) each level was
    left out; 0 where the room is unknown.
    """
    if room_mm is None:
        return np.zeros_like(places)
    away = towards * (places[:, None, :] - places[:, :, None])
    with np.errstate(invalid="ignore"):
        fitting = np.sum((away > 0) & (away < room_mm), axis=2)
    return np.asarray(np.maximum(LOG_MISSED * fitting, LOG_PARTLY))


def _view(above: float, below: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms (variants, levels) of the priors of the first and the last level in view."""
    lumbar = np.array([level[0] == "L" for level in LEVELS])
    first = np.full((len(VARIANTS), len(LEVELS)), np.log(above / (len(LEVELS) - 1)))
    first[:, 0] = np.log1p(-above)
    spread = np.where(lumbar, CUT_LUMBAR / 4, (1 - CUT_LUMBAR) / (~lumbar).sum())
    last = np.tile(np.log(below * spread), (len(VARIANTS), 1))
    for row, variant in zip(last, VARIANTS, strict=True):
        row[[INDEX[variant.levels[-2]], INDEX[SACRUM]]] = np.log1p(-below)
    return first, last
