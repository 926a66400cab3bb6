"""Names of vertebrae in predicted label maps: the last step where a dataset's classes are levels."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from autospine.core.geometry import Grid
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray
from autospine.evaluation.postprocessing import LabelChange, Postprocessing
from autospine.io.formats import file_ending
from autospine.storage.serialization import write_json
from autospine.system.log import get_logger
from autospine.vertebrae.dataset_levels import naming_integers
from autospine.vertebrae.identities import NAMES_ENDING, UNKNOWN, SpineIdentities
from autospine.vertebrae.label_changes import label_changes
from autospine.vertebrae.label_naming import NamelessMap, name_labels

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedPrediction:
    """A predicted label map after its vertebrae were named."""

    labels: LabelArray
    """(S, P, L) label values; as they were where nothing was changed."""

    identities: SpineIdentities
    changes: tuple[LabelChange, ...]
    """Vertebrae, or pieces of them, that have another label than before, the largest volume first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VertebraNaming:
    """The naming of the vertebrae of one dataset."""

    integers: Mapping[str, int]
    """Label value of each level, of the sacrum, of discs by level, and of ribs and the skull."""

    names: Mapping[str, str]
    """Name that each of these has as a class of the dataset."""

    @classmethod
    def of_labels(cls, space: LabelSpace) -> "VertebraNaming | None":
        """Return the naming of a dataset; None if its classes are no levels."""
        integers = naming_integers(space)
        if not integers:
            return None
        classes = dict(zip(space.painted, space.names, strict=True))
        return cls(integers=integers, names={level: classes[n] for level, n in integers.items()})

    def apply(
        self, case: str, labels: LabelArray, grid: Grid, nameless: NamelessMap | None = None
    ) -> NamedPrediction:
        """Give the vertebrae of a label map the labels of their levels; nothing is removed.

        Args:
            case: Name of the map.
            labels: (S, P, L) label values in canonical axes.
            grid: Their grid.
            nameless: What a second network has found, by which vertebrae are counted too.
        """
        named = name_labels(case, labels, grid, self.integers, nameless=nameless)
        changes = label_changes(named.changes, grid, self.names)
        return NamedPrediction(
            labels=named.labels.astype(labels.dtype, copy=False),
            identities=replace(named.identities, changes=changes),
            changes=changes,
        )

    def relabelled(self, case: str, labels: LabelArray, grid: Grid) -> LabelArray:
        """Return the label map of `apply` alone."""
        return self.apply(case, labels, grid).labels


def choose_naming(
    space: LabelSpace, post_processing: Postprocessing | None, wanted: bool | None, *, counted: bool = False
) -> VertebraNaming | None:
    """Return the naming of a model's predictions; None where its classes are no levels, or none is to be.

    Args:
        space: The model's label space.
        post_processing: What its cross-validation has chosen; None if it is not known.
        wanted: The user's choice; None for that of the cross-validation.
        counted: Whether a second model counts the vertebrae, as the user or the cross-validation has chosen.
    """
    naming = VertebraNaming.of_labels(space)
    effect = None if post_processing is None else post_processing.naming
    if naming is None or wanted is False:
        return None
    if wanted is None and not counted and effect is not None and effect.alone_harms:
        logger.info(
            "vertebrae are not named: that changed the class Dice of held-out cases from %.3f to %.3f; "
            "--naming names them all the same",
            effect.dice_before,
            effect.dice_after,
        )
        return None
    return naming


def identities_file(folder: Path, case: str) -> Path:
    """Return the file of the names of a case's vertebrae."""
    return folder / f"{case}{NAMES_ENDING}"


def how_to_name(label_map: Path) -> str:
    """Return how to name the vertebrae of a label map that was written without their names."""
    if file_ending(label_map) is None:  # a DICOM segmentation, which the other command does not read
        return "predict the case again with --continue"
    return (
        f"name them later with `autospine anatomy identify -i {shlex.quote(str(label_map))} -o named "
        "--labels-of DATASET.JSON` and the dataset.json of the model"
    )


def write_identities(path: Path, identities: SpineIdentities) -> None:
    """Write the names of a case's vertebrae beside its label map, and log what is in doubt."""
    write_json(path, identities)
    unknown = [str(each.order) for each in identities.vertebrae if each.level == UNKNOWN]
    if unknown:
        logger.info(
            "%s: nothing in view tells the level of vertebra %s from the head down; labels stay as predicted",
            identities.case,
            ", ".join(unknown),
        )
    if cut := [each.likeliest for each in identities.vertebrae if each.cut]:
        logger.info("%s: the border of the image cuts %s", identities.case, ", ".join(cut))
    for note in identities.notes:
        logger.info("%s: %s", identities.case, note)
