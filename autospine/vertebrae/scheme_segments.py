"""The structures of a label map by names and colours, for file formats that keep them."""

from collections.abc import Collection

from autospine.io.segments import Segment
from autospine.vertebrae.schemes import LabelScheme


def scheme_segments(scheme: LabelScheme, present: Collection[int]) -> tuple[Segment, ...]:
    """Return every structure that a map of a scheme may hold, as its integers have it in this map.

    Args:
        scheme: The scheme.
        present: Integers of the map, which tell whether it is of a spine with L6.
    """
    colours = scheme.colours
    return tuple(
        Segment(name=name, integer=integer, colour=colours[name])
        for name, integer in scheme.integers_in(present).items()
    )
