"""Numbers written as decimal text, as NRRD and old MetaImage files may hold their voxels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from autospine.core.errors import ImageError

LONGEST_NUMBER = 400
"""Bytes that a number in text takes at most, with what separates it; those of 1e308 have 310 digits."""

_BLOCK = 1 << 18
"""Bytes read from a file at a time."""


def read_numbers(
    path: Path, dtype: np.dtype[Any], start: int, count: int, together: int
) -> Iterator[np.ndarray]:
    """Yield the numbers of a text file, part by part as flat arrays.

    Args:
        path: The file.
        dtype: Type of the numbers.
        start: Bytes of the file before the first number.
        count: How many numbers the file has to hold.
        together: Every part is a multiple of so many numbers.

    Raises:
        ImageError: If there are more or fewer numbers than `count`.
        OSError: If the file cannot be read.
        ValueError: If a word is no number, or one that the type cannot hold.
    """
    found, last, words = 0, b"", list[bytes]()
    with path.open("rb") as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            text = last + block
            words += text.split()
            # The last number may go on in the next block.
            last = words.pop() if words and not text[-1:].isspace() else b""
            if len(last) > LONGEST_NUMBER:
                raise ValueError(f"it has {_shortened(last)} where numbers belong")
            whole = len(words) - len(words) % together
            found += whole
            if found > count:
                break
            yield _parsed(words[:whole], dtype)
            words = words[whole:]
    words += [last] if last else []
    found += len(words)
    if found != count:
        said = "more" if found > count else found
        raise ImageError(f"expected {count} numbers in {path}, found {said}; copy or convert it again")
    yield _parsed(words, dtype)


def _parsed(words: list[bytes], dtype: np.dtype[Any]) -> np.ndarray:
    """Return numbers in text as an array of a type.

    Raises:
        ValueError: If a word is no number, or the type cannot hold it: fractions and NaN are no integers.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            floats = np.array([_number(word) for word in words], dtype=np.float64)
            found = floats.astype(dtype)
        lost = np.flatnonzero(np.isinf(found) & np.isfinite(floats))
        if len(lost):
            raise ValueError(f"it has {_shortened(words[lost[0]])}, which {dtype.name} cannot hold")
        return found
    integers = [_integer(word, dtype) for word in words]
    limits = np.iinfo(dtype)
    if integers and not limits.min <= min(integers) <= max(integers) <= limits.max:
        wrong = next(
            word
            for word, number in zip(words, integers, strict=True)
            if not limits.min <= number <= limits.max
        )
        raise ValueError(f"it has {_shortened(wrong)}, which {dtype.name} cannot hold")
    return np.array(integers, dtype=dtype)


def _integer(word: bytes, dtype: np.dtype[Any]) -> int:
    if word.isdigit() or (word[:1] in (b"-", b"+") and word[1:].isdigit()):
        return int(word)
    number = _number(word)
    if not number.is_integer():
        raise ValueError(f"it has {_shortened(word)}, which {dtype.name} cannot hold")
    return int(number)


def _number(word: bytes) -> float:
    try:
        if b"_" in word:  # which Python allows
            raise ValueError
        return float(word)
    except ValueError:
        raise ValueError(f"it has {_shortened(word)} where numbers belong") from None


def _shortened(word: bytes) -> str:
    return repr(word[:20].decode(errors="replace")) + ("..." if len(word) > 20 else "")
