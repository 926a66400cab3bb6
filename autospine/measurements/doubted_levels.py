"""Vertebrae whose level was unknown when they were named, and which keep the label that their map had."""

from dataclasses import replace

from autospine.measurements.spine_measurements import SpineMeasurements
from autospine.vertebrae.identities import UNKNOWN, SpineIdentities


def with_doubts(measured: SpineMeasurements, names: SpineIdentities) -> SpineMeasurements:
    """Return measurements with a note at each vertebra whose level is not known.

    Args:
        measured: Measurements of a label map, whose labels count as levels.
        names: What is written beside the map: of an unknown level the label stays.
    """
    doubted = {each.called: each for each in names.vertebrae if each.level == UNKNOWN}
    vertebrae = tuple(
        replace(
            each,
            notes=(
                *each.notes,
                f"the level is unknown: the label is {each.level}, and "
                f"{doubted[each.level].likeliest} with a probability of {doubted[each.level].confidence:.2f}",
            ),
        )
        if each.level in doubted
        else each
        for each in measured.vertebrae
    )
    count = sum(each.level in doubted for each in vertebrae)
    notes = (
        (f"the levels of {count} of {len(vertebrae)} vertebrae are unknown and may be off",) if count else ()
    )
    return replace(measured, vertebrae=vertebrae, notes=(*measured.notes, *notes))
