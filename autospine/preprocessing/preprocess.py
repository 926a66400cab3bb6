"""Preprocessing of a dataset: every case once, and again only if something has changed."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int32

from autospine.cluster.executor import Executor
from autospine.cluster.this_machine import WorkerProcesses
from autospine.core.errors import AutospineError, DatasetError, WorkspaceError
from autospine.core.geometry import difference, turning
from autospine.core.labels import LabelSpace
from autospine.core.modality import guess_modality
from autospine.core.types import Modality, Shape3, Vector3
from autospine.dataset.case_parts import CasePart
from autospine.dataset.case_sizes import case_tasks
from autospine.dataset.map_values import read_tissue_map
from autospine.dataset.raw import Case, Dataset, case_modality
from autospine.io.images import read_labels, read_volume
from autospine.plan import Configuration, Normalisation, Plan
from autospine.preprocessing.prepare import Prepared, prepare_image, prepare_labels
from autospine.preprocessing.store import (
    FORMAT_VERSION,
    VOXELS_VERSION,
    CaseRecord,
    StoredCase,
    count_labels,
    find_case,
    open_cases,
    refresh_record,
    write_case,
)
from autospine.storage.arrays import ArrayFormat, usable
from autospine.storage.atomic import remove_leftovers, remove_whole
from autospine.storage.digest import digest_of, digest_of_files, digest_of_voxels
from autospine.storage.locks import heartbeat_lock, is_held, waiting_lock
from autospine.storage.part_folders import PARTS, part_folder, part_lock, part_locks
from autospine.storage.serialization import to_json
from autospine.system.allocation import return_freed_memory
from autospine.system.devices import computing
from autospine.system.log import get_logger, progress

log = get_logger(__name__)

LOCK = "preprocess.lock"

WAIT_SECONDS = 1.0
"""Time between two looks at a part that another process is at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessingSettings:
    """The parts of a plan that stored cases depend on."""

    format_version: int
    spacing_mm: Vector3
    patch_size: Shape3
    """Shape that training reads at a time. It decides the chunks only: a case stored for another patch size
    stays valid."""

    labels: LabelSpace
    normalisation: dict[Modality, Normalisation]

    tissues: Mapping[int, str] = field(default_factory=dict)
    """Name of each code in the dataset's tissue maps; empty if it has none."""

    arrays: ArrayFormat = "blosc2"
    """Format of new cases; a case stored in another format stays valid."""


