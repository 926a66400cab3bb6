import random

import numpy as np
import pytest

from autospine.core.errors import PlanError
from autospine.data.augmentation import Intensities, Mirror, coarsen


def image_of(seed=0, shape=(2, 12, 13, 14)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_nothing_is_changed_at_probability_zero():
    image = image_of()
    np.testing.assert_array_equal(Intensities(0.0)(image.copy(), np.random.default_rng(0)), image)


def test_changes_are_finite_deterministic_and_leave_global_generators_alone():
    change = Intensities(1.0)
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].copy()
    first = change(image_of(), np.random.default_rng(3))
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    np.random.seed(99)
    np.testing.assert_array_equal(change(image_of(), np.random.default_rng(3)), first)
    assert first.shape == (2, 12, 13, 14)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert not np.array_equal(change(image_of(), np.random.default_rng(4)), first)


def test_about_the_planned_share_of_patches_is_changed():
    change, image = Intensities(0.1), image_of(shape=(1, 4, 4, 4))
    same = sum(
        np.array_equal(change(image.copy(), np.random.default_rng(seed)), image) for seed in range(300)
    )
    assert same / 300 == pytest.approx(0.9**6, abs=0.09)  # inverting is no change of its own


def test_a_constant_patch_survives_every_change():
    for seed in range(20):
        image = np.full((1, 6, 6, 6), -2.5, dtype=np.float32)
        assert np.isfinite(Intensities(0.5)(image, np.random.default_rng(seed))).all()


def test_coarser_patches_have_the_same_shape_and_mean():
    image = image_of(shape=(1, 32, 24, 16))
    for seed in range(10):
        found = coarsen(image, np.random.default_rng(seed))
        assert found.shape == image.shape
        assert found.mean() == pytest.approx(image.mean(), abs=0.1)
        assert found.std() <= image.std() * 1.01


def test_a_flip_swaps_left_and_right_labels(configure):
    mirror = Mirror(configure(mirror_pairs=((1, 2), (7, 9))).augmentation)
    labels = np.random.default_rng(0).integers(0, 12, (5, 6, 7)).astype(np.uint8)
    labels[0, 0, 0] = 255
    image = labels[None].astype(np.float32)
    flipped, swapped = 0, np.arange(256)
    swapped[[1, 2, 7, 9]] = 2, 1, 9, 7
    for seed in range(40):
        new_image, new_labels = mirror(image, labels, np.random.default_rng(seed))
        if np.array_equal(new_image, image):
            np.testing.assert_array_equal(new_labels, labels)
            continue
        flipped += 1
        np.testing.assert_array_equal(new_image[0], labels[:, :, ::-1])
        expected = swapped[labels[:, :, ::-1]]
        np.testing.assert_array_equal(new_labels, expected)
    assert 10 < flipped < 30


@pytest.mark.parametrize("axes", [(0, 2), (1,)])
def test_flips_to_foot_or_back_are_refused(configure, axes):
    with pytest.raises(PlanError, match="no mirror axis but 2"):
        Mirror(configure(mirror_axes=axes).augmentation)
