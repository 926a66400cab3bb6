import makers
import pytest
import torch
from torch import nn

from autospine.core.errors import TrainingError
from autospine.core.labels import IGNORE_INDEX
from autospine.network import AdaptiveSwinUNETR
from autospine.network.cnn3d import CNN3D
from autospine.network.resenc_unet import ResEncUNet
from autospine.network.unet3d import UNet3D
from autospine.network.unet3d_transformer import UNet3DTransformer
from autospine.network.unet_plans import UNetPlan
from trainers.losses.dice_ce import DiceCE
from trainers.supervision import HEADS, DeeplySupervised, supervise

IMAGE = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
LEVELS = UNetPlan(
    name="unet3d",
    features=(8, 8, 16),
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    checkpointing=False,
)


def networks() -> dict[str, tuple[nn.Module, list[int]]]:
    """Every network with a decoder, and the edges of its coarser maps of a patch of 16 voxels."""
    swin = AdaptiveSwinUNETR(
        1,
        3,
        feature_size=8,
        depths=(1, 1, 1, 1),
        num_heads=(2, 2, 4, 4),
        window_size=2,
        strides=((2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    )
    return {
        "swin": (swin, [8, 4, 2]),
        "unet": (UNet3D(1, 3, LEVELS), [8]),
        "resenc": (ResEncUNet(1, 3, LEVELS, blocks=(1, 1, 1)), [8]),
        "transformer": (UNet3DTransformer(1, 3, LEVELS, layers=1, heads=2), [8]),
    }


@pytest.mark.parametrize("name", networks())
def test_heads_see_the_decoder_and_leave_the_network_as_it_is(name):
    network, edges = networks()[name]
    before = set(network.state_dict())
    made = DeeplySupervised(network, 3)
    finest, *coarse = made(IMAGE)
    assert torch.equal(finest, network(IMAGE))
    assert [logits.shape[1:] for logits in coarse] == [(3, edge, edge, edge) for edge in edges]
    assert len(coarse) <= HEADS
    assert set(network.state_dict()) == before
    sum(logits.mean() for logits in coarse).backward()
    assert all(parameter.grad is not None for parameter in made.heads.parameters())


@pytest.mark.parametrize(
    "network", [CNN3D(1, 3, features=4, dilations=((1, 1, 1),)), nn.Conv3d(1, 3, 1)], ids=["cnn", "other"]
)
def test_networks_without_a_decoder_are_refused(network):
    with pytest.raises(
        TrainingError, match=rf"for --deep-supervision, found {type(network).__name__}; train without"
    ):
        DeeplySupervised(network, 3)


def test_levels_weigh_half_of_the_one_before():
    loss = DiceCE(makers.LABELS, lambda_ce=0.5)
    labels = torch.from_numpy(makers.column((16, 16, 16)))[None]
    outputs = [torch.randn(1, 3, edge, edge, edge) for edge in (16, 8, 4)]
    total, finest = supervise(loss, outputs, labels)
    alone = loss(outputs[0], labels)
    assert (finest.total, finest.parts) == (alone.total, alone.parts)
    assert all(torch.equal(a, b) for a, b in zip(finest.overlap, alone.overlap, strict=True))
    coarse = [
        loss(outputs[i], labels[:, 2**i // 2 :: 2**i, 2**i // 2 :: 2**i, 2**i // 2 :: 2**i]).total
        for i in (1, 2)
    ]
    expected = (4 * finest.total + 2 * coarse[0] + coarse[1]) / 7
    torch.testing.assert_close(total, expected)


def test_one_level_is_the_loss_itself():
    loss = DiceCE(makers.LABELS, lambda_ce=0.5)
    labels = torch.from_numpy(makers.column((16, 16, 16)))[None]
    logits = torch.randn(1, 3, 16, 16, 16)
    assert supervise(loss, [logits], labels)[0] == loss(logits, labels).total


def test_ignored_voxels_are_ignored_on_every_level():
    loss = DiceCE(makers.LABELS, lambda_ce=0.5)
    labels = torch.full((1, 8, 8, 8), IGNORE_INDEX, dtype=torch.uint8)
    outputs = [torch.randn(1, 3, edge, edge, edge) for edge in (8, 4)]
    assert supervise(loss, outputs, labels)[0] == pytest.approx(0.0)
