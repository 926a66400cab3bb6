"""Preprocess a dataset: every case once, again only where something changed."""

import hashlib
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from autospine.dataset import Case, Dataset, case_modality
from autospine.errors import AutospineError, DatasetError
from autospine.geometry import difference
from autospine.images import read_labels, read_volume
from autospine.labels import LabelSpace
from autospine.log import get_logger, progress
from autospine.plan import Configuration, Normalisation, Plan
from autospine.preprocessing.prepare import prepare_image, prepare_labels
from autospine.preprocessing.store import (
    FORMAT_VERSION,
    CaseRecord,
    StoredCase,
    count_labels,
    open_cases,
    stored_key,
    write_case,
)
from autospine.serialization import to_json
from autospine.types import Modality, Shape3, Vector3

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All of a plan that stored cases depend on."""

    format_version: int
    spacing_mm: Vector3
    patch_size: Shape3
    """Decides the chunks only; a case stored for another patch size stays valid."""

    labels: LabelSpace
    normalisation: dict[Modality, Normalisation]


def preprocess_dataset(
    dataset: Dataset, plan: Plan, configuration: Configuration, folder: Path, workers: int
) -> tuple[StoredCase, ...]:
    """Store every training case of a dataset for one configuration.

    Cases that are stored already, from the same raw files and settings, are kept as they are.

    Args:
        dataset: a verified dataset.
        plan: its labels and normalisation.
        configuration: its spacing and patch size.
        folder: where the cases go.
        workers: processes; with 1 the work is done in this one.

    Returns:
        The stored cases in the dataset's order.

    Raises:
        DatasetError: listing every case that could not be preprocessed; the others are stored.
    """
    settings = Settings(
        format_version=FORMAT_VERSION,
        spacing_mm=configuration.spacing_mm,
        patch_size=configuration.patch_size,
        labels=plan.labels,
        normalisation=plan.normalisation,
    )
    folder.mkdir(parents=True, exist_ok=True)
    todo = [case for case in dataset.cases if stored_key(folder, case.name) != case_key(case, settings)]
    if kept := len(dataset.cases) - len(todo):
        log.info("%d of %d cases are preprocessed already", kept, len(dataset.cases))
    problems: list[str] = []
    with progress(f"preprocess {configuration.name}", len(todo)) as meter:
        for problem in _results(todo, settings, folder, min(workers, len(todo))):
            problems += [problem] if problem else []
            meter.advance()
    if problems:
        listed = "\n".join(f"  {line}" for line in sorted(problems))
        raise DatasetError(
            f"expected all {len(dataset.cases)} cases of {dataset.name} to be preprocessed, "
            f"{len(problems)} failed:\n"
            f"{listed}\nmend or remove them and run the command again; the other cases are kept"
        )
    return open_cases(folder, [case.name for case in dataset.cases])


def preprocess_case(case: Case, settings: Settings, folder: Path) -> StoredCase:
    """Read, prepare and store one training case.

    Raises:
        AutospineError: if it cannot be read, or image and labels do not fit together.
    """
    if case.labels is None:
        raise DatasetError(f"expected a label file for training case {case.name}, found none")
    key = case_key(case, settings)
    volume = read_volume(case.images)
    labelled = read_labels(case.labels)
    if different := difference(labelled.grid, volume.grid):
        raise DatasetError(
            f"expected labels on the image's grid in {case.labels}, found {different}; run `autospine verify`"
        )
    labels = labelled.array[0]
    modality = case_modality(case, volume)
    prepared = prepare_image(
        volume, modality, settings.spacing_mm, settings.normalisation[modality], labels=labels
    )
    indices = prepare_labels(labels, settings.labels, prepared)
    record = CaseRecord(
        format_version=FORMAT_VERSION,
        name=case.name,
        modality=modality,
        subject=case.subject,
        site=case.site,
        source_shape=prepared.source_shape,
        source_spacing_mm=volume.grid.spacing_mm,
        crop=prepared.crop,
        shape=prepared.shape,
        channels=len(prepared.image),
        spacing_mm=prepared.spacing_mm,
        encoding=prepared.encoding,
        transform=prepared.transform,
        label_voxels=count_labels(indices),
        repairs=volume.notes,
        key=key,
    )
    return write_case(folder, record, prepared, indices, settings.patch_size)


def case_key(case: Case, settings: Settings) -> str:
    """Digest of the raw files' names, sizes and times of change and of the settings that matter.

    Reading all of the files' bytes instead would make a run that has nothing to do as slow as the disk.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in (*case.images, *((case.labels,) if case.labels else ())):
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            state = file.stat()
            digest.update(f"{file.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    relevant = (settings.format_version, settings.spacing_mm, settings.labels, settings.normalisation)
    digest.update(to_json((*relevant, case.modality, case.subject, case.site)).encode())
    return digest.hexdigest()


def _results(cases: list[Case], settings: Settings, folder: Path, workers: int) -> Iterator[str | None]:
    """For each case, in any order, what went wrong with it or None."""
    if workers <= 1:
        for case in cases:
            yield _attempt(case, settings, folder)
        return
    # Forking a process that runs threads (torch, Blosc2) can deadlock; a fresh one cannot.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        futures = {pool.submit(_attempt, case, settings, folder): case for case in cases}
        for future in as_completed(futures):
            yield _outcome(future, futures[future])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _outcome(future: "Future[str | None]", case: Case) -> str | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return f"{case.name}: a worker process was killed, probably for want of memory; use fewer workers"


def _attempt(case: Case, settings: Settings, folder: Path) -> str | None:
    try:
        preprocess_case(case, settings, folder)
    except AutospineError as error:
        text = str(error)
        return text if case.name in text else f"{case.name}: {text}"
    except (OSError, MemoryError) as error:
        return f"{case.name}: {type(error).__name__}: {error}"
    return None
