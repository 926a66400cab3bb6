"""What every page of results has: where the measured part is put, and what it was measured on."""

import os
import platform
from datetime import date
from pathlib import Path

MARK = "<!-- measured -->"
"""Line above and below the measured part of a page."""


def write_measured(page: Path, text: str) -> None:
    """Put a text between the two marks of a page, in place of what is there.

    Raises:
        SystemExit: If the page lacks the marks.
    """
    parts = page.read_text(encoding="utf-8").split(MARK) if page.is_file() else []
    if len(parts) != 3:
        raise SystemExit(f"{page} needs two lines `{MARK}`, between which the results are put; add them")
    page.write_text(f"{parts[0]}{MARK}\n\n{text}\n\n{MARK}{parts[2]}", encoding="utf-8")


def measured_on() -> str:
    """The date, the machine and the version of Python, as a sentence."""
    return (
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}."
    )
