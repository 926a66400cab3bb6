"""Streams of JPEG, JPEG-LS and JPEG 2000 in DICOM files: whether they are whole.

The decoders behind GDCM fill what is missing from a stream, or what makes no sense in it, without an error.
JPEG has no checksum either, but its codes have to come out even: the codes of all pixels end where the stream
ends. Bytes that are zeroed, lost or changed put later codes out of step, and their number changes.
"""

import re
from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

JPEG = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)}
"""Transfer syntaxes of sequential JPEG: baseline, extended, lossless, and lossless of first order."""

JPEG_LS = {f"1.2.840.10008.1.2.4.{number}" for number in (80, 81)}

JPEG_2000 = {f"1.2.840.10008.1.2.4.{number}" for number in range(90, 94)}

END = b"\xff\xd9"
"""Last marker of a stream of JPEG, JPEG-LS (end of image) and JPEG 2000 (end of codestream)."""

ZEROED = 16
"""Zeros at the end of a stream without end marker that are no padding: files are padded to even lengths."""

SPARE_BITS = 15
"""Bits that may be left after the last code: up to seven fill the last byte, and some encoders add a byte."""

_LOSSLESS, _SEQUENTIAL = 0xC3, (0xC0, 0xC1)
"""Start of frame by process: lossless, and the cosine transform in sequence, both by Huffman codes."""


class _Codes(NamedTuple):
    """Huffman codes, looked up by the 16 bits that begin with one."""

    value: UInt8[np.ndarray, "65536"]
    length: UInt8[np.ndarray, "65536"]
    """Bits of the code; 0 where no code begins so."""


class _Scan(NamedTuple):
    """The only scan of a stream of one component."""

    process: int
    size: tuple[int, int]
    """Rows and columns."""

    codes: dict[int, _Codes]
    """By class x 16 + number; class 1 is that of the coefficients after the first."""

    chosen: tuple[int, int]
    """Keys of the codes of pixels, or of first coefficients, and of the other coefficients."""

    interval: int
    """Units between two restart markers; 0 if there are none."""

    data: bytes
    """Codes, up to the next marker."""


def check_frame(frame: bytes, syntax: str, size: tuple[int, int]) -> None:
    """Check the stream of one frame.

    Args:
        frame: Its bytes.
        syntax: UID of the transfer syntax.
        size: Rows and columns of the frame.

    Raises:
        ValueError: If it is damaged; in JPEG, bits that are changed without any code getting out of step are
            not noticed, in the other formats only an end that is zeroed.
    """
    whole = frame.rstrip(b"\0")
    if syntax not in JPEG:
        lost = not whole.endswith(END) and len(frame) - len(whole) >= ZEROED
        if lost and syntax in JPEG_LS | JPEG_2000:
            raise ValueError("their end is zeroed")
        if syntax in JPEG_2000 and not 0 < _tiles_end(frame) <= len(frame):
            raise ValueError("they end early")
        return
    try:
        scan = _scan(whole)
    except (IndexError, ValueError):
        raise ValueError("their markers make no sense") from None
    if scan is None:
        return
    if scan.size != size:
        found, stated = (f"{columns}x{rows}" for rows, columns in (scan.size, size))
        raise ValueError(f"they are of {found} pixels instead of {stated}")
    units = size[0] * size[1] if scan.process == _LOSSLESS else ceil(size[0] / 8) * ceil(size[1] / 8)
    parts = re.split(rb"\xff+[\xd0-\xd7]", scan.data)
    each = scan.interval or units
    if len(parts) != ceil(units / each):
        raise ValueError("they end early, or some are lost")
    for index, part in enumerate(parts):
        packed = np.frombuffer(part.replace(b"\xff\x00", b"\xff"), np.uint8)
        left = 8 * len(packed) - _bits(scan, packed, min(each, units - index * each))
        if not 0 <= left <= SPARE_BITS:
            raise ValueError("they end early, or some are lost")


def _tiles_end(stream: bytes) -> int:
    """Return where the last tile-part of JPEG 2000 ends that states its length (ITU-T T.800, A.4.2).

    Returns:
        -1 if there is none.
    """
    end = stream.find(b"\xff\x90\x00\x0a")
    while end >= 0 and stream[end : end + 4] == b"\xff\x90\x00\x0a":
        length = int.from_bytes(stream[end + 6 : end + 10])
        if length < 12:  # 0: it is the last one, up to the end
            break
        end += length
    return end


