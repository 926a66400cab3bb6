"""Post-processing of predicted label maps: stray pieces and small components removed, and holes filled.

Where held-out cases say that it helps, pieces that lie apart from the spine go first, whatever their classes
(`without_strays` in `autospine.evaluation.components`). Then each class has its own post-processing, which
`autospine.evaluation.cleanup_choice` chooses by the Dice of held-out cases. The choice follows the data, not
the names of the structures: a class of many vertebrae loses Dice if only its largest component is kept, so
it keeps all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Integer

from autospine.core.errors import FormatError
from autospine.core.labels import BACKGROUND
from autospine.core.types import LabelArray, Vector3
from autospine.evaluation.components import (
    Components,
    count_shared_faces,
    fill_holes,
    find_components,
    main_neighbours,
    without_strays,
)
from autospine.storage.serialization import read_json, stored_as

FORMAT_VERSION = 6
READABLE = (1, 2, 3, 4, 5, FORMAT_VERSION)
"""Versions that can be read. In version 1 removed components always become background; up to 3 no piece is a
stray, up to 4 naming was not tried, and up to 5 vertebrae were not counted by a second model."""

POSTPROCESSING = "postprocessing.json"

CHANGES_MENTIONED = 4
"""Most changes that a message about a case lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleanup:
    """The post-processing of one class.

    First the holes of every class are filled. Then it is decided which components are removed: for each class
    by its own components alone, whatever is done to other classes. At last all removed components are
    relabelled at once, each by the components that are kept.
    """

    fill_holes: bool = False
    """Background that a component encloses becomes part of it, unless a component of another class that lies
    within encloses it more closely."""

    keep_largest: bool = False
    """All components but the largest and its rivals are removed."""

    rival_share: float | None = None
    """Components of at least this share of the largest one's volume are its rivals, and kept: which of two
    bodies of like size has the right name, size does not tell. None for no rivals, as in versions 1 and 2."""

    least_mm3: float = 0.0
    """Components of a smaller volume, in mm^3, are removed."""

    removed_to: Literal["background", "neighbour"] = "background"
    """Class that removed components take. `neighbour` is the class, among the components that are kept, that
    a component shares most faces of voxels with (of equal ones that of the smallest label value), and
    background if it shares none."""

    most_to_background_mm3: float | None = None
    """Larger components, in mm^3, never become background but keep their label; None for no limit, as in
    version 1."""

    @property
    def rival_limit(self) -> float:
        """Share of the largest one's volume from which components are its rivals; infinite for none."""
        return math.inf if self.rival_share is None else self.rival_share

    @property
    def background_limit_mm3(self) -> float:
        """Largest volume that becomes background."""
        return math.inf if self.most_to_background_mm3 is None else self.most_to_background_mm3


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCleanup:
    """The post-processing of a class, and its Dice without and with the post-processing of all classes."""

    name: str
    """Name of the class."""

    integer: int
    """Label value of the class on disk."""

    cleanup: Cleanup

    n_cases: int
    """Number of cases in which the class was predicted or present."""

    dice_before: float | None
    """Mean Dice over these cases without post-processing, 0 to 1; None if there are none."""

    dice_after: float | None
    """Mean Dice after it, 0 to 1; a class that is rightly removed from a case counts as 1 there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelChange:
    """Voxels of one case that post-processing gave another label."""

    from_label: str
    """Name of the class before, or `background`."""

    to_label: str
    """Name of the class after, or `background`."""

    voxels: int
    ml: float
    """Their volume."""


class Cleaned(NamedTuple):
    """A label map after post-processing."""

    labels: LabelArray
    """(S, P, L) label values of the dataset."""

    changes: tuple[LabelChange, ...]
    """Changes of labels, the largest volume first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NamingEffect:
    """Change by naming the vertebrae of the held-out cases of a model whose classes are levels."""

    dice_before: float
    """Mean class Dice after post-processing, averaged over the cases, 0 to 1."""

    dice_after: float
    """The same after the vertebrae were named as well."""

    dice_counted: float | None = None
    """The same after they were named and counted by the starter, too; None if that was not tried. Where only
    some cases were counted, their mean change by it is added to `dice_after`."""

    @property
    def counts(self) -> bool:
        """Whether held-out cases have more Dice if the starter counts than with names alone, or with none."""
        return self.dice_counted is not None and self.dice_counted > max(self.dice_before, self.dice_after)

    @property
    def alone_harms(self) -> bool:
        """Whether names by the label map alone cost the held-out cases Dice in the mean."""
        return self.dice_after < self.dice_before

    @property
    def harms(self) -> bool:
        """Whether names cost the held-out cases Dice in the mean, counted or not."""
        return self.alone_harms and not self.counts


