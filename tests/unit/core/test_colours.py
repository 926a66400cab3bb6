from itertools import pairwise

import numpy as np

from autospine.core.colours import class_colours
from autospine.core.labels import VERTEBRAE


def test_neighbouring_levels_and_their_discs_differ() -> None:
    names = [*VERTEBRAE, *(f"disc_below_{name}" for name in VERTEBRAE), "sacrum", "canal", "cord"]
    colours = class_colours(names)
    for upper, lower in pairwise(VERTEBRAE):
        between = colours[f"disc_below_{upper}"]
        for first, second in (
            (colours[upper], colours[lower]),
            (colours[upper], between),
            (between, colours[lower]),
            (between, colours[f"disc_below_{lower}"]),
            (colours[lower], colours["canal"]),
            (colours[lower], colours["sacrum"]),
        ):
            assert np.abs(np.subtract(first, second)).sum() > 0.35


def test_structures_keep_their_colour_in_any_dataset() -> None:
    alone, together = class_colours(["disc"]), class_colours(["lesion", "vertebra", "disc", "screw"])
    assert alone["disc"] == together["disc"]
    assert len(set(together.values())) == 4


def test_more_classes_than_colours() -> None:
    names = [f"structure {i}" for i in range(40)]
    colours = class_colours(names)
    assert list(colours) == names
    assert all(0 <= part <= 1 for colour in colours.values() for part in colour)
    assert all(colours[a] != colours[b] for a, b in pairwise(names))
