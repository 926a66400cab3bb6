"""The colour of every class, the same in each picture and in each label map."""

import re
from collections.abc import Sequence

from autospine.core.labels import VERTEBRAE

Colour = tuple[float, float, float]

ORANGE: Colour = (0.902, 0.624, 0.000)
SKY: Colour = (0.337, 0.706, 0.914)
GREEN: Colour = (0.000, 0.720, 0.530)
YELLOW: Colour = (0.941, 0.894, 0.259)
BLUE: Colour = (0.250, 0.480, 0.950)
VERMILION: Colour = (0.900, 0.250, 0.050)
PURPLE: Colour = (0.840, 0.500, 0.690)
WHITE: Colour = (0.930, 0.930, 0.930)
PALE_GREEN: Colour = (0.600, 0.900, 0.700)
"""Colours of Okabe and Ito (2008), distinct to the colour-blind, adapted to a black background."""

PALETTE: tuple[Colour, ...] = (SKY, ORANGE, GREEN, YELLOW, PURPLE, BLUE, VERMILION)
"""Colours of other classes, in order; neighbours differ clearly."""

LEVELS: tuple[Colour, ...] = (SKY, ORANGE, BLUE, YELLOW)
"""Colours of vertebrae by level, in turn: blue alternates with orange or yellow."""

NAMED: dict[str, Colour] = {
    "vertebra": SKY,
    "vertebrae": SKY,
    "disc": YELLOW,
    "discs": YELLOW,
    "canal": VERMILION,
    "cord": WHITE,
    "sacrum": PURPLE,
    "coccyx": ORANGE,
}
"""Structures whose colour does not depend on what else is in the dataset."""

_DISC = re.compile(r"dis[ck]\b.*?\b(?P<level>[CTL]\d+)\b", re.IGNORECASE)


def class_colours(names: Sequence[str]) -> dict[str, Colour]:
    """Return a colour (red, green, blue, 0 to 1) for each class.

    Known structures have their own. Vertebrae by level take turns down the spine, so that neighbours
    differ, and discs by level alternate between two greens. Other classes get the remaining colours, in turn.
    """
    known = {name: _known(name) for name in names}
    spare = [colour for colour in PALETTE if colour not in known.values()] or list(PALETTE)
    colours: dict[str, Colour] = {}
    others = 0
    for name, colour in known.items():
        if colour is None:
            colour = spare[others % len(spare)]
            others += 1
        colours[name] = colour
    return colours


def _known(name: str) -> Colour | None:
    if name.lower() in NAMED:
        return NAMED[name.lower()]
    if name in VERTEBRAE:
        return LEVELS[VERTEBRAE.index(name) % len(LEVELS)]
    disc = _DISC.match(name.replace("_", " "))
    if disc and disc["level"].upper() in VERTEBRAE:
        return (GREEN, PALE_GREEN)[VERTEBRAE.index(disc["level"].upper()) % 2]
    return None
