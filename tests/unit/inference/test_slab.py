import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.inference.slab import Slab, kept_rows, row_steps, slab_bytes
from autospine.inference.sliding_window import finished_pieces
from autospine.inference.tiles import importance, lay_tiles

CPU = torch.device("cpu")
SIZES = st.tuples(*[st.integers(1, 26)] * 3)
TILES = st.tuples(*[st.sampled_from([1, 4, 6, 9])] * 3)
CLASSES = 3


def noise(box) -> torch.Tensor:
    """Scores that depend on the tile."""
    generator = torch.Generator().manual_seed(hash(box.start) % 2**31)
    return torch.rand((CLASSES, *box.shape), generator=generator)


def expected(layout, tile_scores, regions=False) -> torch.Tensor:
    """All of it at once."""
    grown = [max(n, k) for n, k in zip(layout.shape, layout.tile, strict=True)]
    before = [-starts[0] for starts in layout.starts]
    total, weight_sum = torch.zeros(CLASSES, *grown), torch.zeros(grown)
    for box in layout.boxes:
        where = tuple(slice(a + b, a + b + k) for a, b, k in zip(box.start, before, box.shape, strict=True))
        scores = tile_scores(box)
        if scores is not None:
            total[:, *where] += scores * importance(layout.tile)
            weight_sum[where] += importance(layout.tile)
    mean = total / weight_sum.clamp_min(1e-9)
    if not regions:
        mean[0][weight_sum == 0] = 1
    return mean[:, *(slice(b, b + n) for b, n in zip(before, layout.shape, strict=True))]


def gathered(layout, tile_scores, **options) -> torch.Tensor:
    """The pieces, put together."""
    regions = options.pop("regions", False)
    whole = torch.full((CLASSES, *layout.shape), torch.nan)
    slab = Slab(layout, CLASSES, regions=regions, device=CPU, **options)
    for piece in finished_pieces(layout, slab, tile_scores):
        assert whole[:, *piece.box.slices].isnan().all(), "a voxel comes twice"
        whole[:, *piece.box.slices] = piece.scores
    return whole


@given(SIZES, TILES, st.booleans())
@settings(deadline=None, max_examples=80)
def test_the_pieces_are_what_accumulating_the_whole_volume_gives(shape, tile, wide):
    layout = lay_tiles(shape, tile)
    torch.testing.assert_close(
        gathered(layout, noise, wide=wide), expected(layout, noise), atol=1e-5, rtol=1e-5
    )


@given(SIZES, TILES, st.booleans(), st.integers(2, 5))
@settings(deadline=None, max_examples=40)
def test_what_no_tile_has_covered_is_background(shape, tile, regions, every):
    layout = lay_tiles(shape, tile)

    def some(box):
        return None if sum(box.start) % every else noise(box)

    torch.testing.assert_close(
        gathered(layout, some, regions=regions), expected(layout, some, regions), atol=1e-5, rtol=1e-5
    )


@given(SIZES, TILES, st.booleans())
@settings(deadline=None, max_examples=30)
def test_pieces_come_in_order_and_wide_ones_are_whole_rows(shape, tile, wide):
    layout = lay_tiles(shape, tile)
    slab = Slab(layout, CLASSES, regions=False, device=CPU, wide=wide)
    starts = []
    for piece in finished_pieces(layout, slab, noise):
        starts.append(piece.box.start[:2])
        if wide:
            assert (piece.box.start[1], piece.box.stop[1]) == (0, shape[1])
    assert starts == sorted(starts)


def test_the_slab_holds_what_is_promised():
    for shape, wide in (((40, 30, 20), False), ((400, 30, 20), False), ((40, 30, 20), True)):
        layout = lay_tiles(shape, (8, 8, 8))
        slab = Slab(layout, CLASSES, regions=False, device=CPU, wide=wide)
        assert slab._held.nbytes + slab._fresh.nbytes == slab_bytes(layout, CLASSES, wide=wide)
    # Twice as long, and no larger.
    short, long = (slab_bytes(lay_tiles((n, 60, 60), (8, 8, 8)), CLASSES) for n in (100, 200))
    assert long <= 1.1 * short


@given(st.integers(1, 40), st.integers(1, 16))
def test_the_steps_add_up_and_never_exceed_what_is_kept(n, tile):
    layout = lay_tiles((n, 1, 1), (tile, 1, 1))
    assert sum(row_steps(layout)) == max(n, tile)
    assert max(row_steps(layout)) <= kept_rows(layout) <= tile


class OnGPU(Slab):
    """Lies on a device without memory until it is moved."""

    moved_to = None

    @property
    def device(self):
        return self.moved_to or torch.device("meta")

    def to(self, device):
        self.moved_to = device

    def add(self, scores, columns, first):
        super().add(scores if self.moved_to else noise(self.box), columns, first)


def test_a_device_that_is_full_hands_its_slab_over_and_the_tile_is_run_again():
    layout = lay_tiles((12, 12, 12), (6, 6, 6))
    slab = OnGPU(layout, CLASSES, regions=False, device=CPU)

    def tight(box):
        slab.box = box
        if box.start[0] > 0 and slab.moved_to is None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return noise(box)

    whole = torch.empty((CLASSES, *layout.shape))
    for piece in finished_pieces(layout, slab, tight):
        whole[:, *piece.box.slices] = piece.scores
    assert slab.moved_to == CPU
    torch.testing.assert_close(whole, expected(layout, noise), atol=1e-5, rtol=1e-5)


def test_a_tile_that_does_not_fit_even_so_is_an_error():
    layout = lay_tiles((6, 6, 6), (6, 6, 6))
    slab = Slab(layout, CLASSES, regions=False, device=CPU)

    def never(box):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(finished_pieces(layout, slab, never))
