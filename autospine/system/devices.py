"""The device that networks run on: which one it is, its memory and number formats, and the threads of a CPU.

OpenMP's threads wait for one another at the end of each of their many short pieces of work. GNU's library,
which PyTorch brings for Linux, lets a waiting thread spin for some milliseconds, since to wake it up takes
longer than most waits. Where all cores are free that is right. Where a neighbour has one of them, a thread
that spins takes the time of the very thread that it waits for, and a prediction of seconds takes minutes.
"""

import ctypes
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
import torch

from autospine.core.errors import AutospineError, counted
from autospine.system.hardware import GIB, CudaInstallation, bound_cores, check_device_name, cores
from autospine.system.log import get_logger

logger = get_logger(__name__)

ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
"""Variables by which the user sets PyTorch's allocator for GPUs."""

DRIVER = Path("/proc/driver/nvidia/version")
"""File that is there where Linux has loaded NVIDIA's driver."""

CHECK_SECONDS = 0.2
"""Time between two checks whether threads of this process wait for a core."""

SHORT_SHARE = 0.3
"""Cores are short if threads have waited for one for more than this share of the time, all together.

Where every core has a neighbour, two threads wait for as long as they run. Threads of this process that read
and write beside those that compute, and the system's own work, cost less than this.
"""

SHORT_CHECKS = 2
"""Checks in a row with a shortage after which threads give up spinning.

A program that begins to compute while it still reads is short of cores at one check. A neighbour stays.
"""

CALM_CHECKS = 5
"""Checks in a row without shortage after which cores count as free again."""

JOIN_SECONDS = 2.0
"""Longest wait for threads of the watch to end: one that outlives the interpreter can end the process."""

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Variables by which the user says how OpenMP's threads wait."""

TASKS = Path("/proc/self/task")
"""Folder with a folder for each thread of this process, on Linux."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of this name.

    Args:
        name: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`.

    Raises:
        AutospineError: If no device has such a name, this machine lacks it, or PyTorch cannot compute on it.
    """
    check_device_name(name)
    if name == "cpu":
        return torch.device("cpu")
    _let_segments_grow()
    with warnings.catch_warnings(record=True) as said:  # of the driver
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count and name == "auto" and not DRIVER.exists():
        return torch.device("cpu")  # there is no GPU that anybody could expect to be used

    installation = CudaInstallation(
        version=torch.__version__,
        cuda=torch.version.cuda,
        built_for=tuple(torch.cuda.get_arch_list()),
        visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        driver=DRIVER.exists(),
        said=str(said[0].message) if said else "",
    )
    return choose_gpu(name, count, installation)


def choose_gpu(name: str, count: int, installation: CudaInstallation) -> torch.device:
    """Return the first GPU that the name allows and PyTorch can compute on.

    Args:
        name: `auto`, `cuda` or `cuda:N`.
        count: Number of GPUs that PyTorch sees.
        installation: What PyTorch is built for.

    Returns:
        The CPU where there is no such GPU and the name is `auto`, with a line that says why.

    Raises:
        AutospineError: If there is no such GPU and the name asks for one.
    """
    _, colon, number = name.partition(":")
    why = "GPUs are numbered from 0" if count else installation.why_no_gpu
    for index in range(count)[int(number) : int(number) + 1] if colon else range(count):
        with warnings.catch_warnings():  # PyTorch's own, which names no command
            warnings.simplefilter("ignore")
            found = torch.cuda.get_device_properties(index)
        fault = installation.why_unsupported(found.name, (found.major, found.minor))
        if fault is None:
            return torch.device("cuda", index) if index or colon else torch.device("cuda")
        why = fault
    if name == "auto":
        _say_once(f"no GPU is used: {why}")
        return torch.device("cpu")
    raise AutospineError(
        f"expected a CUDA device for --device {name}, found {counted(count, 'GPU')}: {why}, or use "
        "--device cpu"
    )


@cache
def _say_once(text: str) -> None:
    """Log a fact about the GPUs, the first time that it is met."""
    logger.warning("%s", text)


