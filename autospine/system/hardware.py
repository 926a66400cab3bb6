"""Cores and memory that this process may use, and why PyTorch cannot use a GPU, all told without PyTorch.

`autospine.system.devices` knows the device that is computed on.
"""

import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

import psutil

from autospine.core.errors import AutospineError, PlanError, first_line

GIB = 1024**3
"""Bytes of a gibibyte."""

MIB = 1024**2
"""Bytes of a mebibyte, in which Slurm states memory."""

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Folder in which Linux states the limits of containers and of the jobs of a cluster."""

OWN_GROUPS = Path("/proc/self/cgroup")
"""File that names the control groups of this process, below `CONTROL_GROUP`."""

OLDER_CARDS = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126"
"""Command for a PyTorch with kernels for GPUs from 2014 on, and for drivers from 2024 on."""

START = "https://pytorch.org/get-started/locally"
"""Page that names the command for each PyTorch."""

OLDEST_NEWEST = (7, 5)
"""Compute capability from which the newest builds of PyTorch (CUDA 13) have kernels."""

_UNITS = {"": GIB, "G": GIB, "M": 1024**2, "T": 1024**4}


@dataclass(frozen=True, kw_only=True, slots=True)
class CudaInstallation:
    """Facts that decide which GPUs PyTorch can use."""

    version: str
    """Version of PyTorch."""

    cuda: str | None
    """Version of CUDA that it was built with; None if without."""

    built_for: tuple[str, ...] = ()
    """Architectures that it has kernels for, such as `sm_90`."""

    visible: str | None = None
    """Value of `CUDA_VISIBLE_DEVICES`; None if it is not set."""

    driver: bool = False
    """Whether the system has loaded NVIDIA's driver."""

    said: str = ""
    """Warning of PyTorch about the driver; empty if there was none."""

    @property
    def why_no_gpu(self) -> str:
        """Sentence that says why PyTorch sees no GPU, and how to mend it."""
        if self.cuda is None:
            return f"PyTorch {self.version} is built without CUDA; install the build that {START} names"
        if self.said:
            return (
                f"PyTorch {self.version} refuses the driver ({first_line(Exception(self.said))}); update "
                f"NVIDIA's driver, or install a PyTorch for older ones: {OLDER_CARDS}"
            )
        if self.visible is not None:
            return (
                f"CUDA_VISIBLE_DEVICES={self.visible!r} leaves no GPU; unset it, or name GPUs that "
                "`nvidia-smi` lists, such as CUDA_VISIBLE_DEVICES=0"
            )
        if not self.driver:
            return "no NVIDIA driver is loaded; in a container, start it with --gpus all"
        return "the driver shows no GPU; see whether `nvidia-smi` lists one"

    def why_unsupported(self, name: str, capability: tuple[int, int]) -> str | None:
        """Return why PyTorch cannot compute on a GPU, and how to mend it; None if it can.

        Args:
            name: Name of the GPU.
            capability: Its compute capability.
        """
        if self.cuda is None or not self.built_for or has_kernels(capability, self.built_for):
            return None
        major, minor = capability
        is_old = capability < OLDEST_NEWEST
        mend = f"run `{OLDER_CARDS}`" if is_old else f"install the newest build that {START} names"
        return (
            f"PyTorch {self.version} has no kernels for {name} of compute capability {major}.{minor}, only "
            f"for {', '.join(self.built_for)}; {mend}"
        )


def has_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> bool:
    """Return whether kernels for these architectures run on a GPU of this capability.

    Kernels of `sm_80` run on every later 8.x, those of `sm_90a` on 9.0 alone; the text of `compute_80` can be
    compiled for everything later.
    """
    for architecture in built_for:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if match is None:
            continue
        version = (int(match[2]), int(match[3]))
        same = version == capability if match[4] else version[0] == capability[0] and version <= capability
        if same or (match[1] == "compute" and not match[4] and version <= capability):
            return True
    return False


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
    """Count the cores that this process may use: those it is bound to, and what its group and job allow.

    Of a share of a core nothing is counted: a thread more than the group allows is stopped with all others as
    soon as their time is spent.
    """
    return max(1, int(min(bound_cores(), _quota(), _job_cores())))


