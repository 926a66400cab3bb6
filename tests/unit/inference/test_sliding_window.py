import makers
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.geometry import Box
from autospine.inference.slab import Slab
from autospine.inference.sliding_window import ImageRows, TilesAhead, finished_pieces, tiles_in_order
from autospine.inference.tiles import TileGrid
from autospine.io.images import Volume
from autospine.plan import Normalisation
from autospine.preprocessing.prepare import begin_preparation, prepare_image

RULES = {
    "CT": Normalisation(scope="dataset", lower=-200.0, upper=1000.0, mean=100.0, std=200.0),
    "MR": Normalisation(scope="image", lower=0.005, upper=0.995, mean=0.0, std=1.0),
}


def volume(shape, spacing_mm, channels=1) -> Volume:
    array = np.random.default_rng(3).integers(0, 900, (channels, *shape)).astype(np.int16)
    grid = makers.grid(shape, spacing_mm)
    return Volume(array=array, grid=grid, stored=grid)


@given(
    st.tuples(st.integers(1, 200), st.integers(1, 12), st.integers(1, 12)),
    st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 1.7])] * 3),
    st.tuples(*[st.sampled_from([4, 9, 70])] * 3),
    st.sampled_from(["CT", "MR"]),
)
@settings(deadline=None, max_examples=40)
def test_tiles_are_cut_from_the_prepared_image(shape, spacing_mm, tile, modality):
    image = volume(shape, spacing_mm, channels=2)
    arguments = (image, modality, (1.0, 1.0, 1.0), RULES[modality])
    prepared = prepare_image(*arguments)
    outside = np.asarray(prepared.transform.background, dtype=np.float32)
    window = ImageRows(begin_preparation(*arguments))
    layout = TileGrid.covering(prepared.shape, tile)
    normalised = np.pad(prepared.normalised(), [(0, 0), *[(70, 70)] * 3], constant_values=np.nan)
    for box in layout.boxes:
        expected = normalised[:, *(slice(a + 70, b + 70) for a, b in zip(box.start, box.stop, strict=True))]
        expected = np.where(np.isnan(expected), outside[:, None, None, None], expected)
        np.testing.assert_allclose(window.tile(box)[0].numpy(), expected, atol=1e-5)


def test_only_a_few_rows_are_held():
    image = volume((2000, 4, 4), (1.0, 1.0, 1.0))
    preparation = begin_preparation(image, "CT", (1.0, 1.0, 1.0), RULES["CT"])
    window = ImageRows(preparation)
    for box in TileGrid.covering(preparation.shape, (32, 4, 4)).boxes:
        window.tile(box)
        assert window._rows.shape[1] <= 32 + 2 * 64


def test_rows_before_the_first_tile_are_not_made():
    preparation = begin_preparation(volume((2000, 4, 4), (1.0, 1.0, 1.0)), "CT", (1.0, 1.0, 1.0), RULES["CT"])
    whole, window = preparation.whole().normalised(), ImageRows(preparation)
    for start in (1500, 1510, 1700):
        box = Box(start=(start, 0, 0), stop=(start + 32, 4, 4))
        np.testing.assert_array_equal(window.tile(box)[0], whole[:, *box.slices])
        assert window._rows.shape[1] <= 32 + 64


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8, 0.8), (0.8, 3.0, 0.8), (2.5, 0.7, 0.7)])
def test_rows_made_in_blocks_are_those_of_the_whole_image(spacing_mm):
    arguments = (volume((150, 30, 31), spacing_mm), "CT", (1.0, 1.0, 1.0), RULES["CT"])
    preparation = begin_preparation(*arguments)
    whole = preparation.whole().image
    blocks = [
        preparation.rows(slice(start, min(start + 64, preparation.shape[0])))
        for start in range(0, preparation.shape[0], 64)
    ]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), whole)


CPU = torch.device("cpu")


def ahead(preparation, tile, run=None, device=CPU):
    """A grid of tiles, those that are run in their order, and the same prepared ahead."""
    grid = TileGrid.covering(preparation.shape, tile)
    slab = Slab(grid, 2, regions=False, device=CPU)
    order = tiles_in_order(grid, slab, {box.start for box in grid.boxes} if run is None else run)
    return grid, order, TilesAhead(ImageRows(preparation), order, device)


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("at_once", [1, 3])
def test_tiles_prepared_ahead_are_the_same_to_the_last_bit(modality, at_once):
    """Normalised with torch, as on a GPU, and beyond the image where tiles are larger."""
    arguments = (
        volume((90, 12, 20), (0.8, 0.8, 1.7), channels=2),
        modality,
        (1.0, 1.0, 1.0),
        RULES[modality],
    )
    preparation = begin_preparation(*arguments)
    _, order, tiles = ahead(preparation, (16, 16, 16))
    rows = ImageRows(preparation)
    with tiles:
        for start in range(0, len(order), at_once):
            batch = order[start : start + at_once]
            assert torch.equal(tiles.tiles(batch), rows.tiles(batch))
            assert torch.equal(tiles.tiles(batch[:1]), tiles.tiles(batch)[:1]), "asked for again"


def test_the_order_of_tiles_is_that_in_which_they_are_run():
    preparation = begin_preparation(volume((90, 40, 20), (1.0, 1.0, 1.0)), "CT", (1.0, 1.0, 1.0), RULES["CT"])
    every = list(TileGrid.covering(preparation.shape, (16, 16, 16)).boxes)
    run = {box.start for box in every[::3]}
    grid, order, _ = ahead(preparation, (16, 16, 16), run)
    seen = []

    def scores(boxes):
        seen.extend(boxes)
        return [torch.zeros(2, *grid.valid_region(box.start).shape) for box in boxes]

    list(finished_pieces(grid, Slab(grid, 2, regions=False, device=CPU), scores, run=run, batch_size=2))
    assert seen == order
    assert {box.start for box in order} == run


def test_sixteen_bits_are_sent_to_a_device_that_normalises_them():
    preparation = begin_preparation(volume((40, 16, 16), (1.0, 1.0, 1.0)), "CT", (1.0, 1.0, 1.0), RULES["CT"])
    _, order, tiles = ahead(preparation, (16, 16, 16), device=torch.device("meta"))
    with tiles:
        made = tiles.tiles(order[:2])
    assert (made.device.type, made.dtype, made.shape) == ("meta", torch.float32, (2, 1, 16, 16, 16))


def test_an_error_while_a_tile_is_prepared_ahead_is_raised_where_it_is_asked_for():
    preparation = begin_preparation(volume((90, 16, 16), (1.0, 1.0, 1.0)), "CT", (1.0, 1.0, 1.0), RULES["CT"])

    class Failing(ImageRows):
        def stored(self, box):
            if box.start[0] > 20:
                raise MemoryError("no room for rows")
            return super().stored(box)

    grid = TileGrid.covering(preparation.shape, (16, 16, 16))
    order = tiles_in_order(grid, Slab(grid, 2, regions=False, device=CPU), {box.start for box in grid.boxes})
    with TilesAhead(Failing(preparation), order, CPU) as tiles:
        tiles.tiles(order[:1])
        with pytest.raises(MemoryError, match="no room for rows"):
            for box in order:
                tiles.tiles([box])
