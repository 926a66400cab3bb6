"""The network with everything that changes while it learns."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.errors import AutospineError
from autospine.core.tensor_types import ImageBatch, LabelBatch, LogitBatch
from autospine.network.external import find_external
from autospine.network.external_plan import ExternalPlan
from autospine.plan import Configuration, Plan, Precision, build_network
from autospine.storage.tensors import flatten_optimizer, restore_optimizer
from autospine.system.allocation import is_out_of_memory
from autospine.system.devices import native_half
from autospine.system.log import get_logger
from trainers.distributed import add_gradients, begin_alike
from trainers.label_targets import LabelTargets
from trainers.losses import Loss, LossResult, make_loss
from trainers.monitors import PatchCounts
from trainers.randomness import random_state, restore_random_state, seed_everything
from trainers.supervision import DeeplySupervised, levels, supervise

logger = get_logger(__name__)

BETAS = (0.9, 0.98)
"""Decay rates of AdamW's averages: transformers are trained with a shorter average of the squared gradients
than the usual 0.999 gives (nnU-Net's Primus recipe)."""

SMALLEST_SCALE, LARGEST_SCALE = 0.01, 0.1
"""Bounds of a tensor's scale, by which the learning rate is multiplied: tensors that start at zero must move,
and the weights of norms, which start at 1, must not change too fast."""

IMPORTED_SHARE = 0.1
"""Share of the learning rate for imported weights. With the planned peak of 0.05 they change by 0.5 % of
their size per step, as weights of 0.02 do with the 1e-4 of SwinUNETR's own fine-tuning."""

AVERAGED_SHARE = 0.05
"""Share of the steps so far over which the averaged weights average, until the plan's decay is reached."""

COMPILER = "inductor"
"""Backend of `torch.compile`; PyTorch's default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """The result of one optimiser step, for the metrics of its epoch."""

    loss: float
    """Total loss at full resolution."""

    parts: Mapping[str, float]
    """Parts of the loss by name."""

    finite: bool
    """Whether the step was taken; a step with a non-finite loss or gradient is not."""

    overlap: tuple[tuple[float, float, float], ...] = ()
    """Soft overlap of each foreground class, in the order of `SoftOverlap`'s fields; empty where unknown."""

    counts: PatchCounts | None = field(default=None, compare=False)
    """Counts of the first patch's prediction and labels; None unless the monitors sample this step."""

    def plain(self) -> dict[str, object]:
        """Return the result as JSON can hold it."""
        counts = None if self.counts is None else self.counts.numbers()
        return {**asdict(replace(self, counts=None)), "counts": counts}

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> "StepResult":
        """Return the result that `plain` was made from, also by versions whose only loss was `dice_ce`."""
        counts, parts = plain.get("counts"), plain.get("parts")
        if parts is None:
            dice = plain["dice"]
            parts = {"ce": plain["cross_entropy"], "dice_loss": 1 - sum(dice) / len(dice)}
        return cls(
            loss=plain["loss"],
            parts=parts,
            finite=plain["finite"],
            overlap=tuple(tuple(voxels) for voxels in plain.get("overlap", ())),
            counts=None if counts is None else PatchCounts.restored(counts),
        )


class Learner:
    """Network, optimiser and averaged weights of one fold.

    Args:
        plan: Labels and channels.
        configuration: Network and recipe.
        seed: Random seed of the first weights.
        device: Device on which training runs.
        imported: Initial weights by name; tensors that are not among them, and values that are NaN, are drawn
            at random.
        deep_supervision: Whether coarser levels of the decoder have heads of their own in training.
        compiled: Whether the network is compiled; if that fails, this is logged once and training goes on.
        loss: Loss to use; by default the one that the recipe names.

    Raises:
        TrainingError: If the network cannot be deeply supervised, or the recipe's loss cannot be made.
    """

    def __init__(
        self,
        plan: Plan,
        configuration: Configuration,
        *,
        seed: int,
        device: torch.device,
        imported: Mapping[str, torch.Tensor] | None = None,
        deep_supervision: bool = False,
        compiled: bool = False,
        loss: Loss | None = None,
    ) -> None:
        self.recipe = configuration.training
        self.device = device
        self._dtype = amp_dtype(self.recipe.precision, device)
        seed_everything(seed)
        self.network = build_network(plan, configuration).to(device)
        imported = imported or {}
        drawn = self.network.state_dict()
        self.network.load_state_dict(
            drawn | {name: _filled(tensor, drawn[name]) for name, tensor in imported.items()}
        )
        self._model = (
            DeeplySupervised(self.network, plan.labels.n_channels).to(device)
            if deep_supervision
            else self.network
        )
        begin_alike(self._model.state_dict().values())
        self._averaged = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self._loss = (loss or make_loss(plan.labels, self.recipe)).to(device)
        self._targets = LabelTargets(plan.labels).to(device)
        self._n_channels = plan.labels.n_channels
        planned = configuration.network
        self._external = find_external(planned.entry_point) if isinstance(planned, ExternalPlan) else None
        self._forward: Callable[[torch.Tensor], Any] = (
            torch.compile(self._model, backend=COMPILER) if compiled else self._model
        )
        whole = {f"{self._prefix}{name}" for name, tensor in imported.items() if not tensor.isnan().any()}
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self._model, self.recipe.weight_decay, whole),
            betas=BETAS,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype == torch.float16)
        self._updates = 0

    def begin_from(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Start from trained weights; each tensor keeps the scale that its random values gave it."""
        self.network.load_state_dict(weights)
        self._averaged = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def step(self, images: ImageBatch, labels: LabelBatch, rate: float, sample: bool = False) -> StepResult:
        """Take one optimiser step; it is left out if the loss or a gradient is not finite.

        Args:
            images: (B, C, S, P, L), normalised; this process's part of the batch.
            labels: (B, S, P, L), stored indices.
            rate: Learning rate.
            sample: Whether the monitors sample this step, so that its first patch is counted.
        """
        self._model.train()
        images, labels = images.to(self.device), labels.to(self.device)
        logits, result = self._backward(images, labels)
        loss, overlap = result.total.detach(), result.overlap
        add_gradients(self._model.parameters())
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self.recipe.gradient_clip)
        finite = bool(torch.isfinite(norm) & torch.isfinite(loss))
        if finite:
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            self._optimizer.step()
            self._average()
        self._scaler.update()
        if overlap is None:
            overlap = self._targets.overlap_of_logits(logits, labels)
        return StepResult(
            loss=float(loss),
            parts={name: float(part) for name, part in result.parts.items()},
            finite=finite,
            overlap=tuple(map(tuple, torch.stack(overlap, dim=1).tolist())),
            counts=self._targets.count(logits[0], labels[0]) if sample else None,
        )

    @property
    def precision(self) -> str:
        """Number format that steps are computed in: that of the recipe, or the other one of 16 bits."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def steps_taken(self) -> int:
        """Number of steps that were taken, without those that were left out and those before an extension."""
        return self._updates

    def fault_of_loss(self, images: ImageBatch, labels: LabelBatch) -> str | None:
        """Say whether the loss of another distribution is why a step on this batch could not be taken.

        The network has not changed in steps that were left out, so that it gives the same logits again, but
        for dropout. Processes that train together have to call this together.

        Args:
            images: (B, C, S, P, L), normalised.
            labels: (B, S, P, L), stored indices.

        Returns:
            What is wrong with the loss, and how to mend it; None if it is not the loss.
        """
        images, labels = images.to(self.device), labels.to(self.device)
        with torch.no_grad():
            outputs = self._computed(self._model, images)
        for logits, stored in levels(outputs if isinstance(outputs, list) else [outputs], labels):
            if (fault := self._loss.fault(logits, stored)) is not None:
                return fault
        return None

    def _backward(self, images: ImageBatch, labels: LabelBatch) -> tuple[LogitBatch, LossResult]:
        """Leave the gradients in the parameters; return logits and loss at full resolution.

        If the compiled network fails, this is logged once and the network goes on uncompiled.
        """
        self._optimizer.zero_grad(set_to_none=True)
        try:
            outputs = self._outputs(images, labels)
            total, finest = supervise(self._loss, outputs, labels)
            self._scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever a compiler raises, in the forward or in the backward pass
            if self._forward is self._model or isinstance(error, AutospineError) or is_out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
            logger.warning(
                "--compile has failed (%s: %s); training goes on without", type(error).__name__, reason
            )
            self._forward = self._model
            return self._backward(images, labels)
        return outputs[0].detach(), finest

    def _outputs(self, images: ImageBatch, labels: LabelBatch) -> list[Float[Tensor, "B K _ _ _"]]:
        """Return the logits, then those of auxiliary heads; faults of a plug-in bear its name."""
        outputs = self._computed(self._forward, images)
        # Here, or the loss would be blamed.
        self._check(outputs[0] if isinstance(self._model, DeeplySupervised) else outputs, labels)
        return outputs if isinstance(outputs, list) else [outputs]

    def _computed(self, forward: Callable[[torch.Tensor], Any], images: ImageBatch) -> Any:
        """Return what the network, or the model around it, computes in the recipe's precision."""
        try:
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
                return forward(images)
        except Exception as error:  # whatever other people's code raises
            compiled = forward is not self._model and forward is not self.network
            if self._external is None or compiled or is_out_of_memory(error):
                raise
            raise self._external.plugin.broken("has failed:", error) from error

    def _check(self, logits: Any, batch: Tensor) -> None:
        """Refuse logits of a plug-in that do not fit the images or labels (B, ..., S, P, L) of a batch."""
        if self._external is not None:
            self._external.check_output(logits, (len(batch), self._n_channels, *batch.shape[-3:]))

    @contextmanager
    def predicting(self) -> Iterator[Callable[[ImageBatch], LogitBatch]]:
        """Lend the network with its averaged weights, as a finished one.

        Nothing changes by it: the next step is the one that it would have been.

        Yields:
            Function from normalised images (B, C, S, P, L) to logits (B, K, S, P, L), without gradients.
        """
        weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        # A network may draw random numbers in evaluation mode too.
        randomness = random_state(self.device)
        network = self.averaged()

        def predict(images: ImageBatch) -> LogitBatch:
            images = images.to(self.device)
            logits: Tensor = self._computed(network, images)
            self._check(logits, images)
            return logits

        try:
            with torch.no_grad():
                yield predict
        finally:
            self.network.load_state_dict(weights)
            restore_random_state(randomness, self.device)

    def averaged(self) -> nn.Module:
        """Return the network with its averaged weights, in evaluation mode; no step may follow."""
        self.network.load_state_dict(self._averaged)
        return self.network.eval()

    @property
    def _prefix(self) -> str:
        """Prefix that the names of the network's tensors have in the model that is trained."""
        return "" if self._model is self.network else "network."

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that a checkpoint keeps, by name."""
        return {
            **{f"network.{name}": tensor for name, tensor in self.network.state_dict().items()},
            **self._heads(),
            **{f"averaged.{name}": tensor for name, tensor in self._averaged.items()},
            **flatten_optimizer(self._optimizer),
            "scales": torch.tensor([g["scale"] for g in self._optimizer.param_groups], dtype=torch.float64),
            "updates": torch.tensor(self._updates),
            **{f"random.{name}": tensor for name, tensor in random_state(self.device).items()},
            **{
                f"scaler.{name}": torch.tensor(
                    value, dtype=torch.float64 if isinstance(value, float) else torch.int64
                )
                for name, value in self._scaler.state_dict().items()
            },
        }

    def _heads(self) -> dict[str, torch.Tensor]:
        if not isinstance(self._model, DeeplySupervised):
            return {}
        return {f"heads.{name}": tensor for name, tensor in self._model.heads.state_dict().items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Restore the state that `tensors` returned."""
        self.network.load_state_dict(_part(tensors, "network."))
        if isinstance(self._model, DeeplySupervised):
            self._model.heads.load_state_dict(_part(tensors, "heads."))
        self._averaged = {
            name: tensor.to(self.device) for name, tensor in _part(tensors, "averaged.").items()
        }
        restore_optimizer(self._optimizer, tensors)
        for group, scale in zip(self._optimizer.param_groups, tensors["scales"].tolist(), strict=True):
            group["scale"] = scale
        self._updates = int(tensors["updates"])
        restore_random_state(_part(tensors, "random."), self.device)
        if scaler := _part(tensors, "scaler."):
            self._scaler.load_state_dict({name: tensor.item() for name, tensor in scaler.items()})

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average towards the weights, over a window that grows to the plan's decay."""
        self._updates += 1
        weight = max(1 - self.recipe.ema_decay, 1 / (1 + AVERAGED_SHARE * self._updates))
        now = self.network.state_dict()
        floating = [name for name, tensor in now.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self._averaged[n] for n in floating], [now[n] for n in floating], weight)


