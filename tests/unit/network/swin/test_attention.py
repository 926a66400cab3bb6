import pytest
import torch
from torch import Tensor

from autospine.core.errors import PlanError
from autospine.network.swin.attention import KeySaliency, QueryTemperature, WindowAttention
from autospine.network.swin.attention_core import attend, attend_fused, attend_in_cache, received_attention
from autospine.network.swin.swin_settings import AttentionBounds
from autospine.network.swin.windows import relative_position_index, window_layout

HEADS, CHANNELS, WINDOW, GRID = 2, 6, (2, 2, 2), (4, 4, 2)
LAYOUT = window_layout(GRID, WINDOW, True, torch.device("cpu"))


def adaptive() -> WindowAttention:
    torch.manual_seed(0)
    module = WindowAttention(
        CHANNELS, HEADS, WINDOW, KeySaliency(CHANNELS, HEADS, 4.0), QueryTemperature(CHANNELS, HEADS, 1.0)
    )
    return module.double()


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    tokens = torch.randn(2, 32, CHANNELS, dtype=torch.float64)
    return tokens, torch.rand(2, 32, 1, dtype=torch.float64)


def reweighted(module: WindowAttention, tokens: Tensor, gradient: Tensor) -> Tensor:
    """Plain attention with a temperature, multiplied by exp(gamma_h s_j) and normalised again."""
    n = 8
    qkv = module.qkv(tokens).view(-1, n, 3, HEADS, CHANNELS // HEADS).permute(2, 0, 3, 1, 4)
    query, key, value = qkv
    assert module.temperature is not None and module.saliency is not None
    temperature = module.temperature
    score = tokens @ temperature.weight.T + gradient * temperature.gradient_weight
    tau = torch.tanh(score).exp().view(-1, n, HEADS).permute(0, 2, 1)[..., None]
    rows = relative_position_index(WINDOW, WINDOW, tokens.device)
    bias = module.bias_table[rows].view(n, n, HEADS).permute(2, 0, 1)
    assert LAYOUT.query_mask is not None and LAYOUT.key_mask is not None
    mask = (LAYOUT.query_mask @ LAYOUT.key_mask.transpose(1, 2)).double().repeat(2, 1, 1)[:, None]
    weights = torch.softmax(tau * query @ key.transpose(2, 3) * (CHANNELS // HEADS) ** -0.5 + bias + mask, -1)
    s = (
        tokens @ module.saliency.weight
        + module.saliency.gradient_weight * gradient[..., 0]
        + module.saliency.bias
    )
    logits = 4 * torch.tanh(s[..., None] * module.saliency.gamma / 4)
    weights = weights * logits.view(-1, n, HEADS).permute(0, 2, 1)[:, :, None].exp()
    weights = weights / weights.sum(-1, keepdim=True)
    return module.projection((weights @ value).transpose(1, 2).reshape(tokens.shape))


def test_equals_explicit_reweighting() -> None:
    module = adaptive()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    tokens, gradient = inputs()
    expected = reweighted(module, tokens, gradient)
    torch.testing.assert_close(module(tokens, LAYOUT, gradient), expected, atol=1e-10, rtol=1e-10)


def test_starts_as_plain_attention_and_can_leave_it() -> None:
    module = adaptive()
    plain = WindowAttention(CHANNELS, HEADS, WINDOW).double()
    plain.load_state_dict(module.state_dict(), strict=False)
    tokens, gradient = inputs()
    out = module(tokens, LAYOUT, gradient)
    torch.testing.assert_close(out, plain(tokens, LAYOUT), atol=1e-12, rtol=0.0)
    out.square().sum().backward()
    assert module.saliency is not None and module.temperature is not None
    for parameter in (module.saliency.gamma, module.temperature.weight, module.temperature.gradient_weight):
        assert parameter.grad is not None and parameter.grad.abs().min() > 0


def test_received_attention_is_the_sum_over_queries() -> None:
    """Queries in the padding do not count; windows are shifted, so masks do."""
    layout = window_layout((5, 4, 3), (2, 4, 2), True, torch.device("cpu"))
    n, windows = layout.tokens_per_window, layout.to_windows.numel() // layout.tokens_per_window
    torch.manual_seed(0)
    qkv = torch.randn(2, windows, n, 3, HEADS, 3)
    factor, saliency = torch.rand(2, windows, n, HEADS), torch.randn(2, windows, n, HEADS)
    bias = torch.randn(HEADS, n, n)
    q, k, _ = qkv.permute(3, 0, 1, 4, 2, 5)
    assert layout.query_mask is not None and layout.key_mask is not None
    mask = (layout.query_mask @ layout.key_mask.transpose(1, 2))[None, :, None]
    logits = (q * factor.transpose(2, 3)[..., None]) @ k.transpose(3, 4) + bias + mask
    weights = torch.softmax(logits + saliency.transpose(2, 3)[..., None, :], dim=-1)
    real = (layout.to_windows < 60).view(1, windows, 1, n, 1)
    expected = (weights * real).sum(3).transpose(2, 3)
    received = received_attention(qkv, factor, saliency, bias, layout)
    torch.testing.assert_close(received, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_scores_beyond_the_range_of_the_exponential(scale: float) -> None:
    """Logits of some hundreds overflow an exponential in float32; the product must not show it."""
    layout = window_layout((4, 4, 4), (4, 4, 4), False, torch.device("cpu"))
    torch.manual_seed(0)
    qkv = (torch.randn(1, 1, 64, 3, HEADS, 4) * scale).requires_grad_()
    bias = torch.randn(HEADS, 64, 64)
    q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)
    expected = (torch.softmax(q @ k.transpose(3, 4) + bias, dim=-1) @ v).transpose(2, 3)
    out = attend(qkv, 1.0, None, bias, layout)
    torch.testing.assert_close(out, expected, atol=1e-4 * scale, rtol=1e-3)
    weight = torch.randn_like(out)
    (gradient,) = torch.autograd.grad((out * weight).sum(), qkv, retain_graph=True)
    (right,) = torch.autograd.grad((expected * weight).sum(), qkv)
    torch.testing.assert_close(gradient, right, atol=1e-3 * scale, rtol=1e-2)


def test_bias_is_gathered_once_per_version_of_the_table() -> None:
    module = adaptive()
    with torch.no_grad():
        first = module._bias(WINDOW)
        assert module._bias(WINDOW) is first
        module.bias_table.mul_(2.0)
        torch.testing.assert_close(module._bias(WINDOW), 2.0 * first)
    assert module._bias(WINDOW).requires_grad


def test_saliency_is_bounded() -> None:
    saliency = KeySaliency(CHANNELS, HEADS, 4.0)
    with torch.no_grad():
        saliency.gamma.fill_(1e6)
    tokens, gradient = inputs()
    assert saliency(tokens.float(), gradient.float()).abs().max() <= 4.0


def product_inputs(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = ((1, 4, n, 3, HEADS, 3), (1, 4, n, HEADS), (1, 4, n, HEADS), (HEADS, n, n))
    qkv, factor, saliency, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    return qkv, factor, saliency, bias


@pytest.mark.parametrize("shifted", [False, True])
def test_attention_product_has_right_gradients(shifted: bool) -> None:
    layout = window_layout(GRID, WINDOW, shifted, torch.device("cpu"))

    def call(qkv: Tensor, factor: Tensor, saliency: Tensor | None, bias: Tensor) -> Tensor:
        return attend(qkv, factor, saliency, bias, layout)

    qkv, factor, saliency, bias = product_inputs(8)
    assert torch.autograd.gradcheck(call, (qkv, factor, saliency, bias))
    assert torch.autograd.gradcheck(call, (qkv, factor, None, bias))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("salient", [False, True])
def test_the_fused_kernel_gives_the_same_product_and_gradients(shifted: bool, salient: bool) -> None:
    """That of the GPU, which runs on a CPU too."""
    layout = window_layout((12, 12, 4), (6, 6, 4), shifted, torch.device("cpu"))
    inputs = [x.detach().requires_grad_() for x in product_inputs(144)]
    qkv, factor, saliency, bias = inputs
    direction = torch.randn(qkv[..., 0, :, :].shape, dtype=qkv.dtype)
    results = []
    for product in (attend_in_cache, attend_fused):
        out = product(qkv, factor, saliency if salient else None, bias, layout)
        wanted = inputs if salient else [qkv, factor, bias]
        results.append((out, *torch.autograd.grad(out, wanted, direction)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-8)


def test_what_all_biases_have_in_common_does_not_cost_precision() -> None:
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, (4, 4, 4))
    layout = window_layout((4, 4, 4), (4, 4, 4), False, torch.device("cpu"))
    tokens = torch.randn(1, 64, 8)
    with torch.no_grad():
        exact = attention(tokens, layout)
        attention.bias_table += 80
        half = attention(tokens.bfloat16(), layout)
    assert (half.float() - exact).norm() <= 0.02 * exact.norm()


@pytest.mark.parametrize("field", ["saliency", "temperature", "gradient_sigma_mm"])
def test_bounds_refuse_nonsense(field: str) -> None:
    with pytest.raises(PlanError, match="expected a positive saliency bound"):
        AttentionBounds(**{field: 0.0})
