"""The colour of every class, the same in each picture and in each label map."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from autospine.core.labels import VERTEBRAE

Colour = tuple[float, float, float]
"""Red, green and blue of sRGB, 0 to 1."""

Colours = Float64[np.ndarray, "n 3"]


def _colour(code: str) -> Colour:
    red, green, blue = bytes.fromhex(code)
    return red / 255, green / 255, blue / 255


def _by_level(codes: str) -> dict[str, Colour]:
    """Return the colours of vertebrae, or of the discs below them, from the head down."""
    return dict(zip(VERTEBRAE, map(_colour, codes.split()), strict=True))


ORANGE: Colour = (0.902, 0.624, 0.000)
SKY: Colour = (0.337, 0.706, 0.914)
GREEN: Colour = (0.000, 0.720, 0.530)
YELLOW: Colour = (0.941, 0.894, 0.259)
BLUE: Colour = (0.250, 0.480, 0.950)
VERMILION: Colour = (0.900, 0.250, 0.050)
PURPLE: Colour = (0.840, 0.500, 0.690)
"""Colours of Okabe and Ito (2008), distinct to the colour-blind, adapted to a black background."""

PALETTE: tuple[Colour, ...] = (SKY, ORANGE, GREEN, YELLOW, PURPLE, BLUE, VERMILION)
"""Colours of a few things that have none of their own, such as the lines of a diagram."""

LEVELS: dict[str, Colour] = _by_level(
    "0f78ff 2d8778 78a50f b400a5 0fa5d2 b45a69 ff6900 "
    "0f69a5 f069ff c35a87 1e785a 4bd2c3 d20fff 874b87 "
    "c37869 3c783c ffa55a 007878 695ad2 00d2e1 "
    "c3005a a5ff0f 1e8796 7878d2 964b69 2dc33c"
)
"""Vertebrae. No colour occurs twice from the head to the coccyx, also among discs and the structures below.

