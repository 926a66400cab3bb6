"""What a model says about itself: what it was trained on, how, its scores and what it is meant for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from autospine import __version__
from autospine.core.errors import FormatError
from autospine.models.model_folder import ModelFolder
from autospine.storage.serialization import from_json, from_plain, read_json
from autospine.storage.tensors import load_facts
from autospine.storage.trained_models import WEIGHTS

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
SCORES = "cross_validation.json"

INTENDED_USE = "research; not a medical device, not for diagnosis or treatment"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One file of a bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScores:
    """Cross-validation of one class: means over the cases, 0 to 1, None where undefined."""

    dice: float | None = None
    iou: float | None = None
    acc: float | None = None
    n_cases: int | None = None
    """Cases in which the class occurs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupScores:
    """Cross-validation of some cases: means over the classes, 0 to 1, None where undefined."""

    n_cases: int
    mean_dice: float | None = None
    mean_iou: float | None = None
    mean_acc: float | None = None
    classes: dict[str, ClassScores] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelScores(GroupScores):
    """Cross-validation without its cases."""

    modalities: dict[str, GroupScores] = field(default_factory=dict)
    sites: dict[str, GroupScores] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """How long, how and by which versions a fold was trained; None where that is not known."""

    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    seed: int | None = None
    device: str | None = None
    autospine: str | None = None
    torch: str | None = None


Told = TypeVar("Told", ModelScores, Training)
"""What is told of a model in its manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a bundle says about itself."""

    format_version: int
    autospine: str
    """The version that wrote it."""

    created: str
    """Date and time, UTC."""

    dataset: str
    configuration: str
    licence: str
    intended_use: str
    scores: ModelScores | None
    """None without a cross-validation."""

    training: dict[str, Training]
    """Of each fold."""

    files: dict[str, Entry]

    finder: str | None = None
    """Configuration of the coarser model that travels along, to say where the spine is."""


def describe(model: ModelFolder) -> Manifest:
    """What is known of a model: by its manifest where it has travelled, else by its folder; without files."""
    path = model.path / MANIFEST
    if path.is_file():
        return replace(parse_manifest(path.read_bytes(), model.path), files={})
    return Manifest(
        format_version=FORMAT_VERSION,
        autospine=__version__,
        created="",
        dataset=model.plan.dataset,
        configuration=model.configuration.name,
        licence="not stated",
        intended_use=INTENDED_USE,
        scores=_scores(model.path),
        training={fold: training_of(model.path / f"fold_{fold}" / WEIGHTS) for fold in model.folds},
        files={},
    )


def parse_manifest(data: bytes, source: Path) -> Manifest:
    """The manifest that a bundle or a model folder holds.

    Raises:
        FormatError: if it is damaged or of another version.
    """
    try:
        text = data.decode()
        version = json.loads(text).get("format_version")
    except (ValueError, AttributeError, RecursionError):
        raise FormatError(f"expected JSON as {MANIFEST} in {source}, found none; export it again") from None
    if version != FORMAT_VERSION:
        newer = isinstance(version, int) and version > FORMAT_VERSION
        mend = "update AutoSpine" if newer else "export the model again"
        raise FormatError(f"expected format_version {FORMAT_VERSION} in {source}, found {version}; {mend}")
    return from_json(text, Manifest, f"{source}, {MANIFEST}")


def training_of(weights: Path) -> Training:
    """How a fold was trained, by what its weights say."""
    return _known(load_facts(weights), Training, weights)


def _scores(folder: Path) -> ModelScores | None:
    path = folder / SCORES
    if not path.is_file():
        return None
    return _known(read_json(path, dict), ModelScores, path)


def _known(content: Mapping[str, Any], kind: type[Told], path: Path) -> Told:
    """Those of the entries that travel."""
    names = [of.name for of in fields(kind)]
    return from_plain({name: content[name] for name in names if name in content}, kind, str(path))
