import pytest
import torch
import torch.nn.functional as F

from autospine.errors import PlanError
from autospine.network.fusion import FusionSettings, PatchEmbedding

KERNELS = ((2, 2, 2), (4, 6, 4), (3, 2, 5), (1, 1, 1))


def test_starts_as_the_plain_embedding() -> None:
    fused = PatchEmbedding(2, 5, (2, 2, 2), FusionSettings(kernel_sizes=KERNELS))
    plain = PatchEmbedding(2, 5, (2, 2, 2))
    plain.load_state_dict(fused.state_dict(), strict=False)
    image = torch.randn(2, 2, 8, 6, 4)
    torch.testing.assert_close(fused(image), plain(image), atol=1e-6, rtol=1e-5)
    fused(image).sum().backward()
    assert isinstance(fused.scale_weights.grad, torch.Tensor) and fused.scale_weights.grad.abs().min() > 0


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_equals_the_weighted_sum_of_convolutions(stride: tuple[int, int, int]) -> None:
    kernels = (stride, (3, 4, 6), (5, 3, 2))
    module = PatchEmbedding(1, 4, stride, FusionSettings(kernel_sizes=kernels)).double()
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
    ones = PatchEmbedding(1, 4, (2, 2, 2), FusionSettings(kernel_sizes=KERNELS, weighting="ones"))
    off = PatchEmbedding(1, 4, (2, 2, 2), FusionSettings(kernel_sizes=KERNELS, weighting="off"))
    assert ones.scale_weights.tolist() == [1.0] * 4 and not ones.scale_weights.requires_grad
    assert len(off.scales) == 0


@pytest.mark.parametrize("kernels", [(), ((2, 2, 2), (0, 3, 3)), ((4, 4, 4),)])
def test_impossible_kernels_are_refused(kernels: tuple[tuple[int, int, int], ...]) -> None:
    with pytest.raises(PlanError, match="kernel"):
        PatchEmbedding(1, 4, (2, 2, 2), FusionSettings(kernel_sizes=kernels))
