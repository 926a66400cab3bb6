"""Arrays on disk: parts are read as they were written, or not at all."""

import os

import numpy as np
import pytest

from autospine.storage.arrays import ENDINGS, open_array, open_checked, write_array

SHAPE = (2, 70, 40, 50)
BOXES = (
    (slice(None), slice(0, 70), slice(0, 40), slice(0, 50)),
    (slice(1, 2), slice(33, 66), slice(5, 9), slice(0, 50)),
    (slice(0, 1), slice(69, 70), slice(39, 40), slice(49, 50)),
)


@pytest.fixture(params=ENDINGS)
def kind(request):
    return request.param


@pytest.fixture
def array():
    values = np.random.default_rng(0).integers(-9, 9, SHAPE).astype(np.int16)
    values[:, :35] = 0  # chunks of one value are stored otherwise
    return values


@pytest.fixture
def stored(tmp_path, array, kind):
    path = tmp_path / f"a{ENDINGS[kind]}"
    return path, write_array(path, array, (32, 32, 32), kind)


def test_boxes_are_read_as_they_were_written(stored, array, kind):
    path, checksums = stored
    checked = open_checked(path, kind, checksums)
    assert checked.shape == open_array(path, kind).shape == SHAPE
    for box in BOXES:
        np.testing.assert_array_equal(checked[box], array[box])


def test_arrays_of_three_axes_have_checksums_too(tmp_path, kind):
    labels = np.random.default_rng(1).integers(0, 3, SHAPE[1:]).astype(np.uint8)
    path = tmp_path / f"a{ENDINGS[kind]}"
    checksums = write_array(path, labels, (32, 32, 32), kind)
    box = BOXES[1][1:]
    np.testing.assert_array_equal(open_checked(path, kind, checksums)[box], labels[box])


def test_a_pipe_is_not_waited_for(tmp_path, kind):
    os.mkfifo(tmp_path / "pipe")
    for opened in (
        lambda: open_array(tmp_path / "pipe", kind),
        lambda: open_checked(tmp_path / "pipe", kind, ""),
    ):
        with pytest.raises(OSError, match="a named pipe instead of a file"):
            opened()


def test_every_flipped_bit_is_noticed(stored, kind):
    """Wherever in the file it is: in the header, in a chunk, or in the table of contents at the end."""
    path, checksums = stored
    whole = path.read_bytes()
    rng = np.random.default_rng(2)
    places = {*range(0, 240, 7), *range(len(whole) - 160, len(whole), 5)}
    places |= set(rng.integers(0, len(whole), 60).tolist())
    for place in sorted(places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises((OSError, RuntimeError, ValueError)):
            open_checked(path, kind, checksums)[BOXES[0]]


def test_a_box_needs_no_chunk_beside_it(stored, array, kind):
    """A flip in the last chunk does not stop the reading of the first one."""
    path, checksums = stored
    data = bytearray(path.read_bytes())
    opened = open_array(path, kind)
    chunk = opened.schunk.get_chunk(opened.schunk.nchunks - 1) if kind == "blosc2" else b""
    place = data.find(chunk) + len(chunk) - 1 if chunk else len(data) - 1
    data[place] ^= 1
    path.write_bytes(data)
    checked = open_checked(path, kind, checksums)
    box = (slice(0, 1), slice(0, 32), slice(0, 32), slice(0, 32))
    np.testing.assert_array_equal(checked[box], array[box])
    with pytest.raises(ValueError, match="changed after it was written"):
        checked[(slice(1, 2), *BOXES[2][1:])]


def test_checksums_of_another_array_are_not_its_own(stored, tmp_path, kind):
    path, checksums = stored
    with pytest.raises(ValueError, match="chunks instead of"):
        open_checked(path, kind, checksums[:-8])
