import pytest
import torch
from torch import Tensor

from autospine.errors import PlanError
from autospine.network.attention import AttentionSettings, KeySaliency, QueryTemperature, WindowAttention
from autospine.network.core import attend
from autospine.network.windows import relative_position_index, window_layout

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


def test_large_windows_agree_with_and_without_gradients() -> None:
    layout = window_layout((12, 12, 4), (6, 6, 4), True, torch.device("cpu"))
    qkv, factor, saliency, bias = (x.float() for x in product_inputs(144))
    with torch.no_grad():
        fused = attend(qkv, factor, saliency, bias, layout)
    torch.testing.assert_close(fused, attend(qkv, factor, saliency, bias, layout), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("field", ["saliency_bound", "temperature_bound", "gradient_sigma_mm"])
def test_settings_refuse_nonsense(field: str) -> None:
    with pytest.raises(PlanError, match="Expected a positive saliency bound"):
        AttentionSettings(**{field: 0.0})
