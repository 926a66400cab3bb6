"""Data-parallel training by several processes that torchrun has started, each with its part of every batch.

Each process holds the whole network. The terms of the loss are summed over the patches of all processes, and
so are the gradients: n processes with B patches each learn what one process with n B patches would learn.
The functions here do nothing if a single process trains alone.
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
from autospine.system.hardware import restarts
from autospine.system.log import silence

PATIENCE = timedelta(days=1)
"""Longest time that processes wait for one another.

It is long because the first process may have a dataset to preprocess. A process that has ended is noticed
without it: torchrun then ends the others at once, whatever they wait for.
"""


@contextmanager
def joined(requested: str) -> Iterator[torch.device]:
    """Join the other processes of torchrun, if it has started this one, and silence all but the first.

    Args:
        requested: Device that the user asks for, as `--device` takes it.

    Yields:
        The device of this process.

    Raises:
        TrainingError: If there are fewer GPUs than processes, or a single GPU is requested for all of them.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield choose_device(requested)
        return
    device = _own_device(requested, dist.get_node_local_rank())
    with meeting("env://", device), ExitStack() as quiet:
        if not leads():
            silence()
            quiet.enter_context(redirect_stdout(io.StringIO()))
        yield device


@contextmanager
def meeting(address: str, device: torch.device, rank: int = -1, size: int = -1) -> Iterator[None]:
    """Make this process a member of a process group for as long as the block lasts.

    Args:
        address: Address where the processes find one another (torch's `init_method`).
        device: Device of this process.
        rank: Number of this process, from 0; by default the one that torchrun assigned.
        size: Number of processes; by default the one that torchrun was given.
    """
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    # Two backends: numbers that steer the training are exchanged on the CPU, the gradients on the GPU.
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    with _wire():
        store, rank, size = next(rendezvous(address, rank, size, timeout=PATIENCE))
        # PyTorch 2.13 lets processes that torchrun has started again read the addresses of those that have
        # ended from the same store, and wait for them.
        own = PrefixStore(f"restart {restarts()}", store)
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def size_here() -> int:
    """Count the processes of the group on this machine; every process has to call this."""
    if size() == 1:
        return 1
    machines: list[str | None] = [None] * size()
    with _wire():
        dist.all_gather_object(machines, platform.node())
    return machines.count(platform.node())


def leads() -> bool:
    """Tell whether this is the process that writes files and messages."""
    return rank() == 0


def meet() -> None:
    """Wait until every process has reached this point."""
    largest(0.0)


@contextmanager
def one_first() -> Iterator[None]:
    """Let the first process run the block before the others, so that they find the files it has written."""
    if not leads():
        meet()
    yield
    if leads():
        meet()


def largest(*values: float) -> tuple[float, ...]:
    """Return the maximum of each value over all processes, so that all of them decide alike."""
    if size() == 1:
        return values
    agreed = torch.tensor(values, dtype=torch.float64)
    with _wire():
        dist.all_reduce(agreed, dist.ReduceOp.MAX)
    return tuple(agreed.tolist())


def begin_alike(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors of every process with those of the first one."""
    if size() > 1:
        with _wire():
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


def add_up(*sums: Tensor) -> tuple[Tensor, ...]:
    """Turn sums over the patches of this process into sums over the patches of all processes.

    The gradient reaches only the part of this process; `add_gradients` adds the parts of all processes.

    Args:
        sums: Tensors of any shapes, the same ones in every process.

    Returns:
        The totals in float32, in the order and shapes of `sums`; `sums` itself if one process trains alone.
    """
    if size() == 1:
        return sums
    # One flat tensor, so that a single message carries all of them.
    flat = torch.cat([part.float().flatten() for part in sums])
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
    """Sum over all processes, whose gradient is passed on to the part of this process unchanged."""

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
    """Cut a flat tensor into tensors of the shapes of `like`."""
    pieces = torch.split(flat, [tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


def _own_device(requested: str, number: int) -> torch.device:
    """Choose the device of the process with this number on the machine."""
    device = choose_device(requested)
    if device.type == "cpu":
        return device
    if ":" in requested:
        raise TrainingError(
            "expected each process to take the GPU of its own number, "
            f"found --device {requested}; leave it out"
        )
    if number >= torch.cuda.device_count():
        raise TrainingError(
            f"expected a GPU for each process, found {torch.cuda.device_count()} for at least {number + 1}; "
            "give torchrun a smaller --nproc-per-node"
        )
    return torch.device("cuda", number)


@contextmanager
def _wire() -> Iterator[None]:
    """Turn torch's errors of a lost connection into an error that says what to do."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "expected every process of the training to go on, found one that ended; its own message says "
            "why, and the same command resumes from the last checkpoint"
        ) from error
