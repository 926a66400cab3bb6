"""A second model that counts the vertebrae, by which those that a model has named are counted again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from autospine.core.errors import ModelError
from autospine.core.geometry import Grid, turning
from autospine.core.types import LabelArray, Modality
from autospine.dataset.raw import Case, case_modality
from autospine.evaluation.held_out import Namer
from autospine.evaluation.postprocessing import Postprocessing
from autospine.inference.multi_model import JointPredictor
from autospine.inference.predictor import Predictor
from autospine.io.images import Volume, read_volume
from autospine.models.archive import opened_model
from autospine.models.model_folder import ModelFolder
from autospine.prediction.build_predictor import build_predictor
from autospine.prediction.prediction_options import NO_MODEL
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.storage.trained_models import STARTER, STARTER_FILE, named_model
from autospine.system.log import get_logger
from autospine.vertebrae.dataset_levels import vertebra_class
from autospine.vertebrae.label_naming import NamelessMap
from autospine.vertebrae.levels import SACRUM
from autospine.vertebrae.touching_vertebrae import VERTEBRA

logger = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class VertebraCounter:
    """A model with one class for all vertebrae."""

    predictor: Predictor | JointPredictor
    vertebra: int
    """Label value of all vertebrae."""

    sacrum: int | None
    """Label value of the sacrum; None if it has none."""

    def count(self, volume: Volume, modality: Modality) -> NamelessMap:
        """Segment the vertebrae of a volume, in canonical axes."""
        labels = self.predictor.predict(volume, modality, "counting vertebrae")
        return NamelessMap(labels=labels, vertebra=self.vertebra, sacrum=self.sacrum)


def check_counter(counting: str, models: Sequence[ModelFolder]) -> None:
    """Refuse a model that cannot count the vertebrae of other models' predictions.

    Args:
        counting: Name of the model, as `named_model` takes it.
        models: Models that predict.

    Raises:
        ModelError: If their classes are no levels, its own have no vertebra, or its channels are others.
        FormatError: If it is a damaged archive.
    """
    if VertebraNaming.of_labels(models[0].plan.labels) is None:
        raise ModelError(
            f"expected a model whose classes are levels to count vertebrae by {counting}, found the classes "
            f"{', '.join(models[0].plan.labels.names)}; leave --count-with out"
        )
    with opened_model(named_model(Path(counting))) as model:
        _check_fits(model, models[0])


def choose_counter(wanted: str | None, post_processing: Postprocessing | None, *, named: bool) -> str | None:
    """Return the name of the model that counts vertebrae; None for none.

    Args:
        wanted: The user's choice, a model or `none`; None for that of the cross-validation.
        post_processing: What the cross-validation has chosen; None if it is not known.
        named: Whether predictions may be named.
    """
    if not named or wanted == NO_MODEL:
        return None
    if wanted is not None:
        return wanted
    effect = None if post_processing is None else post_processing.naming
    if effect is None or not effect.counts:
        return None
    if not STARTER_FILE.is_file():
        logger.warning(
            "vertebrae are not counted by the starter, as cross-validation chose: this installation lacks it"
        )
        return None
    logger.info(
        "vertebrae are counted by the starter too, as that raised the class Dice of held-out cases from %.3f "
        "to %.3f",
        *(effect.dice_after, effect.dice_counted),
    )
    return STARTER


class Namers(NamedTuple):
    """Both ways of naming the vertebrae of held-out cases, of which the scores choose one."""

    alone: Namer | None
    """By the label map alone; None if classes are no levels."""

    counting: Namer | None
    """By what the starter counts, too; None where it cannot."""


@contextmanager
def opened_namers(
    naming: VertebraNaming | None, cases: Sequence[Case], channels: int, device: torch.device
) -> Iterator[Namers]:
    """Return what names the vertebrae of held-out cases, for as long as the starter is loaded.

    Args:
        naming: The naming of the dataset; None if its classes are no levels.
        cases: Cases with their images.
        channels: Number of channels of the images.
        device: Device that the starter runs on.
    """
    if naming is None:
        yield Namers(alone=None, counting=None)
        return
    if channels != 1 or not STARTER_FILE.is_file():
        yield Namers(alone=naming.relabelled, counting=None)
        return
    images = {case.name: case for case in cases}
    with opened_model(STARTER_FILE) as starter:
        counter = _counter(starter, device)

        def named(name: str, labels: LabelArray, grid: Grid) -> LabelArray:
            volume = read_volume(images[name].images)
            seen = counter.count(volume, case_modality(images[name], volume))
            on_grid = turning(volume.grid, grid).to_canonical(seen.labels)
            return naming.apply(name, labels, grid, seen._replace(labels=on_grid)).labels

        yield Namers(alone=naming.relabelled, counting=named)


@contextmanager
def opened_counter(
    counting: str | None, models: Sequence[ModelFolder], device: torch.device
) -> Iterator[VertebraCounter | None]:
    """Load the networks of a model that counts vertebrae; None for none.

    Args:
        counting: Name of the model, as `named_model` takes it; None for none.
        models: Models that predict.
        device: Device that its networks run on.

    Raises:
        ModelError: As `check_counter` does.
        FormatError: If it is a damaged archive.
    """
    if counting is None:
        yield None
        return
    with opened_model(named_model(Path(counting))) as model:
        _check_fits(model, models[0])
        yield _counter(model, device)


def _counter(model: ModelFolder, device: torch.device) -> VertebraCounter:
    integers = vertebra_class(model.plan.labels)
    return VertebraCounter(
        predictor=build_predictor([model], device, use_localizer=False),
        vertebra=integers[VERTEBRA],
        sacrum=integers.get(SACRUM),
    )


def _check_fits(model: ModelFolder, predicting: ModelFolder) -> None:
    """Refuse a model that cannot count the vertebrae of another one's predictions."""
    if not vertebra_class(model.plan.labels):
        raise ModelError(
            f"expected a class `vertebra` for all vertebrae in {model.name}, found "
            f"{', '.join(model.plan.labels.names)}; count with another model, such as `starter`"
        )
    if len(model.plan.channels) != len(predicting.plan.channels):
        raise ModelError(
            f"expected as many channels in {model.name} as in {predicting.name}, found "
            f"{len(model.plan.channels)} and {len(predicting.plan.channels)}; leave --count-with out"
        )
