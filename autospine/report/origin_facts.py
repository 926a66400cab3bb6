"""The foot of a report: what the results were made with, and the commands that make them again."""

import math
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from autospine.core.errors import AutospineError
from autospine.io.formats import file_ending
from autospine.prediction.case_log import PredictedCase
from autospine.report.model_results import find_location
from autospine.report.report_content import Fact
from autospine.report.result_folder import number
from autospine.report.training_section import Logs
from autospine.storage.serialization import parse_json
from autospine.storage.trained_models import FULL, WEIGHTS, fold_folder, fold_names, unfinished_folds
from autospine.storage.workspace import DatasetLocation, Workspace
from autospine.system.log import get_logger

logger = get_logger(__name__)


def prediction_facts(record: Mapping[str, PredictedCase]) -> Iterator[Fact]:
    """Yield models, versions and devices of predictions, and the command that makes them again."""
    entries = list(record.values())
    models = dict.fromkeys(model for entry in entries for model in entry.models)
    for model in models:
        folds = f"{'fold' if len(model.folds) == 1 else 'folds'} {', '.join(model.folds)}"
        yield Fact(name="model", value=f"{model.folder}, {folds}", reason=f"SHA-256 {model.digest}")
    for name, found in (
        ("versions", [", ".join(f"{k} {v}" for k, v in (entry.versions or {}).items()) for entry in entries]),
        ("device", [entry.device or "" for entry in entries]),
    ):
        if known := [text for text in dict.fromkeys(found) if text]:
            yield Fact(name=name, value="; ".join(known))
    images = [Path(image) for entry in entries for image in entry.images]
    folders = {image.parent for image in images}
    if models and len(folders) == 1 and all(file_ending(image) for image in images):  # no DICOM slices
        words = ["autospine", "predict", "-i", str(folders.pop()), "-o", "OTHER_FOLDER"]
        words += [word for name in dict.fromkeys(model.folder for model in models) for word in ("-m", name)]
        words += [word for fold in next(iter(models)).folds for word in ("-f", fold)]
        words += ["--mirror"] if any(entry.mirrored for entry in entries) else []
        yield Fact(name="predictions again", value=shlex.join(words))


def training_facts(model: Path, scores: Mapping[str, Any], logs: Logs) -> Iterator[Fact]:
    """Yield the time of each fold, the digests of its weights, and the command that trained it.

    Args:
        model: Folder of the model.
        scores: Content of its `cross_validation.json`; empty if it is not validated.
        logs: Rows of each fold.
    """
    minutes = {
        fold: math.fsum(x for row in rows if math.isfinite(x := number(row.get("seconds")))) / 60
        for fold, rows in logs.items()
    }
    if any(minutes.values()):
        each = ", ".join(f"fold {fold} {taken:.1f} min" for fold, taken in minutes.items())
        yield Fact(name="time of training", value=each)
    yield from _made_with(model)
    for fold, content in scores.get("folds", {}).items():
        if digest := content.get("weights"):
            yield Fact(name=f"weights of fold {fold}", value=f"BLAKE2b {digest}")
    location = find_location(model)
    if location is not None and model.resolve().parent == location.results.resolve():
        folds = {*fold_names(model), *unfinished_folds(model)}
        fold = folds.pop() if len(folds) == 1 else "all" if folds - {FULL} else FULL
        words = ["autospine", "train", model.resolve().name, *dataset_words(location), "--fold", fold]
        yield Fact(
            name="training again",
            value=shlex.join(words),
            reason="complete folds are kept, and an interrupted one goes on",
        )


def _made_with(model: Path) -> Iterator[Fact]:
    """Yield the versions and devices that the weights of complete folds were trained with."""
    found = [_facts_of(fold_folder(model, fold) / WEIGHTS) for fold in fold_names(model)]
    versions = [
        ", ".join(f"{name} {facts[name]}" for name in ("autospine", "torch") if name in facts)
        for facts in found
    ]
    for name, texts in (("versions", versions), ("device", [str(each.get("device", "")) for each in found])):
        if known := [text for text in dict.fromkeys(texts) if text]:
            yield Fact(name=name, value="; ".join(known))


def _facts_of(weights: Path) -> Mapping[str, Any]:
    """Return what a file of weights says of its training, read without PyTorch; nothing if it is damaged."""
    try:
        with safe_open(weights, framework="numpy") as file:
            facts = parse_json((file.metadata() or {}).get("facts", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        logger.debug("it is not known how %s was trained: %s", weights, error)
        return {}
    return facts if isinstance(facts, dict) else {}


def plan_facts(location: DatasetLocation | None) -> Iterator[Fact]:
    """Yield the command that made a plan, where its dataset is known."""
    if location is not None:
        words = ["autospine", "plan-and-preprocess", *dataset_words(location)]
        yield Fact(name="plan again", value=shlex.join(words), reason="with the options that you have given")


def planned_location(folder: Path) -> DatasetLocation | None:
    """Return the dataset of a folder of `preprocessed`; None if the folder lies elsewhere, or it has gone."""
    place = folder.resolve()
    try:
        location = Workspace(root=place.parents[1]).find_dataset(place.name)
    except (AutospineError, IndexError) as error:
        logger.debug("no dataset: %s", error)
        return None
    return location if location.preprocessed.resolve() == place else None


def dataset_words(location: DatasetLocation) -> tuple[str, ...]:
    """Return the words of a command that name a dataset from anywhere."""
    return "-d", location.name, "-w", str(location.workspace.root)
