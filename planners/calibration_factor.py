"""Calibration of the memory estimate by real training steps of a planned configuration."""

import gc
import threading
from collections.abc import Callable

import psutil
import torch

from autospine.core.defaults import DEFAULT_LOSS
from autospine.core.errors import PlanError
from autospine.memory.estimate import Overhead, training_memory
from autospine.memory.footprint import TrainingMemory
from autospine.plan import Configuration, Plan
from autospine.system.allocation import is_out_of_memory
from autospine.system.hardware import GIB
from autospine.system.log import get_logger

TrainingStep = Callable[[], object]

STEPS = 2
"""Steps to measure: the second runs beside the optimiser's state and the gradients of the first."""

logger = get_logger(__name__)

SMALLEST_FACTOR, LARGEST_FACTOR = 0.5, 2.0
"""Bounds of the factor; beyond them something else was measured than a training step."""

SAMPLE_SECONDS = 0.005
"""Seconds between two samples of the resident memory; the system's own peak may be an older one."""


class StepTooLargeError(PlanError):
    """A training step that was to be measured does not fit the memory."""


def calibrate(
    plan: Plan, configuration: Configuration, device: torch.device, make_step: Callable[[], TrainingStep]
) -> float:
    """Return measured over predicted memory of a training step, without the fixed part.

    The result is the `factor` of `autospine.memory.estimate.training_memory`.

    Args:
        plan: Plan of the configuration, for its channels and labels.
        configuration: Configuration to measure; its own estimate must not be calibrated already.
        device: Device that training will run on.
        make_step: Makes network, optimiser and a batch of the planned size on the device, and returns a
            function that runs one training step; called after the memory was sampled for the first time.

    Returns:
        A factor from `SMALLEST_FACTOR` to `LARGEST_FACTOR`; one beyond is bounded with a warning.

    Raises:
        StepTooLargeError: If the steps do not fit the device's memory.
    """
    predicted = predict(plan, configuration, gpu=device.type == "cuda")
    try:
        measured = (_gpu_peak if device.type == "cuda" else _cpu_peak)(device, make_step)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise StepTooLargeError(
            f"expected a training step of {configuration.name!r} to fit the memory of {device}, found that "
            "it does not; plan with less --memory, or close what else uses the device"
        ) from error
    factor = (measured - predicted.fixed) / (predicted.total - predicted.fixed)
    bounded = min(max(factor, SMALLEST_FACTOR), LARGEST_FACTOR)
    if factor != bounded:
        logger.warning(
            "a training step of %s took %.2f GiB where %.2f were predicted; if %s is free of other programs, "
            "the estimate is corrected as far as a factor of %g goes",
            *(configuration.name, measured / GIB, predicted.total / GIB, device, bounded),
        )
    return bounded


def predict(
    plan: Plan, configuration: Configuration, *, gpu: bool, overhead: Overhead | None = None
) -> TrainingMemory:
    """Return the predicted memory of a training step of the configuration, uncalibrated.

    Args:
        plan: Plan of the configuration.
        configuration: Configuration that is trained.
        gpu: Whether it is trained on a GPU.
        overhead: Memory beyond the tensors; None for what is known of the device.
    """
    return training_memory(
        configuration.network,
        configuration.patch_size,
        batch_size=configuration.training.batch_size,
        precision=configuration.training.precision,
        in_channels=len(plan.channels),
        out_channels=plan.labels.n_channels,
        spacing_mm=configuration.spacing_mm,
        gpu=gpu,
        overhead=overhead,
        other_loss=configuration.training.loss != DEFAULT_LOSS,
    )


def _gpu_peak(device: torch.device, make_step: Callable[[], TrainingStep]) -> int:
    """Return the most bytes that the allocator has reserved, and what CUDA itself takes.

    Other programs on the device would count as CUDA itself, so measure on a device that is free.
    """
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    _run(make_step)
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    itself = max(0, total - free - torch.cuda.memory_reserved(device))
    return torch.cuda.max_memory_reserved(device) - before + itself


def _cpu_peak(_device: torch.device, make_step: Callable[[], TrainingStep]) -> int:
    """Return the most bytes by which the steps raise the resident memory.

    Memory that the process has freed and kept before does not count, so measure in a fresh process.
    """
    gc.collect()
    process = psutil.Process()
    before: int = process.memory_info().rss
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_SECONDS):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        _run(make_step)
    finally:
        done.set()
        watcher.join()
    return peak - before


def _run(make_step: Callable[[], TrainingStep]) -> None:
    step = make_step()
    for _ in range(STEPS):
        step()
