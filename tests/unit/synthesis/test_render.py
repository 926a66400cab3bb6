import dataclasses

import numpy as np
import pytest

from autospine.synthesis.appearance import Appearance, sample_appearance
from autospine.synthesis.render import Texture, draw_texture, render
from autospine.synthesis.scanner import add_ct_noise, add_rician_noise, blur, coil_field, finish_ct
from autospine.synthesis.tissues import CODES

SHAPE = (24, 20, 16)
SPACING = (2.0, 2.0, 2.0)


@pytest.fixture
def appearance() -> Appearance:
    drawn = sample_appearance(np.random.default_rng(0), "CT", {code: name for name, code in CODES.items()})
    return dataclasses.replace(drawn, patches=np.zeros(256, dtype=np.float32))


def flat(value: float = 0.0) -> Texture:
    field = np.full(SHAPE, value, dtype=np.float32)
    return Texture(grain=field, cloud=field)


def test_a_voxel_of_two_tissues_has_their_weighted_mean(appearance: Appearance) -> None:
    muscle, fat = CODES["muscle"], CODES["fat"]
    codes = np.full(SHAPE, muscle + (fat << 8) + (51 << 16), dtype=np.int32)
    value = render(codes, appearance, flat())
    expected = 0.8 * appearance.mean[muscle] + 0.2 * appearance.mean[fat]
    assert np.allclose(value, expected, atol=1e-3)


def test_texture_has_the_spread_of_the_tissue(appearance: Appearance) -> None:
    codes = np.full((48, 48, 48), CODES["muscle"], dtype=np.int32)
    texture = draw_texture((48, 48, 48), SPACING, np.random.default_rng(1))
    value = render(codes, appearance, texture)
    assert value.std() == pytest.approx(appearance.spread[CODES["muscle"]], rel=0.25)


def test_patches_differ_from_the_rest_of_their_tissue(appearance: Appearance) -> None:
    patched = dataclasses.replace(appearance, patches=np.full(256, 50, dtype=np.float32))
    codes = np.full(SHAPE, CODES["liver"], dtype=np.int32)
    assert np.allclose(render(codes, patched, flat(1.0)) - render(codes, appearance, flat(1.0)), 50)
    assert np.allclose(render(codes, patched, flat(0.0)), render(codes, appearance, flat(0.0)))


def test_blur_keeps_the_sum_and_widens_by_its_sigma() -> None:
    value = np.zeros((31, 31, 31), dtype=np.float32)
    value[15, 15, 15] = 1.0
    spread = blur(value, (1.0, 1.0, 2.0), 2.0)
    assert spread.sum() == pytest.approx(1.0, abs=0.02)
    offsets = np.arange(31) - 15
    along_s = np.sqrt((spread.sum(axis=(1, 2)) * offsets**2).sum())
    along_l = 2.0 * np.sqrt((spread.sum(axis=(0, 1)) * offsets**2).sum())
    assert along_s == pytest.approx(2.0, rel=0.1)
    assert along_l == pytest.approx(2.0, rel=0.1)


def test_ct_noise_is_weaker_in_the_air() -> None:
    value = np.full((40, 40, 40), -1000.0, dtype=np.float32)
    value[:20] = 50.0
    noisy = add_ct_noise(value, 20.0, SPACING, np.random.default_rng(2))
    assert (noisy - value)[:20].std() == pytest.approx(20.0, rel=0.1)
    assert (noisy - value)[20:].std() == pytest.approx(11.0, rel=0.1)


def test_rician_noise_lifts_the_darkness() -> None:
    noisy = add_rician_noise(np.zeros((40, 40, 40), dtype=np.float32), 0.1, np.random.default_rng(3))
    assert noisy.min() >= 0
    assert noisy.mean() == pytest.approx(0.1 * np.sqrt(np.pi / 2), rel=0.02)


def test_finished_ct_stays_in_the_range_of_scanners(appearance: Appearance) -> None:
    value = np.full(SHAPE, 5000.0, dtype=np.float32)
    image = finish_ct(value, appearance, SPACING, np.random.default_rng(4))
    assert image.dtype == np.int16
    assert image.max() == 3071


def test_coils_are_smooth_and_positive() -> None:
    field = coil_field((40, 30, 20), np.random.default_rng(5))
    assert field.min() > 0
    assert np.abs(np.diff(np.log(field), axis=0)).max() < 0.1
