import numpy as np
import pytest

from autospine.core.geometry import Box
from autospine.preprocessing.crop import content_box


@pytest.mark.parametrize("padding", [0, -1024])
def test_padding_is_cut_off(padding):
    image = np.full((2, 20, 21, 22), padding, dtype=np.int16)
    rng = np.random.default_rng(0)
    image[0, 3:10, 4:12, 5:20] = rng.integers(1, 500, (7, 8, 15))
    image[1, 8:15, 4:6, 5:20] = rng.integers(1, 500, (7, 2, 15))
    assert content_box(image) == Box(start=(3, 4, 5), stop=(15, 12, 20))


def test_an_image_that_fills_its_volume_is_kept_whole():
    image = np.random.default_rng(0).normal(size=(1, 9, 9, 9)).astype(np.float32)
    image[0, 0, 0, 0] = image[0, 8, 8, 8]  # two corners agree by chance
    assert content_box(image) == Box.whole((9, 9, 9))


def test_a_constant_image_is_kept_whole():
    assert content_box(np.zeros((1, 4, 5, 6), dtype=np.uint8)) == Box.whole((4, 5, 6))


def test_a_single_slice_is_kept():
    image = np.random.default_rng(0).integers(1, 99, (1, 1, 8, 8)).astype(np.int16)
    assert content_box(image) == Box.whole((1, 8, 8))
