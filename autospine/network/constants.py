"""Tensors that are computed once and kept."""

from ast import literal_eval
from collections.abc import Callable, Hashable
from functools import lru_cache, wraps

import torch
from torch import Tensor

Constant = Callable[..., tuple[Tensor, ...]]
"""A function from numbers, or tuples of them, and a `device` to tensors, which may not be changed."""

TensorShapes = tuple[tuple[torch.dtype, tuple[int, ...]], ...]
"""Types and shapes of several tensors."""

_MAKERS: dict[str, Constant] = {}


def constant(function: Constant, shapes: Callable[..., TensorShapes] | None = None) -> Constant:
    """Decorate a function of numbers that makes tensors, so that equal calls share a result.

    The tensors are ordinary ones, made on the CPU, whatever mode or default device the first caller runs
    under: one made in inference mode could not be used in training later. In a graph of torch.compile, which
    looks through Python's caches, the call is one node.

    Args:
        function: Makes the tensors on the CPU.
        shapes: Returns the types and shapes of those tensors. On the meta device, where a network's memory is
            estimated, nothing else is asked for, and the tensors of a large image take a second to make.
    """

    @lru_cache(maxsize=256)
    def make(*numbers: Hashable, device: torch.device) -> tuple[Tensor, ...]:
        """Return the tensors of these numbers on a device, made once."""
        # Not seen by a mode that counts the tensors of a step, of which these are none.
        with torch._C._DisableTorchDispatch(), torch.inference_mode(False), torch.device("cpu"):
            if device.type == "meta" and shapes is not None:
                return tuple(
                    torch.empty(shape, dtype=kind, device=device) for kind, shape in shapes(*numbers)
                )
            return tuple(tensor.contiguous().to(device) for tensor in function(*numbers))

    @wraps(function)
    def known(*numbers: Hashable, device: torch.device) -> tuple[Tensor, ...]:
        if torch.compiler.is_compiling():
            return tuple(_in_graph(function.__name__, repr(numbers), device))
        return make(*numbers, device=device)

    _MAKERS[function.__name__] = make
    return known


@torch.library.custom_op("autospine::constant", mutates_args=())
def _in_graph(name: str, numbers: str, device: torch.device) -> list[Tensor]:
    """Return copies of a constant's tensors, because a compiler may use their memory again."""
    return [tensor.clone() for tensor in _MAKERS[name](*literal_eval(numbers), device=device)]


@_in_graph.register_fake
def _(name: str, numbers: str, device: torch.device) -> list[Tensor]:
    with torch._C._DisableTorchDispatch():
        real = _MAKERS[name](*literal_eval(numbers), device=torch.device("cpu"))
    return [torch.empty(tensor.shape, dtype=tensor.dtype, device=device) for tensor in real]


class PerVersion:
    """The last result of a function of a parameter, made again when the parameter has changed.

    It is kept in inference only. A call that may need gradients forgets it: the step of training that follows
    changes the parameter, and fused optimisers do so without raising its version.
    """

    def __init__(self) -> None:
        # One attribute, so that threads see a parameter with its own result.
        self._known: tuple[Tensor, Hashable, Tensor] | None = None

    def __call__(
        self, function: Callable[[Tensor], Tensor], parameter: Tensor, *arguments: Hashable
    ) -> Tensor:
        """Return function(parameter); calls with other arguments are other calls."""
        if torch.compiler.is_compiling() or parameter.is_meta or parameter.is_inference():
            return function(parameter)
        if torch.is_grad_enabled():
            self._known = None
            return function(parameter)
        key = (parameter.data_ptr(), parameter._version, parameter.dtype, parameter.device, arguments)
        known = self._known
        if known is None or known[0] is not parameter or known[1] != key:
            with torch.inference_mode(False), torch.no_grad():
                known = self._known = (parameter, key, function(parameter))
        return known[2]
