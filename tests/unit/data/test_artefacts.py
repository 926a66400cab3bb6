from dataclasses import replace

import numpy as np
import pytest

from autospine.data.artefacts import add_artefacts, add_bias, add_metal, bias_field, windowed
from autospine.data.patches import PatchSource
from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.store import StoredCase

SPACING = (2.0, 1.0, 1.0)
TRANSFORM = IntensityTransform(lower=(-200.0,), upper=(1000.0,), mean=(100.0,), std=(200.0,))
OFF = {"bias_probability": 0.0, "metal_probability": 0.0, "window_probability": 0.0}
FULL = {
    "bias_probability": 1.0,
    "bias_std": 0.3,
    "metal_probability": 1.0,
    "metal_hu": 400.0,
    "window_probability": 1.0,
    "window_shift": 0.1,
}


def rng(seed=0):
    return np.random.default_rng(seed)


def of_modality(case: StoredCase, modality) -> StoredCase:
    return StoredCase(folder=case.folder, record=replace(case.record, modality=modality))


def patch():
    labels = np.zeros((30, 40, 50), dtype=np.uint8)
    labels[6:14, 12:25, 15:35] = 4
    image = np.where(labels == 4, 1.5, -0.4)[None].astype(np.float32)
    return image, labels


def test_the_field_is_positive_smooth_and_as_strong_as_planned():
    size = (64, 96, 96)
    fields = [np.log(bias_field(size, 0.3, SPACING, rng(seed))) for seed in range(30)]
    assert np.std(fields) == pytest.approx(0.3, rel=0.4)
    for field in fields:
        assert np.abs(field).max() < 2.5 * 0.3 * 1.5
        # Over one voxel it changes by a small part of what it does over the patch.
        assert np.abs(np.diff(field, axis=1)).max() < 0.05
    np.testing.assert_array_equal(bias_field(size, 0.0, SPACING, rng()), 1)


def test_bias_multiplies_what_is_above_air():
    image = rng().uniform(-1.5, 4.5, (2, 10, 12, 14)).astype(np.float32)
    image[:, 0] = -1.5
    both = replace(TRANSFORM, lower=(-200.0,) * 2, upper=(1000.0,) * 2, mean=(100.0,) * 2, std=(200.0,) * 2)
    found = add_bias(image.copy(), both, 0.3, SPACING, rng(3))
    np.testing.assert_allclose(found[:, 0], -1.5, atol=1e-6)
    factor = (found[:, 1:] + 1.5) / (image[:, 1:] + 1.5)
    np.testing.assert_allclose(factor[0], factor[1], rtol=1e-3)
    np.testing.assert_allclose(factor[0], bias_field((10, 12, 14), 0.3, SPACING, rng(3))[1:], rtol=1e-3)


def test_metal_is_bright_near_a_structure_and_streaks_stay_in_its_slices():
    top = (1000 - 100) / 200
    for seed in range(20):
        image, labels = patch()
        before = labels.copy()
        found = add_metal(image.copy(), labels, TRANSFORM, 400.0, SPACING, rng(seed))
        np.testing.assert_array_equal(labels, before)
        metal = (found[0] == np.float32(top)) & (image[0] < top)
        assert metal.any()
        assert (metal & (labels == 4)).any()
        assert found.min() >= np.float32(-1.5)
        assert found.max() <= np.float32(top)
        changed = np.flatnonzero(np.any(found != image, axis=(0, 2, 3)))
        # Half of the longest, most tilted screw, its radius and 4 mm either way.
        assert np.ptp(changed) * SPACING[0] <= 2 * (27.5 * np.sin(np.deg2rad(10)) + 3.5 + 4) + 2
        streaks = (found - image)[0][changed][~metal[changed]] * 200
        assert streaks.min() < -5
        assert streaks.max() > 5
        assert np.abs(streaks).max() <= 2 * 400 + 1e-3


def test_without_a_structure_there_is_no_metal():
    image, labels = patch()
    labels[labels == 4] = 255
    np.testing.assert_array_equal(add_metal(image.copy(), labels, TRANSFORM, 400.0, SPACING, rng()), image)


def test_windows_are_shifted_in_ct_alone(cases, configure):
    strength = configure(**FULL).augmentation
    plain = cases[0].record.transform
    found = windowed(plain, "CT", strength, rng(1))
    assert found.mean == plain.mean
    assert 0 < abs(found.lower[0] - plain.lower[0]) <= 0.1 * 2000
    assert 0 < abs(found.upper[0] - plain.upper[0]) <= 0.1 * 2000
    assert windowed(plain, "MR", strength, rng(1)) is plain
    assert windowed(plain, "CT", configure(**OFF).augmentation, rng(1)) is plain


def test_each_modality_has_its_own_artefacts(configure):
    strength = configure(**FULL).augmentation
    image, labels = patch()
    for modality, top in (("CT", True), ("MR", False)):
        found = add_artefacts(image.copy(), labels, modality, TRANSFORM, SPACING, strength, rng(2))
        assert not np.array_equal(found, image)
        assert (found == np.float32(4.5)).any() == top
        off = configure(**OFF).augmentation
        np.testing.assert_array_equal(
            add_artefacts(image.copy(), labels, modality, TRANSFORM, SPACING, off, rng(2)), image
        )


def test_a_wider_window_shows_what_lies_beyond_the_usual_one(store, plain):
    labels = np.zeros((16, 16, 16), dtype=np.uint8)
    values = rng().integers(-1400, 1400, labels.shape)
    case = store("bright", values, labels)
    source = PatchSource((case,), plain(window_probability=1.0, window_shift=0.2), seed=1, cache_bytes=0)
    widest = max(source.patch(step, 0)[0].max() for step in range(12))
    assert 10 < widest <= 14
    assert any(source.patch(step, 0)[0].max() < 10 for step in range(12))


def test_plans_without_artefacts_mean_none(configure):
    strength = configure().augmentation
    assert strength.bias_probability == strength.metal_probability == strength.window_probability == 0
