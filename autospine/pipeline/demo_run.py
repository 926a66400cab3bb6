"""The demo: synthetic spines through the whole chain, by the same code as the commands."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from autospine.core.errors import WorkspaceError
from autospine.dataset.raw import Case, case_modality, load_dataset
from autospine.dataset.splits import ALL
from autospine.evaluation.evaluate_maps import evaluate_predictions
from autospine.evaluation.export import write_evaluation
from autospine.evaluation.scores import Evaluation
from autospine.io.images import read_labels, read_volume
from autospine.models.archive import opened_model
from autospine.models.model_folder import open_model
from autospine.pipeline.measuring import fingerprint, make_phantoms
from autospine.pipeline.planned_dataset import open_planned
from autospine.pipeline.planning import plan
from autospine.pipeline.training import folds_at_once, open_project, train
from autospine.prediction.predict_cases import predict
from autospine.prediction.prediction_options import PredictionOptions
from autospine.report.montage import Panel, write_montage
from autospine.report.preview import write_preview
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import FOLDS, starter
from autospine.storage.workspace import Workspace
from autospine.system.hardware import cores, default_workers, peak_memory
from autospine.system.log import get_logger
from trainers.settings import TrainingSettings
from trainers.side_by_side import deal_rounds

logger = get_logger(__name__)

DATASET = "Dataset999_Demo"
CASES = 20
HELD_OUT = 6
SHOWN = 4
"""Number of held-out cases in the montage."""

AFTER_TRAINING = 0.07
"""Share of the time that is reserved for prediction, evaluation and pictures."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoResult:
    """Result of the demo."""

    evaluation: Evaluation
    """Scores of the held-out cases."""

    seconds: float
    peak_gb: float
    """Upper bound of the memory, in GB: the peak of this process, and of the largest child for each fold
    trained beside it."""

    files: dict[str, Path]
    """Paths of the files and folders, by what they contain."""


