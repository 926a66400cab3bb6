"""Label map files that a command reads, and where it writes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from autospine.core.errors import DatasetError, FailedCasesError, WorkspaceError, counted, listed
from autospine.core.types import LabelArray
from autospine.io.formats import ENDINGS
from autospine.storage.atomic import check_writable, visible
from autospine.storage.file_names import same_name
from autospine.system.described_errors import describe_failure
from autospine.system.log import get_logger, track

logger = get_logger(__name__)

FAILED_NAMED = 10
"""Most names of failed files in the line at the end; each was named with its reason before."""


def find_label_maps(inputs: Sequence[Path]) -> dict[str, Path]:
    """Return the label maps that paths name, by the name of their case; see `find_files`."""
    return find_files(inputs, ENDINGS, "label maps")


def find_files(
    inputs: Sequence[Path],
    endings: Sequence[str],
    what: str,
    passed_over: Callable[[Path], bool] = lambda _: False,
) -> dict[str, Path]:
    """Return the files that paths name, by the name of their case.

    Args:
        inputs: Files, or folders of them.
        endings: Endings of the files that are meant; a folder may hold others too.
        what: What the files are, in words.
        passed_over: Whether a file in a folder is left out in spite of its ending.

    Raises:
        DatasetError: If a path leads nowhere, there is no file, or two have the same name.
    """
    found: dict[str, Path] = {}
    for path in inputs:
        if not path.exists():
            raise DatasetError(f"expected {what} at {path}, found nothing there; check the path")
        files = [each for each in visible(path) if each.is_file()] if path.is_dir() else [path]
        for file in files:
            ending = next((each for each in endings if file.name.lower().endswith(each)), None)
            if ending is None:
                if path.is_dir():
                    continue
                raise DatasetError(f"expected {what} ending in {', '.join(endings)}, found {file}")
            if path.is_dir() and passed_over(file):
                continue
            name = same_name(file.name[: -len(ending)])
            if name in found:
                raise DatasetError(
                    f"expected one file named {name}, found {found[name]} and {file}; rename one, or run the "
                    "command once for each"
                )
            found[name] = file
    if not found:
        raise DatasetError(
            f"expected {what} ({', '.join(endings)}) in {listed([str(path) for path in inputs])}, found none"
        )
    return found


def check_output(folder: Path, files: Sequence[Path]) -> None:
    """Refuse an output folder that cannot be written to, or that holds the label maps that are read.

    Raises:
        WorkspaceError: If the output folder is that of an input, or cannot be written to.
    """
    if same := [file for file in files if file.resolve().parent == folder.resolve()]:
        raise WorkspaceError(
            f"expected an output folder of its own, found {folder}, which holds {same[0].name} itself; name "
            "another with -o"
        )
    check_writable(folder)


def write_each(files: Mapping[str, Path], doing: str, write: Callable[[str, Path], Path]) -> dict[str, Path]:
    """Write something of each file, and go on over files that fail, whose reasons are logged at once.

    The error of a single file is raised as it is.

    Args:
        files: Files by the name of their case, as `find_files` returns them.
        doing: What is done, for the progress: a word in -ing.
        write: Takes the name of a case and its file, writes what is wanted, and returns the file written.

    Returns:
        The file written of each case.

    Raises:
        FailedCasesError: If some of several files have failed, once all others are written.
    """
    written, failed = {}, {}
    for name, path in track(files.items(), doing):
        try:
            written[name] = write(name, path)
        except Exception as error:
            if len(files) == 1:
                raise
            failed[name] = describe_failure(error)
            logger.error("%s: %s", name, failed[name])
    if failed:
        raise FailedCasesError(
            f"{len(failed)} of {counted(len(files), 'file')} failed: {listed(list(failed), FAILED_NAMED)}; "
            f"{counted(len(written), 'other')} {'is' if len(written) == 1 else 'are'} written",
            written,
            failed,
        )
    return written


def integers_in(labels: LabelArray) -> set[int]:
    """Return the label values of a map, plane by plane."""
    found: set[int] = set()
    for plane in labels:
        found.update(np.unique(plane).tolist())
    return found
