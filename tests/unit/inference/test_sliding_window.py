import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.errors import ModelError
from autospine.inference import class_probabilities, count_tiles

SIZES = st.tuples(*[st.integers(1, 20)] * 3)
TILES = st.tuples(*[st.sampled_from([4, 6, 9])] * 3)
CONFIDENT = 12.0


class OneHot(torch.nn.Module):
    """The identity network: channel k is confident where the image has the value k."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image.shape))
        return (
            CONFIDENT * torch.nn.functional.one_hot(image[:, 0].long(), self.classes).movedim(-1, 1).float()
        )


class Constant(torch.nn.Module):
    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, -1, 1, 1, 1).expand(1, -1, *image.shape[2:])


def draw(shape, seed=0, classes=4):
    return torch.randint(0, classes, (1, *shape), generator=torch.Generator().manual_seed(seed)).float()


@given(SIZES, TILES, st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_an_identity_network_returns_its_input(shape, tile, seed):
    image = draw(shape, seed)
    network = OneHot()
    probabilities = class_probabilities(image, [network], tile, regions=False)
    assert probabilities.shape == (4, *shape)
    assert probabilities.dtype == torch.float32
    assert torch.equal(probabilities.argmax(0), image[0].long())
    # Every tile agrees on a voxel, so that blending changes nothing.
    torch.testing.assert_close(probabilities, network(image[None])[0].softmax(0))
    assert set(network.shapes[:-1]) == {(1, 1, *tile)}
    assert len(network.shapes) - 1 == count_tiles(shape, tile)


@given(SIZES, TILES)
@settings(deadline=None, max_examples=20)
def test_probabilities_sum_to_one(shape, tile):
    image = draw(shape)
    total = class_probabilities(image, [OneHot(), Constant(1, 2, 3, 4)], tile, regions=False).sum(0)
    torch.testing.assert_close(total, torch.ones(shape))


def test_regions_are_decided_one_by_one():
    image = draw((9, 9, 9))
    probabilities = class_probabilities(image, [Constant(0.0, 2.0, -2.0)], (6, 6, 6), regions=True)
    for channel, logit in enumerate((0.0, 2.0, -2.0)):
        expected = torch.tensor(logit).sigmoid().expand(9, 9, 9)
        torch.testing.assert_close(probabilities[channel], expected)


def test_networks_are_averaged_by_probability_not_by_logit():
    image = draw((6, 6, 6))
    networks = [Constant(0.0, 10.0), Constant(0.0, -1.0), Constant(0.0, -1.0)]
    probabilities = class_probabilities(image, networks, (6, 6, 6), regions=False)
    each = [torch.tensor([0.0, z]).softmax(0) for z in (10.0, -1.0, -1.0)]
    expected = torch.stack(each).mean(0).view(2, 1, 1, 1).expand(2, 6, 6, 6)
    torch.testing.assert_close(probabilities, expected)


def test_what_is_outside_a_small_volume_looks_like_its_background():
    class Remember(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.seen = image
            return image[:, :1].repeat(1, 2, 1, 1, 1)

    image = torch.rand(2, 3, 9, 4) + torch.tensor([1.0, -7.0]).view(2, 1, 1, 1)
    network = Remember()
    assert class_probabilities(image, [network], (8, 9, 6), regions=False).shape == (2, 3, 9, 4)
    assert network.seen.shape == (1, 2, 8, 9, 6)
    assert torch.equal(network.seen[0, :, 2:5, :, 1:5], image)
    for channel in range(2):
        assert network.seen[0, channel].min() == image[channel].min()
        assert (network.seen[0, channel, 0] == image[channel].min()).all()


def test_half_precision_networks_are_blended_in_single_precision():
    class Half(OneHot):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image).bfloat16()

    probabilities = class_probabilities(draw((9, 9, 9)), [Half()], (6, 6, 6), regions=False)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.sum(0), torch.ones(9, 9, 9))


def test_progress_is_told_tile_by_tile():
    told = []
    class_probabilities(
        draw((9, 8, 12)), [OneHot()], (6, 6, 6), regions=False, advance=lambda: told.append(1)
    )
    assert len(told) == count_tiles((9, 8, 12), (6, 6, 6)) == 2 * 2 * 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(ModelError, match="expected finite scores"):
        class_probabilities(draw((6, 6, 6)), [Constant(0.0, bad)], (6, 6, 6), regions=False)


def test_no_network_is_refused():
    with pytest.raises(ModelError, match="at least one network"):
        class_probabilities(draw((6, 6, 6)), [], (6, 6, 6), regions=False)
