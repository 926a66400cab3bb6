"""Losses of other distributions, found by the entry points `autospine.losses`.

An entry point names a callable that is called as

    make(labels=label_space, **settings)

with the plan's `loss_settings`, and returns an `nn.Module` that takes logits (B, K, S, P, L) and stored
labels (B, S, P, L) and returns a `LossResult`, or anything else with a scalar `total` and a mapping `parts`.
A loss is loaded only if a plan names it, so that a broken one affects no other training.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autospine.core.errors import TrainingError
from autospine.core.labels import LabelSpace
from autospine.core.plugins import Plugin, find_plugin, let_interrupts_pass, plugin_names
from autospine.core.tensor_types import LabelBatch, LogitBatch
from autospine.system.allocation import is_out_of_memory
from trainers import distributed
from trainers.losses.loss import RESERVED, Loss, LossResult

GROUP = "autospine.losses"
"""Group of the entry points."""


@dataclass(frozen=True, slots=True)
class LossEntry:
    """A loss of another distribution that has not been made."""

    plugin: Plugin

    def make(self, labels: LabelSpace, settings: Mapping[str, object]) -> "ExternalLoss":
        """Make the loss.

        Args:
            labels: Label space of the plan.
            settings: The plan's `loss_settings`, which are passed as keyword arguments.

        Raises:
            TrainingError: If the loss cannot be imported or made, or is no torch module; the message names
                the distribution.
        """
        factory, plugin = self.load(), self.plugin
        try:
            loss = factory(labels=labels, **settings)
        except TypeError as error:  # most often a mistyped setting
            if not settings:
                raise plugin.broken("cannot be made:", error) from error
            raise TrainingError(
                f"{plugin.description} cannot be made with the settings {settings}: {error}; "
                f"{plugin.remedy}, or mend loss_settings in the configuration's training in plan.json or "
                "in the file of --overrides"
            ) from error
        except BaseException as error:  # whatever other people's code raises
            let_interrupts_pass(error)
            raise plugin.broken("cannot be made:", error) from error
        if not isinstance(loss, nn.Module):
            raise TrainingError(
                f"expected {plugin.description} to make a torch module, found {type(loss).__name__}; "
                f"{plugin.remedy}"
            )
        return ExternalLoss(loss, plugin)

    def load(self) -> Callable[..., object]:
        """Return what the entry point names.

        Raises:
            TrainingError: If it cannot be imported or is not callable; the message names the distribution.
        """
        loaded = self.plugin.load()
        if not callable(loaded):
            raise TrainingError(
                f"expected {self.plugin.description} to be callable, found {type(loaded).__name__}; "
                f"{self.plugin.remedy}"
            )
        factory: Callable[..., object] = loaded
        return factory


class ExternalLoss(Loss):
    """A loss of another distribution whose results are checked.

    Args:
        loss: Module from logits and stored labels to a total and its parts.
        plugin: Entry point that it comes from, for messages.
    """

    covers_all_processes = True

    def __init__(self, loss: nn.Module, plugin: Plugin) -> None:
        super().__init__()
        self.loss, self._plugin = loss, plugin

    def forward(self, logits: LogitBatch, labels: LabelBatch) -> LossResult:
        """Compute the loss, check the result, and average it over the processes that train together.

        Args:
            logits: Logits (B, K, S, P, L) of any floating-point type.
            labels: Stored indices (B, S, P, L).

        Raises:
            TrainingError: If the loss fails, its result is not a scalar total with scalar parts, or a part
                has one of the names `RESERVED`.
        """
        try:
            result = self.loss(logits, labels)
        except BaseException as error:  # whatever other people's code raises
            let_interrupts_pass(error)
            if is_out_of_memory(error):
                raise
            raise self._plugin.broken("has failed:", error) from error
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
            if name.casefold() in RESERVED:
                raise TrainingError(
                    f"expected {self._plugin.description} to name its parts otherwise than the columns of "
                    f"metrics.jsonl and the Dice of the epoch, found {name!r}; rename the part"
                )
        if not getattr(self.loss, "covers_all_processes", False):
            processes = distributed.size()
            total, *values = distributed.add_up(
                total / processes, *(part.detach() / processes for part in parts.values())
            )
            parts = dict(zip(parts, values, strict=True))
        return LossResult(total=total, parts={name: part.detach() for name, part in parts.items()})

    def fault(self, logits: LogitBatch, labels: LabelBatch) -> str | None:
        """Say that the total of the loss or its gradient is not finite for logits that are."""
        if not logits.isfinite().all():
            return None
        with torch.enable_grad():
            logits = logits.detach().requires_grad_()
            result = self(logits, labels)
            (gradient,) = torch.autograd.grad(result.total, logits, allow_unused=True)
        named = {"its total": result.total} | {f"its part {name!r}": v for name, v in result.parts.items()}
        found = [
            f"{name} is {float(value.detach())}" for name, value in named.items() if not value.isfinite()
        ]
        if result.total.isfinite():
            if gradient is None or gradient.isfinite().all():
                return None
            found.insert(0, "its total is finite, but has a gradient that is not")
        return (
            f"{self._plugin.description} is not finite for logits that are ({', '.join(found)}); "
            f"{self._plugin.remedy}"
        )

    def _unusable(self, expected: str, found: object) -> TrainingError:
        shown = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else repr(found)
        return TrainingError(
            f"expected {self._plugin.description} to return {expected}, found {shown}; {self._plugin.remedy}"
        )


def find_external_loss(name: str) -> LossEntry:
    """Find the loss of another distribution by its name.

    Raises:
        TrainingError: If no installed distribution has a loss of this name, or if several have.
    """
    return LossEntry(find_plugin(GROUP, name, kind="loss", error=TrainingError))


def external_loss_names() -> tuple[str, ...]:
    """Return the names of the losses that other installed distributions offer."""
    return plugin_names(GROUP)


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0 and torch.is_floating_point(value)
