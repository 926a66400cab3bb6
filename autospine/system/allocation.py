"""Memory of tensors: settings of the allocators, and errors that tell that there is too little of it."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from autospine.core.errors import first_line

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER, _ONE_GIB, _LARGE = -1, 1 << 30, 1 << 24

RAM_IS_FULL = "DefaultCPUAllocator"
"""Text of torch's error where the RAM is full: a plain RuntimeError that names the allocator."""

GPU_IS_FULL = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)
"""Texts of errors where a GPU is full and another than torch's allocator finds it: the driver, whose errors
are of `torch.AcceleratorError`, cuBLAS as it begins, or cuDNN."""


def reuse_freed_memory() -> bool:
    """Keep freed memory in the process instead of giving it back to the system; return whether that worked.

    glibc returns large blocks at once when a tensor is freed, and the kernel clears each page anew for the
    next one. A training step allocates the same tensors again and again, so that this costs it about a
    quarter of its time. Call it once, before training on a CPU. The process keeps its peak memory until it
    ends. Where the C library is another than glibc nothing happens.
    """
    return _set(_M_TRIM_THRESHOLD, _NEVER) and _set(_M_MMAP_THRESHOLD, _ONE_GIB)


def return_freed_memory() -> bool:
    """Give large freed blocks back to the system at once; return whether that worked.

    By itself glibc raises the size from which it does so with each block that is freed, and so keeps whole
    volumes in a process that handles one case after the other.
    """
    return _set(_M_TRIM_THRESHOLD, _LARGE) and _set(_M_MMAP_THRESHOLD, _LARGE)


def use_huge_pages() -> None:
    """Let the kernel hand out memory for large tensors 2 MiB instead of 4 KiB at a time.

    Prediction gives memory back and asks for it again all the time, and the kernel clears each page anew. In
    training, which keeps freed memory, huge pages gain nothing and take a fifth more. PyTorch reads its
    variable at a process's first tensor: call it before that. A variable that is set already is left alone.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).setenv(b"THP_MEM_ALLOC_ENABLE", b"1", 0)  # c10/core/impl/alloc_cpu.cpp


def prepare_memory(device: torch.device) -> None:
    """Prepare for training: on a CPU, keep freed memory in the process."""
    if device.type == "cpu":
        reuse_freed_memory()


@contextmanager
def as_in_prediction(device: torch.device) -> Iterator[None]:
    """Give freed memory back while volumes are predicted in the middle of training on this device.

    A training step allocates the same sizes again and again; prediction allocates other sizes all the time,
    which would be kept beside one another. Memory that training has kept so far is given back first.
    """
    if return_freed_memory():
        ctypes.CDLL(None).malloc_trim(0)
    try:
        yield
    finally:
        prepare_memory(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a GPU or the machine has run out of memory, whichever library says so."""
    return lacks_gpu_memory(error) or isinstance(error, MemoryError) or RAM_IS_FULL in str(error)


def lacks_gpu_memory(error: BaseException) -> bool:
    """Return whether a GPU has run out of memory, whichever library says so."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in GPU_IS_FULL)


def describe_full_memory(error: BaseException) -> str | None:
    """Say which memory is full and what can be done, where that is the error; None for other errors."""
    if not is_out_of_memory(error):
        return None
    if lacks_gpu_memory(error):
        return (
            f"the memory of the GPU is full ({first_line(error)}); end other programs that use it, which "
            "`nvidia-smi` lists, or run the same command with --device cpu"
        )
    return (
        f"the memory of this machine is full ({first_line(error)}); end other programs, and run the same "
        "command again"
    )


def _set(parameter: int, value: int) -> bool:
    """Set a parameter of the C library's allocator; False where it is another one than glibc's."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(parameter, value))
