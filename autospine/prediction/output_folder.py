"""The folder that label maps are written to."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autospine.core.errors import WorkspaceError

if TYPE_CHECKING:  # it reads images, which takes long to import
    from autospine.dataset.raw import Case


def check_output(output: Path) -> None:
    """Refuse an output that is a file.

    Raises:
        WorkspaceError: If it is one.
    """
    if output.exists() and not output.is_dir():
        raise WorkspaceError(f"expected an output folder, found the file {output}; name a folder with -o")


def check_apart_from_inputs(output: Path, cases: "Sequence[Case]") -> None:
    """Refuse to write label maps among the images: they would replace them, or be taken for images next time.

    Raises:
        WorkspaceError: If the output folder holds an input.
    """
    if (output / "dataset.json").is_file():
        raise WorkspaceError(
            f"expected an output folder other than that of a dataset, found dataset.json in {output}; name "
            "another folder with -o"
        )
    # A link to itself has no target; reading it says so.
    images = [Path(os.path.realpath(image)) for case in cases for image in case.images]
    if any(output.resolve() in (image, image.parent) for image in images):
        raise WorkspaceError(
            f"expected an output folder other than that of the images, found {output} for both; "
            "name another folder with -o"
        )
