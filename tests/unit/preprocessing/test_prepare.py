from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autospine.core.geometry import Box
from autospine.core.labels import IGNORE_INDEX, parse_labels
from autospine.io.images import read_labels, read_volume
from autospine.plan import Normalisation
from autospine.preprocessing.prepare import content_box, prepare_image, prepare_labels
from autospine.preprocessing.resample import resample_labels

from .conftest import SPACING, column, write_image

CT = Normalisation(scope="dataset", lower=-200, upper=1000, mean=100, std=250)
MR = Normalisation(scope="image", lower=0.005, upper=0.995, mean=0, std=1)


@pytest.fixture
def volume(tmp_path: Path):
    image = np.full((30, 32, 40), -1024, dtype=np.int16)
    image[4:28] = np.random.default_rng(0).normal(40, 100, (24, 32, 40))
    image[10, 10, 10] = 20_000
    return read_volume(write_image(tmp_path / "a.nii.gz", image))


def test_ct_is_kept_in_hounsfield_units(volume):
    prepared = prepare_image(volume, "CT", SPACING, CT)
    assert prepared.crop.start == (4, 0, 0)
    assert prepared.crop.shape == prepared.shape == (24, 32, 40)
    assert prepared.source_shape == (30, 32, 40)
    np.testing.assert_array_equal(prepared.image, np.minimum(volume.array[:, 4:28], 3071))
    expected = (np.clip(volume.array[:, 4:28].astype(np.float32), -200, 1000) - 100) / 250
    np.testing.assert_allclose(prepared.normalised(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("factor", "shift"), [(1 / 2000, 0.5), (1 / 1000, 0), (2e-5, 0.02), (1, 0), (40, 50_000)]
)
def test_ct_that_is_not_in_hu_keeps_its_values(volume, factor: float, shift: float):
    """Rounding to whole numbers would leave one or two values of a CT scaled to 0 to 1."""
    given = (np.clip(volume.array.astype(np.float32), -1000, 1000) * factor + shift).astype(np.float32)
    rule = replace(CT, lower=-200 * factor + shift, upper=1000 * factor + shift, mean=shift, std=250 * factor)
    prepared = prepare_image(replace(volume, array=given), "CT", SPACING, rule)
    kept = prepared.encoding.decode(prepared.image)
    assert kept.shape == (1, 24, 32, 40)
    error = np.abs(kept - given[:, 4:28]).max() / factor
    assert error < (0.5001 if factor == 1 else 0.05)
    np.testing.assert_allclose(
        prepared.normalised(),
        (np.clip(given[:, 4:28], rule.lower, rule.upper) - rule.mean) / rule.std,
        atol=0.003,
    )


@pytest.mark.parametrize("wrong", [3000.0, -1024.0])
def test_a_few_wrong_voxels_do_not_take_the_sixteen_bits(volume, wrong: float):
    given = np.clip(volume.array.astype(np.float32) / 2000 + 0.5, 0, 1)
    given[0, 12, 3, 4:7] = wrong
    rule = replace(CT, lower=0.4, upper=1.0, mean=0.5, std=0.1)
    prepared = prepare_image(replace(volume, array=given), "CT", SPACING, rule)
    kept = prepared.encoding.decode(prepared.image)
    inside = given[:, prepared.crop.slices[0]] != wrong
    assert np.abs(kept - given[:, prepared.crop.slices[0]])[inside].max() < 1e-3


def test_mr_fills_the_sixteen_bits(volume):
    prepared = prepare_image(volume, "MR", (2.0, 1.5, 2.0), MR)
    assert prepared.shape == (24, 32, 20)
    assert prepared.image.max() > 32_000
    values = prepared.encoding.decode(prepared.image)
    assert values.min() >= prepared.transform.lower[0] - 0.1
    assert values.max() <= prepared.transform.upper[0] + 0.1
    assert prepared.normalised().dtype == np.float32


def test_labels_outside_the_content_are_kept(volume):
    labels = np.zeros((30, 32, 40), dtype=np.uint8)
    labels[1, 5, 5] = 3
    prepared = prepare_image(volume, "CT", SPACING, CT, labels=labels)
    assert prepared.crop.start == (1, 0, 0)


def test_labels_become_indices(volume):
    labels = np.zeros((30, 32, 40), dtype=np.int16)
    labels[6:12, 5:15, 5:15] = 300
    labels[14:20, 5:15, 5:15] = 7
    labels[20:24] = 9
    space = parse_labels({"background": 0, "b": 300, "a": 7, "ignore": 9})
    prepared = prepare_image(volume, "CT", (2.0, 1.5, 2.0), CT, labels=labels)
    indices = prepare_labels(space.encode(labels), prepared)
    assert indices.shape == prepared.shape
    assert set(np.unique(indices)) == {0, 1, 2, IGNORE_INDEX}
    assert indices[4, 10, 5] == 2


@pytest.mark.real_data
@pytest.mark.parametrize("turn", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_real_vertebrae_survive_there_and_back(real_data: Path, turn):
    labels = read_labels(real_data / "real" / "verse004" / "sub-verse004_seg-vert_msk.nii.gz")
    mask = (labels.array[0] > 0).astype(np.uint8)[tuple(slice(None, None, step) for step in turn)]
    shape = tuple(round(n * d / 1.5) for n, d in zip(mask.shape, labels.grid.spacing_mm, strict=True))
    back = resample_labels(resample_labels(np.ascontiguousarray(mask), shape), mask.shape)
    assert 2 * np.sum(back & mask) / (back.sum() + mask.sum()) >= 0.97


def test_the_column_has_its_bodies():
    assert set(np.unique(column())) == {0, 5, 9}


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
