"""Label map files that a command reads, and where it writes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autospine.core.errors import DatasetError, WorkspaceError, listed
from autospine.core.types import LabelArray
from autospine.io.formats import ENDINGS
from autospine.storage.atomic import visible
from autospine.storage.file_names import same_name


def find_label_maps(inputs: Sequence[Path]) -> dict[str, Path]:
    """Return the label maps that paths name, by the name of their case; see `find_files`."""
    return find_files(inputs, ENDINGS, "label maps")


def find_files(inputs: Sequence[Path], endings: Sequence[str], what: str) -> dict[str, Path]:
    """Return the files that paths name, by the name of their case.

    Args:
        inputs: Files, or folders of them.
        endings: Endings of the files that are meant; a folder may hold others too.
        what: What the files are, in words.

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
    """Refuse to write over the label maps that are read.

    Raises:
        WorkspaceError: If the output folder is that of an input.
    """
    if same := [file for file in files if file.resolve().parent == folder.resolve()]:
        raise WorkspaceError(
            f"expected an output folder of its own, found {folder}, which holds {same[0].name} itself; name "
            "another with -o"
        )


def integers_in(labels: LabelArray) -> set[int]:
    """Return the label values of a map, plane by plane."""
    found: set[int] = set()
    for plane in labels:
        found.update(np.unique(plane).tolist())
    return found
