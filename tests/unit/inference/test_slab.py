from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.geometry import Box
from autospine.inference.slab import Slab, column_bands, row_bands, slab_bytes
from autospine.inference.sliding_window import finished_pieces
from autospine.inference.tiles import TileGrid, gaussian_weights

CPU = torch.device("cpu")
CLASSES = 3


def axis_of(tile: int) -> st.SearchStrategy[tuple[int, int]]:
    """A tile and an image of up to about four of it: more of them show nothing new, and take their time."""
    return st.tuples(st.integers(1, min(36, 4 * tile + 3)), st.just(tile))


SHAPES_AND_TILES = st.tuples(*[st.sampled_from([1, 4, 9, 16]).flatmap(axis_of)] * 3).map(
    lambda axes: tuple(zip(*axes, strict=True))
)
"""Shape of an image, and the tile that it is cut into."""


def noise(box) -> torch.Tensor:
    """Scores that depend on the tile."""
    generator = torch.Generator().manual_seed(hash(box.start) % 2**31)
    return torch.rand((CLASSES, *box.shape), generator=generator)


def counted(layout, start):
    """What counts of a tile, in its own voxels."""
    return layout.valid_region(start).counted_from(start).slices


def scores_of(layout, boxes):
    """What counts of several tiles."""
    return [noise(box)[:, *counted(layout, box.start)] for box in boxes]


def expected(layout, regions=False, run=None) -> torch.Tensor:
    """All of it at once."""
    grown = [max(n, k) for n, k in zip(layout.shape, layout.tile, strict=True)]
    before = [max(0, -starts[0]) for starts in layout.starts]
    total, weight_sum = torch.zeros(CLASSES, *grown), torch.zeros(grown)
    for box in layout.boxes:
        where = tuple(slice(a + b, a + b + k) for a, b, k in zip(box.start, before, box.shape, strict=True))
        if run is None or box.start in run:
            weights = torch.zeros(layout.tile)
            inside = counted(layout, box.start)
            weights[inside] = gaussian_weights(layout.tile)[inside]
            total[:, *where] += noise(box) * weights
            weight_sum[where] += weights
    mean = total / weight_sum.clamp_min(1e-9)
    if not regions:
        mean[0][weight_sum == 0] = 1
    return mean[:, *(slice(b, b + n) for b, n in zip(before, layout.shape, strict=True))]


def gathered(layout, slab, tile_scores=None, **options) -> torch.Tensor:
    """The pieces, put together."""
    tile_scores = tile_scores or partial(scores_of, layout)
    whole = torch.full((CLASSES, *layout.shape), torch.nan)
    for piece in finished_pieces(layout, slab, tile_scores, **options):
        assert whole[:, *piece.box.slices].isnan().all(), "a voxel comes twice"
        whole[:, *piece.box.slices] = piece.scores
    return whole


STEPS = st.sampled_from([0.3, 0.5, 0.75, 1.0])