def bound_cores() -> int:
    """Count the cores that this process is bound to, whatever share of them its control group allows."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota() -> float:
    """Return how many cores' time the control groups allow, infinity without a limit.

    cgroup v2 states it in `cpu.max`, v1 in two files, in which -1 is no limit.
    """
    least = inf
    for group in _groups("cpu"):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                words = [(group / name).read_text(encoding="utf-8") for name in names]
                quota, period = " ".join(words).split()
                least = min(least, inf if quota == "max" or int(quota) <= 0 else int(quota) / int(period))
            except (OSError, ValueError, ZeroDivisionError):
                continue
    return least


def _groups(controller: str) -> list[Path]:
    """Return the folders of the control groups that limit this process: its own, and those around it.

    A container sees its own group as the root. The jobs of a cluster lie deeper, and the limit is often that
    of a group in between. cgroup v2 has one hierarchy, v1 one for each controller, such as `memory`.
    """
    roots = {"": CONTROL_GROUP, controller: CONTROL_GROUP / controller}
    groups = list(roots.values())
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return groups
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        names = [name for name in path.split("/") if name]
        if ".." in names:  # a group outside of what this process can see
            continue
        for root in {*controllers.split(",")} & {*roots}:
            groups += [roots[root].joinpath(*names[: n + 1]) for n in range(len(names))]
    return groups


def _job_cores() -> float:
    """Return the cores that Slurm has allotted to this task, infinity outside of a job.

    https://slurm.schedmd.com/sbatch.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
    """
    return _stated("SLURM_CPUS_PER_TASK") or _stated("SLURM_CPUS_ON_NODE") or inf


def _job_memory() -> float:
    """Return the bytes of RAM that Slurm has allotted to this job here, infinity without a limit."""
    per_core = _stated("SLURM_MEM_PER_CPU") * (_stated("SLURM_CPUS_ON_NODE") or cores())
    return (_stated("SLURM_MEM_PER_NODE") or per_core) * MIB or inf


def _stated(variable: str) -> int:
    """Return a number of the environment; 0 where there is none."""
    text = os.environ.get(variable, "")
    return int(text) if re.fullmatch(r"[0-9]{1,12}", text) else 0


def restarts() -> int:
    """Return how often torchrun has started the processes of this training again; 0 without it."""
    return _stated("TORCHELASTIC_RESTART_COUNT")


def default_workers(sharers: int = 1) -> int:
    """Return one worker process per core, at most eight, shared among this many trainings."""
    return max(1, min(cores() // sharers, 8))


def free_memory() -> int:
    """Return the bytes of RAM that this process may still take on the machine, in its groups and in its job.

    A group counts cached files as taken memory, although the system frees them when memory is short. Where
    Slurm has allotted memory that no group limits, what this process and its children hold counts as taken.
    """
    free: int = psutil.virtual_memory().available
    for group in _groups("memory"):
        for limit_file, used_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                limit = (group / limit_file).read_text(encoding="utf-8").strip()
                used = int((group / used_file).read_text(encoding="utf-8"))
                free = free if limit == "max" else min(free, int(limit) - used + _cached_files(group))
            except (OSError, ValueError):
                continue
    if (allotted := _job_memory()) < inf:
        free = min(free, int(allotted) - _held_by_all())
    return max(0, free)


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


def _held_by_all() -> int:
    """Return the resident memory of this process and its children in bytes."""
    held = held_memory()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            held += child.memory_info().rss
    return held


def _cached_files(group: Path) -> int:
    """Return the bytes of cached files that a control group drops when memory is short.

    cgroup v1 states those of the groups inside it under names of their own.
    """
    try:
        lines = (group / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    counts = dict(line.split(maxsplit=1) for line in lines)
    kinds = ("inactive_file", "active_file")
    return sum(int(counts.get(f"total_{kind}", counts.get(kind, 0))) for kind in kinds)
