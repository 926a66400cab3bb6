"""Losses of other distributions, found by the entry points `autospine.losses`.

An entry point names a callable that is called as

    make(labels=label_space, **settings)

with the plan's `loss_settings`, and returns an `nn.Module` that takes logits (B, K, S, P, L) and stored
labels (B, S, P, L) and returns a `LossResult`, or anything else with a scalar `total` and a mapping `parts`.
A loss is loaded only if a plan names it, so that a broken one affects no other training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import torch
from torch import Tensor, nn

from autospine.core.errors import TrainingError
from autospine.core.labels import LabelSpace
from autospine.core.tensor_types import LabelBatch, LogitBatch
from trainers import distributed
from trainers.losses.loss import Loss, LossResult
from trainers.out_of_memory import is_out_of_memory

GROUP = "autospine.losses"
"""Group of the entry points."""

REMEDY = "mend or uninstall it, or choose another loss"
"""Last words of every message about a loss that does not work."""


@dataclass(frozen=True, slots=True)
class LossEntry:
    """An entry point that names a loss."""

    entry: EntryPoint

    @property
    def distribution(self) -> str:
        """Name and version of the distribution that the loss comes from."""
        source = self.entry.dist
        return "unknown" if source is None else f"{source.name} {source.version}"

    @property
    def description(self) -> str:
        """The loss with its place and its distribution, for messages."""
        return f"the loss {self.entry.name!r} ({self.entry.value}) of the distribution {self.distribution}"

    def make(self, labels: LabelSpace, settings: Mapping[str, object]) -> "ExternalLoss":
        """Make the loss.

        Args:
            labels: Label space of the plan.
            settings: The plan's `loss_settings`, which are passed as keyword arguments.

        Raises:
            TrainingError: If the loss cannot be imported or made, or is no torch module; the message names
                the distribution.
        """
        factory = self.load()
        try:
            loss = factory(labels=labels, **settings)
        except TypeError as error:  # most often a mistyped setting
            raise TrainingError(
                f"{self.description} cannot be made with the settings {settings}: {error}; mend "
                f"loss_settings in the configuration's training in plan.json, or {REMEDY}"
            ) from error
        except (Exception, SystemExit) as error:  # whatever other people's code raises
            raise TrainingError(
                f"{self.description} cannot be made: {type(error).__name__}: {error}; {REMEDY}"
            ) from error
        if not isinstance(loss, nn.Module):
            raise TrainingError(
                f"expected {self.description} to make a torch module, found {type(loss).__name__}; {REMEDY}"
            )
        return ExternalLoss(loss, self.description)

    def load(self) -> Callable[..., object]:
        """Return what the entry point names.

        Raises:
            TrainingError: If it cannot be imported or is not callable; the message names the distribution.
        """
        try:
            loaded = self.entry.load()
        except (Exception, SystemExit) as error:  # whatever other people's code raises
            raise TrainingError(
                f"{self.description} cannot be loaded: {type(error).__name__}: {error}; {REMEDY}"
            ) from error
        if not callable(loaded):
            raise TrainingError(
                f"expected {self.description} to be callable, found {type(loaded).__name__}; {REMEDY}"
            )
        factory: Callable[..., object] = loaded
        return factory


class ExternalLoss(Loss):
    """A loss of another distribution whose results are checked.

    Args:
        loss: Module from logits and stored labels to a total and its parts.
        description: Name of the loss in messages, with its distribution.
    """

    covers_all_processes = True

    def __init__(self, loss: nn.Module, description: str) -> None:
        super().__init__()
        self.loss, self._description = loss, description

    def forward(self, logits: LogitBatch, labels: LabelBatch) -> LossResult:
        """Compute the loss, check the result, and average it over the processes that train together.

        Args:
            logits: Logits (B, K, S, P, L) of any floating-point type.
            labels: Stored indices (B, S, P, L).

        Raises:
            TrainingError: If the loss fails, or its result is not a scalar total with scalar parts.
        """
        try:
            result = self.loss(logits, labels)
        except (Exception, SystemExit) as error:  # whatever other people's code raises
            if is_out_of_memory(error):
                raise
            raise TrainingError(
                f"{self._description} has failed: {type(error).__name__}: {error}; {REMEDY}"
            ) from error
        if not (hasattr(result, "total") and hasattr(result, "parts")):
            raise self._unusable("a LossResult", type(result).__name__)
        total, parts = result.total, result.parts
        if not isinstance(total, Tensor) or not _is_scalar(total) or not total.requires_grad:
            raise self._unusable("a scalar tensor with a gradient as its total", total)
        if not isinstance(parts, Mapping):
            raise self._unusable("a mapping from names to scalar tensors as its parts", parts)
        for name, part in parts.items():
            if not isinstance(name, str) or not _is_scalar(part):
                raise self._unusable(f"a scalar tensor as its part {name!r}", part)
        if not getattr(self.loss, "covers_all_processes", False):
            processes = distributed.size()
            total, *values = distributed.add_up(
                total / processes, *(part.detach() / processes for part in parts.values())
            )
            parts = dict(zip(parts, values, strict=True))
        return LossResult(total=total, parts={name: part.detach() for name, part in parts.items()})

    def _unusable(self, expected: str, found: object) -> TrainingError:
        shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
        return TrainingError(f"expected {self._description} to return {expected}, found {shown}; {REMEDY}")


def find_external_loss(name: str) -> LossEntry:
    """Find the loss of another distribution by its name.

    Raises:
        TrainingError: If no installed distribution has a loss of this name, or if several have.
    """
    entries = [LossEntry(entry) for entry in entry_points(group=GROUP, name=name)]
    if len(entries) != 1:
        listed = ", ".join(entry.distribution for entry in entries) or "none"
        raise TrainingError(
            f"expected one installed distribution with the loss {name!r} among its entry points {GROUP}, "
            f"found {listed}; install one, uninstall the others, or choose another loss"
        )
    return entries[0]


def external_loss_names() -> tuple[str, ...]:
    """Return the names of the losses that other installed distributions offer."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0 and torch.is_floating_point(value)
