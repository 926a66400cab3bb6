"""Meaning of the integers of a label map, as far as measurements need it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autospine.core.colours import level_named, structure_named
from autospine.core.errors import DatasetError
from autospine.core.labels import LabelSpace
from autospine.vertebrae.levels import INDEX, SACRUM
from autospine.vertebrae.schemes import LabelScheme, is_sacral


@dataclass(frozen=True, kw_only=True, slots=True)
class SpineLabels:
    """The integers of one label map by what they stand for."""

    levels: Mapping[str, int]
    """Integer of each vertebra, in anatomical order."""

    sacrum: tuple[int, ...] = ()
    """Integers of the sacrum and of its segments."""

    canal: tuple[int, ...] = ()
    """Integers of the canal and of what lies in it."""


def labels_of_scheme(scheme: LabelScheme, present: Collection[int]) -> SpineLabels:
    """Return the labels of a map whose scheme is known.

    Args:
        scheme: The scheme.
        present: Integers of the map.
    """
    structures = {name: n for n, name in scheme.structures(present).items() if n in present}
    canal = tuple(structures[name] for name in ("canal", "cord") if name in structures)
    return _spine_labels(
        {level: n for level, n in structures.items() if level in INDEX and level != SACRUM},
        tuple(n for name, n in structures.items() if is_sacral(name)),
        canal if "canal" in structures else (),
    )


def labels_of_dataset(space: LabelSpace) -> SpineLabels:
    """Return the labels of a dataset, whose classes are levels by their names.

    Raises:
        DatasetError: If no class is a vertebra by level, or if the dataset has regions.
    """
    if space.regions:
        raise DatasetError(
            "expected one class for each voxel, found regions, which overlap; use `autospine convert`"
        )
    integers = dict(zip(space.names, space.painted, strict=True))
    levels = {}
    sacrum, canal, inner = [], [], []
    for name, integer in integers.items():
        kind, level = level_named(name)
        structure = structure_named(name)
        if structure == SACRUM or is_sacral(level):
            sacrum.append(integer)
        elif structure == "canal":
            canal.append(integer)
        elif structure == "cord":
            inner.append(integer)
        elif kind == "vertebra" and level in INDEX:
            levels[level] = integer
    if not levels:
        raise DatasetError(
            f"expected vertebrae by level (such as L1) among the labels, found {', '.join(space.names)}; "
            "name them first with `autospine anatomy identify`"
        )
    return _spine_labels(levels, tuple(sacrum), tuple(canal + inner) if canal else ())


def _spine_labels(levels: Mapping[str, int], sacrum: tuple[int, ...], canal: tuple[int, ...]) -> SpineLabels:
    ordered = dict(sorted(levels.items(), key=lambda item: INDEX[item[0]]))
    return SpineLabels(levels=ordered, sacrum=sacrum, canal=canal)
