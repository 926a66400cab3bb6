from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autospine.network import normalisation
from autospine.network.normalisation import (
    norm_act,
    norm_act_together_backward,
    normalise_samples,
    normalise_samples_backward,
    normalise_together,
    normalise_together_backward,
)


def reference(x: Tensor, residual: Tensor | None, normalise_residual: bool) -> Tensor:
    """The same from torch's own instance norm, channels first."""
    y = F.instance_norm(x.permute(0, 4, 1, 2, 3))
    if residual is not None:
        r = residual.permute(0, 4, 1, 2, 3)
        y = y + (F.instance_norm(r) if normalise_residual else r)
    return F.leaky_relu(y, 0.01).permute(0, 2, 3, 4, 1)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("with_residual, normalise", [(False, False), (True, False), (True, True)])
def test_equals_instance_norm_and_has_right_gradients(
    batch: int, with_residual: bool, normalise: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, 2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    residual = torch.randn_like(x, requires_grad=True) if with_residual else None

    def call(x: Tensor, residual: Tensor | None) -> Tensor:
        return norm_act(x, residual, normalise_residual=normalise)

    torch.testing.assert_close(call(x, residual), reference(x, residual, normalise))
    assert torch.autograd.gradcheck(call, (x, residual))


def test_single_voxel_passes_unnormalised() -> None:
    x = torch.tensor([[2.0, -1.0]]).view(1, 1, 1, 1, 2).requires_grad_()
    y = norm_act(x)
    y.sum().backward()
    assert y.flatten().tolist() == pytest.approx([2.0, -0.01])
    assert x.grad is not None and x.grad.flatten().tolist() == pytest.approx([1.0, 0.01])


def test_statistics_stay_accurate_in_bfloat16() -> None:
    x = torch.randn(1, 8, 8, 8, 16) + 3
    exact = norm_act(x.bfloat16().float())
    half = norm_act(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=1e-3, rtol=2**-8)


def test_accepts_any_memory_layout() -> None:
    x = torch.randn(2, 4, 2, 3, 4).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(norm_act(x), norm_act(x.contiguous()))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "normalise, backward",
    [
        (normalise_samples, normalise_samples_backward),
        (normalise_together, normalise_together_backward),
    ],
    ids=["eager", "compiled"],
)
def test_the_norm_of_a_gpu_is_the_same_with_the_same_gradients(
    batch: int, normalise: Callable[..., tuple[Tensor, ...]], backward: Callable[..., Tensor]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, 24, 3, dtype=torch.float64, requires_grad=True)
    grad = torch.randn_like(x)
    # Written out: for a single sample with channels last, torch's instance norm has another gradient.
    deviation = x - x.mean(1, keepdim=True)
    expected = deviation / (deviation.square().mean(1, keepdim=True) + 1e-5).sqrt()
    (wanted,) = torch.autograd.grad(expected, x, grad)

    y, mean, inverse_std = normalise(x.detach())
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(mean, x.mean(1))
    torch.testing.assert_close(inverse_std, (x.var(1, correction=0) + 1e-5).rsqrt())
    torch.testing.assert_close(backward(grad, x.detach(), mean, inverse_std), wanted)


@pytest.mark.parametrize("many_voxels", [1, 1000], ids=["in parts", "at once"])
@pytest.mark.parametrize("norms", [1, 2])
def test_the_gradient_through_the_activation_is_the_same_where_a_compiler_joins_it(
    norms: int, many_voxels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(normalisation, "MANY_VOXELS", many_voxels)
    torch.manual_seed(0)
    inputs = [torch.randn(2, 24, 3, dtype=torch.float64, requires_grad=True) for _ in range(norms)]
    grad = torch.randn(2, 24, 3, dtype=torch.float64)
    maps = [x.view(2, 2, 3, 4, 3) for x in inputs]
    expected = norm_act(maps[0], *maps[1:], normalise_residual=norms == 2)
    wanted = torch.autograd.grad(expected, inputs, grad.view(expected.shape))
    known = [(x.detach(), *normalise_together(x.detach())[1:]) for x in inputs]
    for found, each in zip(norm_act_together_backward(grad, known), wanted, strict=True):
        torch.testing.assert_close(found, each)
