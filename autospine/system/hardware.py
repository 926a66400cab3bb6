"""Cores and memory of this machine, found without PyTorch; `autospine.system.devices` knows the GPUs."""

import os
import re
import sys
from math import inf
from pathlib import Path

import psutil

from autospine.core.errors import AutospineError, PlanError

GIB = 1024**3
"""Bytes of a gibibyte."""

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux states the limits of a container."""

_UNITS = {"": GIB, "G": GIB, "M": 1024**2, "T": 1024**4}


def check_device_name(name: str) -> None:
    """Refuse a name of a device that none can have, before PyTorch is imported.

    Raises:
        AutospineError: If it is not `auto`, `cpu`, `cuda` or `cuda:N`.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise AutospineError(f"expected --device auto, cpu, cuda or cuda:N, found {name!r}")


def parse_bytes(text: str) -> int:
    """Return an amount of memory such as `8GB`, `8 GiB`, `500MB` or `8` (GB) in bytes; units are binary.

    Raises:
        PlanError: If the text is no amount of memory above zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([MGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    amount = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if amount == 0:
        raise PlanError(f"expected an amount of memory such as 8GB, found {text!r}")
    return amount


def cores() -> int:
    """Count the cores that this process may use: those it is bound to, and what its control group allows.

    Of a share of a core nothing is counted: a thread more than the group allows is stopped with all others as
    soon as their time is spent.
    """
    return max(1, int(min(bound_cores(), _quota())))


def bound_cores() -> int:
    """Count the cores that this process is bound to, whatever share of them its control group allows."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float:
    """Return how many cores' time the control group allows, infinity without a limit.

    cgroup v2 states it in `cpu.max`, v1 in two files, in which -1 is no limit.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            words = [(CONTROL_GROUP / name).read_text(encoding="utf-8") for name in names]
            quota, period = " ".join(words).split()
            return inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return inf


def default_workers(sharers: int = 1) -> int:
    """Return one worker process per core, at most eight, shared among this many trainings."""
    return max(1, min(cores() // sharers, 8))


def free_memory() -> int:
    """Return the bytes of RAM that this process may still take on the machine and in its control group.

    The group counts cached files as taken memory, although the system frees them when memory is short.
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
    """Return the peak resident memory of this process, or of its largest finished child, in bytes.

    Windows does not report children; there they are assumed to be as large as the process itself.
    """
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def held_memory() -> int:
    """Return the resident memory of this process in bytes."""
    held: int = psutil.Process().memory_info().rss
    return held


def _cached_files() -> int:
    """Return the bytes of cached files that the control group drops when memory is short."""
    try:
        lines = (CONTROL_GROUP / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    counts = dict(line.split(maxsplit=1) for line in lines)
    return sum(int(counts.get(name, 0)) for name in ("inactive_file", "active_file"))
