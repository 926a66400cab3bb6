"""The vertebrae of a dataset whose classes are levels, and the bones that tell of their levels."""

import re
from collections.abc import Mapping

from autospine.core.colours import level_named, structure_named
from autospine.core.labels import LabelSpace
from autospine.vertebrae.levels import INDEX, SACRUM

LEAST_LEVELS = 3
"""Levels from which a dataset tells vertebrae apart."""

SKULL = "skull"
RIB = "rib"

_WORDS = re.compile(r"[a-z]+|\d+")
_OF_RIBS = {"rib", "ribs", "left", "right", "l", "r", "t", "th"}


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


def naming_integers(space: LabelSpace) -> dict[str, int]:
    """Return the integers of `level_integers` and of the structures that tell of levels, or follow them.

    These are discs by level (`disc_below_L4`), and ribs and the skull by the names of their classes. There
    are none where the classes are no levels.
    """
    found = level_integers(space)
    if not found:
        return {}
    for name, integer in zip(space.names, space.painted, strict=True):
        kind, level = level_named(name)
        if kind == "disc" and level in INDEX:
            found.setdefault(f"disc_below_{level}", integer)
    return found | anchor_integers(space)


def anchor_integers(space: LabelSpace) -> dict[str, int]:
    """Return the integer of each class that is a rib or the skull; none of a dataset of regions."""
    if space.regions:
        return {}
    classes = zip(space.names, space.painted, strict=True)
    return {name: integer for name, integer in classes if anchor_named(name)}


def anchor_named(name: str) -> tuple[str, int | None] | None:
    """Return whether a class is the skull or a rib, and the rib's number; None if it is neither.

    Case, punctuation and sides do not matter: `rib_left_4`, `Left Rib 4` and `rib_T4` are the fourth one, and
    `ribs` are of no number.
    """
    words = _WORDS.findall(name.lower())
    if words in (["skull"], ["cranium"]):
        return SKULL, None
    numbers = [int(word) for word in words if word.isdigit()]
    if {"rib", "ribs"}.isdisjoint(words) or not {w for w in words if not w.isdigit()} <= _OF_RIBS:
        return None
    return (RIB, numbers[0] if numbers else None) if len(numbers) < 2 else None


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
