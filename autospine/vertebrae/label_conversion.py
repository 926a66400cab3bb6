"""Label maps of one scheme in the integers of another, with what is lost said."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from autospine.core.errors import DatasetError, listed
from autospine.core.types import LabelArray
from autospine.vertebrae.schemes import LabelScheme, anatomical_order, broader


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConversion:
    """The new integers of a label map, and the structures that are merged or lost."""

    integers: Mapping[int, int]
    """Integer in the new scheme of each integer that has one."""

    merged: tuple[str, ...]
    """Structures that can no longer be told apart, in words."""

    lost: Mapping[int, str]
    """Structures without an integer in the new scheme, by their old integer; they become background."""

    @property
    def lossless(self) -> bool:
        """Whether the new map says as much as the old one."""
        return not self.merged and not self.lost


def plan_conversion(present: Collection[int], source: LabelScheme, target: LabelScheme) -> LabelConversion:
    """Find the new integer of each integer of a map.

    A structure that the new scheme does not have becomes what it is a part of (S1 of the sacrum), and
    background if the scheme does not have that either.

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
    merged = []
    for number, structure in sorted(structures.items(), key=lambda item: anatomical_order(item[1])):
        named: str | None = structure
        while named is not None and target.integer_of(named, among) is None:
            named = broader(named)
        integer = None if named is None else target.integer_of(named, among)
        if integer is None:
            lost[number] = structure
            continue
        integers[number] = integer
        if named != structure:
            merged.append(f"{structure} becomes {named}")
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
