"""The stages, wired together: what the commands and the demo call."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch

from autospine.dataset import (
    Case,
    Dataset,
    case_modality,
    find_inputs,
    known_cases,
    load_dataset,
    load_labels,
)
from autospine.errors import (
    AutospineError,
    DatasetError,
    EvaluationError,
    FormatError,
    PlanError,
    WorkspaceError,
)
from autospine.evaluation import Evaluation, evaluate_folder
from autospine.fingerprint import Fingerprint, dataset_key, find_warnings, measure
from autospine.folds import (
    FOLDS,
    FULL,
    Fold,
    classes_missing,
    fold_cases,
    full_fold,
    make_folds,
    read_folds,
    separated,
    write_folds,
)
from autospine.hardware import bfloat16_pays, cores, describe, memory_budget
from autospine.images import read_volume, write_labels
from autospine.inference import ModelFolder, Predictor
from autospine.log import get_logger, progress
from autospine.network import (
    AdaptiveSwinUNETR,
    ImportReport,
    StackingOrder,
    load_monai_file,
    reuse_freed_memory,
)
from autospine.network.build import build_network
from autospine.network.weights import load_imported, save_imported
from autospine.phantom import Region, Scheme, write_dataset
from autospine.plan import Configuration, Plan
from autospine.preprocessing import StoredCase, preprocess_dataset
from autospine.serialization import read_json, write_json
from autospine.types import Modality, Shape3
from autospine.verify import Report, verify_folder
from autospine.workspace import DatasetLocation
from planners.calibration import LARGEST_FACTOR, SMALLEST_FACTOR, calibrate
from planners.overrides import Overrides
from planners.planner import make_plan
from planners.sizing import Budget
from trainers.cross_validation import Task, train_folds
from trainers.fold import CACHE_BYTES
from trainers.learner import Learner
from trainers.settings import Settings

logger = get_logger(__name__)

FINGERPRINT, PLAN, FOLDS_FILE = "fingerprint.json", "plan.json", "folds.json"
CALIBRATION = "calibration.json"

PRETRAINED = "_pretrained.safetensors"
"""Ending of imported weights, after the configuration's name."""


def default_workers() -> int:
    """One process per core, at most eight."""
    return min(cores(), 8)


def check(location: DatasetLocation) -> Report:
    """Verify a dataset, files' names and contents, and log what is noteworthy."""
    report = verify_folder(location.raw)
    for note in report.notes:
        logger.info("%s", note)
    return report


def fingerprint(location: DatasetLocation, workers: int | None = None) -> tuple[Dataset, Fingerprint]:
    """Verify and measure a dataset; writes `fingerprint.json`, unless the one there is of the same files.

    Args:
        location: a raw dataset.
        workers: cases that are measured at the same time.

    Raises:
        DatasetError: listing every fault of every case.
    """
    report = check(location)
    report.raise_if_bad()
    try:
        measured = _fresh_fingerprint(location, report.dataset)
    except (WorkspaceError, FormatError):
        measured = measure(report.dataset, workers)
        write_json(location.preprocessed / FINGERPRINT, measured)
    for warning in find_warnings(measured):
        logger.warning("%s", warning)
    return report.dataset, measured


def plan(
    location: DatasetLocation,
    *,
    device: torch.device,
    memory: str | None = None,
    overrides: Overrides | None = None,
    measure_memory: bool = False,
) -> Plan:
    """Decide on a measured dataset (measured now if it was not); writes `plan.json` and `folds.json`.

    `folds.json` is kept where there is one, since it may have been edited.

    Args:
        location: the dataset.
        device: that training will run on.
        memory: that it may take, such as `8GB`; None for the default.
        overrides: what the user has fixed.
        measure_memory: run real training steps of the plan, correct the memory estimate by them, and plan
            again; the correction is kept in `calibration.json` for the next plans on this device.

    Raises:
        PlanError: if no patch fits the budget or the overrides contradict each other.
    """
    dataset, measured = _facts(location)
    budget = _budget(location, device, memory)
    if measure_memory:
        first = make_plan(dataset, measured, replace(budget, calibration=1.0), overrides)
        budget = replace(budget, calibration=_calibrate(location, first, device))
    planned = make_plan(dataset, measured, budget, overrides)
    _say_what_is_replaced(location, planned)
    write_json(location.preprocessed / PLAN, planned)
    try:
        _split(location, dataset, measured)
    except DatasetError as error:
        logger.warning("%s", error)
    return planned


