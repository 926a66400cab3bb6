"""The memory of a training step or of a tile, found from shapes alone: nothing is computed or allocated."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """While it is active, keeps count of the bytes that tensors made by operations take."""

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
        """Run an operation and enter what it made."""
        result = func(*args, **(kwargs or {}))
        given = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in given | self._known:
                self._enter(tensor.untyped_storage(), _key(tensor))
        return result

    def _enter(self, storage: torch.UntypedStorage, key: int) -> None:
        self._known.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._leave, key, storage.nbytes())

    def _leave(self, key: int, bytes_: int) -> None:
        self._known.discard(key)
        self.now -= bytes_


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTrace:
    """What the tensors of one step take in bytes, beside the parameters and the state of the optimiser."""

    kept: int
    """At the end of the forward pass: what the backward pass needs, and the logits."""

    peak: int
    """Most at once in either pass; gradients of the parameters count as soon as they are there."""


@contextmanager
def fused_attention() -> Iterator[None]:
    """Let attention on the meta device keep what a fused kernel keeps.

    There torch would write out the matrix of all pairs of tokens, which it does on no device that has a
    kernel. A mode of torch's functions would not do: it is off in the backward pass, where stages may be
    recomputed.
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
    """Inputs, output and a logarithm per query are kept; the bias' gradient is made for every window."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, bias, out, query.new_empty(query.shape[:-1]).float())
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
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


def trace_step(network: nn.Module, image: Tensor) -> StepTrace:
    """Run a forward and a backward pass on the meta device and return what their tensors take.

    The loss is left out: what it takes is known per voxel and class.

    Args:
        network: on the meta device.
        image: (B, C, S, P, L) on the meta device.
    """
    _run_once(network, image)
    ledger = Ledger()
    with fused_attention(), ledger:
        logits = network(image)
        kept = ledger.now
        # The trainer's logits outlive the backward pass, as here.
        logits.backward(torch.empty_like(logits))
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    return StepTrace(kept=kept, peak=ledger.peak)


def trace_tile(network: nn.Module, image: Tensor) -> int:
    """Run a forward pass without gradients on the meta device; return the most bytes its tensors take.

    Args:
        network: on the meta device.
        image: (B, C, S, P, L) on the meta device.
    """
    _run_once(network, image)
    ledger = Ledger()
    with torch.no_grad(), fused_attention(), ledger:
        network(image)
    return ledger.peak


def _run_once(network: Callable[[Tensor], Tensor], image: Tensor) -> None:
    """Make what is made once and kept: it does not belong to a step."""
    with torch.no_grad(), fused_attention():
        network(image)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
