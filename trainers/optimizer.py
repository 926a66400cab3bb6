"""AdamW with a rate for each tensor; a GPU, to which every call has to be sent, takes it in a few calls."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.98)
"""Decay rates of AdamW's averages: transformers are trained with a shorter average of the squared gradients
than the usual 0.999 gives (nnU-Net's Primus recipe)."""

SMALLEST_SCALE, LARGEST_SCALE = 0.01, 0.1
"""Bounds of a tensor's scale, by which the learning rate is multiplied: tensors that start at zero must move,
and the weights of norms, which start at 1, must not change too fast."""

IMPORTED_SHARE = 0.1
"""Share of the learning rate for weights that know what they are to find. With the planned peak of 0.05 they
change by 0.5 % of their size per step, as weights of 0.02 do with the 1e-4 of SwinUNETR's own fine-tuning."""


def make_optimizer(
    network: nn.Module, weight_decay: float, imported: Collection[str] = (), share: float = IMPORTED_SHARE
) -> torch.optim.AdamW:
    """Make the optimiser of a network; the arguments are those of `parameter_groups`.

    Its groups have a `scale`, by which the learning rate of each is to be multiplied.
    """
    groups = parameter_groups(network, weight_decay, imported, share)
    if next(network.parameters()).device.type == "cpu":
        return torch.optim.AdamW(groups, betas=BETAS, fused=True)
    return JoinedAdamW(groups, betas=BETAS)


def parameter_groups(
    network: nn.Module, weight_decay: float, imported: Collection[str] = (), share: float = IMPORTED_SHARE
) -> list[dict[str, object]]:
    """Return one parameter group per tensor, with its scale of the learning rate and its weight decay.

    AdamW moves every weight by about the learning rate, however large the weight is. Initial weights
    shrink with their fan-in, so with one rate for all, wide layers would change completely while narrow ones
    hardly move; a rate in proportion to a tensor's initial size moves all of them alike. The rate of imported
    weights may be smaller still: at the rate of random ones they are replaced after some twenty steps.
    Matrices and kernels decay; biases, norms, bias tables, fusion weights and gammas do not.

    Args:
        network: The network.
        weight_decay: Weight decay of those that decay.
        imported: Names of the weights that do not begin at random.
        share: Share of the learning rate that these have.
    """
    groups: list[dict[str, object]] = []
    for name, parameter in network.named_parameters():
        matrix = parameter.ndim >= 2 and "bias" not in name
        size = float(parameter.detach().float().square().mean().sqrt())
        scale = min(max(size, SMALLEST_SCALE), LARGEST_SCALE) * (share if name in imported else 1.0)
        groups.append(
            {"params": [parameter], "weight_decay": weight_decay if matrix else 0.0, "scale": scale}
        )
    return groups


class JoinedAdamW(torch.optim.AdamW):
    """AdamW that updates all tensors of the same weight decay in one call, whatever rates their groups have.

    PyTorch's fused kernel has one rate for all of its tensors; a group for each tensor is a call for each.
    AdamW's step is proportional to the rate: here the kernel takes the largest rate, and each tensor then
    returns by the share that its own rate is smaller. State and groups are those of `torch.optim.AdamW`.

    A step is left out on the device where `found_inf` is not zero, and gradients are divided by `grad_scale`,
    both as PyTorch's GradScaler hands them to fused optimisers.

    Args:
        groups: Parameter groups with `weight_decay`, all with the same betas and epsilon.
        betas: Decay rates of the averages.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], betas: tuple[float, float]) -> None:
        super().__init__(groups, betas=betas, fused=True)
        self.found_inf: Tensor | None = None
        """A single number of the device, not zero where the next step has to be left out."""

        self.grad_scale: Tensor | None = None
        """A single number of the device by which gradients are divided; None for 1."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step with the gradients that there are; parameters without one stay.

        Args:
            closure: Not supported; here for the signature of PyTorch's optimisers.
        """
        if closure is not None:
            raise ValueError("expected no closure, found one; call the model before the step")
        rows = [
            (p, group["lr"], group["weight_decay"])
            for group in self.param_groups
            for p in group["params"]
            if p.grad is not None
        ]
        rate = max((lr for _, lr, _ in rows), default=0.0)
        parameters: list[Tensor] = [p for p, _, _ in rows]
        # All memory is taken before anything changes, so that a step for which there is none can be repeated.
        for p in parameters:
            self._state_of(p)
        before = [torch.empty_like(p) for p in parameters]
        torch._foreach_copy_(before, parameters)
        for decay in dict.fromkeys(decay for _, _, decay in rows):
            self._update([p for p, _, d in rows if d == decay], rate, decay)
        if rate:
            torch._foreach_lerp_(parameters, before, [1 - lr / rate for _, lr, _ in rows])

    def _update(self, parameters: list[Tensor], rate: float, decay: float) -> None:
        """Update parameters of one weight decay with one rate."""
        states = [self._state_of(p) for p in parameters]
        group = self.param_groups[0]
        adamw(
            parameters,
            [p.grad for p in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            grad_scale=self.grad_scale,
            found_inf=self.found_inf,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=rate,
            weight_decay=decay,
            eps=group["eps"],
            maximize=False,
        )

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the averages of a parameter, zeros at the start."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            # All or none of it, should memory be full.
            state.update(
                step=torch.zeros((), dtype=torch.float32, device=parameter.device),
                exp_avg=torch.zeros_like(parameter, memory_format=torch.preserve_format),
                exp_avg_sq=torch.zeros_like(parameter, memory_format=torch.preserve_format),
            )
        return state
