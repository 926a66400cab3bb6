import makers
import numpy as np
import pytest
import torch

from autospine.core.errors import ModelError
from autospine.inference.attention_scan import scan_attention
from autospine.plan import build_network

TILE = (16, 16, 16)


def network(**changes):
    plan = makers.plan(makers.configuration(network=makers.network_plan(**changes)))
    torch.manual_seed(0)
    return build_network(plan, plan.configurations[0]).eval()


def set_gamma(net, value: float) -> None:
    for name, parameter in net.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.constant_(parameter, value)


@pytest.fixture
def image() -> np.ndarray:
    """A bright half and a dark half, which meet in the middle of S."""
    values = np.zeros((1, 32, 16, 16), dtype=np.float32)
    values[:, 16:] = 2
    return values


def test_maps_lie_on_the_image_and_only_adaptive_stages_have_saliency(image):
    stages = scan_attention([network()], image, TILE)
    assert [each.stage for each in stages] == [1, 2, 3, 4]
    assert [None if each.saliency is None else each.saliency.shape for each in stages] == [
        (2, 32, 16, 16),
        (2, 32, 16, 16),
        None,
        None,
    ]
    assert all(each.received.shape == (32, 16, 16) for each in stages)
    assert all(np.isfinite(each.received).all() for each in stages)


def test_saliency_follows_gamma_and_the_gradient(image):
    """At the start it is 0; the weight of the gradient is 1, so that a positive gamma lifts edges."""
    net = network()
    assert not scan_attention([net], image, TILE)[0].saliency.any()
    set_gamma(net, 1.0)
    first = scan_attention([net], image, TILE)[0].saliency.mean(axis=(0, 2, 3))
    assert first[14:18].mean() > first[2:8].mean() + 0.1
    set_gamma(net, -1.0)
    assert scan_attention([net], image, TILE)[0].saliency.mean(axis=(0, 2, 3))[14:18].mean() < 0


def test_received_attention_is_one_on_average(image):
    for stage in scan_attention([network()], image[:, :16], TILE):
        assert stage.received.mean() == pytest.approx(1, abs=0.05)


def test_several_networks_are_averaged(image):
    first, second = network(), network()
    set_gamma(first, 0.5)
    alone = scan_attention([first], image, TILE)[0].saliency
    both = scan_attention([first, second], image, TILE)[0].saliency
    assert np.allclose(both, alone / 2, atol=1e-6)


def test_images_smaller_than_a_tile_are_taken(image):
    (first, *_) = scan_attention([network()], image[:, :10, :9, :12], TILE)
    assert first.received.shape == (10, 9, 12)


def test_networks_without_attention_are_refused(image):
    for other in (network(attention="identity", fusion=None), torch.nn.Conv3d(1, 3, 1)):
        with pytest.raises(ModelError, match="network with attention"):
            scan_attention([other], image, TILE)
