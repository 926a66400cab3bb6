"""A new dataset in nnU-Net v2's raw layout: the whole folder or nothing, made in several processes."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from autospine.cluster.executor import Lost, Task
from autospine.cluster.this_machine import WorkerProcesses
from autospine.core.errors import WorkspaceError
from autospine.core.types import Modality
from autospine.storage.locks import scratch_folder

FILE_ENDING = ".nii.gz"
"""Format of the images and labels."""

Work = TypeVar("Work")
"""Description of one case to make; it can be sent to another process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenCase:
    """One line of `cases.csv`, and the labels that the case holds."""

    case: str
    modality: Modality
    site: str
    subject: str
    integers: frozenset[int]


@contextmanager
def built_aside(folder: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a draft folder next to the target, which takes its place only when all has been written.

    Args:
        folder: The dataset's folder.
        overwrite: Whether a dataset that is there may be replaced.

    Raises:
        WorkspaceError: If the target is a file, or a folder with anything but a dataset to be replaced.
    """
    _check_target(folder, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder.parent) as room:
        draft = room / "new"
        draft.mkdir()
        yield draft
        if folder.exists():
            folder.replace(room / "old")
        draft.replace(folder)


def _check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a file, and a folder with something in it that is not a dataset to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise WorkspaceError(
            f"expected a folder to write the dataset to, found a file: {folder}; name another one"
        )
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "dataset.json").is_file():
        raise WorkspaceError(
            f"expected an empty or new folder for the dataset, found other files in {folder}; "
            f"name another one"
        )
    if not overwrite:
        raise WorkspaceError(
            f"expected a new folder for the dataset, found one that holds a dataset: {folder}; "
            f"name another one, or ask to overwrite it (--overwrite)"
        )


def make_cases(
    make: Callable[[Work], WrittenCase],
    jobs: Sequence[Work],
    workers: int,
    on_progress: Callable[[int, int], None] | None,
) -> list[WrittenCase]:
    """Make every case, in this process or in several, and return the rows in the order of the jobs.

    Args:
        make: Makes and writes one case; with several workers a function of a module.
        jobs: What to make.
        workers: Processes to share the cases; with more than one the caller must be importable (`spawn`).
        on_progress: Called after each case with the number of cases done and the number in all.

    Raises:
        WorkspaceError: If a process was killed.
    """
    report = on_progress or (lambda done, total: None)
    tasks = [Task(name=str(number), argument=job) for number, job in enumerate(jobs)]
    rows: dict[int, WrittenCase] = {}
    for task, row in WorkerProcesses(workers).run(make, tasks):
        if isinstance(row, Lost):
            raise WorkspaceError(
                "a process that makes cases was killed, probably for want of memory; run the command again "
                "with fewer --workers"
            )
        rows[int(task.name)] = row
        report(len(rows), len(jobs))
    return [rows[number] for number in range(len(jobs))]


def write_description(
    folder: Path,
    rows: Sequence[WrittenCase],
    *,
    training: int,
    labels: Mapping[str, object],
    others: Mapping[str, object],
) -> None:
    """Write `dataset.json` and `cases.csv`; the channel has the name of the modality if all cases have one.

    Args:
        folder: The dataset's folder.
        rows: Its cases, in the order of the table.
        training: Number of training cases.
        labels: Content of `labels`.
        others: Further entries of `dataset.json`.
    """
    modalities = {row.modality for row in rows}
    description = {
        "channel_names": {"0": modalities.pop() if len(modalities) == 1 else "image"},
        "labels": dict(labels),
        "numTraining": training,
        "file_ending": FILE_ENDING,
        **others,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    with (folder / "cases.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("case", "modality", "site", "subject"))
        writer.writerows((row.case, row.modality, row.site, row.subject) for row in rows)
