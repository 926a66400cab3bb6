"""Traces of a training step or a tile on the meta device: memory by shapes alone, nothing is computed."""

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """Counts, while it is active, the bytes of the tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        """Bytes at this moment."""

        self.peak = 0
        """Most bytes at once, so far."""

        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and add the tensors that it made."""
        result = func(*args, **(kwargs or {}))
        given = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in given | self._known:
                self._enter(tensor)
        return result

    def _enter(self, tensor: Tensor) -> None:
        # Tensors in oneDNN's own layout have no storage that can be seen, and no views either.
        holder = tensor if tensor.is_mkldnn else tensor.untyped_storage()
        key, bytes_ = _key(tensor), tensor.numel() * tensor.element_size()
        if isinstance(holder, torch.UntypedStorage):
            bytes_ = holder.nbytes()
        self._known.add(key)
        self.now += bytes_
        self.peak = max(self.peak, self.now)
        weakref.finalize(holder, self._leave, key, bytes_)

    def _leave(self, key: int, bytes_: int) -> None:
        self._known.discard(key)
        self.now -= bytes_


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTrace:
    """Bytes of the tensors of one step, without the parameters and the state of the optimiser."""

    kept: int
    """Bytes at the end of the forward pass: what the backward pass needs, and the logits."""

    peak: int
    """Most bytes at once in either pass; gradients of the parameters count as soon as they exist."""


@contextmanager
def fused_attention() -> Iterator[None]:
    """Replace attention on the meta device by one that keeps what a fused kernel keeps.

    On that device torch would write out the matrix of all pairs of tokens, which it does on no device with a
    fused kernel. A mode of torch's functions would not do: it is off in the backward pass, where stages may
    be recomputed.
    """
    original = F.scaled_dot_product_attention

    def attention(query: Tensor, *others: Any, **settings: Any) -> Tensor:
        return (_attention if query.is_meta else original)(query, *others, **settings)

    setattr(F, "scaled_dot_product_attention", attention)  # noqa: B010 (not declared as replaceable)
    try:
        yield
    finally:
        setattr(F, "scaled_dot_product_attention", original)  # noqa: B010


class _Attention(torch.autograd.Function):
    """Keeps inputs, output and a logarithm per query; makes the gradient of the bias for every window."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Return an output of the right shape, and keep what the real attention keeps."""
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, bias, out, query.new_empty(query.shape[:-1]).float())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return gradients of the right shapes."""
        query, key, value, bias, _, _ = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in (query, key, value)]
        if bias is None or not bias.requires_grad:
            return (*grads, None)
        pairs = query.new_empty(*query.shape[:-1], key.shape[-2])
        return (*grads, pairs.sum_to_size(bias.shape))


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **_settings: Any
) -> Tensor:
    out: Tensor = _Attention.apply(query, key, value, attn_mask)  # type: ignore[no-untyped-call]
    return out


def trace_step(network: nn.Module, image: Float[Tensor, "B *axes"]) -> StepTrace:
    """Return the bytes of the tensors of a forward and a backward pass, which run on the meta device.

    The loss is left out, since its bytes are known per voxel and class. Tensors that are made once and kept
    (`autospine.network.constants`) are not those of a step.

    Args:
        network: Network on the meta device.
        image: Batch of images on the meta device.
    """
    ledger = Ledger()
    with fused_attention(), ledger:
        logits = network(image)
        kept = ledger.now
        # The trainer's logits outlive the backward pass, as here.
        logits.backward(torch.empty_like(logits))
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    return StepTrace(kept=kept, peak=ledger.peak)


def trace_tile(network: nn.Module, image: Float[Tensor, "B *axes"]) -> int:
    """Return the peak bytes of a forward pass without gradients, which runs on the meta device.

    Args:
        network: Network on the meta device.
        image: Batch of images on the meta device.
    """
    ledger = Ledger()
    with torch.no_grad(), fused_attention(), ledger:
        network(image)
    return ledger.peak


def _key(tensor: Tensor) -> int:
    return id(tensor) if tensor.is_mkldnn else int(tensor.untyped_storage()._cdata)
