"""Label maps of one scheme in the integers of another, with what is lost said."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from autospine.core.errors import DatasetError, listed
from autospine.core.types import LabelArray
from autospine.vertebrae.schemes import LabelScheme, anatomical_order, wholes


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConversion:
    """The new integers of a label map, and the structures that are merged or lost."""

    integers: Mapping[int, int]
    """Integer in the new scheme of each integer that has one."""

    merged: tuple[str, ...]
    """Structures that can no longer be told apart, or are read as others from the new map, in words."""

    lost: Mapping[int, str]
    """Structures without an integer in the new scheme, by their old integer; they become background."""

    @property
    def lossless(self) -> bool:
        """Whether the new map says as much as the old one."""
        return not self.merged and not self.lost


def plan_conversion(present: Collection[int], source: LabelScheme, target: LabelScheme) -> LabelConversion:
    """Find the new integer of each integer of a map.

    A structure that the new scheme does not have becomes the nearest that it is a part of (S1 of the sacrum,
    the cord of the canal, an arch of a vertebra), and background if the scheme does not have that either.

    Args:
        present: Integers of the map, background or not.
        source: Scheme of the map.
        target: Scheme to convert to.

    Raises:
        DatasetError: If an integer is none of the scheme's.
    """
    values = sorted(set(present) - {0})
    meaning = source.structures(values)
    if unknown := [str(n) for n in values if n not in meaning and n not in source.beside]:
        raise DatasetError(
            f"expected labels of {source.title} ({source.name}), found {listed(unknown, 8)}; give the scheme "
            "that the map has with --from"
        )
    structures = {n: meaning[n] for n in values if n in meaning}
    among = set(structures.values())
    integers: dict[int, int] = {}
    lost = {n: "a structure beside the spine" for n in values if n not in structures}
    becomes: dict[int, str] = {}
    for number, structure in sorted(structures.items(), key=lambda item: anatomical_order(item[1])):
        for named in (structure, *wholes(structure)):
            if (integer := target.integer_of(named, among)) is not None:
                integers[number], becomes[number] = integer, named
                break
        else:
            lost[number] = structure
    read = target.structures(set(integers.values()))
    merged = []
    for number, named in becomes.items():
        if named != structures[number]:
            merged.append(f"{structures[number]} becomes {named}")
        if (later := read[integers[number]]) != named:
            merged.append(f"{named} becomes {integers[number]}, which is read as {later}")
    return LabelConversion(integers=integers, merged=tuple(merged), lost=lost)


def convert_labels(labels: LabelArray, integers: Mapping[int, int]) -> LabelArray:
    """Return a copy of a label map (S, P, L) with other integers; those without one become background."""
    highest = max(integers.values(), default=0)
    converted = np.zeros(labels.shape, dtype=np.min_scalar_type(highest))
    for plane, found in zip(converted, labels, strict=True):
        for value in np.unique(found).tolist():
            if value and value in integers:
                plane[found == value] = integers[value]
    return converted
