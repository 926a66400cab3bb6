"""The levels of a spine from the head down, and the spines that people have.

Most people have seven cervical, twelve thoracic and five lumbar vertebrae. One thoracic or lumbar vertebra
more or less occurs in some per cent of people each, and so does a vertebra that belongs to the other region.
"""

import math
from dataclasses import dataclass
from itertools import product

from autospine.core.labels import VERTEBRAE

SACRUM = "sacrum"

LEVELS: tuple[str, ...] = (*VERTEBRAE, SACRUM)
"""Every level in anatomical order; T13 and L6 stand in their place, and the sacrum at the end."""

INDEX: dict[str, int] = {level: index for index, level in enumerate(LEVELS)}
"""Position of each level in `LEVELS`."""

UNUSUAL = ("T13", "L6")
"""Levels that few people have."""

LAST_THORACIC: dict[str, float] = {"T11": 0.015, "T12": 0.97, "T13": 0.015}
LAST_LUMBAR: dict[str, float] = {"L4": 0.03, "L5": 0.92, "L6": 0.05}
"""Share of people with this last vertebra. Published shares of each variant lie between 1 and 10 %, by the
population and by what counts as a rib or as sacral (Tins and Balain, Insights into Imaging 7, 2016)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpineVariant:
    """The levels that one kind of spine has."""

    levels: tuple[str, ...]
    """Levels from C1 to the sacrum."""

    log_prior: float
    """Logarithm of the share of people with such a spine."""


def _variant(last_thoracic: str, last_lumbar: str) -> SpineVariant:
    last = {"T": last_thoracic, "L": last_lumbar}
    kept = tuple(level for level in LEVELS if level[0] not in last or INDEX[level] <= INDEX[last[level[0]]])
    prior = LAST_THORACIC[last_thoracic] * LAST_LUMBAR[last_lumbar]
    return SpineVariant(levels=kept, log_prior=math.log(prior))


VARIANTS: tuple[SpineVariant, ...] = tuple(_variant(*last) for last in product(LAST_THORACIC, LAST_LUMBAR))
"""Every spine that is thought of."""
