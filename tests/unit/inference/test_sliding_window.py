import makers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.geometry import Box
from autospine.inference.sliding_window import ImageRows
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
