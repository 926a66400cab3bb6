import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.geometry import Box
from autospine.inference.slab import Piece, Slab
from autospine.inference.sliding_window import finished_pieces
from autospine.inference.tiles import TileGrid
from autospine.inference.to_native import NativeGrid
from autospine.preprocessing.resample import LINEAR, resample

SIZES = st.tuples(*[st.integers(1, 16)] * 3)
CPU = torch.device("cpu")


def draw(shape, seed) -> torch.Tensor:
    return torch.rand((3, *shape), generator=torch.Generator().manual_seed(seed))


def refined(scores, tile, native, wide):
    """Every piece of some scores, as tiles give them."""
    layout = TileGrid.covering(scores.shape[1:], tile)
    slab = Slab(layout, len(scores), regions=True, device=CPU, wide=wide)

    def cut_all(boxes):
        return [scores[:, *layout.valid_region(box.start).slices] for box in boxes]

    grid = NativeGrid(layout.shape, native, layout.extent)
    return (grid.resample(piece) for piece in finished_pieces(layout, slab, cut_all))


@given(SIZES, SIZES, st.tuples(*[st.sampled_from([3, 4, 7])] * 3), st.integers(0, 99), st.booleans())
@settings(deadline=None, max_examples=60)
def test_pieces_are_interpolated_as_the_whole_would_be(prepared, native, tile, seed, wide):
    scores = draw(prepared, seed)
    expected = resample(scores.numpy(), native, LINEAR)
    found = np.full(expected.shape, np.nan, dtype=np.float32)
    for piece in refined(scores, tile, native, wide):
        assert np.isnan(found[:, *piece.box.slices]).all(), "a voxel comes twice"
        for channel in range(3):
            for rows in piece.bands(2):
                found[channel, rows, *piece.box.slices[1:]] = piece.scores(channel, rows)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@given(SIZES, SIZES, st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_winners_and_regions_are_those_of_the_interpolated_scores(prepared, native, seed):
    scores = draw(prepared, seed)
    expected = resample(scores.numpy(), native, LINEAR)
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    for piece in refined(scores, (4, 4, 4), native, wide=False):
        here = piece.box.slices
        clear = (first - second)[here] > 1e-5
        assert (piece.argmax().numpy() == expected.argmax(0)[here])[clear].all()
        sure = np.abs(expected[:, *here] - 0.5) > 1e-5
        assert (piece.above_threshold().numpy() == (expected[:, *here] > 0.5))[sure].all()


@given(SIZES, SIZES, st.data())
@settings(deadline=None, max_examples=60)
def test_what_depends_on_uncovered_inputs_is_not_given(prepared, native, data):
    start = tuple(data.draw(st.integers(0, n - 1)) for n in prepared)
    stop = tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, prepared, strict=True))
    covered, scores = Box(start=start, stop=stop), draw(prepared, 0)
    known = torch.full_like(scores, torch.nan)
    known[:, *covered.slices] = scores[:, *covered.slices]
    # A weight of zero hides no NaN in a product, so that only what is there is interpolated.
    grid = NativeGrid(prepared, native, covered)
    piece = grid.resample(Piece(box=covered, scores=known[:, *covered.slices]))
    expected = resample(scores.numpy(), native, LINEAR)[:, *piece.box.slices]
    for channel in range(3):
        found = piece.scores(channel, piece.box.slices[0])
        np.testing.assert_allclose(found, expected[channel], atol=1e-5)
    first, second = np.sort(expected, axis=0)[[-1, -2]]
    sure = first - second > 1e-5
    assert (piece.argmax().numpy() == expected.argmax(0))[sure].all()
    if covered.shape == prepared:
        assert piece.box.shape == native


def test_the_lowest_class_wins_where_several_tie():
    scores = torch.full((3, 4, 4, 4), 0.5)
    for piece in refined(scores, (4, 4, 4), (4, 4, 4), wide=False):
        assert not piece.argmax().any()
