"""Names for the vertebrae of a label map that has one label for all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from autospine.core.errors import counted
from autospine.core.geometry import Grid
from autospine.core.labels import VERSE
from autospine.core.types import LabelArray
from autospine.vertebrae.bone_anchors import BoneAnchors
from autospine.vertebrae.decoding import Decoded, decode, unfit_statement, with_uppermost
from autospine.vertebrae.identities import LEAST_CONFIDENCE, SpineIdentities, nothing_found
from autospine.vertebrae.label_instances import LabelledVertebra, find_vertebrae, with_one_sacrum
from autospine.vertebrae.label_naming import are_whole, found_in_map, from_head, identities_in_map
from autospine.vertebrae.levels import INDEX, SACRUM
from autospine.vertebrae.touching_vertebrae import FRAGMENT_ML, VERTEBRA

FIRST_UNKNOWN = 150
"""Label value of what is no whole vertebra, such as a fragment; that of a vertebra whose level is unknown is
this plus its place from the head down. No scheme uses the values up to `LAST_UNKNOWN`."""

LAST_UNKNOWN = 199
"""Largest of these values."""

DOUBLE = 1.7
"""Volume of a vertebra, in parts of the larger neighbour's, from which on it may be two: of the usual sizes
(`SIZES_MM`) only C2 beside C3 alone, and T1 beside C7 alone, are as much larger."""

PLAIN: Mapping[str, int] = {
    "disc": 100,
    "canal": VERSE["canal"],
    "cord": VERSE["cord"],
    SACRUM: VERSE[SACRUM],
}
"""Label values of structures beside the vertebrae in the map that is written."""


def name_unnamed(
    case: str,
    labels: LabelArray,
    grid: Grid,
    integers: Mapping[str, int],
    uppermost: str | None = None,
    bones: BoneAnchors | None = None,
) -> tuple[LabelArray, SpineIdentities]:
    """Tell the vertebrae of a map apart, and name them from the sacrum, or by order alone.

    Touching vertebrae are split between their bodies. Without a sacrum sizes and distances alone
    tell the levels, which are unknown where they do not suffice.

    Args:
        case: Name of the map.
        labels: (S, P, L) label values.
        grid: Grid of the map.
        integers: Label value of `vertebra`, and of other structures in the map by their names.
        uppermost: Level of the uppermost vertebra, where a person has stated it.
        bones: Ribs and the skull of the same image.

    Returns:
        A map in the integers of VerSe, with `FIRST_UNKNOWN` and the place from the head down for vertebrae of
        unknown level, and the names.
    """
    levels = {integers[VERTEBRA]: VERTEBRA} | ({integers[SACRUM]: SACRUM} if SACRUM in integers else {})
    found = find_vertebrae(labels, grid, levels)
    large = with_one_sacrum(found.vertebrae)
    new = np.zeros(labels.shape, dtype=np.uint8)
    for name, value in PLAIN.items():
        if name in integers:
            new[labels == integers[name]] = value
    if not any(VERTEBRA in each.labels for each in large):
        return new, nothing_found(case)
    notes = []
    if _stands_on_its_head(large):
        notes.append("head and feet are exchanged: the sacrum lies above the vertebrae")
    ordered, centres_mm = from_head(large, upside_down=bool(notes))
    chain = found_in_map(ordered, centres_mm, grid, are_whole(ordered, centres_mm), bool(notes))
    if bones is not None:
        beside = bones.evidence(ordered, found, grid)
        chain = replace(chain, evidence=chain.evidence + beside[:, None])
    chain = with_uppermost(chain, uppermost)
    decoded = decode(chain)
    notes += unfit_statement(decoded, uppermost)
    anchored = SACRUM in levels.values() and any(each.is_sacrum for each in ordered)
    if not anchored and uppermost is None:
        notes.append("no sacrum is labelled: levels follow from sizes and distances alone")
    identities = identities_in_map(case, ordered, chain, decoded, notes)
    table = np.zeros(int(found.numbers.max()) + 1, dtype=np.uint8)
    place = 0
    for vertebra, level, probability in zip(ordered, decoded.levels, decoded.probability, strict=True):
        if level is None or vertebra.is_sacrum:
            continue  # as what remains, below
        place += 1
        known = probability[INDEX[level]] >= LEAST_CONFIDENCE
        table[list(vertebra.pieces)] = VERSE[level] if known else min(FIRST_UNKNOWN + place, LAST_UNKNOWN)
    # What is no vertebra has a value of its own: nothing is removed.
    for piece, integer in found.integers.items():
        if not table[piece]:
            table[piece] = PLAIN[SACRUM] if levels[integer] == SACRUM else FIRST_UNKNOWN
    for plane, numbers in zip(new[found.box.slices], found.numbers, strict=True):
        plane[numbers > 0] = table[numbers[numbers > 0]]
    pieces = [each for each in found.vertebrae if table[each.pieces[0]] == FIRST_UNKNOWN]
    more = _more_notes(ordered, decoded, pieces)
    return new, replace(identities, notes=(*identities.notes, *more))


def _more_notes(
    ordered: Sequence[LabelledVertebra], decoded: Decoded, pieces: Sequence[LabelledVertebra]
) -> list[str]:
    """Return in words what of a map's parts a user should look at.

    Args:
        ordered: Its vertebrae from the head down.
        decoded: Their levels.
        pieces: What is no vertebra.
    """
    notes = []
    if large := [each for each in pieces if each.ml >= FRAGMENT_ML]:
        largest = max(large, key=lambda each: each.ml)
        at = ", ".join(f"{mm:.0f}" for mm in largest.centre_mm)
        notes.append(
            f"{counted(len(large), 'piece')} of {FRAGMENT_ML:.0f} ml or more, the largest of "
            f"{largest.ml:.0f} ml at ({at}) mm, belong to no whole vertebra; their label is {FIRST_UNKNOWN}"
        )
    whole = [
        (each, level)
        for each, level in zip(ordered, decoded.levels, strict=True)
        if level is not None and not each.is_sacrum and not each.cut
    ]
    for place, (each, level) in enumerate(whole):
        sides = [whole[side][0].ml for side in (place - 1, place + 1) if 0 <= side < len(whole)]
        if sides and each.ml > DOUBLE * max(sides):
            notes.append(
                f"what is counted as {level} is {each.ml / max(sides):.1f} times as large as its larger "
                "neighbour: it may be two vertebrae, or hold other bone"
            )
    return notes


def _stands_on_its_head(vertebrae: list[LabelledVertebra]) -> bool:
    """Return whether the sacrum lies above every vertebra by the header."""
    heights = [each.centre_mm[2] for each in vertebrae if not each.is_sacrum]
    sacrum = [each.centre_mm[2] for each in vertebrae if each.is_sacrum]
    return bool(sacrum and len(heights) > 1 and min(sacrum) > max(heights))