def amp_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return float32, or the 16-bit format that the device supports if the plan has 16 bits."""
    if precision == "float32":
        return torch.float32
    return native_half(device) or torch.float32


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _filled(imported: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Return an imported tensor, with random values where it has none."""
    imported = imported.to(drawn.device)
    return torch.where(imported.isnan(), drawn, imported) if imported.isnan().any() else imported


def parameter_groups(
    network: nn.Module, weight_decay: float, imported: Collection[str] = ()
) -> list[dict[str, object]]:
    """Return one parameter group per tensor, with its scale of the learning rate and its weight decay.

    AdamW moves every weight by about the learning rate, however large the weight is. Initial weights
    shrink with their fan-in, so with one rate for all, wide layers would change completely while narrow ones
    hardly move; a rate in proportion to a tensor's initial size moves all of them alike. The rate of imported
    weights is smaller still: at the rate of random ones they would be replaced after some twenty steps.
    Matrices and kernels decay; biases, norms, bias tables, fusion weights and gammas do not.
    """
    groups: list[dict[str, object]] = []
    for name, parameter in network.named_parameters():
        matrix = parameter.ndim >= 2 and "bias" not in name
        size = float(parameter.detach().float().square().mean().sqrt())
        scale = min(max(size, SMALLEST_SCALE), LARGEST_SCALE) * (IMPORTED_SHARE if name in imported else 1.0)
        groups.append(
            {"params": [parameter], "weight_decay": weight_decay if matrix else 0.0, "scale": scale}
        )
    return groups
