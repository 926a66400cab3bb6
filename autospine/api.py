"""Trained models from Python.

import autospine

model = autospine.load_model("spine.autospine")
labels = model.predict(image)
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import SimpleITK as sitk
from torch import Tensor

from autospine.core.errors import FormatError, ModelError
from autospine.core.geometry import Box, Grid, orientation, tilt_note
from autospine.core.labels import LabelSpace
from autospine.core.modality import check_values, guess_modality, modality_of_channels
from autospine.core.types import LabelArray, Modality, ScoreMap, Vector3
from autospine.evaluation.postprocessing import Postprocessing
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.inference.multi_model import JointPredictor
from autospine.inference.predictor import Predictor, ignore_start
from autospine.inference.score_bands import ScoreSink
from autospine.io.dicom import dicom_modality
from autospine.io.images import Volume
from autospine.io.in_memory import Image, as_volume, like
from autospine.models.archive import opened_model
from autospine.models.manifest import describe
from autospine.models.model_folder import (
    ModelFolder,
    TrainingImage,
    model_paths,
    named_folds,
    training_case_of,
)
from autospine.prediction.build_predictor import (
    NOTHING_FOUND,
    build_predictor,
    check_distinct,
    unseen_modalities,
    warn_of_short_training,
    warn_of_unfinished_folds,
)
from autospine.prediction.model_postprocessing import find_post_processing, warn_of_other_weights
from autospine.prediction.probabilities import Probabilities, read_probabilities
from autospine.storage.trained_models import named_model
from autospine.system.allocation import use_huge_pages
from autospine.system.devices import choose_device, computing, own_defaults
from autospine.system.hardware import free_memory
from autospine.system.log import get_logger

__all__ = ["Model", "ModelInfo", "Probabilities", "load_model", "read_probabilities"]


logger = get_logger(__name__)

ImageLike = TypeVar("ImageLike")
"""An image of SimpleITK or nibabel; results are of the kind that was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInfo:
    """Description of a model: its dataset, folds, voxel size and scores."""

    dataset: str
    """Name of the dataset that it was trained on."""

    configuration: str
    """Name of the configuration."""

    folds: tuple[str, ...]
    """Names of the folds that predict together."""

    spacing_mm: Vector3
    """Voxel size along S, P and L that images are resampled to."""

    dice: float | None
    """Mean Dice of the cross-validation, 0 to 1; None if it is not known."""

    dice_by_class: dict[str, float | None]
    """The same for each class; empty if it is not known."""

    training_cases: tuple[str, ...]
    """Names of the cases that the networks have learnt from; none where it is not known, as for a model that
    was imported."""


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Model:
    """A model whose networks are in memory, ready to predict."""

    labels: dict[str, int]
    """Label value of each class by name."""

    channels: tuple[str, ...]
    """Names of the channels of a case, in order."""

    predictor: Predictor | JointPredictor
    cleanup: Postprocessing | None
    """Post-processing that cross-validation has found to help; None for nothing."""

    unseen: dict[Modality, str]
    """Warnings for images of modalities that the model was not trained on."""

    training_images: tuple[tuple[str, TrainingImage], ...]
    """Case and image of all that the networks were trained on, as far as it is known."""

    members: tuple[ModelInfo, ...]
    """Description of each model that predicts: of one, or of several together."""

    def __repr__(self) -> str:
        """Return the channels and labels alone; networks would fill the screen."""
        return f"Model(channels={list(self.channels)}, labels={self.labels})"

    @property
    def info(self) -> ModelInfo:
        """Description of the model; of several that predict together, that of the first one."""
        return self.members[0]

    # Type checkers take the result's type from these: arrays need a voxel size and give arrays, files give
    # images of SimpleITK, and images of SimpleITK and nibabel give images of their own kind. The last
    # definition, which is the one that runs, has the description.
    @overload
    def predict(
        self,
        image: np.ndarray | Sequence[np.ndarray],
        *,
        modality: Modality | None = None,
        spacing_mm: Vector3,
        postprocess: bool = True,
    ) -> LabelArray: ...

    @overload
    def predict(
        self,
        image: str | Path | Sequence[str | Path],
        *,
        modality: Modality | None = None,
        postprocess: bool = True,
    ) -> sitk.Image: ...

    @overload
    def predict(
        self,
        image: ImageLike | Sequence[ImageLike],
        *,
        modality: Modality | None = None,
        postprocess: bool = True,
    ) -> ImageLike: ...

    def predict(
        self,
        image: Image | Sequence[Image],
        *,
        modality: Modality | None = None,
        spacing_mm: Vector3 | None = None,
        postprocess: bool = True,
    ) -> Any:
        """Segment one case.

        Args:
            image: A NumPy array (S, P, L) or (C, S, P, L), with S growing to the head, P to the back and L to
                the left; an image of SimpleITK or nibabel in any orientation; or the path of a file or of a
                folder of DICOM slices. A list has one image per channel.
            modality: `CT` or `MR`; by default as the header of DICOM slices says, else the names of the
                model's channels, else the intensities.
            spacing_mm: Voxel size of NumPy arrays along S, P and L, in mm.
            postprocess: Whether the label map is post-processed.

        Returns:
            Label values as in `labels`, 0 elsewhere, on the image's own grid and as an image of its kind;
            for files an image of SimpleITK.

        Raises:
            ImageError: If the image cannot be used.
            ModelError: If the channels are not those of the model, or the modality is none.
        """
        volume = as_volume(image, spacing_mm)
        labels = self._labels(volume, self._modality(modality, image, volume), postprocess=postprocess)
        return like(image, labels, volume)

    def predict_with_probabilities(
        self,
        image: Image | Sequence[Image],
        *,
        classes: Sequence[str] | None = None,
        modality: Modality | None = None,
        spacing_mm: Vector3 | None = None,
        postprocess: bool = True,
    ) -> tuple[Any, dict[str, Any]]:
        """Segment one case, and return the probability of each class in each voxel as well.

        The networks run once for both. The probabilities take 4 bytes for each voxel and requested class,
        beside the memory of `predict`.

        Args:
            image: Image as in `predict`.
            classes: Classes whose probabilities are returned: names in `labels`, or `background` if classes
                do not overlap; by default all of them.
            modality: `CT` or `MR`.
            spacing_mm: Voxel size of NumPy arrays along S, P and L, in mm.
            postprocess: Whether the label map is post-processed; the probabilities never are.

        Returns:
            The label map as `predict` returns it, and a float32 map in [0, 1] for each class, on the same
            grid and of the same kind.

        Raises:
            ImageError: If the image cannot be used.
            ModelError: As `predict`, if there is no such class, or no memory for the probabilities.
        """
        names = _chosen(classes, self.predictor.plan.labels)
        volume = as_volume(image, spacing_mm)
        decided = self._modality(modality, image, volume)
        maps = _ScoreMaps(names, self.predictor.plan.labels, volume.stored)
        labels = self._labels(volume, decided, maps.take, postprocess=postprocess)
        return like(image, labels, volume), {name: like(image, maps.pop(name), volume) for name in names}

    @own_defaults()
    def _labels(
        self, volume: Volume, modality: Modality, score_sink: ScoreSink | None = None, *, postprocess: bool
    ) -> LabelArray:
        with computing():
            labels = self.predictor.predict(volume, modality, "predict", ignore_start, score_sink)
        if postprocess and self.cleanup is not None:
            labels = self.cleanup.apply(labels, volume.grid.spacing_mm).labels
        if not labels.any():
            logger.warning("%s", NOTHING_FOUND)
        return labels

    def _modality(self, given: Modality | None, image: Any, volume: Volume) -> Modality:
        """Decide the modality as the command does, without `cases.csv`."""
        if given not in (None, "CT", "MR"):
            raise ModelError(
                f"expected the modality CT or MR, found {given!r}; leave it out to have it found"
            )
        first = image[0] if isinstance(image, list | tuple) else image
        in_file = given is None and isinstance(first, str | Path)
        stated = dicom_modality(Path(first), self.channels) if in_file else None
        modality = given or stated or modality_of_channels(self.channels) or guess_modality(volume.array[0])
        notes = [*volume.notes, tilt_note(volume.grid), *check_values(volume.array, modality)]
        for note in filter(None, notes):
            logger.warning("%s", note)
        if modality in self.unseen:
            logger.warning("%s", self.unseen[modality])
        file = Path(first).name if isinstance(first, str | Path) else ""
        name = file.partition(".")[0].removesuffix("_0000")
        if (case := training_case_of(name, volume, self.training_images)) is not None:
            logger.warning(
                "the model has learnt from this image (%s): how well it does there says nothing about others",
                case,
            )
        return modality


