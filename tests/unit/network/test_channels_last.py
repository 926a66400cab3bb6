"""Feature maps of the compared networks with channels last, as they lie on a GPU in 16 bits."""

from collections.abc import Callable

import pytest
import torch
from gpu_count import META, counted
from torch import Tensor, nn

from autospine.network import base, normalisation, resenc_unet, unet
from autospine.network.base import SegmentationNetwork, reads_channels_last
from autospine.network.cnn3d import CNN3D
from autospine.network.normalisation import instance_norm, lies_last
from autospine.network.resenc_unet import ResEncUNet, average_pool
from autospine.network.unet import ConvNorm, Head, UpStage
from autospine.network.unet3d import UNet3D
from autospine.network.unet3d_transformer import UNet3DTransformer
from autospine.network.unet_plans import UNetPlan

LEVELS = UNetPlan(
    name="unet3d",
    features=(8, 16, 24),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 1)),
    kernels=((3, 3, 3), (3, 3, 1), (3, 3, 3)),
    checkpointing=False,
)
NETWORKS = {
    "unet3d": lambda channels, **more: UNet3D(channels, 3, LEVELS, **more),
    "resenc_unet": lambda channels, **more: ResEncUNet(channels, 3, LEVELS, blocks=(1, 2, 2), **more),
    "transformer": lambda channels, **more: UNet3DTransformer(channels, 3, LEVELS, layers=1, heads=2, **more),
    "cnn3d": lambda channels, **more: CNN3D(
        channels, 3, features=8, dilations=((1, 1, 1), (2, 2, 2)), **more
    ),
}
EVERY = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
LAST = torch.channels_last_3d


def is_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=LAST) and x.stride(1) == 1


@pytest.fixture
def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks on the CPU do what they do on a GPU, where cuDNN's convolutions keep the format."""

    def keeping(convolve: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(x: Tensor, weight: Tensor, *others: object, **settings: object) -> Tensor:
            y = convolve(x, weight, *others, **settings)
            return y.contiguous(memory_format=LAST) if is_last(x) or is_last(weight) else y

        return call

    monkeypatch.setattr(base, "reads_channels_last", lambda *_: True)
    monkeypatch.setattr(unet, "conv3d", keeping(unet.conv3d))
    monkeypatch.setattr(nn.functional, "conv_transpose3d", keeping(nn.functional.conv_transpose3d))
    for module in (normalisation, resenc_unet, unet):
        monkeypatch.setattr(module, "lies_last", is_last)


def passed(network: SegmentationNetwork, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of the parameters."""
    network.zero_grad()
    logits = network(image)
    logits.square().mean().backward()
    return logits.detach(), {name: p.grad.clone() for name, p in network.named_parameters()}


def test_channels_lie_last_in_16_bits_on_a_gpu_that_reads_them_so(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert reads_channels_last(gpu, torch.bfloat16)
    assert reads_channels_last(gpu, torch.float16)
    assert not reads_channels_last(gpu, torch.float32)
    assert not reads_channels_last(torch.device("cpu"), torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert not reads_channels_last(gpu, torch.float16)


@EVERY
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_logits_and_gradients_are_the_same(make, channels, checkpointing, request):
    torch.manual_seed(0)
    network = make(channels, checkpointing=checkpointing).double()
    for name, parameter in network.named_parameters():
        if "norm_" in name:
            nn.init.normal_(parameter)
    image = torch.randn(2, channels, 8, 12, 8, dtype=torch.float64)
    logits, gradients = passed(network, image)
    state = {name: tensor.stride() for name, tensor in network.state_dict().items()}
    request.getfixturevalue("as_on_gpu")
    others, other_gradients = passed(network, image)
    assert is_last(others) and not is_last(logits)
    torch.testing.assert_close(others, logits)
    torch.testing.assert_close(other_gradients, gradients)
    assert {name: tensor.stride() for name, tensor in network.state_dict().items()} == state


@EVERY
def test_the_format_is_kept_through_the_network(make):
    with META:
        network = make(1)
    network.compute_dtype = torch.bfloat16
    seen: dict[str, bool] = {}
    for name, module in network.named_modules():
        if isinstance(module, ConvNorm | Head | UpStage):
            module.register_forward_hook(lambda _, given, out, name=name: seen.update({name: is_last(out)}))
    image = torch.zeros(2, 1, 16, 16, 16, device=META)
    with counted() as spy:
        logits = network(image)
        logits.float().mean().backward()
    assert seen and all(seen.values()), seen
    assert is_last(logits)
    assert spy.count.of("native_group_norm").launches == 0
    # The tokens of a Transformer at the coarsest level are one small copy.
    assert spy.count.of("clone").bytes <= 2 * 2 * 2 * 24 * 8 * 8 * 16


def test_the_mean_over_blocks_keeps_the_format(as_on_gpu):
    x = torch.randn(2, 6, 4, 4, 2).to(memory_format=LAST)
    pooled = average_pool(x, (2, 2, 1))
    assert is_last(pooled)
    torch.testing.assert_close(pooled, nn.functional.avg_pool3d(x, (2, 2, 1)))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_affine_norm_and_its_gradients(batch, as_on_gpu):
    torch.manual_seed(0)
    shape = (batch, 3, 2, 3, 2)
    x = torch.randn(shape, dtype=torch.float64).to(memory_format=LAST).requires_grad_()
    weight, bias = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    y = instance_norm(x, weight, bias)
    assert is_last(y)
    torch.testing.assert_close(y, nn.functional.instance_norm(x.contiguous(), weight=weight, bias=bias))
    assert torch.autograd.gradcheck(instance_norm, (x, weight, bias))


def test_a_map_of_one_channel_has_the_format_that_its_strides_say():
    with META:
        x = torch.zeros(1, 1, 4, 4, 4)
    assert not lies_last(x)
    assert lies_last(torch.empty_like(x, memory_format=LAST))
