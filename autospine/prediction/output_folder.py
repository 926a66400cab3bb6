"""The folder that label maps are written to."""

from pathlib import Path

from autospine.core.errors import WorkspaceError


def check_output(output: Path) -> None:
    """Refuse an output that is a file.

    Raises:
        WorkspaceError: If it is one.
    """
    if output.exists() and not output.is_dir():
        raise WorkspaceError(f"expected an output folder, found the file {output}; name a folder with -o")
