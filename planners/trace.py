"""The memory of a training step, found from shapes alone: nothing is computed and nothing allocated."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """While it is active, keeps count of the bytes that tensors made by operations take."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        """Most bytes at once, so far."""

        self.largest = 0
        """Bytes of the largest tensor, so far."""

        self._now = 0
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
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        self.largest = max(self.largest, storage.nbytes())
        weakref.finalize(storage, self._leave, key, storage.nbytes())

    def _leave(self, key: int, bytes_: int) -> None:
        self._known.discard(key)
        self._now -= bytes_


def trace_step(network: nn.Module, image: Tensor) -> Ledger:
    """Run a forward and a backward pass on the meta device and return what their tensors took.

    Gradients of the parameters count; the parameters themselves and the image do not.

    Args:
        network: on the meta device.
        image: (B, C, S, P, L) on the meta device.
    """
    with torch.no_grad():
        network(image)  # what is made once and kept does not belong to a step
    ledger = Ledger()
    with ledger:
        network(image).float().sum().backward()
    return ledger


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
