"""The compared networks: sizes, gradients, number formats, learning; and what they refuse."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from autospine.core.errors import PlanError
from autospine.core.types import Shape3
from autospine.network.base import SegmentationNetwork
from autospine.network.cnn3d import CNN3D
from autospine.network.normalisation import instance_norm
from autospine.network.resenc_unet import ResEncUNet, average_pool
from autospine.network.unet3d import UNet3D
from autospine.network.unet3d_transformer import PositionEmbedding, UNet3DTransformer
from autospine.network.unet_plans import UNetPlan

Make = Callable[..., SegmentationNetwork]

ISOTROPIC = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
THICK = ((1, 1, 1), (2, 2, 1), (2, 2, 1))
FLAT = ((3, 3, 1), (3, 3, 1), (3, 3, 3))
CUBES = ((3, 3, 3),) * 3


def unet_levels(features, strides, kernels) -> UNetPlan:
    return UNetPlan(name="unet3d", features=features, strides=strides, kernels=kernels, checkpointing=False)


def levels(strides: tuple[Shape3, ...]) -> UNetPlan:
    kernels = FLAT if strides == THICK else CUBES
    return unet_levels((4, 8, 16)[: len(strides)], strides, kernels[: len(strides)])


def unet3d(strides=ISOTROPIC, **more) -> SegmentationNetwork:
    return UNet3D(2, 3, levels(strides), **more)


def resenc_unet(strides=ISOTROPIC, **more) -> SegmentationNetwork:
    return ResEncUNet(2, 3, levels(strides), blocks=(1, 3, 2)[: len(strides)], **more)


def unet3d_transformer(strides=ISOTROPIC, **more) -> SegmentationNetwork:
    return UNet3DTransformer(2, 3, levels(strides), layers=2, heads=2, **more)


def cnn3d(strides=ISOTROPIC, **more) -> SegmentationNetwork:
    return CNN3D(2, 3, features=4, dilations=strides, **more)


NETWORKS = pytest.mark.parametrize("make", [unet3d, resenc_unet, unet3d_transformer, cnn3d])


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@NETWORKS
@pytest.mark.parametrize(
    ("strides", "size"),
    [
        (ISOTROPIC, (16, 12, 8)),
        (THICK, (16, 12, 3)),
        (((1, 1, 1),), (3, 5, 4)),
        (ISOTROPIC, (4, 4, 4)),
    ],
)
def test_logits_are_as_large_as_the_image(make: Make, strides, size):
    """Isotropic, thick-sliced, without any stride, and down to a single voxel."""
    network = make(strides)
    logits = network(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    assert torch.isfinite(logits).all()
    if make is not cnn3d:
        expected = [1, 1, 1]
        for stride in strides:
            expected = [e * s for e, s in zip(expected, stride, strict=True)]
        assert network.divisor == tuple(expected)


@NETWORKS
@pytest.mark.parametrize("strides", [ISOTROPIC, THICK])
def test_the_gradient_reaches_every_parameter(make: Make, strides):
    network = make(strides)
    network(torch.randn(1, 2, 16, 16, 8)).square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not still


@NETWORKS
@pytest.mark.parametrize("route", ["compute_dtype", "autocast"])
def test_bfloat16_is_near_float32(make: Make, route):
    network = make().eval()
    image = torch.randn(1, 2, 16, 16, 16)
    exact = network(image)
    with torch.autocast("cpu", torch.bfloat16, enabled=route == "autocast"):
        network.compute_dtype = torch.bfloat16 if route == "compute_dtype" else None
        rough = network(image)
    assert exact.dtype == torch.float32
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).std() < 0.05 * exact.std()


@NETWORKS
def test_gradients_in_bfloat16_are_near_those_in_float32(make: Make):
    image, direction = torch.randn(1, 2, 16, 16, 16), torch.randn(1, 3, 16, 16, 16)
    network = make()
    gradients = []
    for dtype in (None, torch.bfloat16):
        network.compute_dtype = dtype
        network.zero_grad()
        (network(image).float() * direction).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    exact, rough = gradients
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=0) > 0.98


@NETWORKS
def test_checkpointing_changes_no_gradient(make: Make):
    plain, thrifty = make(), make(checkpointing=True)
    thrifty.load_state_dict(plain.state_dict())
    image = torch.randn(1, 2, 8, 8, 8)
    for network in (plain, thrifty):
        network(image).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_a_batch_is_as_its_samples():
    for make in (unet3d, resenc_unet, unet3d_transformer, cnn3d):
        network, images = make().double(), torch.randn(3, 2, 8, 8, 8, dtype=torch.float64)
        each = torch.cat([network(image[None]) for image in images])
        torch.testing.assert_close(network(images), each)


def test_the_norm_is_torchs_instance_norm():
    weight, bias = torch.randn(4), torch.randn(4)
    x = torch.randn(2, 4, 5, 6, 7)
    expected = nn.functional.instance_norm(x, weight=weight, bias=bias, eps=1e-5)
    torch.testing.assert_close(instance_norm(x, weight, bias), expected)


def test_pooling_is_torchs():
    x = torch.randn(2, 3, 4, 6, 5)
    torch.testing.assert_close(average_pool(x, (2, 2, 1)), nn.functional.avg_pool3d(x, (2, 2, 1)))


def test_the_transformer_sees_all_of_the_image():
    """A change in one corner is felt in the opposite one, beyond the reach of the convolutions' kernels."""
    network = unet3d_transformer().eval()
    image = torch.zeros(1, 2, 64, 8, 8).normal_()
    changed = image.clone()
    changed[..., 0, 0, 0] += 5
    seen: list[torch.Tensor] = []
    network.norm.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    for each in (image, changed):
        network(each)
    before, after = seen
    assert ((before - after).abs().amax(1) > 0).all()


