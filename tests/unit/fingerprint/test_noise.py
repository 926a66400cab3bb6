"""Noise of images whose noise is known."""

import numpy as np
import pytest

from autospine.fingerprint.noise import noise_level


def anatomy(shape=(40, 50, 60)) -> np.ndarray:
    """Bright blocks and balls on a slope, in HU."""
    s, p, left = np.indices(shape, dtype=np.float32)
    image = -100 + 2 * s + p
    image[10:30, 10:25, 15:45] += 600
    image[np.hypot(p - 35, left - 30) < 8] += 300
    return image


@pytest.mark.parametrize("sigma", [3.0, 20.0, 80.0])
def test_noise_is_told_from_structures(sigma):
    noisy = anatomy() + np.random.default_rng(0).normal(0, sigma, (40, 50, 60))
    assert noise_level(noisy) == pytest.approx(sigma, rel=0.03)
    assert noise_level(np.rint(noisy).astype(np.int16)) == pytest.approx(sigma, rel=0.05)


def test_an_image_without_noise_has_none():
    assert noise_level(anatomy()) == pytest.approx(0, abs=1e-3)


def test_thick_slices_do_not_look_like_noise():
    noisy = anatomy()[::8] + np.random.default_rng(0).normal(0, 10, (5, 50, 60))
    assert noise_level(noisy) == pytest.approx(10, rel=0.05)


def test_padding_and_air_that_was_cut_off_do_not_count():
    noisy = anatomy() + np.random.default_rng(0).normal(0, 10, (40, 50, 60))
    padded = np.full((100, 100, 100), -1024.0)
    padded[30:70, 20:70, 20:80] = noisy
    assert noise_level(padded) == pytest.approx(10, rel=0.1)


def test_where_there_is_nothing_to_tell_it_from_it_is_unknown():
    assert noise_level(np.zeros((10, 10, 10))) is None
    assert noise_level(np.random.default_rng(0).random((2, 50, 50))) is None
    assert noise_level(np.zeros((0, 0, 0))) is None


def test_of_a_large_image_the_middle_is_looked_at(monkeypatch):
    monkeypatch.setattr("autospine.fingerprint.noise.VOXELS", 30_000)
    image = np.random.default_rng(0).normal(0, 90, (60, 80, 70))
    image[10:-10, 10:-10, 10:-10] = np.random.default_rng(1).normal(0, 10, (40, 60, 50))
    assert noise_level(image) == pytest.approx(10, rel=0.03)
