import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from autospine.core.geometry import Grid
from autospine.core.labels import parse_labels
from autospine.evaluation.label_statistics import (
    MOST_NAMED,
    LabelStatistics,
    intensities_at,
    measure_labels,
    names_found,
)

PLAIN = parse_labels({"background": 0, "L1": 20, "L2": 21, "canal": 3, "ignore": 9})
NESTED = parse_labels({"background": 0, "spine": [1, 2], "lesion": [2], "rib": [4]}, [1, 2, 4])
GRID = Grid(
    shape=(8, 9, 10),
    spacing_mm=(3.0, 2.0, 1.0),
    origin_mm=(10.0, -20.0, 30.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)


def test_a_box_has_its_volume_position_and_intensity() -> None:
    labels = np.zeros(GRID.shape, dtype=np.int16)
    labels[2:4, 3:6, 1:3] = 20
    labels[6, 6, 6] = labels[7, 7, 7] = labels[6, 3, 3] = 21
    image = np.arange(labels.size, dtype=np.float32).reshape(labels.shape)
    one, two, canal = measure_labels(PLAIN.encode(labels), PLAIN, GRID, intensities_at(labels, image))
    assert one == LabelStatistics(
        label="L1",
        integer=20,
        voxels=12,
        ml=12 * 6 / 1000,
        centroid_mm=(10 + 1.5, -20 + 2 * 4, 30 + 3 * 2.5),
        mean_intensity=float(image[2:4, 3:6, 1:3].mean()),
        components=1,
        touches_border=False,
    )
    assert (two.voxels, two.components, two.touches_border) == (3, 2, True)
    assert canal == LabelStatistics(
        label="canal",
        integer=3,
        voxels=0,
        ml=0.0,
        centroid_mm=None,
        mean_intensity=None,
        components=0,
        touches_border=False,
    )


def test_overlapping_regions_have_all_that_lies_in_them() -> None:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[1:4, 2:5, 2:5] = 1
    labels[2, 3, 3] = 2
    labels[6, 3, 3] = 2
    spine, lesion, rib = measure_labels(NESTED.encode(labels), NESTED, GRID)
    assert (spine.voxels, spine.components) == (28, 2)
    assert (lesion.voxels, lesion.components) == (2, 2)
    assert (rib.voxels, rib.centroid_mm) == (0, None)
    assert spine.mean_intensity is None, "there is no image"


def test_nothing_labelled_has_a_row_for_each_class() -> None:
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[0, 0, 0] = 9
    assert intensities_at(np.zeros_like(labels), labels.astype(np.float32)) is None
    found = measure_labels(PLAIN.encode(labels), PLAIN, GRID)
    assert [each.voxels for each in found] == [0, 0, 0], "what is ignored belongs to no class"
    assert names_found(found) == ""


def test_an_intensity_that_is_not_finite_is_none() -> None:
    labels = np.full(GRID.shape, 20, dtype=np.int16)
    image = np.full(GRID.shape, math.nan, dtype=np.float32)
    assert (
        measure_labels(PLAIN.encode(labels), PLAIN, GRID, intensities_at(labels, image))[0].mean_intensity
        is None
    )


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 10_000), density=st.floats(0.05, 0.9))
def test_numbers_are_those_of_each_mask(shape: tuple[int, int, int], seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(shape) < density, rng.choice([20, 21, 9], shape), 0).astype(np.int16)
    image = rng.normal(size=shape).astype(np.float32)
    grid = Grid(
        shape=shape,
        spacing_mm=(2.0, 1.0, 1.5),
        origin_mm=(1.0, 2.0, 3.0),
        direction=(0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
    )
    for each in measure_labels(PLAIN.encode(labels), PLAIN, grid, intensities_at(labels, image)):
        mask = labels == each.integer
        assert each.voxels == np.count_nonzero(mask)
        assert each.ml == pytest.approx(each.voxels * 3 / 1000, abs=1e-6)
        assert each.components == ndimage.label(mask, np.ones((3, 3, 3)))[1]
        inner = np.zeros(shape, dtype=bool)
        inner[tuple(slice(1, -1) if n > 1 else slice(None) for n in shape)] = True
        assert each.touches_border == bool(np.any(mask & ~inner))
        if each.voxels:
            assert each.centroid_mm == pytest.approx(grid.physical(np.argwhere(mask).mean(axis=0)), abs=1e-3)
            assert each.mean_intensity == pytest.approx(image[mask].mean(), abs=1e-3)


def test_of_many_classes_the_first_and_the_last_are_named() -> None:
    space = parse_labels({"background": 0} | {f"V{i}": i for i in range(1, 200)})
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels.flat[:150] = np.arange(1, 151)
    found = measure_labels(space.encode(labels), space, GRID)
    assert names_found(found) == (
        "V1, V2, V3, V4, V5, V6 ... V145, V146, V147, V148, V149, V150 (150 of 199)"
    )
    assert names_found(found[:MOST_NAMED]).split(", ") == [f"V{i}" for i in range(1, MOST_NAMED + 1)]


def test_an_image_of_one_slice_has_no_border_across_it() -> None:
    grid = replace(GRID, shape=(8, 9, 1))
    labels = np.zeros(grid.shape, dtype=np.int16)
    labels[2:4, 3:5] = 20
    labels[0, 0] = 21
    inside, outside, _ = measure_labels(PLAIN.encode(labels), PLAIN, grid)
    assert (inside.touches_border, outside.touches_border) == (False, True)
