"""The commands in the blocks of the pages."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands_in(script: str) -> Iterator[list[str]]:
    """The words of each command of a script."""
    for line in script.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield words


def commands_of(page: str) -> Iterator[list[str]]:
    """The words of each command of AutoSpine on a page, in the order of the page, without `autospine`."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for kind, block in FENCE.findall(text):
        if kind == "sh":
            yield from (words[1:] for words in commands_in(block) if words[0] == "autospine")