@own_defaults()
def load_model(
    path: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    folds: str | int | Sequence[str | int] | None = None,
    roi: bool = True,
    mirror: bool = False,
) -> Model:
    """Load a trained model, or several that predict together.

    Args:
        path: A model folder or an `.autospine` file, of which every hash is checked; or `starter`, the model
            that comes with AutoSpine; or a list of models of the same labels and channels, whose
            probabilities are averaged.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        folds: Name of the fold of each model, or of those that predict together; by default every complete
            one.
        roi: Whether tiles are skipped that contain only air or, where a coarse model locates the spine, lie
            away from it.
        mirror: Whether each tile is also run with left and right exchanged, which takes twice the time.

    Raises:
        ModelError: If there is no such model, a fold is missing, or several do not fit together.
        FormatError: If a file is damaged.
    """
    use_huge_pages()
    where = choose_device(device)
    names, paths = named_folds(folds), [named_model(given) for given in model_paths(path)]
    with ExitStack() as bundles:
        models = [bundles.enter_context(opened_model(place)) for place in paths]
        check_distinct(models, names)
        warn_of_other_weights(models)
        warn_of_short_training(models, names)
        warn_of_unfinished_folds(models, names)
        plan = models[0].plan
        return Model(
            labels=dict(zip(plan.labels.names, plan.labels.painted, strict=True)),
            channels=plan.channels,
            predictor=build_predictor(models, where, names, region_of_interest=roi, mirror=mirror),
            cleanup=find_post_processing(models),
            unseen=unseen_modalities(models, names),
            training_images=tuple(each for model in models for each in model.training_images(names).items()),
            members=tuple(_info(model, names) for model in models),
        )


