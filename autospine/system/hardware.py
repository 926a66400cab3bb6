"""What this machine offers: device, memory, number formats."""

import os
import re
import sys
from pathlib import Path

import psutil
import torch

from autospine.core.errors import AutospineError, PlanError

RAM_SHARE = 0.5
"""Share of the free RAM that training may take where there is no GPU."""

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container what it may take (cgroup v2)."""

_UNITS = {"": 1024**3, "G": 1024**3, "M": 1024**2, "T": 1024**4}


def choose_device(wish: str = "auto") -> torch.device:
    """The device to run on.

    Args:
        wish: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:1`.

    Raises:
        AutospineError: if the wish cannot be met.
    """
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", wish):
        raise AutospineError(f"expected --device auto, cpu, cuda or cuda:N, found {wish!r}")
    device = torch.device(wish)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise AutospineError(
            f"expected a CUDA device that is there ({torch.cuda.device_count()} are), found --device {wish}; "
            "use --device cpu"
        )
    return device


def devices_like(device: torch.device, wish: str) -> tuple[torch.device, ...]:
    """The devices that work may be dealt out to: every GPU, unless the wish is for a certain one.

    Args:
        device: what `choose_device` made of the wish.
        wish: as `choose_device` takes it.
    """
    if device.type == "cpu" or ":" in wish:
        return (device,)
    return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))


def memory_budget(device: torch.device, wish: str | None = None) -> tuple[int, str]:
    """Bytes that training may take, and where the number comes from.

    Args:
        device: the GPU's memory counts, or the free RAM.
        wish: such as `8GB`, `500MB` or `8`; None for the default.

    Raises:
        PlanError: if the wish is not an amount of memory.
    """
    if wish is not None:
        return parse_bytes(wish), "set by --memory"
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory, "memory of the GPU"
    return int(free_memory() * RAM_SHARE), "half of the free RAM, as there is no GPU"


def parse_bytes(text: str) -> int:
    """`8GB`, `8 GiB`, `500MB` or `8` (GB) as bytes; units are binary.

    Raises:
        PlanError: if the text says something else, or nothing above zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    amount = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if amount == 0:
        raise PlanError(f"expected an amount of memory such as 8GB, found {text!r}")
    return amount


def bfloat16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively (GPUs from Ampere on; AVX512-BF16 and AMX CPUs)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()


def native_half(device: torch.device) -> torch.dtype | None:
    """The 16-bit format that the device multiplies natively.

    bfloat16, whose range is that of float32; else float16 (GPUs from Volta on); else None.
    """
    if bfloat16_pays(device):
        return torch.bfloat16
    volta = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return torch.float16 if volta else None


def inference_half(precision: str, device: torch.device) -> torch.dtype | None:
    """The 16-bit format in which a network trained in `precision` predicts on a device, None for float32.

    What was trained in bfloat16 may overflow in float16; the reverse is safe.
    """
    half = None if precision == "float32" else native_half(device)
    return None if precision == "bfloat16" and half == torch.float16 else half


def cores() -> int:
    """Cores that this process may use: those it is bound to, and what its control group allows."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (CONTROL_GROUP / "cpu.max").read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return bound
    return bound if quota == "max" else max(1, min(bound, round(int(quota) / int(period))))


def default_workers(sharers: int = 1) -> int:
    """One process per core, at most eight; less where so many others need as many."""
    return max(1, min(cores() // sharers, 8))


def free_memory() -> int:
    """Bytes of RAM that this process may still take: the machine's, and what its control group allows.

    Files that were read lie in memory that counts as taken by the group, until somebody asks for it.
    """
    free: int = psutil.virtual_memory().available
    try:
        limit, used = (
            (CONTROL_GROUP / f"memory.{name}").read_text(encoding="utf-8").strip()
            for name in ("max", "current")
        )
    except OSError:
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - int(used) + _cached_files()))


def peak_memory(*, children: bool = False) -> int:
    """Most bytes of RAM that this process has held so far, or the largest of its finished children has.

    Windows does not tell about children; there they are taken to be as large as the process itself.
    """
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_memory() -> int:
    """Bytes of RAM that this process holds now."""
    held: int = psutil.Process().memory_info().rss
    return held


def describe(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 1024**3:.0f} GiB"
    total = psutil.virtual_memory().total / 1024**3
    return f"CPU, {torch.get_num_threads()} threads, {total:.0f} GiB RAM"


def _cached_files() -> int:
    """Bytes of files that the control group keeps in memory and drops when it is short of it."""
    try:
        lines = (CONTROL_GROUP / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    counts = dict(line.split(maxsplit=1) for line in lines)
    return sum(int(counts.get(name, 0)) for name in ("inactive_file", "active_file"))


def _cpu_flags() -> frozenset[str]:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(flags.split())