def run_demo(
    folder: Path,
    *,
    minutes: float,
    seed: int,
    device: torch.device,
    cases: int = CASES,
    held_out: int = HELD_OUT,
) -> DemoResult:
    """Make phantoms, plan, train five folds, predict held-out cases, evaluate, draw.

    Args:
        folder: Workspace of the demo; an earlier demo in it is replaced.
        minutes: Time for everything, in minutes.
        seed: Random seed of phantoms and training.
        device: Device that networks run on.
        cases: Number of training phantoms, at least five.
        held_out: Number of phantoms that are predicted.

    Raises:
        WorkspaceError: If the folder contains something else than an earlier demo.
    """
    began = time.monotonic()
    workspace = _fresh(folder)
    _make_phantoms(workspace.raw / DATASET, seed, cases=cases, test_cases=held_out)
    location = workspace.find_dataset(DATASET)
    facts = fingerprint(location)
    plan(location, device=device, facts=facts)
    planned = open_planned(location, "0")
    seconds = 60 * minutes * (1 - AFTER_TRAINING) - (time.monotonic() - began)
    parallel = folds_at_once(planned.configuration, planned.plan.memory_budget_bytes, [device])
    settings = TrainingSettings(seed=seed, device=device, parallel=parallel)
    train(open_project(planned, ALL, facts[0]), ALL, settings, minutes=max(seconds, 1.0) / 60)
    model = location.results / planned.configuration.name
    predictions = folder / "predictions"
    options = PredictionOptions(device=str(device))
    predict([open_model(model)], location.raw / "imagesTs", predictions, options)
    evaluation = evaluate_predictions(predictions, location.raw / "labelsTs", location.raw / "dataset.json")
    write_evaluation(evaluation, folder)
    montage = folder / "montage.png"
    shown = facts[0].test_cases[:: max(1, len(facts[0].test_cases) // SHOWN)][:SHOWN]
    _draw(shown, location.raw / "labelsTs", predictions, evaluation, montage)
    result = DemoResult(
        evaluation=evaluation,
        seconds=time.monotonic() - began,
        peak_gb=_peak_bytes(len(deal_rounds(range(FOLDS), cores(), parallel)[0])) / 1e9,
        files={
            "summary": folder / "summary.json",
            "scores": folder / "evaluation.csv",
            "montage": montage,
            "predictions": predictions,
            "curves": model / "fold_0" / "curves.png",
            "model": model,
        },
    )
    _summarise(result)
    return result


def run_fast_demo(folder: Path, *, images: Sequence[Path], seed: int, device: torch.device) -> DemoResult:
    """Segment a CT and an MR phantom, and images of the user, with the model that comes with AutoSpine.

    Args:
        folder: Workspace of the demo; an earlier demo in it is replaced.
        images: Images or folders of the user, as `predict` takes them; they are drawn without reference.
        seed: Random seed of the phantoms.
        device: Device that the network runs on.

    Raises:
        WorkspaceError: If the folder contains something else than an earlier demo.
        ModelError: If this installation lacks the model.
        DatasetError: If there is no image at one of these paths.
    """
    began = time.monotonic()
    archive = starter()
    workspace = _fresh(folder)
    raw = workspace.raw / DATASET
    _make_phantoms(raw, seed, cases=2, test_cases=0)
    predictions, own, montage = folder / "predictions", folder / "own", folder / "montage.png"
    options = PredictionOptions(device=str(device))
    with opened_model(archive) as model:
        predict([model], raw / "imagesTr", predictions, options)
        if images:
            predict([model], images, own, options, write_preview)
    evaluation = evaluate_predictions(predictions, raw / "labelsTr", raw / "dataset.json")
    write_evaluation(evaluation, folder)
    _draw(load_dataset(raw).cases, raw / "labelsTr", predictions, evaluation, montage)
    result = DemoResult(
        evaluation=evaluation,
        seconds=time.monotonic() - began,
        peak_gb=peak_memory() / 1e9,
        files={
            "summary": folder / "summary.json",
            "scores": folder / "evaluation.csv",
            "montage": montage,
            "predictions": predictions,
            **({"your scans": own} if images else {}),
        },
    )
    _summarise(result)
    return result


def _fresh(folder: Path) -> Workspace:
    """Return an empty workspace; an earlier demo is removed, and nothing else."""
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(f"expected a folder for the demo, found the file {folder}; name another with -o")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / "raw" / DATASET).is_dir():
            raise WorkspaceError(
                f"expected an empty folder or an earlier demo at {folder}, found other files; "
                "name another with -o"
            )
        for name in ("raw", "preprocessed", "results"):
            shutil.rmtree(folder / name / DATASET, ignore_errors=True)
        for name in ("predictions", "own"):
            shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return Workspace.locate(folder)


def _make_phantoms(folder: Path, seed: int, *, cases: int, test_cases: int) -> None:
    """Write lumbar phantoms in CT and MR, labelled by structure."""
    make_phantoms(
        folder,
        cases=cases,
        test_cases=test_cases,
        region="lumbar",
        scheme="structures",
        modalities=("CT", "MR"),
        seed=seed,
        overwrite=True,
        workers=default_workers(),
    )


def _draw(
    cases: Sequence[Case], references: Path, predictions: Path, evaluation: Evaluation, path: Path
) -> None:
    """Draw reference and prediction of a few phantoms, whose dataset lies in the parent of `references`."""
    dataset = load_dataset(references.parent)
    panels = []
    for case in cases:
        volume = read_volume(case.images)
        predicted = read_labels(predictions / f"{case.name}{dataset.file_ending}")
        reference = read_labels(references / f"{case.name}{dataset.file_ending}")
        panels.append(
            Panel(
                title=case.name,
                image=volume.array[0],
                prediction=dataset.labels.encode(predicted.array[0]),
                reference=dataset.labels.encode(reference.array[0]),
                spacing_mm=volume.grid.spacing_mm,
                modality=case_modality(case, volume),
                score=f"Dice {evaluation.by_case[case.name].dice:.2f}",
            )
        )
    write_montage(path, panels, dataset.labels, title="AutoSpine demo: synthetic spines that it had not seen")


def _summarise(result: DemoResult) -> None:
    evaluation = result.evaluation
    summary = {
        "mean_dice": round(evaluation.mean_dice, 4),
        "mean_iou": round(evaluation.mean_iou, 4),
        "mean_recall": round(evaluation.mean_recall, 4),
        "dice": {name: round(scores.dice, 4) for name, scores in evaluation.total.by_class.items()},
        "seconds": round(result.seconds, 1),
        "peak_gb": round(result.peak_gb, 2),
    }
    write_json(result.files["summary"], summary)


def _peak_bytes(workers: int) -> int:
    """Return an upper bound of the memory: the peaks need not have been at the same time."""
    return peak_memory() + workers * peak_memory(children=True)
