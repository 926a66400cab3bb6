"""The manifest of a model: its dataset, training, scores and intended use."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from autospine import __version__
from autospine.core.errors import FormatError
from autospine.core.types import Modality
from autospine.models.model_folder import ModelFolder
from autospine.plan import TrainingPlan
from autospine.storage.file_names import open_file
from autospine.storage.serialization import from_json, from_plain, read_json, stored_as
from autospine.storage.tensors import load_facts
from autospine.storage.trained_models import WEIGHTS, fold_folder

MANIFEST = "manifest.json"
FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)
"""Versions that can be read."""

FORMER_KEYS = {"acc": "recall", "mean_acc": "mean_recall"}
"""Keys of earlier versions, of the manifest and of the scores, by what they are called now."""

SCORES = "cross_validation.json"

INTENDED_USE = "research; not a medical device, not for diagnosis or treatment"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file of an archive."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """Cross-validation of one class: means over the cases, 0 to 1, None where undefined."""

    dice: float | None = None
    iou: float | None = None
    recall: float | None = None
    n_cases: int | None = None
    """Number of cases in which the class occurs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupScores:
    """Cross-validation of some cases: means over the classes, 0 to 1, None where undefined."""

    n_cases: int
    mean_dice: float | None = None
    mean_iou: float | None = None
    mean_recall: float | None = None
    classes: dict[str, ClassScores] = field(default_factory=dict)


@stored_as("the scores of a model")
@dataclass(frozen=True, kw_only=True, slots=True)
class ModelScores(GroupScores):
    """Cross-validation of a model, without its cases."""

    modalities: dict[str, GroupScores] = field(default_factory=dict)
    sites: dict[str, GroupScores] = field(default_factory=dict)


@stored_as("facts about a training")
@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Length, settings and versions of the training of a fold; None where unknown."""

    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    seed: int | None = None
    device: str | None = None
    autospine: str | None = None
    torch: str | None = None
    modalities: tuple[Modality, ...] | None = None
    """Modalities of the cases that it was trained on."""


Described = TypeVar("Described", ModelScores, Training)
"""A part of the manifest that is read from another file."""


@stored_as("the description of a model", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """`manifest.json` of an archive."""

    format_version: int
    autospine: str
    """Version of AutoSpine that wrote it."""

    created: str
    """Date and time in UTC."""

    dataset: str
    configuration: str
    licence: str
    intended_use: str
    scores: ModelScores | None
    """Scores of the cross-validation; None without one."""

    training: dict[str, Training]
    """Training of each fold."""

    files: dict[str, Entry]
    """Every other file of the archive, by name."""

    finder: str | None = None
    """Configuration of the localizer that was exported with the model."""


def describe(model: ModelFolder) -> Manifest:
    """Describe a model by its manifest if it was imported, else by its folder; without files."""
    path = model.path / MANIFEST
    if os.path.lexists(path):
        with open_file(path) as file:
            return replace(parse_manifest(file.read(), model.path), files={})
    return Manifest(
        format_version=FORMAT_VERSION,
        autospine=__version__,
        created="",
        dataset=model.plan.dataset,
        configuration=model.configuration.name,
        licence="not stated",
        intended_use=INTENDED_USE,
        scores=_scores(model.path),
        training={fold: training_of(fold_folder(model.path, fold) / WEIGHTS) for fold in model.folds},
        files={},
    )


def parse_manifest(data: bytes, source: Path) -> Manifest:
    """Parse the manifest of an archive or a model folder.

    Raises:
        FormatError: If it is damaged or of another version.
    """
    try:
        text = data.decode()
        content = json.loads(text)
        version = content.get("format_version")
    except (ValueError, AttributeError, RecursionError):
        raise FormatError(f"expected JSON as {MANIFEST} in {source}, found none; export it again") from None
    if version not in READABLE:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        mend = "update AutoSpine" if newer else "export the model again"
        raise FormatError(
            f"expected format_version {' or '.join(map(str, READABLE))} in {source}, found {version}; {mend}"
        )
    if version == 1:
        text = json.dumps(_with_recall(content) | {"format_version": FORMAT_VERSION})
    return from_json(text, Manifest, f"{source}, {MANIFEST}")


def training_of(weights: Path) -> Training:
    """Return how a fold was trained, as its weights' metadata says; steps that were skipped do not count."""
    facts = load_facts(weights)
    training = _known(facts, Training, weights)
    skipped = from_plain(facts.get("skipped_steps", 0), int, str(weights))
    return training if training.steps is None else replace(training, steps=max(0, training.steps - skipped))


def short_training(weights: Sequence[Path], recipe: TrainingPlan) -> tuple[int, int] | None:
    """Return the steps taken and planned of a model that was hardly trained; None for other models.

    Args:
        weights: Weights of its folds; the one with the fewest steps counts.
        recipe: Recipe of its plan.
    """
    known = [training_of(path).steps for path in weights]
    steps = min((taken for taken in known if taken is not None), default=recipe.steps)
    return (steps, recipe.steps) if recipe.is_cut_short(steps) else None


def _scores(folder: Path) -> ModelScores | None:
    path = folder / SCORES
    if not path.is_file():
        return None
    content = _with_recall(read_json(path, dict))
    parts = {
        "classes": _pick(content.get("classes"), ClassScores),
        "modalities": _groups(content.get("modalities")),
        "sites": _groups(content.get("sites")),
    }
    return _known(content | {name: part for name, part in parts.items() if part}, ModelScores, path)


def _groups(groups: object) -> dict[str, Any]:
    """Keep of the scores by modality or by site what the manifest has, too."""
    return {
        name: group | {"classes": _pick(group.get("classes"), ClassScores)}
        if isinstance(group, dict)
        else group
        for name, group in _pick(groups, GroupScores).items()
    }


def _pick(scores: object, kind: type[ClassScores | GroupScores]) -> dict[str, Any]:
    """Keep of each of some scores the entries that the manifest has, too; others are told when it is read."""
    names = {entry.name for entry in fields(kind)}
    return {
        name: {key: value for key, value in each.items() if key in names} if isinstance(each, dict) else each
        for name, each in (scores.items() if isinstance(scores, dict) else ())
    }


def _with_recall(content: Any) -> Any:
    """Return JSON of any version with the recall under its name."""
    if isinstance(content, dict):
        return {FORMER_KEYS.get(key, key): _with_recall(value) for key, value in content.items()}
    return [_with_recall(value) for value in content] if isinstance(content, list) else content


def _known(content: Mapping[str, Any], kind: type[Described], path: Path) -> Described:
    """Read the entries of another file that the manifest has, too."""
    names = [entry.name for entry in fields(kind)]
    return from_plain({name: content[name] for name in names if name in content}, kind, str(path))
