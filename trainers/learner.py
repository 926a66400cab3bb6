"""The network with everything that changes while it learns."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.errors import AutospineError
from autospine.core.tensor_types import ImageBatch, LabelBatch, LogitBatch
from autospine.network.base import SegmentationNetwork
from autospine.network.external import find_external
from autospine.network.external_plan import ExternalPlan
from autospine.plan import Configuration, Plan, Precision, build_network
from autospine.storage.tensors import flatten_optimizer, restore_optimizer
from autospine.system.allocation import is_out_of_memory
from autospine.system.devices import native_half
from autospine.system.log import get_logger
from trainers.cast_parameters import cast_at_once
from trainers.distributed import add_gradients, begin_alike
from trainers.label_targets import LabelTargets, SoftOverlap
from trainers.losses import Loss, LossResult, make_loss
from trainers.monitors import PatchCounts
from trainers.optimizer import IMPORTED_SHARE, JoinedAdamW, make_optimizer
from trainers.randomness import random_state, restore_random_state, seed_everything
from trainers.step_result import Reading, StepResult
from trainers.supervision import DeeplySupervised, levels, supervise

logger = get_logger(__name__)

AVERAGED_SHARE = 0.05
"""Share of the steps so far over which the averaged weights average, until the plan's decay is reached."""

COMPILER = "inductor"
"""Backend of `torch.compile`; PyTorch's default."""

JOINING: Mapping[str, int] = {"realize_reads_threshold": 12, "realize_opcount_threshold": 100}
"""Options of the compiler on a GPU. It computes what several kernels need anew in each, as long as that reads
so many tensors and takes so many operations; by default (4 and 30) gradients on their way through a norm and
its activation would be written to memory in float32."""


class _Comparison(NamedTuple):
    """Logits compared with the labels, at full resolution."""

    result: LossResult
    overlap: SoftOverlap
    counts: PatchCounts | None
    """Counts of the first patch; None unless the monitors sample the step."""