def _scan(stream: bytes) -> _Scan | None:
    """Read the markers; None if the stream is of a kind that is not checked.

    Raises:
        ValueError, IndexError: If they make no sense.
    """
    if not stream.startswith(b"\xff\xd8"):
        raise ValueError("no start of image")
    codes: dict[int, _Codes] = {}
    process, size, interval = 0, (0, 0), 0
    for marker, content, end in _segments(stream):
        if marker == 0xC4:
            codes |= _tables(content)
        elif marker == 0xDD:
            interval = int.from_bytes(content[:2])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC8, 0xCC):
            process, size = marker, (int.from_bytes(content[1:3]), int.from_bytes(content[3:5]))
            if process not in (_LOSSLESS, *_SEQUENTIAL) or content[5] != 1 or not size[0]:
                return None
        elif marker == 0xDA:
            after = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]").search(stream, end)
            data = stream[end : after.start() if after else len(stream)]
            first, second = content[2] >> 4, 16 + (content[2] & 15)
            return _Scan(process, size, codes, (first, second), interval, data)
    raise ValueError("no scan")


def _segments(stream: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield the marker of each segment, its content, and where it ends."""
    at = 2
    while True:
        if stream[at] != 0xFF:
            raise ValueError("no marker")
        while stream[at] == 0xFF:  # as many as an encoder likes
            at += 1
        end = at + 1 + int.from_bytes(stream[at + 1 : at + 3])
        if not at + 3 <= end <= len(stream):
            raise ValueError("a segment without end")
        yield stream[at], stream[at + 3 : end], end
        at = end


def _tables(content: bytes) -> dict[int, _Codes]:
    """Read Huffman tables: codes of one length count up, longer ones go on (ITU-T T.81, annex C)."""
    found = {}
    while content:
        key, counts = content[0], content[1:17]
        values = np.frombuffer(content[17 : 17 + sum(counts)], np.uint8)
        lengths = np.repeat(np.arange(1, 17, dtype=np.uint8), np.frombuffer(counts, np.uint8))
        room = 1 << (16 - lengths.astype(np.int64))
        if len(values) != len(lengths) or room.sum() > 1 << 16:
            raise ValueError("a table that makes no sense")
        rest = (1 << 16) - int(room.sum())
        found[key] = _Codes(
            value=np.append(np.repeat(values, room), np.zeros(rest, np.uint8)),
            length=np.append(np.repeat(lengths, room), np.zeros(rest, np.uint8)),
        )
        content = content[17 + len(values) :]
    return found


def _bits(scan: _Scan, packed: UInt8[np.ndarray, "n"], units: int) -> int:
    """Return the bits that the codes of so many pixels, or of blocks of 8x8, take.

    Returns:
        More than there are if they end early, or if there is none where one should begin.
    """
    at, step, missing = 0, 1, 8 * len(packed) + 1
    windows = _windows(packed)
    try:
        first = scan.codes[scan.chosen[0]]
        # Behind each code are as many bits of the difference as it says, but none for 16.
        steps = _steps(first)[windows].tobytes()
        if scan.process == _LOSSLESS:
            for _ in range(units):
                step = steps[at]
                at += step
            return at if step else missing  # without a code there it stays where it is
        second = scan.codes[scan.chosen[1]]
        others, values = _steps(second)[windows].tobytes(), second.value[windows].tobytes()
        for _ in range(units):
            at += steps[at] or missing
            place = 1
            while place < 64:
                value = values[at]
                at += others[at] or missing
                if value == 0:  # the rest of the block is zero
                    break
                place += (value >> 4) + 1
    except (IndexError, KeyError):
        return missing
    return at


def _steps(codes: _Codes) -> UInt8[np.ndarray, "65536"]:
    """Return the bits of each code and of the number behind it, 0 where no code begins so."""
    steps: np.ndarray = np.where(codes.length > 0, codes.length + codes.value % 16, 0).astype(np.uint8)
    return steps


def _windows(packed: UInt8[np.ndarray, "n"]) -> np.ndarray:
    """Return the 16 bits that follow each bit, with ones behind the end."""
    padded = np.append(packed, np.full(2, 0xFF, np.uint8)).astype(np.uint32)
    three = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    windows = np.empty((len(packed), 8), np.uint16)
    for shift in range(8):
        windows[:, shift] = three >> (8 - shift) & 0xFFFF
    return windows.ravel()
