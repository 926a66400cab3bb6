"""The vertebrae of a dataset whose classes are levels."""

from collections.abc import Mapping

from autospine.core.colours import level_named, structure_named
from autospine.core.labels import LabelSpace
from autospine.vertebrae.levels import INDEX, SACRUM

LEAST_LEVELS = 3
"""Levels from which a dataset tells vertebrae apart."""


def level_integers(space: LabelSpace) -> dict[str, int]:
    """Return the integer of each class that is a vertebra by level, or the sacrum, in anatomical order.

    A dataset of regions, whose classes overlap, has none, and neither has one with fewer than `LEAST_LEVELS`.
    """
    if space.regions:
        return {}
    found: dict[str, int] = {}
    for name, integer in zip(space.names, space.painted, strict=True):
        kind, level = level_named(name)
        called = SACRUM if structure_named(name) == SACRUM else level if kind == "vertebra" else ""
        if called in INDEX and called not in found:
            found[called] = integer
    if len(set(found) - {SACRUM}) < LEAST_LEVELS:
        return {}
    return dict(sorted(found.items(), key=lambda item: INDEX[item[0]]))


def vertebra_class(space: LabelSpace) -> Mapping[str, int]:
    """Return the integers of `vertebra` and the structures beside it in a dataset that names no levels.

    Returns:
        Empty if the dataset has regions or no plain vertebra.
    """
    if space.regions:
        return {}
    named = {structure_named(name): n for name, n in zip(space.names, space.painted, strict=True)}
    wanted = ("vertebra", "disc", "canal", "cord", SACRUM)
    return {name: named[name] for name in wanted if name in named} if "vertebra" in named else {}