def test_places_keep_their_embedding_in_a_larger_grid():
    position = PositionEmbedding(8)
    small = position(torch.zeros(1, 8, 2, 3, 4)).view(2, 3, 4, 8)
    large = position(torch.zeros(1, 8, 4, 5, 6)).view(4, 5, 6, 8)
    torch.testing.assert_close(large[1:3, 1:4, 1:5], small)
    assert len(torch.unique(small.view(-1, 8), dim=0)) == 24


def test_dilations_decide_how_far_the_plain_network_sees():
    network = CNN3D(1, 1, features=2, dilations=((1, 1, 1), (4, 2, 1))).double()
    for norm in network.layers:  # norms mix all voxels
        norm.forward = lambda x, layer=norm: nn.functional.conv3d(
            x, layer.weight, padding=layer.padding, dilation=layer.dilation
        )
    image = torch.zeros(1, 1, 21, 21, 21, dtype=torch.float64, requires_grad=True)
    network(image)[0, 0, 10, 10, 10].backward()
    reach = [int((index - 10).abs().max()) for index in image.grad[0, 0].nonzero(as_tuple=True)]
    assert reach == [5, 3, 2]


@NETWORKS
def test_an_image_that_does_not_fit_is_refused(make: Make):
    with pytest.raises(PlanError, match="expected an image"):
        make()(torch.zeros(1, 3, 16, 16, 16))
    if make is not cnn3d:
        with pytest.raises(PlanError, match="multiples of"):
            make()(torch.zeros(1, 2, 16, 16, 18))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: unet_levels((4, 8), ((1, 1, 1),), CUBES), "as many levels"),
        (lambda: unet_levels((4,), ((0, 1, 1),), ((3, 3, 3),)), "at least 1"),
        (lambda: unet_levels((4,), ((1, 1, 1),), ((2, 3, 3),)), "odd kernels"),
        (lambda: ResEncUNet(1, 1, levels(ISOTROPIC), blocks=(1, 1)), "residual block"),
        (lambda: UNet3DTransformer(1, 1, levels(ISOTROPIC), layers=1, heads=3), "heads that divide"),
        (lambda: CNN3D(1, 1, features=4, dilations=()), "dilations"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(make, message):
    with pytest.raises(PlanError, match=message):
        make()


def test_resenc_has_as_many_parameters_as_by_hand():
    """Stem, one block at full resolution, one with stride and projection, one decoder stage, head."""
    network = ResEncUNet(1, 3, unet_levels((4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2), blocks=(1, 2))

    def convolution(i: int, o: int, k: int = 27) -> int:
        return i * o * k + 2 * o

    stem = convolution(1, 4)
    first = 2 * convolution(4, 4)
    second = convolution(4, 8) + convolution(8, 8) + convolution(4, 8, 1) + 2 * convolution(8, 8)
    up = 8 * 4 * 8 + 4 + convolution(8, 4)
    assert sum(p.numel() for p in network.parameters()) == stem + first + second + up + 4 * 3 + 3