def _say_what_is_replaced(location: DatasetLocation, planned: Plan) -> None:
    """Log the configurations that were planned before and no longer are."""
    try:
        before = read_plan(location)
    except AutospineError:
        return
    lost = {c.name for c in before.configurations} - {c.name for c in planned.configurations}
    if lost:
        logger.warning(
            "no longer planned: %s; their models stay, and --network and the other wishes may be repeated to "
            "plan several at once",
            ", ".join(sorted(lost)),
        )


def compare_budgets(
    location: DatasetLocation, memories: Sequence[str], *, device: torch.device, overrides: Overrides | None
) -> list[Plan]:
    """The plans for several amounts of memory; nothing is written but a missing fingerprint."""
    dataset, measured = _facts(location)
    budgets = [_budget(location, device, memory) for memory in memories]
    return [make_plan(dataset, measured, budget, overrides) for budget in budgets]


def _facts(location: DatasetLocation) -> tuple[Dataset, Fingerprint]:
    """The dataset and its fingerprint, which is measured if there is none or another."""
    try:
        dataset = load_dataset(location.raw)
        return dataset, _fresh_fingerprint(location, dataset)
    except (WorkspaceError, FormatError):
        return fingerprint(location)


def _budget(location: DatasetLocation, device: torch.device, memory: str | None) -> Budget:
    bytes_, reason = memory_budget(device, memory)
    return Budget(
        memory_bytes=bytes_,
        gpu=device.type == "cuda",
        precision="bfloat16" if bfloat16_pays(device) else "float32",
        reason=reason,
        calibration=_known_calibration(location, device),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How far the memory estimate is off on a device."""

    format_version: int
    device: str
    """Its name; on another one the factor does not count."""

    factor: float
    """Measured over predicted memory, without what does not depend on the patch."""

    def __post_init__(self) -> None:
        if self.format_version != 1 or not SMALLEST_FACTOR <= self.factor <= LARGEST_FACTOR:
            raise PlanError(
                f"expected a factor from {SMALLEST_FACTOR} to {LARGEST_FACTOR} in {CALIBRATION} of "
                f"format_version 1, found {self.factor} and {self.format_version}; calibrate again"
            )


def _known_calibration(location: DatasetLocation, device: torch.device) -> float:
    path = location.preprocessed / CALIBRATION
    if not path.is_file():
        return 1.0
    known = read_json(path, Calibration)
    return known.factor if known.device == describe(device) else 1.0


def _calibrate(location: DatasetLocation, planned: Plan, device: torch.device) -> float:
    """Measure the largest configuration and keep the factor."""
    chosen = max(planned.configurations, key=lambda one: one.memory_bytes)
    logger.info("measuring two training steps of %s", chosen.name)
    # A process of its own: what this one has freed and kept would not show.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            factor = pool.submit(_measured_factor, planned, chosen, device).result()
        except BrokenProcessPool:
            raise PlanError(
                f"expected a training step of {chosen.name!r} to fit the memory, found that the system has "
                "ended it; plan with less --memory"
            ) from None
    logger.info("it takes %.2f times what was predicted beyond weights and libraries", factor)
    kept = Calibration(format_version=1, device=describe(device), factor=factor)
    write_json(location.preprocessed / CALIBRATION, kept)
    return factor


def _measured_factor(planned: Plan, chosen: Configuration, device: torch.device) -> float:
    _prepare_memory(device)
    return calibrate(planned, chosen, device, partial(_training_step, planned, chosen, device))


def _training_step(planned: Plan, chosen: Configuration, device: torch.device) -> Callable[[], object]:
    """A training step on noise, of the size that is planned."""
    learner = Learner(planned, chosen, seed=0, device=device)
    shape = (chosen.training.batch_size, *chosen.patch_size)
    images = torch.randn(shape[0], len(planned.channels), *chosen.patch_size, device=device)
    labels = torch.randint(0, len(planned.labels.integers) + 1, shape, device=device, dtype=torch.uint8)
    return lambda: learner.step(images, labels, 0.0)


def read_plan(location: DatasetLocation) -> Plan:
    """The plan of a dataset.

    Raises:
        WorkspaceError: if it has not been planned.
    """
    path = location.preprocessed / PLAN
    if not path.is_file():
        raise WorkspaceError(
            f"expected a plan of {location.name} at {path}, found none; "
            f"run `autospine plan-and-preprocess -d {location.name}` first"
        )
    return read_json(path, Plan)


def preprocess(
    location: DatasetLocation, configuration: Configuration, workers: int | None = None
) -> tuple[Dataset, dict[str, StoredCase]]:
    """Store every case for a configuration, if it is not stored yet."""
    dataset = load_dataset(location.raw)
    folder = location.preprocessed / configuration.cases
    stored = preprocess_dataset(
        dataset, read_plan(location), configuration, folder, workers or _workers_for(len(dataset.cases))
    )
    return dataset, {case.name: case for case in stored}


def train(
    location: DatasetLocation,
    configuration: str,
    fold: str,
    settings: Settings,
    *,
    minutes: float | None = None,
) -> Evaluation | None:
    """Train folds of a configuration.

    Args:
        location: a planned dataset.
        configuration: index or name.
        fold: `all`, the index of one fold, or `full`.
        settings: the user's choices.
        minutes: time for everything; the schedule is fitted to it.

    Returns:
        The cross-validation so far, None for `full`.

    Raises:
        PlanError: if there is no such configuration.
        WorkspaceError: if there is no such fold or no plan.
    """
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    _prepare_memory(settings.device)
    planned = read_plan(location)
    chosen = planned.configuration(configuration)
    if settings.weights is not None:
        load_imported(settings.weights).check(planned, chosen)
    dataset = load_dataset(location.raw)
    folds = choose_folds(location, dataset, fold)
    dataset, stored = preprocess(location, chosen)
    task = Task(
        dataset=dataset,
        plan=planned,
        configuration=chosen,
        stored=stored,
        folder=location.results / chosen.name,
        split=read_folds(split, dataset) if (split := location.preprocessed / FOLDS_FILE).is_file() else (),
    )
    return train_folds(task, folds, settings, deadline=deadline)


def import_weights(
    location: DatasetLocation,
    configuration: Configuration,
    file: Path,
    output: Path | None = None,
    *,
    merge_order: StackingOrder | Literal["auto"] = "auto",
    window_size: Shape3 | None = None,
    exact: bool = False,
) -> tuple[ImportReport, Path]:
    """Convert weights of MONAI's SwinUNETR for a configuration's network and write them.

    Args:
        location: a planned dataset.
        configuration: one of its plan, with a Swin UNETR.
        file: a checkpoint.
        output: ends in `.safetensors`; by default beside the plan.
        merge_order: as `autospine.network.load_monai` takes it, like the rest.
        window_size: of the file's network.
        exact: refuse conversions that change what the network computes.

    Returns:
        What became of each tensor, and where they were written.

    Raises:
        PlanError: if the configuration has another network.
        FormatError: if the file does not fit, or `output` has another ending.
    """
    target = output or location.preprocessed / f"{configuration.name}{PRETRAINED}"
    if target.suffix != ".safetensors":
        raise FormatError(f"expected an --output that ends in .safetensors, found {target}; name it so")
    plan = read_plan(location)
    network = build_network(plan, configuration)
    if not isinstance(network, AdaptiveSwinUNETR):
        raise PlanError(
            f"expected a configuration with a Swin UNETR to take MONAI's weights, found "
            f"{configuration.name!r} with {configuration.network.name}; choose another with -c"
        )
    report = load_monai_file(network, file, merge_order=merge_order, window_size=window_size, exact=exact)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_imported(target, network, report, plan=plan, configuration=configuration, source=file.name)
    return report, target


def folds_at_once(configuration: Configuration, budget: int, device: torch.device) -> int:
    """How many folds may be trained side by side: on a CPU as many as the memory budget holds."""
    if device.type != "cpu":
        return 1
    memory = min(budget, memory_budget(device)[0])
    at_most = FOLDS if cores() > 1 else 1
    return max(1, min(at_most, memory // (configuration.memory_bytes + CACHE_BYTES)))


def choose_folds(location: DatasetLocation, dataset: Dataset, fold: str) -> tuple[Fold, ...]:
    """The folds that a word of the command line stands for.

    Raises:
        WorkspaceError: if there is no such fold.
        DatasetError: if there are too few subjects for cross-validation.
    """
    if fold == FULL:
        return (full_fold(dataset),)
    if fold != "all" and not fold.isdigit():
        raise WorkspaceError(f"expected --fold all, full or the number of a fold, found {fold!r}")
    path = location.preprocessed / FOLDS_FILE
    if not path.is_file():
        _split(location, dataset, _fresh_fingerprint(location, dataset))
    folds = read_folds(path, dataset)
    if fold == "all":
        return folds
    found = tuple(candidate for candidate in folds if candidate.name == fold)
    if not found:
        known = ", ".join(candidate.name for candidate in folds)
        raise WorkspaceError(f"expected --fold all, full or one of {known}, found {fold!r}")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What became of the cases to predict."""

    written: tuple[Path, ...]
    failed: dict[str, str] = field(default_factory=dict)
    """Case -> what went wrong."""


def predict(
    model: ModelFolder,
    inputs: Path,
    output: Path,
    *,
    device: torch.device,
    folds: Sequence[str] | None = None,
    overwrite: bool = True,
) -> Predicted:
    """Predict cases with the ensemble of a model's folds, each onto its own grid.

    A case that fails is reported and the others go on.

    Args:
        model: an opened model folder.
        inputs: an image, a folder of images or DICOM.
        output: folder for `CASE.ext`; made if absent.
        device: where the networks run.
        folds: which networks; by default every complete one.
        overwrite: whether cases that are there already are predicted again.

    Raises:
        WorkspaceError: if `output` is a file.
        DatasetError: if there is nothing to predict.
    """
    if output.exists() and not output.is_dir():
        raise WorkspaceError(f"expected an output folder, found the file {output}; name a folder with -o")
    cases = find_inputs(inputs, model.plan.channels)
    _spare_inputs(cases, output)
    output.mkdir(parents=True, exist_ok=True)
    _prepare_memory(device)
    predictor = Predictor(
        plan=model.plan,
        configuration=model.configuration,
        networks=model.networks(folds),
        device=device,
    )
    written, failed = [], {}
    for index, case in enumerate(cases, start=1):
        target = output / f"{case.name}{model.plan.file_ending}"
        if target.is_file() and not overwrite:
            logger.info("%s is there already", target)
            written.append(target)
            continue
        try:
            _predict_case(predictor, case, target, f"{case.name} ({index}/{len(cases)})")
            written.append(target)
        except (AutospineError, RuntimeError, MemoryError) as error:
            # RuntimeError: a GPU out of memory, for instance; the next case may be smaller.
            failed[case.name] = str(error) or type(error).__name__
            logger.error("%s: %s", case.name, failed[case.name])
    return Predicted(written=tuple(written), failed=failed)


def _spare_inputs(cases: Sequence[Case], output: Path) -> None:
    """Refuse to write label maps among the images: they would replace them, or be taken for images next time.

    Raises:
        WorkspaceError: if the output folder holds an input.
    """
    if any(output.resolve() == image.resolve().parent for case in cases for image in case.images):
        raise WorkspaceError(
            f"expected an output folder other than that of the images, found {output} for both; "
            "name another folder with -o"
        )


def evaluate(predictions: Path, references: Path, description: Path | None = None) -> Evaluation:
    """Compare two folders of label maps.

    Args:
        predictions: predicted label maps.
        references: true ones.
        description: the dataset.json that names the labels; by default the one beside the references.

    Raises:
        DatasetError: if there is no description.
        EvaluationError: if the folders do not match.
    """
    if not references.is_dir():
        raise EvaluationError(f"expected a folder of references, found none at {references}; name another")
    path = description or references.resolve().parent / "dataset.json"
    if not path.is_file():
        raise DatasetError(
            f"expected the dataset.json that names the labels at {path}, found none; give it with --labels"
        )
    return evaluate_folder(predictions, references, load_labels(path), known_cases(path.parent))


def make_phantoms(
    folder: Path,
    *,
    cases: int,
    test_cases: int,
    region: Region,
    scheme: Scheme,
    modalities: Sequence[Modality],
    seed: int,
    overwrite: bool,
    workers: int,
) -> None:
    """Write a dataset of phantoms, with progress; see `autospine.phantom.write_dataset`."""
    with progress("phantoms", cases + test_cases) as meter:
        write_dataset(
            folder,
            cases=cases,
            test_cases=test_cases,
            region=region,
            modalities=modalities,
            scheme=scheme,
            seed=seed,
            workers=workers,
            overwrite=overwrite,
            on_progress=lambda _done, _total: meter.advance(),
        )


def _predict_case(predictor: Predictor, case: Case, target: Path, description: str) -> None:
    volume = read_volume(case.images)
    for note in volume.notes:
        logger.info("%s: %s", case.name, note)
    modality = case_modality(case, volume)
    if case.modality is None:
        logger.info("%s is taken for %s by its intensities", case.name, modality)
    write_labels(target, predictor.predict(volume, modality, description), volume.stored)


def _fresh_fingerprint(location: DatasetLocation, dataset: Dataset) -> Fingerprint:
    """The fingerprint, if it was measured on the dataset as it is now.

    Raises:
        WorkspaceError: if it was not.
    """
    path = location.preprocessed / FINGERPRINT
    measured = read_json(path, Fingerprint) if path.is_file() else None
    if measured is None or measured.key != dataset_key(dataset):
        raise WorkspaceError(
            f"expected a fingerprint of {location.name} as it is now in {path}, found "
            f"{'none' if measured is None else 'one of other files or labels'}; "
            f"run `autospine plan-and-preprocess -d {location.name}` again"
        )
    return measured


def _prepare_memory(device: torch.device) -> None:
    """On a CPU, a network's tensors are allocated again and again: keep their memory."""
    if device.type == "cpu":
        reuse_freed_memory()


def _split(location: DatasetLocation, dataset: Dataset, measured: Fingerprint) -> None:
    """Write `folds.json` unless it is there and fits.

    Raises:
        DatasetError: if there are fewer subjects than folds.
    """
    path = location.preprocessed / FOLDS_FILE
    cases = fold_cases(
        dataset,
        {case.name: case.modality for case in measured.cases},
        {
            case.name: frozenset(index for index, voxels in enumerate(case.class_voxels) if voxels)
            for case in measured.cases
        },
        measured.duplicates,
    )
    if path.is_file():
        try:
            for group in separated(read_folds(path, dataset), measured.duplicates):
                logger.warning(
                    "%s validates %s in different folds although they show the same image; "
                    "mend the file, or delete it and plan again",
                    *(path, ", ".join(group)),
                )
            return
        except FormatError as error:
            logger.warning("folds.json does not fit the dataset any more and is made anew: %s", error)
    folds = make_folds(cases)
    write_folds(path, dataset.name, folds)
    for name, missing in classes_missing(folds, cases).items():
        names = ", ".join(dataset.labels.names[index] for index in sorted(missing))
        logger.warning("fold %s trains without %s: too few subjects have it", name, names)


def _workers_for(cases: int) -> int:
    """Processes that pay: starting one costs as much as preprocessing several small cases."""
    return 1 if cases < 16 else default_workers()
