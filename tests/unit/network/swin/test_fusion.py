import pytest
import torch
import torch.nn.functional as F

from autospine.core.errors import PlanError
from autospine.network import AdaptiveSwinUNETR
from autospine.network.swin.fusion import LevelFusion, PatchEmbedding, Stem
from autospine.network.swin.swin_settings import FusionPlacement, FusionSettings, FusionWeighting

KERNELS = ((2, 2, 2), (4, 6, 4), (3, 2, 5), (1, 1, 1))


def test_starts_as_the_plain_embedding() -> None:
    fused = PatchEmbedding(2, 5, (2, 2, 2), FusionSettings(kernels=KERNELS))
    plain = PatchEmbedding(2, 5, (2, 2, 2))
    plain.load_state_dict(fused.state_dict(), strict=False)
    image = torch.randn(2, 2, 8, 6, 4)
    torch.testing.assert_close(fused(image), plain(image), atol=1e-6, rtol=1e-5)
    fused(image).sum().backward()
    assert isinstance(fused.scale_weights.grad, torch.Tensor) and fused.scale_weights.grad.abs().min() > 0


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_equals_the_weighted_sum_of_convolutions(stride: tuple[int, int, int]) -> None:
    kernels = (stride, (3, 4, 6), (5, 3, 2))
    module = PatchEmbedding(1, 4, stride, FusionSettings(kernels=kernels)).double()
    with torch.no_grad():
        module.scale_weights.normal_()
    image = torch.randn(1, 1, 6, 8, 10, dtype=torch.float64)
    expected = torch.zeros(())
    for weight, kernel in zip(module.scale_weights, [module.weight, *module.scales], strict=True):
        padding: list[int] = []
        for size, step in zip(reversed(kernel.shape[2:]), reversed(stride), strict=True):
            low = (size - step + 1) // 2
            padding += [low, size - step - low]
        expected = expected + weight * F.conv3d(F.pad(image, padding), kernel, stride=stride)
    expected = (expected + module.bias.view(1, -1, 1, 1, 1)).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(module(image), expected)


def test_weights_can_be_fixed() -> None:
    ones = PatchEmbedding(1, 4, (2, 2, 2), FusionSettings(kernels=KERNELS, weighting="ones"))
    off = PatchEmbedding(1, 4, (2, 2, 2), None)
    assert ones.scale_weights.tolist() == [1.0] * 4 and not ones.scale_weights.requires_grad
    assert len(off.scales) == 0


@pytest.mark.parametrize("kernels", [(), ((2, 2, 2), (0, 3, 3)), ((4, 4, 4),)])
def test_impossible_kernels_are_refused(kernels: tuple[tuple[int, int, int], ...]) -> None:
    with pytest.raises(PlanError, match="kernel"):
        PatchEmbedding(1, 4, (2, 2, 2), FusionSettings(kernels=kernels))


def test_stem_is_the_residual_of_its_scales() -> None:
    """Even kernels grow to the next odd size, and equal ones collapse."""
    stem = Stem(2, FusionSettings(kernels=((2, 2, 1), (3, 3, 1), (4, 6, 3)), placement="stem")).double()
    assert [tuple(kernel.shape[2:]) for kernel in stem.scales] == [(3, 3, 1), (5, 7, 3)]
    image = torch.randn(1, 2, 6, 8, 4, dtype=torch.float64)
    assert torch.equal(stem(image), image)
    with torch.no_grad():
        stem.projection.normal_()
        stem.scale_weights.normal_()
    features = sum(
        weight * F.conv3d(image, kernel, padding="same")
        for weight, kernel in zip(stem.scale_weights, stem.scales, strict=True)
    )
    assert isinstance(features, torch.Tensor)
    added = torch.einsum("cm,bmspl->bcspl", stem.projection, F.leaky_relu(features, 0.01))
    torch.testing.assert_close(stem(image), image + added)


@pytest.mark.parametrize("placement", ["embedding", "stem", "both"])
def test_every_placement_starts_plain_and_learns(placement: FusionPlacement) -> None:
    small = {"feature_size": 8, "num_heads": (1, 2, 4, 8), "depths": (1, 1, 1, 1), "window_size": 2}
    fusion = FusionSettings(kernels=((2, 2, 2), (4, 4, 4)), placement=placement)
    fused, plain = AdaptiveSwinUNETR(1, 3, fusion=fusion, **small), AdaptiveSwinUNETR(1, 3, **small)  # type: ignore[arg-type]
    plain.load_state_dict(fused.state_dict(), strict=False)
    image = torch.randn(1, 1, 64, 32, 32)
    torch.testing.assert_close(fused(image), plain(image), atol=1e-5, rtol=1e-4)
    assert len(fused.fusion_weights()) == (4 if placement == "both" else 2)
    optimiser = torch.optim.SGD(fused.parameters(), lr=0.1)
    for _ in range(3):  # projection, then weights, then kernels leave zero
        optimiser.zero_grad()
        fused(image).square().mean().backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in fused.parameters())


def test_without_settings_nothing_is_left_of_the_fusion() -> None:
    network = AdaptiveSwinUNETR(1, 3, feature_size=8, num_heads=(1, 2, 4, 8), fusion=None)
    assert network.stem is None and network.fusion_weights().tolist() == [1.0]


def test_levels_are_the_weighted_sum_of_their_own_logits() -> None:
    module = LevelFusion((3, 5, 7), 4, ((2, 2, 2), (1, 2, 2), (2, 1, 2)), "trainable").double()
    with torch.no_grad():
        module.level_weights.normal_()
    sizes = ((4, 6, 8), (4, 3, 4), (2, 3, 2))
    levels = [
        torch.randn(2, *size, width, dtype=torch.float64)
        for size, width in zip(sizes, (3, 5, 7), strict=True)
    ]
    expected = torch.zeros(2, 4, *sizes[0], dtype=torch.float64)
    for weight, head, level in zip(module.level_weights, module.heads, levels, strict=True):
        logits = weight * head(level).permute(0, 4, 1, 2, 3)
        expected = expected + F.interpolate(logits, size=sizes[0], mode="nearest")
    torch.testing.assert_close(module(levels), expected.permute(0, 2, 3, 4, 1))


@pytest.mark.parametrize("weighting", ["trainable", "ones"])
def test_the_network_adds_the_logits_of_its_levels(weighting: FusionWeighting) -> None:
    fusion = FusionSettings(kernels=((2, 2, 2),), weighting=weighting, levels=True)
    torch.manual_seed(0)
    network = AdaptiveSwinUNETR(1, 3, feature_size=12, window_size=2, fusion=fusion, depths=(1, 1, 1, 1))
    assert network.level_weights().tolist() == [1.0] * 4
    image = torch.randn(2, 1, 32, 32, 32)
    logits, coarse = network.with_coarse(image)
    module = network.level_fusion
    assert module is not None
    with torch.no_grad():
        levels = module([level.permute(0, 2, 3, 4, 1) for level in coarse]).permute(0, 4, 1, 2, 3)
        module.level_weights.zero_()
        torch.testing.assert_close(
            logits, network(image) + F.interpolate(levels, scale_factor=2.0, mode="nearest")
        )
    network(image).square().sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert isinstance(module.level_weights, torch.nn.Parameter) == (weighting == "trainable")


def test_a_network_without_levels_has_no_weights_of_them() -> None:
    network = AdaptiveSwinUNETR(
        1, 3, feature_size=12, window_size=2, fusion=FusionSettings(kernels=KERNELS[:1])
    )
    assert network.level_weights().numel() == 0
    assert not [name for name in network.state_dict() if "level" in name]
