from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.geometry import Box
from autospine.inference.tiles import FLOOR, NEGLIGIBLE, SIGMA, TileGrid, count_tiles, gaussian_weights

AXIS = st.integers(1, 16).flatmap(lambda tile: st.tuples(st.integers(tile, 4 * tile), st.just(tile)))
STEPS = st.sampled_from([0.25, 0.5, 0.6, 1.0])


@given(st.tuples(AXIS, AXIS, AXIS).map(lambda axes: tuple(zip(*axes, strict=True))), STEPS)
@settings(deadline=None, max_examples=60)
def test_tiles_cover_every_voxel_and_lie_inside(case, step):
    shape, tile = case
    seen = np.zeros(shape, dtype=np.uint16)
    starts = []
    layout = TileGrid.covering(shape, tile, step)
    for box in layout.boxes:
        assert box.shape == tile
        assert all(a >= 0 and b <= n for a, b, n in zip(box.start, box.stop, shape, strict=True))
        seen[box.slices] += 1
        starts.append(box.start)
    assert seen.min() >= 1
    assert len(set(starts)) == len(starts), "a tile comes twice"
    assert starts == sorted(starts), "tiles are not in order along the first axis"
    assert len(starts) == layout.count


@given(AXIS, STEPS)
@settings(deadline=None)
def test_every_voxel_belongs_to_the_tile_that_weighs_most_there(axis, step):
    n, k = axis
    grid = TileGrid.covering((1, 1, n), (1, 1, k), step)
    weights = gaussian_weights((1, 1, k))[0, 0].double().numpy()
    placed = np.zeros((grid.count, n))
    owner = np.full(n, -1)
    for number, box in enumerate(grid.boxes):
        placed[number, box.slices[2]] = weights
        own = grid.own_region(box.start).slices[2]
        assert (owner[own] == -1).all(), "a voxel belongs to two tiles"
        owner[own] = number
    assert (owner >= 0).all()
    np.testing.assert_allclose(placed[owner, np.arange(n)], placed.max(axis=0), rtol=1e-6)


@given(AXIS, STEPS)
def test_neighbouring_tiles_are_no_further_apart_than_the_step(axis, step):
    n, k = axis
    starts = TileGrid.covering((1, 1, n), (1, 1, k), step).starts[2]
    assert (starts[0], starts[-1]) == (0, n - k)
    assert all(0 < b - a <= max(1, np.ceil(k * step)) for a, b in pairwise(starts))


@given(AXIS, st.data())
@settings(deadline=None)
def test_a_region_is_covered_and_little_else(axis, data):
    n, k = axis
    first = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(first + 1, n))
    region = Box(start=(0, 0, first), stop=(1, 1, stop))
    starts = TileGrid.covering((1, 1, n), (1, 1, k), part=region).starts[2]
    assert starts[0] >= 0
    assert starts[-1] + k <= n
    assert starts[0] <= first
    assert starts[-1] + k >= stop
    if stop - first >= k:
        assert (starts[0], starts[-1] + k) == (first, stop)
    else:
        before, after = first - starts[0], starts[-1] + k - stop
        assert len(starts) == 1
        assert abs(before - after) <= 1 or starts[0] == 0 or starts[0] == n - k
    assert all(0 < b - a <= max(1, np.ceil(k / 2)) for a, b in pairwise(starts))


def test_a_tile_of_the_volume_is_alone():
    assert [box.start for box in TileGrid.covering((8, 9, 10), (8, 9, 10)).boxes] == [(0, 0, 0)]


@given(st.integers(1, 20), st.integers(1, 20))
def test_a_tile_reaches_out_on_both_sides_of_what_is_shorter(shorter, by):
    layout = TileGrid.covering((shorter, 1, 1), (shorter + by, 1, 1))
    assert layout.count == count_tiles(layout.shape, layout.tile) == 1
    (box,) = layout.boxes
    below, above = -box.start[0], box.stop[0] - shorter
    assert below + above == by
    assert 0 <= above - below <= 1


@given(st.tuples(*[st.integers(1, 20)] * 3))
@settings(deadline=None)
def test_importance_is_largest_in_the_middle_and_never_nothing(tile):
    weights = gaussian_weights(tile)
    assert weights.shape == tile
    assert weights.dtype == torch.float32
    assert weights.max() == 1
    assert weights.min() >= FLOOR
    middle = tuple(n // 2 for n in tile)
    assert weights[middle] == weights.max()
    for axis in range(3):
        torch.testing.assert_close(weights, weights.flip(axis))


@given(st.integers(4, 40), st.integers(0, 200), st.sampled_from([0.3, 0.5, 0.75, 1.0]))
@settings(deadline=None)
def test_only_what_a_neighbour_outweighs_by_far_is_not_counted(tile, longer, step):
    layout = TileGrid.covering((tile + longer, tile, tile), (tile, tile, tile), step)
    starts, offset = layout.starts[0], np.arange(tile) - (tile - 1) / 2
    bell = np.exp(-0.5 * (offset / (tile * SIGMA)) ** 2)
    covered = np.zeros(tile + longer)
    for index, start in enumerate(starts):
        inside = layout.valid_region((start, 0, 0))
        assert inside.slices[1:] == (slice(0, tile), slice(0, tile))
        covered[inside.slices[0]] += 1
        rows = inside.counted_from((start, 0, 0)).slices[0]
        left_out = [(row, index - 1) for row in range(rows.start)]
        left_out += [(row, index + 1) for row in range(rows.stop, tile)]
        for row, neighbour in left_out:
            assert bell[row] <= NEGLIGIBLE * bell[start + row - starts[neighbour]]
    assert covered.min() >= 1


def test_a_tenth_of_a_tile_is_outweighed_where_tiles_lie_half_a_tile_apart():
    layout = TileGrid.covering((256, 128, 128), (128, 128, 128))
    assert [layout.span(0, start) for start in (0, 64, 128)] == [
        slice(0, 115),
        slice(77, 179),
        slice(141, 256),
    ]


@given(st.integers(1, 20), st.integers(1, 20))
def test_what_lies_out_of_the_image_does_not_count(shorter, by):
    layout = TileGrid.covering((shorter, 4, 4), (shorter + by, 4, 4))
    (box,) = layout.boxes
    assert layout.valid_region(box.start) == layout.extent == Box(start=(0, 0, 0), stop=(shorter, 4, 4))


@given(st.integers(4, 24), st.integers(4, 60))
@settings(deadline=None)
def test_summed_weights_leave_no_hole(tile, longer):
    shape = (tile + longer, tile, tile)
    total = torch.zeros(shape)
    for box in TileGrid.covering(shape, (tile, tile, tile)).boxes:
        total[box.slices] += gaussian_weights((tile, tile, tile))
    assert total.min() >= FLOOR
    inside = total[:, tile // 2, tile // 2]
    # A share of the step apart, the Gaussians' tails add up to a third of the peak or more.
    assert inside[tile // 2 : -(tile // 2)].min() > 0.1
