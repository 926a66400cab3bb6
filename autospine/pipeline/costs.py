"""The costs of a plan's configurations: hours of training on this device, and what their voxels lose.

Both are measured, not guessed: some real training steps are timed, and the labels of some cases are resampled
to the configuration's voxel size and back. Neither goes on for long: after `ENOUGH_SECONDS` no further step,
tile, batch of patches or case is begun, so that each of them overruns by one at most. Where the step on a
patch would take longer, its time follows from that of a smaller one.
"""

import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Integer

from autospine.core.geometry import Box, triple
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, Shape3, Vector3
from autospine.data import PatchBatches
from autospine.dataset.raw import Case, Dataset
from autospine.evaluation.overlap import count_overlap
from autospine.fingerprint import Fingerprint
from autospine.inference.ensemble import timed_convolutions
from autospine.inference.tiles import count_tiles
from autospine.io.images import read_labels
from autospine.pipeline.configuration_cost import ConfigurationCost, read_costs, write_costs
from autospine.pipeline.measuring import find_facts
from autospine.pipeline.smaller_patch import with_smaller_patch
from autospine.plan import Configuration, Plan
from autospine.preprocessing.preprocess import PreprocessingSettings, preprocess_case
from autospine.preprocessing.resample import resample_labels, target_shape
from autospine.preprocessing.store import VOXELS_VERSION
from autospine.storage.digest import digest_of
from autospine.storage.serialization import to_json
from autospine.storage.trained_models import FOLDS
from autospine.storage.workspace import DatasetLocation
from autospine.system.allocation import describe_full_memory
from autospine.system.devices import computing, describe
from autospine.system.hardware import cores, default_workers
from autospine.system.log import get_logger, progress
from trainers.epoch_validation import SHARE_OF_PATCHES
from trainers.fold_trainer import CACHE_BYTES
from trainers.fold_validation import SECONDS_PER_CASE
from trainers.learner import Learner

logger = get_logger(__name__)

Made = TypeVar("Made")

WARM_UP = 1
"""Steps before the timed ones: the first one prepares memory and kernels."""

TIMED = 4
"""Steps that are timed, if they take no longer than `ENOUGH_SECONDS`."""

ENOUGH_SECONDS = 10.0
"""Seconds that steps, tiles, batches and cases are each measured for: what takes longer is known well enough
from fewer of them."""

MEASURED_VOXELS = (2**17, 2**19)
"""Most voxels of the two patches whose steps are timed on a CPU, where a step on a large patch takes up to a
minute. What a step takes beyond a fixed part is in proportion to its voxels, since attention is limited to
windows."""

LABEL_VOXELS = 2 * 10**7
"""Labelled voxels, with what lies between them, that are resampled for each configuration: a few cases."""

MARGIN = 16
"""Voxels around everything labelled that are resampled too."""


def measure_costs(
    location: DatasetLocation, planned: Plan, device: torch.device | None
) -> dict[str, ConfigurationCost]:
    """Measure what each configuration of a plan costs; known costs are read from `costs.json`.

    Args:
        location: Folders of the dataset.
        planned: Its plan.
        device: The device that training will run on; None for a GPU of another machine, whose hours cannot be
            measured.

    Returns:
        The cost of each configuration by its name.
    """
    dataset, measured = find_facts(location)
    keys = {each.name: _key(each, measured, device) for each in planned.configurations}
    known = read_costs(location)
    missing = [each for each in planned.configurations if keys[each.name] not in known]
    with progress("measuring hours and voxels", len(missing)) as meter:
        for configuration in missing:
            known[keys[configuration.name]] = ConfigurationCost(
                key=keys[configuration.name],
                name=configuration.name,
                hours=None if device is None else _hours(dataset, measured, planned, configuration, device),
                labels_dice=labels_dice(dataset, planned.labels, configuration.spacing_mm),
            )
            meter.advance()
    if missing:
        write_costs(location, {key: known[key] for key in keys.values()})
    return {name: known[key] for name, key in keys.items()}


def labels_dice(dataset: Dataset, labels: LabelSpace, spacing_mm: Vector3) -> float | None:
    """Compute the Dice of labels that are resampled to a voxel size and back, as images of a fold would be.

    Args:
        dataset: The dataset; its cases are read in order until `LABEL_VOXELS` are reached, or
            `ENOUGH_SECONDS` have passed.
        labels: Its label space.
        spacing_mm: Voxel size of the configuration.

    Returns:
        Mean over classes of the mean over cases; None if no class occurs.
    """
    values: list[list[float]] = [[] for _ in labels.names]
    voxels, began = 0, time.monotonic()
    for case in dataset.cases:
        late = voxels > 0 and time.monotonic() - began > ENOUGH_SECONDS
        if case.labels is None or voxels >= LABEL_VOXELS or late:
            continue
        volume = read_labels(case.labels, labels)
        indices = _labelled(labels.encode(volume.array[0]))
        voxels += indices.size
        shape = target_shape(_shape(indices), volume.grid.spacing_mm, spacing_mm)
        with computing():
            back = resample_labels(resample_labels(indices, shape), _shape(indices))
        for known, counts in zip(values, count_overlap(back, indices, labels), strict=True):
            known += [counts.dice] if counts.occurs else []
    means = [sum(each) / len(each) for each in values if each]
    return round(sum(means) / len(means), 4) if means else None