@stored_as("a post-processing", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class Postprocessing:
    """The content of `postprocessing.json`: the post-processing of every class of a model's predictions."""

    format_version: int
    n_cases: int
    """Number of held-out cases that it was chosen by."""

    classes: tuple[ClassCleanup, ...]
    """The classes in the order of the label space."""

    foreground_dice_before: float | None = None
    """Mean over the cases of the Dice of all classes taken as one, 0 to 1; None if it is unknown."""

    foreground_dice_after: float | None = None
    foreground_recall_before: float | None = None
    """Mean over the cases of the share of the reference's foreground that has any label, 0 to 1."""

    foreground_recall_after: float | None = None

    stray_share: float | None = None
    """Pieces of the foreground, all classes as one, that are smaller than this share of the largest piece or
    lie beside it become background, before anything else is done. None if they are kept."""

    naming: NamingEffect | None = None
    """Effect of naming the vertebrae after that; None if classes are no levels, or if it was not tried."""

    def __post_init__(self) -> None:
        if self.format_version not in READABLE:
            raise FormatError(
                f"expected {POSTPROCESSING} of format_version 1 to {FORMAT_VERSION}, found "
                f"{self.format_version}; predict with --no-postprocessing, or use the AutoSpine version that "
                "made it"
            )

    @property
    def cleaned_classes(self) -> tuple[str, ...]:
        """Names of the classes that have a post-processing; all of them where stray pieces go."""
        return tuple(
            each.name for each in self.classes if self.stray_share is not None or each.cleanup != Cleanup()
        )

    def apply(self, labels: LabelArray, spacing_mm: Vector3) -> Cleaned:
        """Return a post-processed copy of a label map, or the map itself if no class has a post-processing.

        Args:
            labels: (S, P, L) label values of the dataset.
            spacing_mm: Voxel spacing along S, P and L.
        """
        cleared = labels
        if self.stray_share is not None:
            cleared = without_strays(labels, spacing_mm, self.stray_share)
        cleaned, voxel_mm3 = self._clean_classes(cleared, spacing_mm), math.prod(spacing_mm)
        names = {0: BACKGROUND, **{each.integer: each.name for each in self.classes}}
        return Cleaned(labels=cleaned, changes=_changes(labels, cleaned, names, voxel_mm3))

    def _clean_classes(self, labels: LabelArray, spacing_mm: Vector3) -> LabelArray:
        """Return a copy in which each class is post-processed, or the map itself if none is to be."""
        cleanups = {each.integer: each.cleanup for each in self.classes if each.cleanup != Cleanup()}
        if not cleanups:
            return labels
        filling = frozenset(integer for integer, cleanup in cleanups.items() if cleanup.fill_holes)
        cleaned = fill_holes(labels, filling) if filling else labels.copy()
        components, voxel_mm3 = find_components(cleaned), math.prod(spacing_mm)
        kept = np.ones(len(components.sizes), dtype=bool)
        given_away = np.zeros_like(kept)
        limits = np.full(len(kept), math.inf)
        for integer, cleanup in cleanups.items():
            own = components.integers == integer
            limits[own] = cleanup.background_limit_mm3
            kept[own] = kept_components(components.sizes[own], cleanup, voxel_mm3)
            given_away |= own & ~kept & (cleanup.removed_to == "neighbour")
        becomes = np.where(kept, components.integers, 0).astype(labels.dtype)
        if given_away.any():
            _give_to_neighbours(components, kept, given_away, becomes)
        spared = (becomes == 0) & (components.sizes * voxel_mm3 > limits)
        becomes[spared] = components.integers[spared]
        removed = ~kept[components.component]
        cleaned.reshape(-1)[components.voxels[removed]] = becomes[components.component[removed]]
        return cleaned


def read_postprocessing(folder: Path) -> Postprocessing | None:
    """Read the post-processing in a model folder; None if cross-validation has left none.

    Raises:
        FormatError: If it is damaged or of another version.
    """
    path = folder / POSTPROCESSING
    return read_json(path, Postprocessing) if path.is_file() else None


def kept_components(
    sizes: Integer[np.ndarray, " N"], cleanup: Cleanup, voxel_mm3: float
) -> Bool[np.ndarray, " N"]:
    """Tell which of a class's components are kept; of two that are largest the first counts as the largest.

    Args:
        sizes: Number of voxels of each component.
        cleanup: Post-processing of the class.
        voxel_mm3: Volume of a voxel.
    """
    kept: np.ndarray = sizes * voxel_mm3 >= cleanup.least_mm3
    if cleanup.keep_largest and len(sizes):
        largest = np.argmax(sizes)
        kept &= (np.arange(len(sizes)) == largest) | (sizes >= cleanup.rival_limit * sizes[largest])
    return kept


def describe_changes(changes: Sequence[LabelChange]) -> str:
    """Describe the largest changes: `1.2 ml of L3 to L2 and 0.3 ml of L3 to background`."""
    said = [
        f"{in_ml(change.ml)} of {change.from_label} to {change.to_label}"
        for change in changes[:CHANGES_MENTIONED]
    ]
    if rest := changes[CHANGES_MENTIONED:]:
        said.append(f"{in_ml(sum(change.ml for change in rest))} of other labels")
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def in_ml(ml: float) -> str:
    """Return a volume in words, so that a small one is not said to be 0.0 ml."""
    return f"{ml:.1f} ml" if ml >= 0.1 else f"{ml:.2f} ml" if ml >= 0.01 else "less than 0.01 ml"


def _give_to_neighbours(
    components: Components,
    kept: Bool[np.ndarray, " N"],
    given_away: Bool[np.ndarray, " N"],
    becomes: Integer[np.ndarray, " N"],
) -> None:
    """Set, for the removed components that are given away, the label of the neighbour they share most with.

    Args:
        components: Components of the map.
        kept: Which are kept, by number.
        given_away: Which are removed and take a neighbour's label.
        becomes: New label value of each; changed in place.
    """
    shared = count_shared_faces(components.numbers)
    # Components of one label never share faces, so that a neighbour is of another class.
    one, other = (np.concatenate(pair) for pair in (shared[:2], shared[1::-1]))
    faces = np.concatenate((shared.faces, shared.faces))
    use = given_away[one] & kept[other]
    values, ranks = np.unique(components.integers, return_inverse=True)
    owners, rank = main_neighbours(one[use], ranks.reshape(-1)[other[use]], faces[use])
    becomes[owners] = values[rank]


def _changes(
    before: LabelArray, after: LabelArray, names: dict[int, str], voxel_mm3: float
) -> tuple[LabelChange, ...]:
    """Count the voxels that have another label than before, by what they were and are."""
    changed = before != after
    was, became = before[changed], after[changed]
    found = [
        LabelChange(
            from_label=names.get(source, str(source)),
            to_label=names.get(target, str(target)),
            voxels=voxels,
            ml=round(voxels * voxel_mm3 / 1000, 6),
        )
        for source in np.unique(was).tolist()
        for target, voxels in zip(
            *(part.tolist() for part in np.unique(became[was == source], return_counts=True)), strict=True
        )
    ]
    return tuple(sorted(found, key=lambda change: -change.voxels))
