"""What AutoSpine says of each odd input that it refuses, each message as a person has read it.

`AUTOSPINE_READ_MESSAGES=1 pytest -p no:xdist tests/integration/test_odd_inputs.py` writes the file anew;
whoever does so reads what has changed: does it name the file or case, the cause and a remedy?
"""

import json
import os
import re
from pathlib import Path

FILE = Path(__file__).with_name("messages.json")

ANYTHING = "…"
"""Stands for words of a library, which differ between its versions."""

OF_LIBRARIES = (
    r"(?<=data are broken, )[^;]*",
    r"(?<=found no JSON \()[^)]*",
    r"unexpected end of data \(line \d\)",
    r"Compressed file ended before the end-of-stream marker was reached",
)
"""Words of zlib, of the readers of JSON and CSV, and of gzip."""

REMEDY = re.compile(r"; `?[a-z-]")
"""What to do comes last, after a semicolon."""

WRITES = bool(os.environ.get("AUTOSPINE_READ_MESSAGES"))


def plain(said: str, folder: Path) -> str:
    """Return a message in one line, with `FOLDER` in the place of the folder in which the input was made."""
    return " ".join(said.replace(str(folder), "FOLDER").split())


def has_remedy(said: str) -> bool:
    """Return whether a message says what to do, whatever names of files it holds."""
    return REMEDY.search(re.sub(r"[^\s;]*/[^\s;]*", "", said)) is not None


def difference(name: str, said: str) -> str | None:
    """Describe how a message differs from the one that was read; None if it is the same."""
    known: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if WRITES:
        for words in OF_LIBRARIES:
            said = re.sub(words, ANYTHING, said)
        known[name] = said
        text = json.dumps(dict(sorted(known.items())), indent=1, ensure_ascii=False)
        FILE.write_text(text + "\n", encoding="utf-8")
        return None
    if name not in known:
        return f"nobody has read what is said of {name!r}: {said}"
    pattern = ".*".join(re.escape(part) for part in known[name].split(ANYTHING))
    return None if re.fullmatch(pattern, said) else f"read: {known[name]}\nsaid: {said}"
