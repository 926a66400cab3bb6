"""Training of the starter: one small model from phantoms alone, for CT and MR, which has seen no patient.

Run as `python -m autospine.pipeline.starter_training FOLDER`. It goes on where it was stopped, and the same
seed gives the same phantoms and patches. It is trained in rounds, each from the weights of the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from autospine.dataset.raw import load_dataset
from autospine.evaluation.held_out import HeldOut, score_held_out, validation_folder
from autospine.evaluation.stored_scores import CROSS_VALIDATION
from autospine.models.model_export import export_model
from autospine.models.model_folder import open_model
from autospine.phantom import PhantomSettings, write_dataset
from autospine.pipeline.measuring import fingerprint
from autospine.pipeline.planned_dataset import PlannedDataset, open_planned
from autospine.pipeline.planning import plan
from autospine.pipeline.training import open_project, train
from autospine.plan import Plan
from autospine.prediction.predict_cases import predict
from autospine.prediction.prediction_options import PredictionOptions
from autospine.storage.file_names import folder_to_write
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import FULL, PLAN
from autospine.storage.workspace import DatasetLocation, Workspace
from autospine.system.hardware import default_workers
from autospine.system.log import get_logger, progress, setup
from planners.overrides import Overrides
from trainers.settings import TrainingSettings

logger = get_logger(__name__)

DATASET = "Dataset990_Starter"
HELD_OUT = "Dataset991_StarterHeldOut"
CONFIGURATION = "fullres"

PHANTOMS = 240
"""Number of phantoms. Each is seen in hundreds of appearances and deformations."""

HELD_OUT_PHANTOMS = 16
"""Number of phantoms that the trained starter is scored on."""

PHANTOM_MM = 2.0
"""Voxel size of the phantoms: finer than that of the model, so that shares of tissues are kept."""

SPACING_MM = (3.0, 3.0, 3.0)
"""Voxel size of the model: thin arches are still seen, and a large CT takes seconds on a laptop."""

PATCH = (64, 48, 48)
"""Patch along S, P, L: 192 x 144 x 144 mm, five lumbar vertebrae."""

FEATURE_SIZE = 12
"""Channels at full resolution: 4.3 million weights, 9 MB in half precision."""

STEPS = 50
"""Optimiser steps per epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StarterRound:
    """One round of the training, which begins from the weights of the one before."""

    epochs: int
    learning_rate: float | None = None
    """Peak of the learning rate as a plan states it, of which weights that are taken over get a tenth; None
    for the planned one."""

    foreground: float
    """Share of patches that are centred on a class, drawn evenly."""


ROUNDS = (
    StarterRound(epochs=80, foreground=0.5),
    StarterRound(epochs=30, learning_rate=0.3, foreground=0.75),
    StarterRound(epochs=12, learning_rate=0.2, foreground=0.4),
    StarterRound(epochs=50, learning_rate=0.5, foreground=0.5),
)
"""The first round learns the column; the second, with one patch in five centred on it, the sacrum, and takes
more beside the spine for it; the third sees more of what lies beside the spine, and the fourth, the second
longest, gains in every class."""

SYNTHESIS = 0.9
"""Share of patches made from tissue maps; the others are the phantoms as they were scanned."""

SPATIAL = 0.6
"""Share of patches that are rotated, scaled and deformed."""


