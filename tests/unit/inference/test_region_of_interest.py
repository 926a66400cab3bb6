import makers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.geometry import Box
from autospine.inference.region_of_interest import (
    LEAST_ROWS,
    STRIDE,
    body_mask,
    region_around,
    spine_column,
    spine_mask,
    tiles_within,
)
from autospine.inference.tiles import TileGrid
from autospine.plan import Normalisation
from autospine.preprocessing.normalise import intensity_transform

CT = Normalisation(scope="dataset", lower=-200.0, upper=1000.0, mean=100.0, std=200.0)
MR = Normalisation(scope="image", lower=0.005, upper=0.995, mean=0.0, std=1.0)


VERTEBRA, CANAL = 5, 9


def located(rows: float) -> np.ndarray:
    """A bent spine in the upper part of an image of 80 rows, and a table that is longer."""
    labels = np.zeros((80, 40, 60), np.uint8)
    for row in range(round(80 * rows)):
        front = 10 + row // 10
        labels[row, front : front + 4, 20:28] = VERTEBRA
        labels[row, front + 4 : front + 8, 20:28] = CANAL
    labels[:, 36:38, 50:52] = VERTEBRA  # the table
    return labels


def test_the_column_of_a_spine_reaches_from_the_first_row_to_the_last():
    body = np.ones((40, 20, 30), bool)
    column = spine_column(located(0.7), (VERTEBRA, CANAL), body)
    assert column.shape == body.shape
    assert (column == column[0]).all()
    (rows, columns) = np.nonzero(column[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 11, 10, 13)


def test_what_is_hardly_a_spine_has_no_column():
    body = np.ones((40, 20, 30), bool)
    together = (VERTEBRA, CANAL)
    assert spine_column(located(LEAST_ROWS - 0.1), together, body) is None
    body[24:] = False  # of which it is most
    assert spine_column(located(LEAST_ROWS - 0.1), together, body) is not None
    assert spine_column(np.zeros((80, 40, 60), np.uint8), together, body) is None
    without_canal = np.where(located(1.0) == CANAL, 0, located(1.0)).astype(np.uint8)
    assert spine_column(without_canal, together, body) is None


def of_body(array, modality, rule):
    return body_mask(array, modality, intensity_transform(array, rule))


def test_the_body_in_ct_is_denser_than_air_and_lung():
    values = np.asarray([-1000, -850, -500, -100, 50, 700])
    array = values.repeat(STRIDE)[None, :, None, None] * np.ones((1, 12, 4, 4), dtype=np.int16)
    assert of_body(array.astype(np.int16), "CT", CT)[:, 0, 0].tolist() == [False] * 3 + [True] * 3


def test_the_body_in_mr_is_brighter_than_noise():
    rng = np.random.default_rng(0)
    array = np.abs(rng.normal(0, 8, (1, 60, 60, 60))).astype(np.int16)
    array[:, 20:40, 20:40, 20:40] = rng.normal(600, 100, (20, 20, 20))
    mask = of_body(array, "MR", MR)
    assert mask[10:20, 10:20, 10:20].mean() > 0.99
    mask[10:20, 10:20, 10:20] = False
    assert mask.mean() < 0.01


def test_any_channel_may_show_the_body():
    array = np.full((2, 4, 4, 4), -1000, dtype=np.int16)
    array[1] = 40
    assert of_body(array, "CT", CT).all()


def test_a_single_voxel_of_the_body_counts():
    array = np.full((1, 9, 9, 9), -1000, dtype=np.int16)
    array[0, 3, 8, 5] = -400
    mask = of_body(array, "CT", CT)
    assert mask.shape == (5, 5, 5)
    assert np.argwhere(mask).tolist() == [[1, 4, 2]]


def test_what_the_body_encloses_belongs_to_it_and_what_is_open_does_not():
    """Lungs, gas and voids around metal, even where they reach the first or the last slice."""
    array = np.full((1, 8, 40, 40), -1000, dtype=np.int16)
    array[0, :, 8:32, 8:32] = 50
    array[0, :, 12:20, 12:20] = -850  # enclosed within each slice
    array[0, :, 22:28, 20:32] = -850  # open towards the left
    mask = of_body(array, "CT", CT)
    assert mask[:, 6:10, 6:10].all()
    assert not mask[:, 11:14, 10:16].any()
    assert not mask[:, :4].any()


@pytest.mark.parametrize("array", [np.full((1, 6, 6, 6), 700, np.int16), np.zeros((1, 6, 6, 6), np.float32)])
def test_an_image_of_one_value_is_no_body_in_mr(array):
    assert not of_body(array, "MR", MR).any()


def test_a_bright_background_is_not_taken_for_air():
    array = np.random.default_rng(0).normal(900, 20, (1, 30, 30, 30)).astype(np.float32)
    array[:, 10:20, 10:20, 10:20] = 100
    assert of_body(array, "MR", MR)[:4].all()


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.sampled_from([4, 9])] * 3),
    st.sampled_from([0.0, 3.0]),
    st.data(),
)
@settings(deadline=None, max_examples=80)
def test_tiles_with_something_in_them_are_found(native, prepared, tile, margin, data):
    """A tile is found if it holds a cube of `STRIDE` labelled voxels, and not if it is far from any."""
    where = [data.draw(st.integers(0, max(0, n - STRIDE))) for n in native]
    labels = np.zeros(native, dtype=np.uint8)
    labels[tuple(slice(a, a + STRIDE) for a in where)] = 7
    layout = TileGrid.covering(prepared, tile)
    found = tiles_within(layout, spine_mask(labels), native, (margin,) * 3)
    for box in layout.boxes:
        gaps = []
        for a, b, n, m, at in zip(box.start, box.stop, native, prepared, where, strict=True):
            first, last = a * n / m - margin, b * n / m + margin
            gaps.append(max(first - (at + STRIDE), at - last))
        if max(gaps) < -2 * STRIDE:
            assert box.start in found
        if max(gaps) > 3 * STRIDE:
            assert box.start not in found


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(1, 40)] * 3),
    st.sampled_from([0.0, 3.0]),
    st.data(),
)
@settings(deadline=None)
def test_a_region_holds_what_is_labelled_and_the_margin(native, prepared, margin, data):
    where = [STRIDE * data.draw(st.integers(0, (n - 1) // STRIDE)) for n in native]
    labels = np.zeros(native, dtype=np.uint8)
    labels[tuple(slice(a, a + STRIDE) for a in where)] = 7
    region = region_around(spine_mask(labels), native, prepared, (margin,) * 3)
    for a, b, n, m, at in zip(region.start, region.stop, native, prepared, where, strict=True):
        assert 0 <= a < b <= m
        assert a * n / m <= max(0, at - margin) + 1e-6
        assert b * n / m >= min(n, at + STRIDE + margin) - 1e-6
        assert (b - a) * n / m <= STRIDE + 2 * margin + 2 * n / m + 1e-6


def test_the_region_around_nothing_is_everything():
    region = region_around(spine_mask(np.zeros((5, 6, 7), dtype=np.uint8)), (5, 6, 7), (10, 6, 3))
    assert region == Box(start=(0, 0, 0), stop=(10, 6, 3))


def test_a_layout_shrinks_to_the_tiles_that_are_run():
    layout = TileGrid.covering((100, 40, 40), (8, 8, 8))
    run = {(layout.starts[0][3], layout.starts[1][2], layout.starts[2][1])}
    run.add((layout.starts[0][6], layout.starts[1][2], layout.starts[2][3]))
    part = layout.around(run)
    assert [len(starts) for starts in part.starts] == [4, 1, 3]
    assert run <= {box.start for box in part.boxes}
    assert part.extent.start == (layout.starts[0][3], layout.starts[1][2], layout.starts[2][1])
    assert part.extent.stop[1] == layout.starts[1][2] + 8
    assert layout.around({box.start for box in layout.boxes}) == layout


def test_specks_are_not_the_spine():
    labels = np.zeros((80, 80, 80), dtype=np.uint8)
    labels[20:60, 20:60, 20:60] = 3
    labels[70:72, 70:72, 70:72] = 3
    assert region_around(spine_mask(labels), labels.shape, (40, 40, 40)).stop == (30, 30, 30)
    labels[64:80, 64:80, 64:80] = 5
    assert region_around(spine_mask(labels), labels.shape, (40, 40, 40)).stop == (40, 40, 40)


def test_columns_of_bone_are_the_spine():
    labels = makers.column()
    assert spine_mask(labels).sum() == (labels[::2, ::2, ::2] != 0).sum()