def preprocess_dataset(
    dataset: Dataset,
    plan: Plan,
    configuration: Configuration,
    folder: Path,
    workers: int,
    *,
    arrays: ArrayFormat = "blosc2",
    part: CasePart | None = None,
    cluster: Executor | None = None,
) -> tuple[StoredCase, ...]:
    """Store every training case of a dataset for one configuration, or those of one part.

    Cases that are stored already, from raw files of the same content and with the same settings, are kept as
    they are. Files are read only where their state has changed since.

    Args:
        dataset: A verified dataset.
        plan: The plan, for its labels and normalisation.
        configuration: The configuration, for its spacing and patch size.
        folder: Folder that the cases are stored in.
        workers: Number of processes; with 1 the work is done in this process.
        arrays: Format of the cases that are stored now.
        part: Part of the cases that is stored, while other processes store the rest; None for all cases.
        cluster: Stores the cases instead of this machine's processes.

    Returns:
        The stored cases in the dataset's order.

    Raises:
        DatasetError: If a case cannot be preprocessed; lists all such cases, and the others are stored.
        WorkspaceError: If the disk is full, or another process is at the same part.
        ClusterError: If the cluster is gone.
    """
    if part is None:
        with _alone(folder), computing():
            remove_leftovers(folder)
            return _preprocessed(dataset, plan, configuration, folder, workers, arrays, cluster)
    own = set(part.of([case.name for case in dataset.cases]))
    dataset = replace(dataset, cases=tuple(case for case in dataset.cases if case.name in own))
    with _beside_other_parts(folder, part), computing():
        return _preprocessed(dataset, plan, configuration, folder, workers, arrays, cluster)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep all other processes from storing cases, and wait for parts that are at work."""
    with waiting_lock(folder / LOCK, f"preprocesses into {folder}"):
        for lock in part_locks(folder):
            if is_held(lock):
                log.info("another process preprocesses part %s; waiting for it", lock.stem)
            while is_held(lock):
                time.sleep(WAIT_SECONDS)
        remove_whole(folder / PARTS)  # killed processes leave their locks
        yield


@contextmanager
def _beside_other_parts(folder: Path, part: CasePart) -> Iterator[None]:
    """Keep other processes from the same part, which begins only while none stores all cases.

    Parts have no case in common, and no file of several cases is written.
    """
    with ExitStack() as stack:
        with waiting_lock(folder / LOCK, f"preprocesses into {folder}"):
            lock = part_lock(part_folder(folder, part.number, part.count))
            work = f"one run of part {part} into {folder}"
            stack.enter_context(heartbeat_lock(lock, work, WorkspaceError))
        yield


def _preprocessed(
    dataset: Dataset,
    plan: Plan,
    configuration: Configuration,
    folder: Path,
    workers: int,
    arrays: ArrayFormat,
    cluster: Executor | None,
) -> tuple[StoredCase, ...]:
    settings = PreprocessingSettings(
        format_version=VOXELS_VERSION,
        spacing_mm=configuration.spacing_mm,
        patch_size=configuration.patch_size,
        labels=plan.labels,
        normalisation=plan.normalisation,
        tissues=dataset.tissues,
        arrays=usable(arrays),
    )
    todo = [case for case in dataset.cases if not _unchanged(case, settings, folder)]
    if kept := len(dataset.cases) - len(todo):
        log.info("%d of %d cases are preprocessed already", kept, len(dataset.cases))
    executor = cluster or WorkerProcesses(workers, set_up_worker)
    problems: list[str] = []
    with progress(f"preprocess {configuration.name}", len(todo)) as meter:
        tasks = case_tasks(todo, elsewhere=cluster is not None)
        for _, outcome in executor.run(partial(_attempt, settings=settings, folder=folder), tasks):
            problems += [str(outcome)] if outcome is not None else []
            meter.advance()
    if problems:
        listed = "\n".join(f"  {line}" for line in sorted(problems))
        raise DatasetError(
            f"expected all {len(dataset.cases)} cases of {dataset.name} to be preprocessed, "
            f"{len(problems)} failed:\n"
            f"{listed}\nmend or remove them and run the command again; the other cases are kept"
        )
    return open_cases(folder, [case.name for case in dataset.cases])


def set_up_worker() -> None:
    """Prepare a worker process: one thread, and no memory kept from case to case."""
    torch.set_num_threads(1)
    return_freed_memory()


def preprocess_case(case: Case, settings: PreprocessingSettings, folder: Path) -> StoredCase:
    """Read, prepare and store one training case.

    Raises:
        AutospineError: If a file of the case cannot be read, or image and labels do not fit together.
    """
    if case.labels is None:
        raise DatasetError(f"expected a label file for training case {case.name}, found none")
    key, files = case_key(case, settings), files_key(case)
    labelled = read_labels(case.labels, settings.labels)
    source, label_grid = settings.labels.encode(labelled.array[0]), labelled.grid
    del labelled  # at most one source array is in memory, and no longer than needed
    volume = read_volume(case.images)
    if different := difference(label_grid, volume.grid):
        raise DatasetError(
            f"expected labels on the image's grid in {case.labels}, found {different}; run `autospine verify`"
        )
    source = turning(label_grid, volume.grid).to_canonical(source)
    modality = case_modality(case, volume)
    prepared = prepare_image(
        volume, modality, settings.spacing_mm, settings.normalisation[modality], labels=source
    )
    grid, repairs, image = volume.grid, volume.notes, digest_of_voxels(volume.array[0])
    del volume
    indices = prepare_labels(source, prepared)
    tissues = None
    if case.tissues:
        tissues = _on_prepared(read_tissue_map(case.tissues, grid, settings.tissues), prepared)
    record = CaseRecord(
        format_version=FORMAT_VERSION,
        name=case.name,
        modality=modality,
        subject=case.subject,
        site=case.site,
        source_shape=prepared.source_shape,
        source_spacing_mm=grid.spacing_mm,
        crop=prepared.crop,
        shape=prepared.shape,
        channels=len(prepared.image),
        spacing_mm=prepared.spacing_mm,
        encoding=prepared.encoding,
        transform=prepared.transform,
        label_voxels=count_labels(indices),
        tissues=dict(settings.tissues) if case.tissues else {},
        repairs=repairs,
        key=key,
        content=content_key(files, settings, modality),
        image=image,
        arrays=settings.arrays,
    )
    try:
        return write_case(folder, record, prepared, indices, settings.patch_size, tissues)
    except RuntimeError as error:
        # Some file systems take no memory-mapped or compressed containers.
        log.warning("case %s cannot be stored by Blosc2 (%s) and becomes .npy", case.name, error)
        record = replace(record, arrays="npy")
        return write_case(folder, record, prepared, indices, settings.patch_size, tissues)


def _on_prepared(
    mapped: Int32[np.ndarray, "S P L"], prepared: Prepared
) -> Int32[np.ndarray, "cropped_S cropped_P cropped_L"]:
    """Bring a tissue map on the image's grid to the prepared image's grid, by nearest neighbours."""
    codes = mapped[prepared.crop.slices]
    # Voxels whose centres are nearest; outer edges coincide.
    nearest = [
        np.floor((np.arange(n) + 0.5) * m / n).astype(int)
        for n, m in zip(prepared.shape, codes.shape, strict=True)
    ]
    sampled: np.ndarray = codes[np.ix_(*nearest)]
    return sampled


def case_key(case: Case, settings: PreprocessingSettings) -> str:
    """Return a digest of the raw files' names, sizes and times, the row of `cases.csv` and the settings.

    Reading all of the files' bytes instead would make a run that has nothing to do as slow as the disk.
    """
    states = ((file.name, file.stat()) for file in _files(case))
    lines = [f"{name} {state.st_size} {state.st_mtime_ns}\n".encode() for name, state in states]
    return digest_of((*lines, _relevant(settings, case.modality, case.subject, case.site)))


def files_key(case: Case) -> bytes:
    """Return a digest of the raw files' bytes."""
    return bytes.fromhex(digest_of_files(_files(case)))


