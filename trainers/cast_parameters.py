"""Parameters cast to 16 bits in one call, and their gradients back in another.

Layers cast their parameters themselves, each with a launch of its own on a GPU, and another for its gradient:
400 of a step.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@contextmanager
def cast_at_once(parameters: Sequence[tuple[nn.Module, str]], dtype: torch.dtype) -> Iterator[None]:
    """Let modules use copies of their parameters in another type within the block.

    The block has to cover the backward pass too, in which stages may be computed again. Gradients arrive at
    the parameters themselves, in their type.

    Args:
        parameters: Modules and the names of their parameters.
        dtype: Type of the copies.
    """
    originals = [module._parameters[name] for module, name in parameters]
    copies: Sequence[Tensor] = _Cast.apply(dtype, *originals)  # type: ignore[no-untyped-call]
    try:
        for (module, name), copy in zip(parameters, copies, strict=True):
            module._parameters[name] = copy  # type: ignore[assignment]
        yield
    finally:
        for (module, name), original in zip(parameters, originals, strict=True):
            module._parameters[name] = original


class _Cast(torch.autograd.Function):
    """Copies of tensors in another type."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _copies(tensors, [dtype] * len(tensors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients in float32; None for a tensor that was not used."""
        given = [grad for grad in grads if grad is not None]
        copies = iter(_copies(given, [torch.float32] * len(given)))
        return (None, *(None if grad is None else next(copies) for grad in grads))


def _copies(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)
