from dataclasses import replace

import makers
import pytest
import torch

from autospine.core.errors import ModelError
from autospine.core.labels import parse_labels
from autospine.inference import ensemble
from autospine.inference.ensemble import (
    Mirrored,
    convert_kernels,
    mean_probabilities,
    mirrored_channels,
    ready_networks,
    timed_convolutions,
    with_mirror,
)
from autospine.network.cnn3d_plan import CNNPlan
from autospine.network.unet_plans import ResEncPlan, UNetPlan, UNetTransformerPlan
from planners import rules


class Constant(torch.nn.Module):
    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, -1, 1, 1, 1).expand(1, -1, *image.shape[2:])


class Random(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn((1, 4, *image.shape[2:]), generator=generator)


TILE = torch.zeros(1, 1, 19, 5, 6)


@pytest.mark.parametrize("rows", [0.5, 2, 19, 50])
def test_probabilities_are_the_softmax_of_every_row(rows, monkeypatch):
    monkeypatch.setattr(ensemble, "CACHED_BYTES", int(rows * 4 * 4 * 5 * 6))
    found = mean_probabilities(TILE, [Random()], regions=False)
    torch.testing.assert_close(found, Random()(TILE).softmax(1))


def test_tiles_at_once_are_the_same_as_one_by_one():
    class Waves(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([images.sin(), images.cos(), images], dim=1)

    tiles = torch.randn(3, *TILE.shape[1:], generator=torch.Generator().manual_seed(0))
    for regions in (False, True):
        each = [mean_probabilities(tile[None], [Waves()], regions=regions) for tile in tiles]
        torch.testing.assert_close(mean_probabilities(tiles, [Waves()], regions=regions), torch.cat(each))


def test_cudnn_times_convolutions_within_the_block_alone(monkeypatch):
    cudnn, gpu = torch.backends.cudnn, torch.device("cuda")
    before = cudnn.benchmark
    with timed_convolutions(gpu):
        with timed_convolutions(gpu):
            assert cudnn.benchmark
        assert cudnn.benchmark, "another thread is still in its block"
    assert cudnn.benchmark == before
    with timed_convolutions(torch.device("cpu")):
        assert cudnn.benchmark == before
    monkeypatch.setattr(cudnn, "deterministic", True)
    with timed_convolutions(gpu):
        assert not cudnn.benchmark, "what has to be deterministic is not timed"


def test_regions_are_decided_one_by_one():
    found = mean_probabilities(TILE, [Constant(0.0, 2.0, -2.0)], regions=True)
    for channel, logit in enumerate((0.0, 2.0, -2.0)):
        torch.testing.assert_close(found[0, channel], torch.tensor(logit).sigmoid().expand(TILE.shape[2:]))


def test_networks_are_averaged_by_probability_not_by_logit():
    networks = [Constant(0.0, 10.0), Constant(0.0, -1.0), Constant(0.0, -1.0)]
    each = [torch.tensor([0.0, z]).softmax(0) for z in (10.0, -1.0, -1.0)]
    expected = torch.stack(each).mean(0).view(1, 2, 1, 1, 1).expand(1, 2, *TILE.shape[2:])
    torch.testing.assert_close(mean_probabilities(TILE, networks, regions=False), expected)


@pytest.mark.parametrize("regions", [False, True])
def test_only_the_part_that_counts_is_computed(regions):
    counted = (slice(3, 17), slice(0, 4), slice(1, 6))
    networks = [Random(), Constant(0.0, 2.0, -2.0, 1.0)]
    found = mean_probabilities(TILE, networks, regions=regions, valid=counted)
    everything = mean_probabilities(TILE, networks, regions=regions)
    torch.testing.assert_close(found, everything[:, :, *counted])


def test_a_network_that_gives_its_input_back_does_not_spoil_it():
    tile = torch.randn(1, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = tile.softmax(1)
    for networks in ([torch.nn.Identity()], [torch.nn.Identity(), torch.nn.Identity()]):
        torch.testing.assert_close(mean_probabilities(tile, networks, regions=False), expected)


def test_half_precision_networks_are_averaged_in_single_precision():
    class Half(Random):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return super().forward(image).bfloat16()

    found = mean_probabilities(TILE, [Half(), Half()], regions=False)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(1, *TILE.shape[2:]))


def test_no_network_is_refused():
    with pytest.raises(ModelError, match="at least one network"):
        mean_probabilities(TILE, [], regions=False)


def test_networks_are_put_into_evaluation_mode():
    network = Random().train()
    assert ready_networks([network], torch.device("cpu")) == [network]
    assert not network.training


LEVELS = {"features": (8, 16), "strides": ((1, 1, 1), (2, 2, 2)), "kernels": ((3, 3, 3),) * 2}
PLANS = {
    "swin": makers.network_plan(),
    "swin, stem": makers.network_plan(fusion=replace(makers.network_plan().fusion, placement="stem")),
    "unet": UNetPlan(name="unet3d", checkpointing=False, **LEVELS),
    "resenc": ResEncPlan(name="resenc_unet", checkpointing=False, blocks=(1, 1), **LEVELS),
    "transformer": UNetTransformerPlan(
        name="unet3d_transformer", checkpointing=False, layers=1, heads=2, **LEVELS
    ),
    "cnn": CNNPlan(name="cnn3d", features=4, dilations=((1, 1, 1),) * 2, checkpointing=False),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_kernels_that_are_rounded_once_give_the_same_as_if_rounded_for_every_tile(plan):
    tile = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    network = plan.build(1, 3, spacing_mm=(1.0, 1.0, 1.0), patch_size=(32, 32, 32)).eval()
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)

    def predicted():
        return mean_probabilities(tile, [network], regions=False, amp_dtype=torch.bfloat16)

    expected = predicted()
    convert_kernels(Mirrored(network, [0, 1, 2]), torch.bfloat16)
    assert torch.equal(predicted(), expected)
    formats = {parameter.dtype for parameter in network.parameters()}
    assert torch.bfloat16 in formats


def test_kernels_are_converted_on_a_gpu_alone_and_in_networks_of_autospine_alone():
    def formats(network, device, half):
        (ready,) = ready_networks([network], torch.device(device), half)
        return {parameter.dtype for parameter in ready.parameters()}

    def built():
        return PLANS["unet"].build(1, 3, spacing_mm=(1.0, 1.0, 1.0), patch_size=(32, 32, 32))

    assert torch.bfloat16 in formats(built(), "meta", torch.bfloat16)
    assert formats(built(), "meta", None) == {torch.float32}
    assert formats(built(), "cpu", torch.bfloat16) == {torch.float32}
    assert formats(torch.nn.Conv3d(1, 3, 1), "meta", torch.bfloat16) == {torch.float32}


PAIRED = {"background": 0, "facet_left": 1, "body": 2, "facet_right": 3}
REGIONS = {"background": 0, "all": [1, 2, 3], "facet_left": [1], "facet_right": [3]}
ORDER = [2, 1, 3]


def mirroring(names, order=None):
    """A label space, and the augmentation that the planner chooses for it."""
    labels = parse_labels(names, order)
    axes, pairs, _ = rules.mirroring(labels)
    return labels, replace(makers.configuration().augmentation, mirror_axes=axes, mirror_pairs=pairs)


@pytest.mark.parametrize(
    ("names", "order", "expected"),
    [
        (PAIRED, None, [0, 3, 2, 1]),
        (REGIONS, ORDER, [0, 2, 1]),
        ({"background": 0, "L1": 1, "L2": 2}, None, [0, 1, 2]),
    ],
)
def test_side_specific_channels_change_places(names, order, expected):
    assert mirrored_channels(*mirroring(names, order)) == expected


@pytest.mark.parametrize(("names", "order"), [(PAIRED, None), (REGIONS, ORDER)])
def test_with_mirrored_views_the_mirror_image_has_the_mirrored_scores(names, order):
    labels, strength = mirroring(names, order)
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, labels.n_channels, 3, padding=1)
    views = with_mirror([network], labels, strength)
    tile = torch.randn(1, 1, 6, 5, 8)
    scores, of_mirror = (
        mean_probabilities(one, views, regions=labels.regions) for one in (tile, tile.flip(-1))
    )
    channels = mirrored_channels(labels, strength)
    torch.testing.assert_close(of_mirror, scores[:, channels].flip(-1))
    alone = mean_probabilities(tile, [network], regions=labels.regions)
    assert not torch.allclose(alone, scores, atol=1e-3)


def test_every_network_has_its_mirrored_view():
    networks = [torch.nn.Conv3d(1, 4, 1) for _ in range(3)]
    views = with_mirror(networks, *mirroring(PAIRED))
    assert views[::2] == networks
    assert [view.network for view in views[1::2]] == networks


def test_a_model_that_was_not_trained_so_is_refused():
    labels, strength = mirroring({"background": 0, "facet_left": 1, "body": 2})
    assert strength.mirror_axes == ()
    with pytest.raises(ModelError, match="expected a model that was trained with left and right mirrored"):
        with_mirror([torch.nn.Conv3d(1, 3, 1)], labels, strength)


def test_regions_without_a_counterpart_are_refused():
    _, strength = mirroring(PAIRED)
    strange = parse_labels({"background": 0, "some": [1, 2], "right": [3]}, [1, 3])
    with pytest.raises(ModelError, match="leave --mirror out"):
        with_mirror([torch.nn.Conv3d(1, 2, 1)], strange, strength)