@given(SHAPES_AND_TILES, STEPS, st.booleans(), st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_the_pieces_are_what_accumulating_the_whole_volume_gives(sizes, step, wide, at_once):
    shape, tile = sizes
    layout = TileGrid.covering(shape, tile, step)
    slab = Slab(layout, CLASSES, regions=False, device=CPU, wide=wide)
    found = gathered(layout, slab, batch_size=at_once)
    torch.testing.assert_close(found, expected(layout), atol=1e-5, rtol=1e-5)


@given(SHAPES_AND_TILES, st.booleans(), st.integers(2, 5), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_what_no_tile_has_covered_is_background(sizes, regions, every, at_once):
    layout, seen = TileGrid.covering(*sizes), []
    run = {box.start for box in layout.boxes if sum(box.start) % every == 0}

    def look(boxes):
        assert 1 <= len(boxes) <= at_once
        seen.extend(box.start for box in boxes)
        return scores_of(layout, boxes)

    slab = Slab(layout, CLASSES, regions=regions, device=CPU)
    found = gathered(layout, slab, look, run=run, batch_size=at_once)
    torch.testing.assert_close(found, expected(layout, regions, run), atol=1e-5, rtol=1e-5)
    assert seen == [box.start for box in layout.boxes if box.start in run], "each once, in order"


@given(SHAPES_AND_TILES, STEPS, st.booleans(), st.booleans(), st.integers(2, 5), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_tiles_that_count_as_background_change_no_bit(sizes, step, regions, wide, every, at_once):
    """The sums are those of tiles that were run and found to be background."""
    layout, seen = TileGrid.covering(*sizes, step), []
    run = {box.start for box in layout.boxes if sum(box.start) % every == 0}

    def look(boxes):
        seen.extend(box.start for box in boxes)
        scores = scores_of(layout, boxes)
        for box, of_tile in zip(boxes, scores, strict=True):
            if box.start not in run:
                of_tile.zero_()
                of_tile[0] = not regions
        return scores

    slabs = [Slab(layout, CLASSES, regions=regions, device=CPU, wide=wide) for _ in range(2)]
    expected_scores = gathered(layout, slabs[0], look)
    assert len(seen) == layout.count
    seen.clear()
    found = gathered(layout, slabs[1], look, run=run, rest_is_background=True, batch_size=at_once)
    assert torch.equal(found, expected_scores)
    assert seen == [box.start for box in layout.boxes if box.start in run], "each once, in order"


@given(SHAPES_AND_TILES, st.booleans())
@settings(deadline=None, max_examples=30)
def test_pieces_come_in_order_and_wide_ones_are_whole_rows(sizes, wide):
    shape, _ = sizes
    layout = TileGrid.covering(*sizes)
    slab = Slab(layout, CLASSES, regions=False, device=CPU, wide=wide)
    starts = []
    for piece in finished_pieces(layout, slab, partial(scores_of, layout)):
        starts.append(piece.box.start[:2])
        if wide:
            assert (piece.box.start[1], piece.box.stop[1]) == (0, shape[1])
    assert starts == sorted(starts)


@given(SHAPES_AND_TILES, STEPS, st.booleans(), st.data())
@settings(deadline=None, max_examples=60)
def test_a_part_of_the_image_is_blended_as_all_of_it(sizes, step, wide, data):
    """Tiles around a region, and of them some that are run, as near the spine."""
    shape, tile = sizes
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    laid = TileGrid.covering(shape, tile, step, Box(start=start, stop=stop))
    every = [box.start for box in laid.boxes]
    run = set(data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=6)))
    layout = laid.around(run)
    found = gathered(layout, Slab(layout, CLASSES, regions=False, device=CPU, wide=wide), run=run)
    inside = layout.extent.slices
    torch.testing.assert_close(found[:, *inside], expected(layout, run=run)[:, *inside], atol=1e-5, rtol=1e-5)
    found[:, *inside] = torch.nan
    assert found.isnan().all(), "pieces lie in the part that tiles reach"


def test_the_slab_holds_what_is_promised():
    for shape, wide in (((40, 30, 20), False), ((400, 30, 20), False), ((40, 30, 20), True)):
        layout = TileGrid.covering(shape, (8, 8, 8))
        slab = Slab(layout, CLASSES, regions=False, device=CPU, wide=wide)
        assert slab._present.nbytes + slab._kept.nbytes == slab_bytes(layout, CLASSES, wide=wide)
    # Twice as long, and no larger.
    short, long = (slab_bytes(TileGrid.covering((n, 60, 60), (8, 8, 8)), CLASSES) for n in (100, 200))
    assert long <= 1.1 * short


@given(st.integers(1, 40), st.integers(1, 16), STEPS)
def test_bands_finish_every_voxel_once_and_share_what_two_of_them_touch(n, tile, step):
    layout = TileGrid.covering((n, n, 1), (tile, tile, 1), step)
    for axis, bands in enumerate((row_bands(layout), column_bands(layout, wide=False))):
        assert [start for band in bands for start in band.tiles] == list(layout.starts[axis])
        assert (bands[0].start, bands[-1].final, bands[-1].shared) == (0, n, 0)
        for band, following in pairwise(bands):
            assert band.start < band.final == following.start <= band.stop <= following.stop
        for band in bands:
            for start in band.tiles:
                assert layout.span(axis, start) == slice(band.start, band.stop)
    (wide,) = column_bands(layout, wide=True)
    assert (wide.tiles, wide.start, wide.final, wide.stop) == (layout.starts[1], 0, n, n)


def test_the_last_rows_are_finished_in_two():
    layout = TileGrid.covering((300, 128, 128), (128, 128, 128))
    *before, last, rest = row_bands(layout)
    kept = max(band.shared for band in before)
    assert (last.shared, rest.size, rest.tiles) == (kept, kept, ())
    assert last.final - last.start < 0.75 * last.size
    assert [band.tiles for band in row_bands(TileGrid.covering((90, 128, 128), (128, 128, 128)))] == [(-19,)]


def test_pieces_are_no_larger_than_a_quarter_of_a_tile():
    layout = TileGrid.covering((40, 50, 20), (16, 16, 16))
    slab = Slab(layout, CLASSES, regions=False, device=CPU)
    for piece in finished_pieces(layout, slab, partial(scores_of, layout)):
        rows, columns, length = piece.box.shape
        assert rows * columns <= 16 * 16 / 4 + rows, "columns are whole numbers"
        assert length == 20


class OnGPU(Slab):
    """Says that it lies on a GPU until it is moved."""

    moved = False

    @property
    def device(self):
        return CPU if self.moved else torch.device("meta")

    def to(self, device):
        assert device == CPU
        self.moved = True


class Tight:
    """A GPU on which few tiles fit at once: fewer still from some row on, beside a slab."""

    def __init__(self, slab: OnGPU, room: int, room_later: int) -> None:
        self.slab, self.room, self.room_later = slab, room, room_later
        self.tried: list[int] = []
        self.run: list[tuple[int, int, int]] = []

    def __call__(self, boxes):
        self.tried.append(len(boxes))
        room = self.room if boxes[0].start[0] == 0 else self.room_later
        if len(boxes) > (max(room, 1) if self.slab.moved else room):
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.run += [box.start for box in boxes]
        return scores_of(self.slab.tile_grid, boxes)


@pytest.mark.parametrize(
    ("room", "room_later", "tried_first", "moved"),
    [
        (8, 8, [7], False),
        (3, 3, [7, 3], False),
        (3, 1, [7, 3], False),
        (1, 1, [7, 3, 1], False),
        (4, 0, [7, 3], True),
        (0, 0, [7, 3, 1, 1], True),
    ],
)
@pytest.mark.parametrize("wide", [False, True])
def test_a_full_device_runs_fewer_tiles_at_once_then_hands_its_slab_over(
    room, room_later, tried_first, moved, wide
):
    layout = TileGrid.covering((12, 12, 24), (6, 6, 6))
    slab = OnGPU(layout, CLASSES, regions=False, device=CPU, wide=wide)
    tight = Tight(slab, room, room_later)
    found = gathered(layout, slab, tight, batch_size=7)
    torch.testing.assert_close(found, expected(layout), atol=1e-5, rtol=1e-5)
    assert tight.tried[: len(tried_first)] == tried_first
    assert slab.moved == moved
    assert tight.run == [box.start for box in layout.boxes], "finished tiles are kept"


def test_a_tile_that_does_not_fit_even_so_is_an_error():
    layout = TileGrid.covering((6, 6, 6), (6, 6, 6))
    slab = Slab(layout, CLASSES, regions=False, device=CPU)

    def never(boxes):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(finished_pieces(layout, slab, never, batch_size=4))


def test_other_errors_are_not_taken_for_want_of_memory():
    layout = TileGrid.covering((6, 6, 12), (6, 6, 6))
    slab, tried = Slab(layout, CLASSES, regions=False, device=CPU), []

    def broken(boxes):
        tried.append(len(boxes))
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal"):
        list(finished_pieces(layout, slab, broken, batch_size=2))
    assert tried == [2]
