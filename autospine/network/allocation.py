"""Reuse of freed memory by the C library, for large tensors on a CPU."""

import ctypes
import sys

import torch

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER, _ONE_GIB = -1, 1 << 30


def reuse_freed_memory() -> bool:
    """Keep freed memory in the process instead of giving it back to the system; return whether that worked.

    glibc returns large blocks at once when a tensor is freed, and the kernel clears each page anew for the
    next one. A training step allocates the same tensors again and again, so that this costs it about a
    quarter of its time. Call it once, before training or inference on a CPU. The process keeps its peak
    memory until it ends. Where the C library is another than glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_M_MMAP_THRESHOLD, _ONE_GIB))


def prepare_memory(device: torch.device) -> None:
    """Before training or inference: on a CPU, keep freed memory."""
    if device.type == "cpu":
        reuse_freed_memory()
