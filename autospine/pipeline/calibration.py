"""Calibration of the memory estimate by real training steps on this machine."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch

from autospine.core.errors import PlanError
from autospine.inference.ensemble import timed_convolutions
from autospine.pipeline.smaller_patch import with_smaller_patch
from autospine.plan import Configuration, Plan
from autospine.storage.serialization import read_json, stored_as, write_json
from autospine.storage.workspace import DatasetLocation
from autospine.system.allocation import prepare_memory
from autospine.system.devices import describe
from autospine.system.log import get_logger
from autospine.system.workers import WorkerPool, reporting_killed
from planners.calibration_factor import LARGEST_FACTOR, SMALLEST_FACTOR, StepTooLargeError, calibrate
from trainers.learner import Learner

logger = get_logger(__name__)

CALIBRATION = "calibration.json"

MOST_TRIES = 4
"""Times that the patch is halved at most until a step fits."""


@stored_as("a calibration", largest=2**20)
@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Correction of the memory estimate on a device."""

    format_version: int
    device: str
    """Description of the device; the factor is not used on another one."""

    factor: float
    """Ratio of measured to predicted memory, both without the part that does not depend on the patch."""

    def __post_init__(self) -> None:
        if self.format_version != 1 or not SMALLEST_FACTOR <= self.factor <= LARGEST_FACTOR:
            raise PlanError(
                f"expected a factor from {SMALLEST_FACTOR} to {LARGEST_FACTOR} in {CALIBRATION} of "
                f"format_version 1, found {self.factor} and {self.format_version}; calibrate again"
            )


def known_calibration(location: DatasetLocation, device: torch.device) -> float:
    """Return the factor measured on this device, 1 if there is none."""
    path = location.preprocessed / CALIBRATION
    if not path.is_file():
        return 1.0
    known = read_json(path, Calibration)
    return known.factor if known.device == describe(device) else 1.0


def measure_calibration(location: DatasetLocation, planned: Plan, device: torch.device) -> float:
    """Measure training steps of the largest configuration, and keep and return the factor.

    On a GPU its patch is halved first: the plan is made by the estimate that is in question, and fills the
    memory by it. Where a step does not fit even so, the patch is halved again.

    Raises:
        StepTooLargeError: If no step of any patch fits.
    """
    largest = max(planned.configurations, key=lambda configuration: configuration.memory_bytes)
    factor = _first_that_fits(
        planned, patches_to_measure(planned, largest, gpu=device.type == "cuda"), device
    )
    logger.info("it takes %.2f times what was predicted beyond weights and libraries", factor)
    kept = Calibration(format_version=1, device=describe(device), factor=factor)
    write_json(location.preprocessed / CALIBRATION, kept)
    return factor


def patches_to_measure(planned: Plan, configuration: Configuration, *, gpu: bool) -> list[Configuration]:
    """Return a configuration with the patches that calibration tries in turn, each half of the one before.

    Args:
        planned: Its plan.
        configuration: Configuration as planned.
        gpu: Whether it is measured on a GPU, where the planned patch itself is left out.
    """
    tried = [configuration]
    while len(tried) <= MOST_TRIES:
        last = tried[-1]
        smaller = with_smaller_patch(planned, last, prod(last.patch_size) * last.training.batch_size - 1)
        if smaller == last:
            break
        tried.append(smaller)
    return tried[1:] if gpu and len(tried) > 1 else tried


def _first_that_fits(planned: Plan, tried: list[Configuration], device: torch.device) -> float:
    """Return the factor of the first configuration whose steps fit the memory."""
    for chosen in tried:
        logger.info("measuring two training steps of %s, %s voxels", chosen.name, _sizes(chosen))
        # In a process of its own, since this one reuses memory that it has freed.
        killed = StepTooLargeError(
            f"expected a training step of {chosen.name!r} to fit the memory, found that the system has ended "
            "it; plan with less --memory"
        )
        try:
            with reporting_killed(killed), WorkerPool(1) as pool:
                return pool.submit(_measured_factor, planned, chosen, device).result()
        except StepTooLargeError:
            if chosen == tried[-1]:
                raise
            logger.info("that is too much for the memory")
    raise AssertionError("at least one configuration is tried")


def _sizes(configuration: Configuration) -> str:
    return "x".join(map(str, configuration.patch_size))


def _measured_factor(planned: Plan, chosen: Configuration, device: torch.device) -> float:
    prepare_memory(device)
    with timed_convolutions(device):  # as in training: what cuDNN then takes needs other memory
        return calibrate(planned, chosen, device, partial(_training_step, planned, chosen, device))


def _training_step(planned: Plan, chosen: Configuration, device: torch.device) -> Callable[[], object]:
    """Return a training step on noise of the planned patch and batch size."""
    learner = Learner(planned, chosen, seed=0, device=device)
    shape = (chosen.training.batch_size, *chosen.patch_size)
    images = torch.randn(shape[0], len(planned.channels), *chosen.patch_size, device=device)
    labels = torch.randint(0, len(planned.labels.integers) + 1, shape, device=device, dtype=torch.uint8)
    return lambda: learner.step(images, labels, 0.0)
