"""Weights that folds begin from: imported ones, or those of a trained model."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from autospine.core.errors import TrainingError
from autospine.core.types import Vector3
from autospine.models.archive import opened_model
from autospine.models.imported_weights import digest, load_imported
from autospine.models.model_folder import ModelFolder
from autospine.plan import Configuration, Plan, build_network
from autospine.storage.tensors import load_tensors
from autospine.storage.trained_models import FULL, STARTER, STARTER_FILE
from trainers.optimizer import IMPORTED_SHARE
from trainers.weight_mapping import WeightMapping

SMALLEST_SHARE = 0.5
"""Least share of the parameters that a model has to fill; with fewer, the networks hardly agree."""

ALIKE = 1.5
"""Largest ratio of two voxel sizes along an axis of which nothing is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialWeights:
    """Weights that every fold of a training run starts from."""

    tensors: dict[str, Tensor]
    """Tensors of the network that are taken, by name; the others, and values that are NaN here, are drawn at
    random."""

    digest: str
    """Digest of the tensors; equal digests mean equal initial weights."""

    dataset: str | None
    """Name of the dataset that the model was trained on; None for imported weights."""

    report: str
    """Sentence that says what is taken, in what the model differs, and what is drawn at random."""

    share: float = IMPORTED_SHARE
    """Share of the learning rate that these weights have."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Sent to another process as bytes: torch would open a file descriptor for each of its tensors.
        return _unpickled, (save(self.tensors), self.digest, self.dataset, self.report, self.share)


def _unpickled(tensors: bytes, digest: str, dataset: str | None, report: str, share: float) -> InitialWeights:
    return InitialWeights(tensors=load(tensors), digest=digest, dataset=dataset, report=report, share=share)


def load_initial_weights(path: Path, plan: Plan, configuration: Configuration) -> InitialWeights:
    """Load the initial weights that `--pretrained` names.

    Args:
        path: File that `autospine model import-weights` has written; or a model, as a folder or an
            `.autospine` file; or the folder of a fold in a model.
        plan: Plan of the network to fill.
        configuration: Configuration of the network to fill.

    Raises:
        FormatError: If the path is none of these.
        PlanError: If imported weights are those of another network.
        ModelError: If the model has no such fold.
        TrainingError: If less than half of the network can be filled.
    """
    if (path.is_file() and path.suffix == ".autospine") or path.is_dir():
        return _of_model(path, plan, configuration)
    imported = load_imported(path)
    imported.check(plan, configuration)
    report = f"{len(imported.tensors)} tensors are taken from {path}"
    return InitialWeights(tensors=imported.tensors, digest=imported.digest, dataset=None, report=report)


def _of_model(path: Path, plan: Plan, configuration: Configuration) -> InitialWeights:
    """Take the tensors of a trained model that fit the network by name, shape and meaning."""
    wanted = build_network(plan, configuration).state_dict()
    with _fold(path) as (model, fold):
        theirs, _ = load_tensors(model.weights([fold])[0])
        theirs = {n: t.float() if t.dtype == torch.float16 else t for n, t in theirs.items()}
        source, spacing_mm = model.plan, model.configuration.spacing_mm
    mapping = WeightMapping(source=source, target=plan)
    mapped = mapping.apply(theirs, configuration)
    taken = {
        name: mapped[name]
        for name, tensor in wanted.items()
        if name in mapped and mapped[name].shape == tensor.shape
    }
    share = _size(taken) / _size(wanted)
    if share < SMALLEST_SHARE:
        raise TrainingError(
            f"expected a model with the network of configuration {configuration.name!r} in {path}, found one "
            f"of whose weights {share:.0%} of that network can be filled; plan for it first: "
            f"autospine plan-and-preprocess -d {plan.dataset} --pretrained {_called(path)}"
        )
    counts = f"{len(taken)} of {len(wanted)} tensors, {floor(1000 * share) / 10:g} % of the weights"
    report = [f"{counts}, are taken from {_called(path)}, fold {fold}", *mapping.notes()]
    if voxels := _other_spacing(spacing_mm, configuration.spacing_mm):
        report.append(voxels)
    if missing := _by_part(wanted, taken):
        report.append(f"begin at random: {missing}")
    if mapping.splits_classes:
        report.append("it does not tell these classes apart, so that all weights learn at the full rate")
    return InitialWeights(
        tensors=taken,
        digest=digest(taken),
        dataset=source.dataset,
        report="; ".join(report),
        share=1.0 if mapping.splits_classes else IMPORTED_SHARE,
    )


def _called(path: Path) -> Path:
    """Return the name by which a command takes a model."""
    return Path(STARTER) if path == STARTER_FILE else path


def _by_part(wanted: Collection[str], taken: Collection[str]) -> str:
    """Count the tensors that are not taken by the part of the network that they belong to."""
    whole = Counter(name.partition(".")[0] for name in wanted)
    missing = Counter(name.partition(".")[0] for name in wanted if name not in taken)
    return ", ".join(
        f"{part} ({n} tensor{'s' if n > 1 else ''})" if n == whole[part] else f"{part} ({n} of {whole[part]})"
        for part, n in missing.items()
    )


def _other_spacing(theirs: Vector3, ours: Vector3) -> str | None:
    """Say that voxels have another size than those that the model was trained on; None for about the same."""
    if all(max(a, b) <= ALIKE * min(a, b) for a, b in zip(theirs, ours, strict=True)):
        return None
    sizes = [" x ".join(f"{mm:.3g}" for mm in spacing) for spacing in (theirs, ours)]
    return f"its voxels are {sizes[0]} mm, these {sizes[1]} mm: structures look smaller or larger to it"


@contextmanager
def _fold(path: Path) -> Iterator[tuple[ModelFolder, str]]:
    """Open the model; yield it and the name of a fold: that of the path, else `full`, else the first."""
    named = path.name.removeprefix("fold_") if path.name.startswith("fold_") else None
    with opened_model(path if named is None else path.parent) as model:
        yield model, named or (FULL if FULL in model.folds else model.folds[0])


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
