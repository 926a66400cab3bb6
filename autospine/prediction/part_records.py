"""Prediction in parts: each part keeps a record of its own, and the last one joins them.

Jobs of a cluster write into one folder from several machines, whose file system may not pass locks on. Each
part therefore writes its entries where no other process writes. They are joined when no part is at work and
every case is done; whoever does so adds entries and takes none away, so that it does no harm if two do.
"""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from autospine.core.errors import WorkspaceError, counted
from autospine.dataset.case_parts import CasePart
from autospine.evaluation.statistics_files import CaseStatistics, add_statistics, read_statistics
from autospine.prediction.case_log import PredictedCase, add_to_record, read_record
from autospine.storage.atomic import remove_whole
from autospine.storage.locks import heartbeat_lock, is_held, lock_if_free, waiting_lock
from autospine.storage.part_folders import PARTS, part_folder, part_folders, part_lock
from autospine.system.log import get_logger

logger = get_logger(__name__)

LOCK = ".parts.lock"
"""Lock of the process that joins the records of parts."""


@contextmanager
def working_on(folder: Path, part: CasePart) -> Iterator[Path]:
    """Keep other processes from the same part, and yield the folder of its record.

    Args:
        folder: Folder of the label maps.
        part: The part that this process predicts.

    Raises:
        WorkspaceError: If another process is at it, on this machine or another.
    """
    place = part_folder(folder, part.number, part.count)
    with heartbeat_lock(part_lock(place), f"one run of part {part} into {folder}", WorkspaceError):
        place.mkdir(parents=True, exist_ok=True)
        yield place


def join_parts(folder: Path) -> bool:
    """Add the records of parts that no process is at to the folder's own, and remove them.

    Returns:
        Whether there were any.

    Raises:
        WorkspaceError: If the folder cannot be written to.
        FormatError: If a record is damaged or of another version.
    """
    if not part_folders(folder):
        return False
    with waiting_lock(folder / LOCK, f"joins the records of the parts in {folder}"):
        return _joined(folder)


def join_if_last(folder: Path, part: CasePart, cases: Collection[str], ending: str) -> bool:
    """Join the records of all parts at the end of one, if it is the last; else say what is still to be done.

    Args:
        folder: Folder of the label maps.
        part: The part that has ended; its lock is free already.
        cases: Names of the cases of all parts. A case is done if it has an entry in the record of its part,
            or a label map that was there before, about which nothing is known.
        ending: Ending of the label maps' names, with its dot.

    Returns:
        Whether this part was the last, so that the folder's own record is whole.

    Raises:
        WorkspaceError: If the folder cannot be written to.
        FormatError: If a record is damaged or of another version.
    """
    with waiting_lock(folder / LOCK, f"joins the records of the parts in {folder}"):
        places = part_folders(folder)
        working = [place.name.replace("-of-", "/") for place in places if is_held(part_lock(place))]
        record = read_record(folder)
        undone = [case for case in cases if case not in record and not (folder / f"{case}{ending}").exists()]
        last = not working and not undone and _joined(folder)
    if last:
        logger.info("part %s was the last: the record of all parts is in %s", part, folder)
    elif undone:
        logger.info(
            "part %s is done; %s of other parts %s to be predicted, and the last part writes the record",
            part,
            counted(len(undone), "case"),
            "is" if len(undone) == 1 else "are",
        )
    elif working:
        logger.info("part %s is done; part %s is at work and writes the record", part, ", ".join(working))
    else:
        logger.info("part %s is done, and another part has written the record of all", part)
    return last


def _joined(folder: Path) -> bool:
    """Do what `join_parts` does, while its lock is held."""
    entries: dict[str, PredictedCase] = {}
    statistics: dict[str, CaseStatistics] = {}
    with ExitStack() as free:
        places = [p for p in part_folders(folder) if free.enter_context(lock_if_free(part_lock(p)))]
        for place in places:
            entries |= read_record(place)
            statistics |= read_statistics(place)
        if entries:
            add_to_record(folder, entries.values())
            add_statistics(folder, statistics)
        for place in places:
            remove_whole(place)
    with suppress(OSError):  # another part has begun
        (folder / PARTS).rmdir()
    return bool(places)
