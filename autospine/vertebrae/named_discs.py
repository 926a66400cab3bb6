"""Discs and endplates that have the level of a vertebra in their name, after the vertebrae were renamed."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

from autospine.core.geometry import Box, Grid
from autospine.core.types import LabelArray
from autospine.evaluation.components import find_components
from autospine.vertebrae.identities import UNKNOWN, VertebraIdentity

PREFIXES = ("disc_below_", "endplate_")
"""What the names of such structures begin with; the level of the vertebra above the disc follows. Both
endplates at a disc have its level, as in SPINEPS."""

NEAR_SHARE = 0.6
"""Share of the distance of two vertebrae within which a disc lies from the middle between them."""


def rename_discs(
    labels: LabelArray, grid: Grid, integers: Mapping[str, int], vertebrae: Sequence[VertebraIdentity]
) -> dict[tuple[str, str], float]:
    """Give discs and endplates, in place, the names that belong to the vertebrae they lie at.

    A disc keeps its label where the level of the vertebra above it is unknown, where the map's scheme has no
    label for it, and where it lies between no two neighbours.

    Args:
        labels: (S, P, L) label values; those of the vertebrae are right.
        grid: Grid of the map.
        integers: Label value of each structure in the map's scheme.
        vertebrae: The vertebrae and the sacrum from the head down.

    Returns:
        Volume in ml of what has another name than before, by both names.
    """
    changed: dict[tuple[str, str], float] = {}
    for prefix in PREFIXES:
        names = {integer: name for name, integer in integers.items() if name.startswith(prefix)}
        box = Box.around(np.isin(plane, list(names)) for plane in labels) if names else None
        if box is None or len(vertebrae) < 2:
            continue
        inside = labels[box.slices]
        components = find_components(np.where(np.isin(inside, list(names)), inside, 0))
        numbers = range(1, len(components.integers))
        centres = ndimage.center_of_mass(components.numbers > 0, components.numbers, numbers)
        places, reach_mm, levels = _places(vertebrae)
        table = components.integers.copy()
        for number, centre in zip(numbers, grid.physical(np.array(centres) + box.start), strict=True):
            away = np.linalg.norm(places - centre, axis=1)
            nearest = int(away.argmin())
            wanted = integers.get(f"{prefix}{levels[nearest]}")
            was = int(components.integers[number])
            if away[nearest] > reach_mm[nearest] or wanted is None or wanted == was:
                continue
            table[number] = wanted
            pair = (names[was], names[wanted])
            ml = float(components.sizes[number] * np.prod(grid.spacing_mm)) / 1000
            changed[pair] = changed.get(pair, 0.0) + ml
        if not np.array_equal(table, components.integers):
            inside[components.numbers > 0] = table[components.numbers[components.numbers > 0]]
    return changed


def _places(
    vertebrae: Sequence[VertebraIdentity],
) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, " n"], list[str]]:
    """Return where discs lie, how far from there one may be, and the levels that name them.

    A place whose level is unknown takes part, so that nothing near it gets another name.
    """
    centres = np.array([each.position_mm for each in vertebrae])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    levels = [each.level if each.level != UNKNOWN else "" for each in vertebrae[:-1]]
    return (centres[:-1] + centres[1:]) / 2, NEAR_SHARE * steps, levels