def _let_segments_grow() -> None:
    """Let PyTorch's allocator for GPUs extend its blocks instead of leaving gaps between them.

    It reads its variable when it begins. One that the user has set is left alone.
    """
    if sys.platform.startswith("linux") and not any(variable in os.environ for variable in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = "expandable_segments:True"


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 natively (GPUs from Ampere on, AVX512-BF16, AMX)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()


def native_half(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit format that the device multiplies natively.

    This is bfloat16, whose range is that of float32; else float16 (GPUs from Volta on); else None.
    """
    if multiplies_bfloat16(device):
        return torch.bfloat16
    volta = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return torch.float16 if volta else None


def inference_half(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit format in which a network trained in `precision` predicts, None for float32.

    A network trained in bfloat16 may overflow in float16; the reverse is safe.
    """
    half = None if precision == "float32" else native_half(device)
    return None if precision == "bfloat16" and half == torch.float16 else half


def cudnn_version() -> int | None:
    """Return the version of cuDNN, such as 91002 for 9.10.2; None without."""
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version


def describe(device: torch.device) -> str:
    """Describe the device in words."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"
    total = psutil.virtual_memory().total / GIB
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}, {total:.0f} GiB RAM"


@contextmanager
def computing() -> Iterator[None]:
    """Compute within the block on the cores that there are, with threads that wait as fits the machine.

    Where a container has fewer cores than the machine, torch gets as few threads, unless the user has said
    how many there are to be (`OMP_NUM_THREADS`). Threads give up spinning as long as others have their cores.
    Blocks may be nested, and may run in several threads at once.
    """
    _WATCH.say_if_forked()
    before = torch.get_num_threads()
    fewer = "OMP_NUM_THREADS" not in os.environ and before > cores()
    if fewer:
        torch.set_num_threads(cores())
    _WATCH.enter()
    try:
        yield
    finally:
        _WATCH.leave()
        if fewer:
            torch.set_num_threads(before)


class _Watch:
    """Thread that looks for a shortage of cores while at least one block computes."""

    def __init__(self) -> None:
        self._lock, self._users, self._over = threading.Lock(), 0, threading.Event()
        self._thread: threading.Thread | None = None
        self._forked = False

    def enter(self) -> None:
        """Count a block that computes; the first one starts the watch."""
        with self._lock:
            self._users += 1
            if self._users == 1 and _spins():
                self._over = threading.Event()
                self._thread = threading.Thread(
                    target=_watch_cores, args=(self._over,), name="cores", daemon=True
                )
                self._thread.start()

    def leave(self) -> None:
        """Count the end of a block; the last one ends the watch and waits for its thread."""
        with self._lock:
            self._users -= 1
            if self._users or self._thread is None:
                return
            self._over.set()
            thread, self._thread = self._thread, None
        thread.join(JOIN_SECONDS)

    def begin_anew(self) -> None:
        """Begin in a process that was forked: OpenMP's threads and those of the watch are not there.

        GNU's OpenMP takes its threads to be there and waits for them for ever, so that one thread has to do.
        """
        self._lock, self._users, self._thread, self._forked = threading.Lock(), 0, None, True
        torch.set_num_threads(1)

    def say_if_forked(self) -> None:
        """Say once that a process that was forked computes with one thread."""
        if self._forked:
            logger.info(
                "this process was forked and computes with one thread; begin processes by multiprocessing's "
                "`spawn` instead, and each uses its cores"
            )
        self._forked = False


_WATCH = _Watch()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WATCH.begin_anew)


def seconds_without_core() -> float | None:
    """Return how long the threads of this process have waited for a core, all together.

    None where the system does not count it. The sum falls when a thread ends.
    """
    waited = None
    with suppress(OSError):
        for task in TASKS.iterdir():
            with suppress(OSError, ValueError, IndexError):  # a thread that has just ended
                text = (task / "schedstat").read_text(encoding="ascii")
                waited = (waited or 0) + int(text.split()[1])
    return None if waited is None else waited / 1e9


def _watch_cores(over: threading.Event) -> None:
    """Let threads spin or not, depending on whether they get their cores, until the event comes."""
    waited = seconds_without_core()
    checks, was_short = 0, False
    hold: _SpareTeam | None = None
    while not over.wait(CHECK_SECONDS) and waited is not None:
        now = seconds_without_core()
        short = now is not None and now - waited > SHORT_SHARE * CHECK_SECONDS
        waited, checks, was_short = now, checks + 1 if short == was_short else 1, short
        if short and checks >= SHORT_CHECKS and hold is None:
            hold = _SpareTeam()
        elif not short and checks >= CALM_CHECKS and hold is not None:
            hold.end()
            hold = None
    if hold is not None:
        hold.end()


def _spins() -> bool:
    """Return whether threads spin by default: in GNU's OpenMP, unless the user has said how they wait."""
    if torch.get_num_threads() == 1 or any(name in os.environ for name in CHOICES):
        return False
    return TASKS.is_dir() and _openmp() is not None


class _SpareTeam:
    """Threads of OpenMP that have nothing to do, and keep its other threads from spinning while they exist.

    GNU's OpenMP spins a hundred times instead of 300,000 as long as it manages more threads than there are
    cores (its manual, GOMP_SPINCOUNT), and looks at that at every wait. A thread of its own brings the number
    above that of the cores by a team, and takes the team along when it ends.
    """

    def __init__(self) -> None:
        self._released = threading.Event()
        size = max(2, bound_cores() - torch.get_num_threads() + 2)
        self._thread = threading.Thread(target=self._hold, args=(size,), name="spare team", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Let the thread go, and wait for it."""
        self._released.set()
        self._thread.join(JOIN_SECONDS)

    def _hold(self, size: int) -> None:
        if (library := _openmp()) is not None:
            nothing = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)
            library.GOMP_parallel(nothing, None, ctypes.c_uint(size), ctypes.c_uint(0))
        self._released.wait()


def _openmp() -> ctypes.CDLL | None:
    """Return a handle of GNU's OpenMP as torch has loaded it; None if torch uses another one or none."""
    try:
        library = ctypes.CDLL(torch._C.__file__)  # symbols are looked up in what it depends on as well
    except OSError:
        return None
    # LLVM's and Intel's OpenMP offer the names of GNU's too, and have another way to spin.
    gnu = hasattr(library, "GOMP_parallel") and not hasattr(library, "kmp_set_blocktime")
    return library if gnu else None


def _cpu_flags() -> frozenset[str]:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(flags.split())


class _CallersDtype:
    """The default dtype of whoever called, kept while any thread works in single precision."""

    def __init__(self) -> None:
        self._lock, self._users, self._dtype = threading.Lock(), 0, torch.float32

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._dtype = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                torch.set_default_dtype(self._dtype)


_CALLERS_DTYPE = _CallersDtype()


@contextmanager
def own_defaults() -> Iterator[None]:
    """Make tensors that state no dtype or device in float32 on the CPU, whatever the caller has set.

    Networks and buffers are written for these defaults, and choose their precision themselves: an enclosing
    autocast of the caller ends here. The caller's defaults come back at the end; the dtype is one for all
    threads, so that it comes back with the last of them.
    """
    with ExitStack() as stack:
        stack.enter_context(_CALLERS_DTYPE)
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
