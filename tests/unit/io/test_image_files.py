"""Image files as they come: every sound form gives the same volume, and what is not sound is refused."""

import time
from pathlib import Path

import numpy as np
import pytest
from odd_images import ORIGIN, REFUSED, SHAPE, SOUND, SPACING, VOXELS

from autospine.core.errors import ImageError
from autospine.core.geometry import Grid, difference
from autospine.io.images import read_channel

GRID = Grid(
    shape=SHAPE,
    spacing_mm=SPACING[::-1],
    origin_mm=ORIGIN,
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)

MOST_SECONDS = 5.0
"""Nothing here may take long; a test on a busy machine may."""


@pytest.mark.parametrize("name", SOUND)
def test_every_sound_form_gives_the_same_volume(name: str, tmp_path: Path):
    channel = read_channel(SOUND[name](tmp_path))
    assert np.array_equal(channel.array, VOXELS)
    assert channel.array.dtype.isnative
    assert channel.grid.spacing_mm == pytest.approx(GRID.spacing_mm, rel=1e-6)
    assert difference(channel.grid, GRID) is None
    assert not channel.notes


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_sound_is_refused_at_once(name: str, tmp_path: Path):
    make, message = REFUSED[name]
    path = make(tmp_path)
    began = time.monotonic()
    with pytest.raises(ImageError, match=message) as caught:
        read_channel(path)
    assert time.monotonic() - began < MOST_SECONDS
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or str(path.parent) in str(caught.value)