def _hours(
    dataset: Dataset, measured: Fingerprint, planned: Plan, configuration: Configuration, device: torch.device
) -> float | None:
    """Return the hours of one fold; None if a step cannot be taken."""
    smallest = min(measured.cases, key=lambda case: prod(case.shape)).name
    case = next(case for case in dataset.cases if case.name == smallest)
    try:
        with computing():
            step, tile = _seconds(case, planned, configuration, device)
    except Exception as error:  # of plug-ins, for want of memory, on a full disk: a plan needs no hours
        reason = describe_full_memory(error) or error
        logger.info("the time of %s cannot be measured: %s", configuration.name, reason)
        return None
    training = configuration.training
    patches = training.steps * training.batch_size
    shapes = [
        target_shape(known.shape, known.spacing_mm, configuration.spacing_mm) for known in measured.cases
    ]
    # The held-out cases of an average fold.
    tiles = sum(count_tiles(shape, configuration.patch_size) for shape in shapes) / FOLDS
    seconds = (
        training.steps * step
        + (SHARE_OF_PATCHES * patches + tiles) * tile
        + len(shapes) / FOLDS * SECONDS_PER_CASE
    )
    return round(seconds / 3600, 6)


def _seconds(
    case: Case, planned: Plan, configuration: Configuration, device: torch.device
) -> tuple[float, float]:
    """Return the seconds of a training step and of the prediction of a tile.

    A step takes as long as its patches where the processes that make them are slower; on a CPU both share the
    cores. There the times of a large patch follow from those of two smaller ones, or of one where the second
    would take longer than `ENOUGH_SECONDS`.
    """
    patches = {
        each.patch_size: each
        for each in (_reduced(planned, configuration, device, limit) for limit in MEASURED_VOXELS)
    }
    voxels: list[int] = []
    times: list[tuple[float, float]] = []
    for size, each in patches.items():
        if times and max(times[-1]) * prod(size) / voxels[-1] > ENOUGH_SECONDS:
            break
        times.append(_timed(case, planned, each, device))
        voxels.append(prod(size))
    whole = prod(configuration.patch_size)
    step, tile = (_extrapolated(voxels, [each[kind] for each in times], whole) for kind in (0, 1))
    return step, tile


def _extrapolated(voxels: Sequence[int], seconds: Sequence[float], whole: int) -> float:
    """Return the time of a patch on the line through those of two patches; in proportion to that of one."""
    if len(voxels) < 2:
        return seconds[0] * whole / voxels[0]
    slope = max(0.0, (seconds[1] - seconds[0]) / (voxels[1] - voxels[0]))
    return seconds[1] + slope * (whole - voxels[1])


def _timed(
    case: Case, planned: Plan, configuration: Configuration, device: torch.device
) -> tuple[float, float]:
    """Time steps and tiles of a configuration as it is."""
    settings = PreprocessingSettings(
        format_version=VOXELS_VERSION,
        spacing_mm=configuration.spacing_mm,
        patch_size=configuration.patch_size,
        labels=planned.labels,
        normalisation=planned.normalisation,
    )
    learner = Learner(planned, configuration, seed=0, device=device)
    with TemporaryDirectory() as folder:
        stored = preprocess_case(case, settings, Path(folder))
        # Apart from the steps: the first patches are there before these end, however slowly they are made.
        with PatchBatches(
            [stored],
            configuration,
            seed=0,
            start=0,
            stop=WARM_UP + TIMED,
            workers=0,
            cache_bytes=CACHE_BYTES,
            normalisation=planned.normalisation,
        ) as made:
            batches, patch = _each_timed(made)
    with timed_convolutions(device):  # as in training
        # It ends by reading the loss from the device.
        _, step = _each_timed(learner.step(batch.images, batch.labels, 0.0) for batch in batches)
        with learner.predicting() as predict:
            _, tile = _each_timed(predict(batch.images[:1]).sum().item() for batch in batches)
    if device.type == "cpu":  # the thread that makes patches takes its share of the cores from the steps
        return max(step + patch / cores(), patch), tile
    return max(step, patch / default_workers(1)), tile


def _each_timed(made: Iterable[Made]) -> tuple[list[Made], float]:
    """Return what an iterable makes within `ENOUGH_SECONDS`, and the median seconds of one.

    Those that warm up do not count, unless there are no others.
    """
    results, ends = [], [time.monotonic()]
    for one in made:
        results.append(one)
        ends.append(time.monotonic())
        if ends[-1] - ends[0] > ENOUGH_SECONDS:
            break
    counted = ends[WARM_UP:] if len(results) > WARM_UP else ends
    return results, median(after - before for before, after in pairwise(counted))


def _reduced(planned: Plan, configuration: Configuration, device: torch.device, limit: int) -> Configuration:
    """Return the configuration with a patch whose steps are quick to time; as it is on a GPU."""
    return with_smaller_patch(planned, configuration, limit) if device.type == "cpu" else configuration


def _key(configuration: Configuration, measured: Fingerprint, device: torch.device | None) -> str:
    """Return the digest of everything that a configuration's cost depends on."""
    parts = ("another GPU" if device is None else describe(device), measured.key, to_json(configuration))
    return digest_of(part.encode() for part in parts)


def _labelled(indices: LabelArray) -> Integer[np.ndarray, "_ _ _"]:
    """Cut a label map to what is labelled, with room around it for interpolation."""
    box = Box.around(indices)
    if box is None:
        return indices[:1, :1, :1]
    spans = zip(box.start, box.stop, indices.shape, strict=True)
    return np.ascontiguousarray(
        indices[tuple(slice(max(0, a - MARGIN), min(n, b + MARGIN)) for a, b, n in spans)]
    )


def _shape(indices: LabelArray) -> Shape3:
    return triple(indices.shape)