def train_starter(
    folder: Path,
    *,
    seed: int = 20,
    rounds: Sequence[StarterRound] = ROUNDS,
    cases: int = PHANTOMS,
    steps: int = STEPS,
    held_out: int = HELD_OUT_PHANTOMS,
) -> Path:
    """Make phantoms, plan, train and score the starter, and export it; what is done already is kept.

    Args:
        folder: Workspace of the starter.
        seed: Seed of phantoms and of the first round; each further round has the next one.
        rounds: The rounds, at least one.
        cases: Number of phantoms.
        steps: Optimiser steps per epoch.
        held_out: Number of further phantoms that it is scored on, and its post-processing chosen by.

    Returns:
        The exported model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.locate(folder)
    if not (workspace.raw / DATASET).is_dir():
        _write_phantoms(workspace.raw / DATASET, seed, cases, tissues=True)
    location = workspace.find_dataset(DATASET)
    if not (location.preprocessed / PLAN).is_file():
        _write_plan(location)
    planned = open_planned(location, CONFIGURATION)
    model: Path | None = None
    for number, each in enumerate(rounds):
        settings = TrainingSettings(
            seed=seed + number, epochs=each.epochs, iterations=steps, pretrained=model
        )
        model = folder_to_write(location.results, f"round_{number + 1}")
        train(open_project(_for_round(planned, each), FULL), FULL, settings, folder=model)
    assert model is not None  # there is at least one round
    if not (model / CROSS_VALIDATION).is_file():
        _score(model, workspace.raw / HELD_OUT, seed + 1, held_out)
    target = folder / "starter.autospine"
    export_model(
        open_model(model),
        target,
        licence="Apache-2.0",
        intended_use="a first look at CT and MR of the spine, and the start of a training; not for diagnosis",
        half=True,
    )
    logger.info("written: %s", target)
    return target


def _score(model: Path, raw: Path, seed: int, cases: int) -> None:
    """Score a trained model on phantoms that it has not seen, and choose its post-processing by them."""
    if not raw.is_dir():
        _write_phantoms(raw, seed, cases, tissues=False)
    dataset, opened = load_dataset(raw), open_model(model)
    predictions = validation_folder(model, FULL)
    predict([opened], raw / "imagesTr", predictions, PredictionOptions(post_process=False))
    held_out = HeldOut(fold=FULL, cases=tuple(case.name for case in dataset.cases), folder=predictions)
    score_held_out(model, [held_out], dataset, opened.plan.labels)


def _write_phantoms(folder: Path, seed: int, cases: int, *, tissues: bool) -> None:
    with progress("phantoms", cases) as meter:
        write_dataset(
            folder,
            cases=cases,
            region="any",
            scheme="structures",
            seed=seed,
            settings=PhantomSettings(spacing_mm=(PHANTOM_MM,) * 3),
            tissues=tissues,
            workers=default_workers(),
            on_progress=lambda _done, _total: meter.advance(),
        )


def _for_round(planned: PlannedDataset, each: StarterRound) -> PlannedDataset:
    """Return the planned dataset with the recipe of a round."""
    known = planned.configuration.training
    rate = known.learning_rate if each.learning_rate is None else each.learning_rate
    recipe = replace(known, learning_rate=rate, oversample_foreground_fraction=each.foreground)
    configuration = replace(planned.configuration, training=recipe)
    plan = replace(planned.plan, configurations=(configuration,))
    return replace(planned, plan=plan, configuration=configuration)


def _write_plan(location: DatasetLocation) -> Plan:
    """Plan with the starter's sizes, and more made and deformed patches than other trainings have."""
    facts = fingerprint(location)
    overrides = Overrides(spacing_mm=SPACING_MM, patch_size=PATCH, feature_size=FEATURE_SIZE)
    planned = plan(location, device=torch.device("cpu"), overrides=overrides, facts=facts)
    configurations = tuple(
        replace(
            each,
            augmentation=replace(
                each.augmentation, synthesis_probability=SYNTHESIS, spatial_probability=SPATIAL
            ),
        )
        for each in planned.configurations
    )
    planned = replace(planned, configurations=configurations)
    write_json(location.preprocessed / PLAN, planned)
    return planned


def main(
    folder: Annotated[Path, typer.Argument(help="Workspace of the starter.")] = Path("autospine-starter"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of phantoms and training.")] = 20,
    cases: Annotated[int, typer.Option(min=5, help="Number of phantoms.")] = PHANTOMS,
) -> None:
    """Train the starter from phantoms alone; a training that was stopped goes on."""
    setup()
    train_starter(folder, seed=seed, cases=cases)


if __name__ == "__main__":
    typer.run(main)