def content_key(files: bytes, settings: PreprocessingSettings, modality: Modality) -> str:
    """Return a digest of everything that the stored voxels depend on.

    Args:
        files: Result of `files_key`.
        settings: The settings; patch size and array format do not matter.
        modality: Modality as stated or guessed, so that writing down a right guess changes nothing.
    """
    return digest_of((files, _relevant(settings, modality)))


def _files(case: Case) -> list[Path]:
    """Return every raw file, in a fixed order."""
    given = [*case.images, *(path for path in (case.labels, case.tissues) if path)]
    return [file for path in given for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def _relevant(settings: PreprocessingSettings, *facts: str | None) -> bytes:
    """Encode the settings that the stored voxels depend on, and facts of a case."""
    parts = (settings.format_version, settings.spacing_mm, settings.labels, settings.normalisation)
    mapped = (settings.tissues,) if settings.tissues else ()
    return to_json((*parts, *mapped, *facts)).encode()


def _unchanged(case: Case, settings: PreprocessingSettings, folder: Path) -> bool:
    """Return whether the case is stored and its files have kept names, sizes and times; reads no raw file."""
    stored = find_case(folder, case.name)
    return stored is not None and stored.record.key == case_key(case, settings)


def _same_content(record: CaseRecord, case: Case, settings: PreprocessingSettings) -> bool:
    """Return whether the case was stored from the same bytes, settings and modality."""
    if record.content != content_key(files_key(case), settings, record.modality):
        return False
    return record.modality == (case.modality or guess_modality(read_volume(case.images[0]).array[0]))


def _attempt(case: Case, *, settings: PreprocessingSettings, folder: Path) -> str | None:
    """Preprocess a case; return what is wrong with it, None if nothing is."""
    try:
        stored = find_case(folder, case.name)
        key = case_key(case, settings)
        if stored is not None and _same_content(stored.record, case, settings):
            refresh_record(stored, key=key, subject=case.subject, site=case.site)
        else:
            preprocess_case(case, settings, folder)
    except WorkspaceError:
        raise  # a full disk is full for every case
    except AutospineError as error:
        text = str(error)
        return text if case.name in text else f"{case.name}: {text}"
    except (OSError, MemoryError, RuntimeError) as error:  # the last from torch, where memory is short
        return f"{case.name}: {type(error).__name__}: {error}"
    return None
