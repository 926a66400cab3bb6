"""Copies of an image are recognised, other images of the same kind are not."""

from itertools import combinations

import numpy as np
import pytest
from scipy import ndimage

from autospine.fingerprint.duplicates import find_duplicates, image_signature
from autospine.phantom import PhantomSettings, generate

SIZE = (160.0, 140.0, 120.0)
SPACINGS = {"CT": (4.0, 4.0, 4.0), "MR": (2.5, 2.5, 5.0)}


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """Three CT and three MR of different spines, all in one field of view."""
    made = {}
    for modality, spacing in SPACINGS.items():
        for seed in range(3):
            settings = PhantomSettings(
                modality=modality,
                contrast="T2w" if modality == "MR" else None,
                spacing_mm=spacing,
                size_mm=SIZE,
                orientation="LPS",
                oblique_deg=0.0,
                metal=False,
            )
            made[f"{modality} {seed}"] = generate(settings, seed).image
    return made


def found(images: dict[str, np.ndarray], size_mm=SIZE) -> tuple[tuple[str, ...], ...]:
    return find_duplicates(list(images), [image_signature(image, size_mm) for image in images.values()])


def windowed(image: np.ndarray) -> np.ndarray:
    """As an 8-bit picture between two percentiles."""
    low, high = np.percentile(image, [40, 99])
    return (255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8)


def noisy(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, [1, 99])
    return image + np.random.default_rng(0).normal(0, 0.1 * (high - low), image.shape)


COPIES = {
    "as float32": lambda image: image.astype(np.float32),
    "scaled": lambda image: 0.3 * image + 50,
    "windowed": windowed,
    "brightened": lambda image: (image.astype(np.float64) - image.min()) ** 0.6,
    "noisy": noisy,
    "smoothed": lambda image: ndimage.gaussian_filter(image.astype(np.float32), 0.7),
    "resampled": lambda image: ndimage.zoom(image.astype(np.float32), 0.7, order=1),
    "cut by a voxel": lambda image: image[1:, :-1],
}


def test_different_spines_are_not_copies(images):
    assert found(images) == ()


@pytest.mark.parametrize("change", COPIES)
@pytest.mark.parametrize("which", ["CT 1", "MR 2"])
def test_copies_are_recognised(images, which, change):
    copy = COPIES[change](images[which])
    assert found({**images, "copy": copy}) == ((which, "copy"),)


def test_the_same_voxels_are_recognised_whatever_the_header_says(images):
    seen = [
        image_signature(images["CT 0"], SIZE),
        image_signature(images["CT 0"].astype(np.float64), (16.0, 14.0, 12.0)),
    ]
    assert find_duplicates(["a", "b"], seen) == (("a", "b"),)


def test_alike_images_of_other_sizes_are_not_compared(images):
    seen = [
        image_signature(images["CT 0"], SIZE),
        image_signature(noisy(images["CT 0"]), (176.0, 140.0, 120.0)),
    ]
    assert find_duplicates(["a", "b"], seen) == ()


def test_copies_of_copies_are_one_group(images):
    first = images["CT 0"]
    family = {"c": first, "a": noisy(first), "b": windowed(first), "x": images["CT 1"]}
    assert found(family) == (("a", "b", "c"),)


def test_images_without_any_detail_are_no_copies_unless_they_are_equal():
    flat = {"a": np.zeros((30, 30, 30)), "b": np.ones((30, 30, 30)), "c": np.ones((30, 30, 30))}
    assert found(flat) == (("b", "c"),)


def test_few_slices_do_not_make_images_alike(images):
    thin = {name: image[:6] for name, image in images.items()}
    pairs = {pair for group in found(thin) for pair in combinations(group, 2)}
    assert pairs == set()