def _info(model: ModelFolder, folds: Sequence[str] | None) -> ModelInfo:
    """Describe a model as its manifest or its folder does."""
    scores = describe(model).scores
    try:
        held_out = read_cross_validation(model.path).folds
    except FormatError:  # there is none, or that of an exported model
        held_out = {}
    used = tuple(folds or model.ensemble)
    learnt = {case for fold in used for other in held_out if other != fold for case in held_out[other]}
    return ModelInfo(
        dataset=model.plan.dataset,
        configuration=model.configuration.name,
        folds=used,
        spacing_mm=model.configuration.spacing_mm,
        dice=None if scores is None else scores.mean_dice,
        dice_by_class={} if scores is None else {name: each.dice for name, each in scores.classes.items()},
        training_cases=tuple(sorted(learnt | set(model.training_images(folds)))),
    )


class _ScoreMaps:
    """Probabilities of some classes on the grid of the image file; what no tile covers is background.

    Args:
        names: Classes whose probabilities are held.
        labels: Label space of the model.
        stored: Grid of the image file.

    Raises:
        ModelError: If there is no memory for them.
    """

    def __init__(self, names: Sequence[str], labels: LabelSpace, stored: Grid) -> None:
        needed, free = 4 * len(names) * prod(stored.shape), free_memory()
        if needed > free:
            raise ModelError(
                f"expected {needed / 1e9:.1f} GB of memory for the probabilities of {len(names)} classes, "
                f"found {free / 1e9:.1f} GB; name fewer in `classes`, or write them to disk with "
                "`autospine predict --save-probabilities`"
            )
        self._names = labels.channel_names
        maps = {name: np.zeros(stored.shape, dtype=np.float32) for name in names}
        if not labels.regions and self._names[0] in maps:
            maps[self._names[0]][...] = 1
        self._maps = {name: orientation(stored).to_canonical(map_) for name, map_ in maps.items()}

    def take(self, box: Box, channel: int, scores: Tensor) -> None:
        """Take a channel's scores (s, p, l) in a box of the canonical grid."""
        if self._names[channel] in self._maps:
            self._maps[self._names[channel]][box.slices] = scores.cpu().numpy()

    def pop(self, name: str) -> ScoreMap:
        """Return the map of a class on the canonical grid, and hold it no longer."""
        return self._maps.pop(name)


def _chosen(classes: Sequence[str] | None, labels: LabelSpace) -> tuple[str, ...]:
    """Return the names of the requested classes, each once."""
    wanted = labels.channel_names if classes is None else (classes,) if isinstance(classes, str) else classes
    unknown = [name for name in wanted if name not in labels.channel_names]
    if unknown:
        raise ModelError(
            f"expected classes among {', '.join(labels.channel_names)}, found "
            f"{', '.join(map(repr, unknown))}; mend `classes`"
        )
    return tuple(dict.fromkeys(wanted))
