"""File names that are not UTF-8, as archives made under other encodings leave behind."""

from pathlib import Path


def is_utf8(path: Path) -> bool:
    """Whether libraries that take names as UTF-8 can open a file; some end the process if they cannot."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_non_utf8(text: str) -> str:
    r"""Return a text that can be encoded as UTF-8, with whatever is not written as in `M\udcfcller`."""
    return text.encode(errors="backslashreplace").decode()
