"""How a device's memory differs from the prediction: measured on real steps of a planned configuration."""

import gc
import threading
from collections.abc import Callable

import psutil
import torch

from autospine.core.errors import PlanError
from autospine.core.units import GIB
from autospine.memory.estimate import TrainingMemory, training_memory
from autospine.plan import Configuration, Plan
from autospine.system.log import get_logger

Step = Callable[[], object]

STEPS = 2
"""The second runs beside the optimiser's state and the gradients of the first."""

logger = get_logger(__name__)


SMALLEST_FACTOR, LARGEST_FACTOR = 0.5, 2.0
"""Beyond these something else was measured than a training step."""

SAMPLE_SECONDS = 0.005
"""Between two looks at the resident memory; its peak so far may lie before the steps."""


def calibrate(
    plan: Plan, configuration: Configuration, device: torch.device, make_step: Callable[[], Step]
) -> float:
    """Measured over predicted memory of a training step, without the part that does not depend on the patch.

    The result is the `factor` of `autospine.memory.estimate.training_memory`.

    Args:
        plan: that the configuration is of; its channels and labels count.
        configuration: to be measured; its own prediction must not be calibrated already.
        device: where training will run.
        make_step: makes network, optimiser and a batch of the planned size on the device, and returns what
            runs one training step; called after the first look at the memory.

    Returns:
        From `SMALLEST_FACTOR` to `LARGEST_FACTOR`; what lies beyond is said aloud.

    Raises:
        PlanError: if the steps do not fit the device's memory.
    """
    predicted = predict(plan, configuration, gpu=device.type == "cuda")
    try:
        measured = (_gpu_peak if device.type == "cuda" else _cpu_peak)(device, make_step)
    except (torch.cuda.OutOfMemoryError, MemoryError) as error:
        raise PlanError(
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


def predict(plan: Plan, configuration: Configuration, *, gpu: bool) -> TrainingMemory:
    """What a training step of the configuration is predicted to take, uncalibrated."""
    return training_memory(
        configuration.network,
        configuration.patch_size,
        batch_size=configuration.training.batch_size,
        precision=configuration.training.precision,
        in_channels=len(plan.channels),
        out_channels=plan.labels.n_channels,
        spacing_mm=configuration.spacing_mm,
        gpu=gpu,
    )


def _gpu_peak(device: torch.device, make_step: Callable[[], Step]) -> int:
    """Bytes that the allocator has reserved at most, and what CUDA itself takes.

    Other programs on the device would count as CUDA itself: measure on one that is free.
    """
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    _run(make_step)
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    itself = max(0, total - free - torch.cuda.memory_reserved(device))
    return torch.cuda.max_memory_reserved(device) - held + itself


def _cpu_peak(_device: torch.device, make_step: Callable[[], Step]) -> int:
    """Bytes by which the steps raise the resident memory at most.

    Memory that the process has freed and kept before is not seen: measure in a fresh process.
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


def _run(make_step: Callable[[], Step]) -> None:
    step = make_step()
    for _ in range(STEPS):
        step()
