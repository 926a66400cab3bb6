"""Planning: from a fingerprint and a memory budget to a plan."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from autospine.core.errors import AutospineError, DatasetError, PlanError, counted
from autospine.dataset.raw import Dataset
from autospine.dataset.splits import read_splits
from autospine.fingerprint import Fingerprint
from autospine.pipeline.calibration import known_calibration, measure_calibration
from autospine.pipeline.measuring import find_facts, write_split
from autospine.pipeline.planned_dataset import read_plan
from autospine.plan import DeviceKind, Plan, Precision
from autospine.storage.atomic import keep_former
from autospine.storage.serialization import to_json, write_json
from autospine.storage.trained_models import PLAN
from autospine.storage.workspace import DatasetLocation
from autospine.system.cards import memory_budget
from autospine.system.devices import choose_device, native_half
from autospine.system.log import get_logger
from planners.overrides import Overrides
from planners.planner import make_plan
from planners.sizing import Budget
from trainers.losses import make_loss
from trainers.trained_on import planned_otherwise

logger = get_logger(__name__)

_PRECISIONS: dict[torch.dtype | None, Precision] = {
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    None: "float32",
}


def choose_planned_device(kind: DeviceKind | None, name: str) -> torch.device | None:
    """Return the device to plan for; None for a GPU of another machine.

    Args:
        kind: What the user plans for; None for the device of the name.
        name: Device of this machine, as `choose_device` takes it.

    Raises:
        AutospineError: If kind and name contradict each other, or this machine has no device of that name.
    """
    other = "cuda" if kind == "cpu" else "cpu"
    if kind is not None and name.startswith(other):
        raise PlanError(
            f"expected --for {kind} with a device of that kind, found --device {name}; leave one out"
        )
    device = torch.device("cpu") if kind == "cpu" else choose_device(name)
    return None if kind == "gpu" and device.type == "cpu" else device


def plan(
    location: DatasetLocation,
    *,
    device: torch.device | None,
    memory: str | None = None,
    overrides: Overrides | None = None,
    measure_memory: bool = False,
    facts: tuple[Dataset, Fingerprint] | None = None,
    splits: Path | None = None,
) -> Plan:
    """Plan for a measured dataset and write `plan.json` and `folds.json`.

    A `folds.json` that fits the dataset is kept, since it may have been edited. Where another plan or other
    folds are replaced, they are kept as `plan.json.old` and `folds.json.old`.

    Args:
        location: Folders of the dataset.
        device: The device that training will run on; None for a GPU of another machine.
        memory: Memory that training may take, such as `8GB`; None for the default.
        overrides: Values that the user has fixed.
        measure_memory: Whether to run real training steps of the plan, correct the memory estimate by them,
            and plan again; `calibration.json` keeps the correction for the next plans on this device.
        facts: The dataset and its fingerprint where they have been read already; a dataset without a
            fingerprint is measured now.
        splits: nnU-Net's `splits_final.json`, whose folds replace those of `folds.json`.

    Raises:
        FormatError: If the splits do not fit the dataset.
        PlanError: If no patch fits the budget or the overrides contradict each other.
        TrainingError: If the loss cannot be made.
    """
    dataset, measured = facts or find_facts(location)
    given = None if splits is None else read_splits(splits, dataset)
    budget = _budget(location, device, memory)
    if measure_memory:
        if device is None:
            raise PlanError(
                "expected a GPU for --calibrate with --for gpu, found none in this machine; calibrate where "
                "training will run"
            )
        first = _planned(dataset, measured, replace(budget, calibration=1.0), overrides)
        budget = replace(budget, calibration=measure_calibration(location, first, device))
    planned = _planned(dataset, measured, budget, overrides)
    _say_what_is_replaced(location, planned)
    _write_plan(location, planned)
    try:
        write_split(location, dataset, measured, given)
    except DatasetError as error:
        logger.warning("%s", error)
    if given is not None:
        logger.info("took %s from %s", counted(len(given), "fold"), splits)
    return planned


def _planned(dataset: Dataset, measured: Fingerprint, budget: Budget, overrides: Overrides | None) -> Plan:
    """Return the plan, after its loss has been made once: training must not be the first to refuse it."""
    planned = make_plan(dataset, measured, budget, overrides)
    make_loss(planned.labels, planned.configurations[0].training)
    return planned


def _say_what_is_replaced(location: DatasetLocation, planned: Plan) -> None:
    """Log the configurations that the earlier plan has and this one lacks."""
    try:
        before = read_plan(location)
    except AutospineError:
        return
    lost = {c.name for c in before.configurations} - {c.name for c in planned.configurations}
    if lost:
        logger.warning(
            "no longer planned: %s; their models stay; repeat --network and other options to plan several "
            "at once",
            ", ".join(sorted(lost)),
        )


def _write_plan(location: DatasetLocation, planned: Plan) -> None:
    """Write `plan.json`, keep the former as `plan.json.old`, and name trained folds that belong to others."""
    path = location.preprocessed / PLAN
    if path.is_file() and path.read_bytes() != to_json(planned).encode():
        logger.info("the former plan is kept as %s", keep_former(path))
    write_json(path, planned)
    for configuration in planned.configurations:
        model = location.results / configuration.name
        folds = [folder.name.removeprefix("fold_") for folder in sorted(model.glob("fold_*"))]
        changed = planned_otherwise(model, planned, configuration) if folds else []
        if changed:
            logger.warning(
                "%s %s in %s belong%s to another plan (changed: %s), with which alone `autospine train` goes "
                "on; to do so, copy %s to %s",
                *("folds" if len(folds) > 1 else "fold", ", ".join(folds), model),
                *("" if len(folds) > 1 else "s", ", ".join(changed), model / PLAN, path),
            )


def compare_budgets(
    location: DatasetLocation,
    memories: Sequence[str],
    *,
    device: torch.device | None,
    overrides: Overrides | None,
) -> list[Plan]:
    """Return the plans for several amounts of memory; only a missing fingerprint is written."""
    dataset, measured = find_facts(location)
    budgets = [_budget(location, device, memory) for memory in memories]
    return [_planned(dataset, measured, budget, overrides) for budget in budgets]


def _budget(location: DatasetLocation, device: torch.device | None, memory: str | None) -> Budget:
    bytes_, reason = memory_budget(device, memory)
    return Budget(
        memory_bytes=bytes_,
        gpu=device is None or device.type == "cuda",
        # That of all GPUs from 2020 on, where the GPU is not here.
        precision="bfloat16" if device is None else _PRECISIONS[native_half(device)],
        reason=reason,
        gpu_name=torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else "",
        calibration=1.0 if device is None else known_calibration(location, device),
    )
