"""Weights that folds begin from: imported ones, or those of a trained model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from autospine.core.errors import TrainingError
from autospine.models.archive import opened_model
from autospine.models.imported_weights import digest, load_imported
from autospine.models.model_folder import ModelFolder
from autospine.plan import Configuration, Plan, build_network
from autospine.storage.tensors import load_tensors
from autospine.storage.trained_models import FULL

SMALLEST_SHARE = 0.5
"""Least share of the parameters that a model has to fill; with fewer, the networks hardly agree."""

HEAD = "head."
"""Prefix of the names of the tensors in the last layer, which turns features into logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InitialWeights:
    """Weights that every fold of a training run starts from."""

    tensors: dict[str, Tensor]
    """Tensors of the network that are taken, by name; the others are drawn at random."""

    digest: str
    """Digest of the tensors; equal digests mean equal initial weights."""

    dataset: str | None
    """Name of the dataset that the model was trained on; None for imported weights."""

    report: str
    """Sentence that says what is taken and what is drawn at random."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Sent to another process as bytes: torch would open a file descriptor for each of its tensors.
        return _unpickled, (save(self.tensors), self.digest, self.dataset, self.report)


def _unpickled(tensors: bytes, digest: str, dataset: str | None, report: str) -> InitialWeights:
    return InitialWeights(tensors=load(tensors), digest=digest, dataset=dataset, report=report)


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
    """Take the tensors of a trained model that fit the network by name and shape."""
    wanted = build_network(plan, configuration).state_dict()
    with _fold(path) as (model, fold):
        theirs, _ = load_tensors(model.weights([fold])[0])
        same_labels, dataset = model.plan.labels == plan.labels, model.plan.dataset
    taken = {
        name: theirs[name]
        for name, tensor in wanted.items()
        if name in theirs
        and theirs[name].shape == tensor.shape
        and (same_labels or not _of_classes(name, tensor, wanted, plan.labels.n_channels))
    }
    share = _size(taken) / _size(wanted)
    if share < SMALLEST_SHARE:
        raise TrainingError(
            f"expected a model with the network of configuration {configuration.name!r} in {path}, found one "
            f"of whose weights {share:.0%} of that network can be filled; plan with its --feature-size, "
            "--network and --patch, which are in its plan.json"
        )
    missing = [name for name in wanted if name not in taken]
    counts = f"{len(taken)} of {len(wanted)} tensors, {share:.1%} of the weights"
    report = f"{counts}, are taken from {path}, fold {fold}"
    return InitialWeights(
        tensors=taken,
        digest=digest(taken),
        dataset=dataset,
        report=f"{report}; drawn anew: {', '.join(missing)}" if missing else report,
    )


@contextmanager
def _fold(path: Path) -> Iterator[tuple[ModelFolder, str]]:
    """Open the model; yield it and the name of a fold: that of the path, else `full`, else the first."""
    named = path.name.removeprefix("fold_") if path.name.startswith("fold_") else None
    with opened_model(path if named is None else path.parent) as model:
        yield model, named or (FULL if FULL in model.folds else model.folds[0])


def _of_classes(name: str, tensor: Tensor, network: Mapping[str, Tensor], n_channels: int) -> bool:
    """Tell whether a tensor depends on the classes, so that another label space makes it useless.

    In networks of other distributions these tensors are not known by name; there, every tensor counts whose
    number of outputs is that of the classes.

    Args:
        name: Name of the tensor.
        tensor: Tensor of the planned network.
        network: All tensors of the planned network by name.
        n_channels: Number of channels of the logits.
    """
    if any(other.startswith(HEAD) for other in network):
        return name.startswith(HEAD)
    return tensor.ndim > 0 and tensor.shape[0] == n_channels


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