`tests/benchmarks/palette.py` has searched these colours. Labels within three levels of each other differ by a
CIEDE2000 of at least 20 and any two by 8; to the red-green blind, after Machado et al. (2009), by 10 and 5.
"""

DISCS: dict[str, Colour] = _by_level(
    "f078a5 d2a578 87f0b4 f0e178 969696 87a55a ffa596 "
    "00f0c3 87a5c3 d2ffa5 b49687 ffa5ff ffc34b 9687b4 "
    "a2cea5 3ca5ff f0ff78 f05ab4 00a578 c3ffe1 "
    "d2a5a5 b4784b f0c387 00d2ff f0a5c3 e1ffd2"
)
"""Discs, by the vertebra above."""

NAMED: dict[str, Colour] = {
    "vertebra": SKY,
    "disc": _colour("ffffc3"),
    "canal": _colour("d20000"),
    "cord": _colour("f0f0ff"),
    "sacrum": _colour("8700ff"),
    "coccyx": _colour("009696"),
}
"""Structures that are no levels. A dataset with the disc does not tell the levels of discs apart, but may
have vertebrae by level; one with the vertebra has no levels."""

_WORDS: dict[str, str] = {
    "vertebra": "vertebra",
    "vertebrae": "vertebra",
    "vertebral body": "vertebra",
    "vertebral bodies": "vertebra",
    "disc": "disc",
    "discs": "disc",
    "disk": "disc",
    "disks": "disc",
    "intervertebral disc": "disc",
    "intervertebral discs": "disc",
    "intervertebral disk": "disc",
    "intervertebral disks": "disc",
    "ivd": "disc",
    "ivds": "disc",
    "canal": "canal",
    "spinal canal": "canal",
    "vertebral canal": "canal",
    "cord": "cord",
    "spinal cord": "cord",
    "sacrum": "sacrum",
    "coccyx": "coccyx",
}
"""Structure that is meant by the words of a name, in lower case and with single spaces between them."""

_OF_VERTEBRAE = {"vertebra", "vertebrae", "vertebral", "body", "level"}
"""Words beside the level of a vertebra."""

_OF_DISCS = {"disc", "discs", "disk", "disks", "ivd", "ivds"}
"""Words of which the name of a disc has one."""

_BESIDE_DISCS = {"intervertebral", "below", "under", "between", "and"}
"""Other words beside the levels of a disc."""

_WORD = re.compile(r"(?:th|[ctls])\d+|[a-z]+|\d+")
_LEVEL = re.compile(r"(?P<region>th|[ctls])0?(?P<number>\d+)")

_SHADES = 12
"""Steps of red, green and blue among which colours of unknown classes are chosen."""

_DARKEST = 0.55
"""Lowest lightness of OKLab of these; pictures have a black background."""


def class_colours(names: Sequence[str]) -> dict[str, Colour]:
    """Return a colour for each class.

    Vertebrae and discs by level and known structures have colours of their own, which do not depend on what
    else is in the dataset. Each other class gets the colour that is farthest from all before it, and so does
    a second name of the same structure.
    """
    colours: dict[str, Colour] = {}
    for name in names:
        colour = _known(name)
        if colour is not None and colour not in colours.values():
            colours[name] = colour
    others = [name for name in dict.fromkeys(names) if name not in colours]
    colours.update(zip(others, _farthest(list(colours.values()), len(others)), strict=True))
    return {name: colours[name] for name in names}


def structure_named(name: str) -> str | None:
    """Return the structure that a class is, one of those in `NAMED`; None if it is none or of one level.

    Case, punctuation and other words for the same do not matter: `spinal_canal` is the `canal`, and S1 the
    `sacrum`.
    """
    words = _words_of(name)
    if "s1" in words and {*words} - {"s1"} <= _OF_VERTEBRAE:
        return "sacrum"
    return _WORDS.get(" ".join(words))


def structure_of(name: str) -> str | None:
    """Return the structure that a class is or is one level of: `L1` is a `vertebra`, `disc_L4-5` a `disc`."""
    structure = structure_named(name)
    return level_named(name)[0] if structure is None else structure


def _known(name: str) -> Colour | None:
    if (structure := structure_named(name)) is not None:
        return NAMED[structure]
    structure, level = level_named(name)
    return None if structure is None else (LEVELS if structure == "vertebra" else DISCS).get(level)


def level_named(name: str) -> tuple[str | None, str]:
    """Return whether a class is the `vertebra` or the `disc` of a level, None if neither, and the level."""
    words = _words_of(name)
    levels = [found for word in words if (found := _LEVEL.fullmatch(word))]
    # The second level of `disc_L4-5` has no letter.
    rest = {word for word in words if not _LEVEL.fullmatch(word) and not (levels and word.isdigit())}
    if len(levels) == 1 and len(words) == 1 + len(rest) and rest <= _OF_VERTEBRAE:
        return "vertebra", _level(levels[0])
    if levels and rest & _OF_DISCS and rest <= _OF_DISCS | _BESIDE_DISCS:
        return "disc", _level(levels[0])
    return None, ""


def _words_of(name: str) -> list[str]:
    """Return the words and levels of a name in lower case; `vertebraL1` has two."""
    return _WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _level(found: re.Match[str]) -> str:
    """Return the name that a level has here: `th04` is T4."""
    return f"{found['region'][0].upper()}{int(found['number'])}"


def _farthest(taken: Sequence[Colour], count: int) -> list[Colour]:
    """Return colours of which each is the farthest from those that are taken and from those before it."""
    if not count:
        return []
    shades = np.linspace(0, 1, _SHADES)
    candidates = np.stack(np.meshgrid(shades, shades, shades, indexing="ij"), axis=-1).reshape(-1, 3)
    places = _oklab(candidates)
    light = places[:, 0] > _DARKEST
    candidates, places = candidates[light], places[light]
    first = list(taken) or [SKY]
    distance = np.min([np.linalg.norm(places - place, axis=1) for place in _oklab(np.array(first))], axis=0)
    chosen = [] if taken else [SKY]
    while len(chosen) < count:
        index = int(distance.argmax())
        chosen.append(tuple(candidates[index].tolist()))
        distance = np.minimum(distance, np.linalg.norm(places - places[index], axis=1))
    return chosen


def _oklab(colours: Colours) -> Colours:
    """Return colours in OKLab (Ottosson 2020), where distances are about what people see."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    found: Colours = np.cbrt(linear @ _TO_CONES.T) @ _TO_OKLAB.T
    return found


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
