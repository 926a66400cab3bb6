"""One training by several processes that torchrun has started, each with its part of every batch.

Each process holds the whole network. What the loss is made of is summed over all patches, wherever they are,
and so are the gradients: n processes with B patches each learn what one with n B patches would. Functions
here do nothing where there is one process alone.
"""

import io
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from autospine.core.errors import TrainingError
from autospine.system.devices import choose_device
from autospine.system.log import silence

PATIENCE = timedelta(days=1)
"""How long processes wait for one another: the first one may have a dataset to preprocess. torchrun ends the
others as soon as one has ended, whatever they wait for."""


@contextmanager
def joined(wish: str) -> Iterator[torch.device]:
    """Join the other processes of torchrun, if it has started this one; only the first of them speaks.

    Args:
        wish: for a device, as `--device` takes it.

    Returns:
        The device of this process.

    Raises:
        TrainingError: if there are fewer GPUs than processes, or the wish is for a certain one.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield choose_device(wish)
        return
    device = _own_device(wish, dist.get_node_local_rank())
    with meeting("env://", device), ExitStack() as quiet:
        if not leads():
            silence()
            quiet.enter_context(redirect_stdout(io.StringIO()))
        yield device


@contextmanager
def meeting(address: str, device: torch.device, rank: int = -1, size: int = -1) -> Iterator[None]:
    """Be one of several processes for as long as the block lasts.

    Args:
        address: where they find one another, as torch takes it.
        device: of this process.
        rank: its number; by default torchrun's.
        size: how many they are; likewise.
    """
    # Numbers that steer the training stay on the CPU, whatever the gradients are on.
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    with _wire():
        dist.init_process_group(backend, init_method=address, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def size_here() -> int:
    """How many of these processes run on this machine; all of them have to ask."""
    if size() == 1:
        return 1
    machines: list[str | None] = [None] * size()
    with _wire():
        dist.all_gather_object(machines, platform.node())
    return machines.count(platform.node())


def leads() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def meet() -> None:
    """Wait until every process is here."""
    largest(0.0)


@contextmanager
def one_first() -> Iterator[None]:
    """Let the first process through the block, then the others: they find what it has made."""
    if not leads():
        meet()
    yield
    if leads():
        meet()


def largest(*values: float) -> tuple[float, ...]:
    """Of each value the largest that any process has: so all of them come to the same decision."""
    if size() == 1:
        return values
    agreed = torch.tensor(values, dtype=torch.float64)
    with _wire():
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
    return tuple(agreed.tolist())


def begin_alike(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's tensors, in place."""
    if size() > 1:
        with _wire():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def add_up(*sums: Tensor) -> tuple[Tensor, ...]:
    """Sums over the patches of this process -> sums over those of all.

    The gradient of each sum is that of its own part; `add_gradients` brings the parts together.

    Args:
        sums: of any shapes.
    """
    if size() == 1:
        return sums
    flat = torch.cat([each.float().flatten() for each in sums])
    parts = _parts(_Total.apply(flat), sums)  # type: ignore[no-untyped-call]
    return tuple(parts)


def add_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum the gradients of all processes, in place, in one message."""
    if size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    _sum(flat)
    torch._foreach_copy_(gradients, _parts(flat, gradients))


class _Total(torch.autograd.Function):
    """The sum over all processes; backward, each takes the gradient of the sum for its own part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        _sum(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return gradient[0]


def _sum(tensor: Tensor) -> None:
    with _wire():
        dist.all_reduce(tensor)


def _parts(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A flat tensor cut into pieces of these shapes."""
    pieces = torch.split(flat, [each.numel() for each in like])
    return [piece.view(each.shape) for piece, each in zip(pieces, like, strict=True)]


def _own_device(wish: str, number: int) -> torch.device:
    device = choose_device(wish)
    if device.type == "cpu":
        return device
    if ":" in wish:
        raise TrainingError(
            f"expected each process to take the GPU of its own number, found --device {wish}; leave it out"
        )
    if number >= torch.cuda.device_count():
        raise TrainingError(
            f"expected a GPU for each process, found {torch.cuda.device_count()} for at least {number + 1}; "
            "give torchrun a smaller --nproc-per-node"
        )
    return torch.device("cuda", number)


@contextmanager
def _wire() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "expected every process of the training to go on, found one that ended; its own message tells "
            "why, and the same command goes on from the last checkpoint"
        ) from error