class Learner:
    """Network, optimiser and averaged weights of one fold.

    Args:
        plan: Labels and channels.
        configuration: Network and recipe.
        seed: Random seed of the first weights.
        device: Device on which training runs.
        imported: Initial weights by name; tensors that are not among them, and values that are NaN, are drawn
            at random.
        imported_share: Share of the learning rate that initial weights have.
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
        imported_share: float = IMPORTED_SHARE,
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
        self._forward: Callable[[torch.Tensor], Any] = self._model
        if compiled and device.type == "cpu":
            self._forward = torch.compile(self._model, backend=COMPILER)
        elif compiled:
            self._forward = compiled_for_gpu(self._model)
            self._loss.join_passes(compiled_for_gpu)
        whole = {f"{self._prefix}{name}" for name, tensor in imported.items() if not tensor.isnan().any()}
        self._optimizer = make_optimizer(self._model, self.recipe.weight_decay, whole, imported_share)
        self._scaler = self._make_scaler()
        self._updates = 0
        # Always these tensors, whose values change; to list them anew would take half a millisecond a step.
        self._floating = {n: t for n, t in self.network.state_dict().items() if t.is_floating_point()}

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
        images = images.to(self.device, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        result, overlap, counts = self._backward(images, labels, sample)
        add_gradients(self._model.parameters())
        self._scaler.unscale_(self._optimizer)
        norm = self._clip_gradients()
        finite = torch.isfinite(norm) & torch.isfinite(result.total.detach())
        reading = Reading(
            [finite, result.total.detach(), *result.parts.values(), torch.stack(overlap, dim=1)]
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        if isinstance(self._optimizer, JoinedAdamW):
            # The GPU leaves the step out by itself, and is busy with it while the numbers are read.
            self._optimizer.found_inf = 1 - finite.float()
            self._optimizer.step()
        taken, loss, *numbers = reading.numbers()
        if taken and not isinstance(self._optimizer, JoinedAdamW):
            self._optimizer.step()
        if taken:
            self._average()
        self._scaler.update()
        parts, voxels = numbers[: len(result.parts)], numbers[len(result.parts) :]
        return StepResult(
            loss=loss,
            parts=dict(zip(result.parts, parts, strict=True)),
            finite=bool(taken),
            overlap=tuple(zip(voxels[::3], voxels[1::3], voxels[2::3], strict=True)),
            counts=counts,
        )

    def _make_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device.type, enabled=self._dtype == torch.float16)

    def forget_step(self) -> None:
        """Forget what a step that failed in the middle has left, so that it can be taken again."""
        self._optimizer.zero_grad(set_to_none=True)
        # A scaler remembers until a step has ended that its gradients are no longer scaled.
        state, self._scaler = self._scaler.state_dict(), self._make_scaler()
        self._scaler.load_state_dict(state)

    def _clip_gradients(self) -> Float[Tensor, ""]:
        """Limit the norm of the gradient to the recipe's, and return what it was.

        On a GPU the optimiser multiplies the gradients as it reads them.
        """
        if not isinstance(self._optimizer, JoinedAdamW):
            return nn.utils.clip_grad_norm_(self._model.parameters(), self.recipe.gradient_clip)
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        # 1e-6 as in clip_grad_norm_.
        self._optimizer.grad_scale = ((norm + 1e-6) / self.recipe.gradient_clip).clamp_min(1)
        return norm

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

    def _backward(self, images: ImageBatch, labels: LabelBatch, sample: bool) -> "_Comparison":
        """Leave the gradients in the parameters; return how the logits compare with the labels.

        If the compiled network fails, this is logged once and the network goes on uncompiled.
        """
        self._optimizer.zero_grad(set_to_none=True)
        try:
            with self._cast_at_once():
                total, compared = self._compare(images, labels, sample)
                self._scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever a compiler raises, in the forward or in the backward pass
            if self._forward is self._model or isinstance(error, AutospineError) or is_out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
            logger.warning(
                "the network could not be compiled (%s: %s); training goes on without, more slowly; if a C "
                "compiler is missing, install gcc and python3-dev before the next one, or give --no-compile",
                *(type(error).__name__, reason),
            )
            self._forward = self._model
            self._loss.join_passes(None)
            return self._backward(images, labels, sample)
        return compared

    def _compare(
        self, images: ImageBatch, labels: LabelBatch, sample: bool
    ) -> tuple[Float[Tensor, ""], "_Comparison"]:
        """Return the loss to learn from, and how the logits compare with the labels.

        All that needs the logits is computed here, before the backward pass, in which nothing then holds them
        once their gradient is known.
        """
        outputs = self._outputs(images, labels)
        total, result = supervise(self._loss, outputs, labels)
        logits = outputs[0].detach()
        overlap = result.overlap or self._targets.overlap_of_logits(logits, labels)
        counts = self._targets.count(logits[0], labels[0]) if sample else None
        return total, _Comparison(result, overlap, counts)

    def _cast_at_once(self) -> AbstractContextManager[None]:
        """Cast the network's parameters in one call where each call costs time: on a GPU."""
        dtype = getattr(self.network, "compute_dtype", None) or self._dtype
        cast = self.device.type != "cpu" and dtype != torch.float32
        if not cast or not isinstance(self.network, SegmentationNetwork):
            return nullcontext()
        return cast_at_once(self.network.parameters_of_maps(), dtype)

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
        self._optimizer.zero_grad(set_to_none=True)
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
        averaged = [self._averaged[name] for name in self._floating]
        torch._foreach_lerp_(averaged, list(self._floating.values()), weight)


def compiled_for_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function, or a network, that is compiled at its first call, for each shape anew."""
    compiled: Callable[..., Any] = torch.compile(
        function, backend=COMPILER, dynamic=False, options=dict(JOINING)
    )
    return compiled


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
