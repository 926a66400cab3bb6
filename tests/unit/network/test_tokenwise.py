import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autospine.network.tokenwise import MANY_TOKENS, add_product, layer_norm, linear

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}


def deviation(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 24), (1, 11, 7, 13, 24), (2, MANY_TOKENS, 5), (3, MANY_TOKENS + 1, 1)])
def test_linear_and_its_gradients_are_those_of_the_matrix_product(shape, dtype):
    torch.manual_seed(0)
    given = [torch.randn(*shape), torch.randn(14, shape[-1]), torch.randn(14)]
    given = [tensor.to(dtype).requires_grad_() for tensor in given]
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    found, expected = linear(*given), F.linear(*exact)
    assert found.dtype == dtype
    assert deviation(found, expected) <= TOLERANCE[dtype]
    direction = torch.randn(expected.shape, dtype=torch.float64)
    grads = torch.autograd.grad(found, given, direction.to(dtype))
    for grad, wanted in zip(grads, torch.autograd.grad(expected, exact, direction), strict=True):
        assert deviation(grad, wanted) <= TOLERANCE[dtype]


def test_linear_takes_float32_weights_for_half_precision_tokens():
    tokens = torch.randn(MANY_TOKENS, 8, dtype=torch.bfloat16)
    assert linear(tokens, torch.randn(3, 8), torch.randn(3)).dtype == torch.bfloat16


def test_linear_takes_tokens_in_any_layout():
    tokens = torch.randn(8, MANY_TOKENS).t()
    weight = torch.randn(3, 8)
    torch.testing.assert_close(linear(tokens, weight), F.linear(tokens, weight), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        *((torch.float64, torch.float64), (torch.float64, torch.float32), (torch.float32, torch.float32)),
        *((torch.bfloat16, torch.float32), (torch.bfloat16, torch.bfloat16)),
    ],
)
def test_layer_norm_and_its_gradients_are_torchs(dtype, stored, affine):
    torch.manual_seed(0)
    x = torch.randn(2, 50, 24, dtype=torch.float64).mul(3).add(1).to(dtype).requires_grad_()
    norm = nn.LayerNorm(24, dtype=stored)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0)
    exact = x.detach().double().requires_grad_()
    reference = nn.LayerNorm(24, dtype=torch.float64)
    reference.load_state_dict({name: value.double() for name, value in norm.state_dict().items()})
    found = layer_norm(x, norm if affine else None)
    expected = reference(exact) if affine else F.layer_norm(exact, (24,))
    assert found.dtype == dtype
    assert deviation(found, expected) <= TOLERANCE[dtype]
    direction = torch.randn(expected.shape, dtype=torch.float64)
    sources = [x, *norm.parameters()] if affine else [x]
    wanted = [exact, *reference.parameters()] if affine else [exact]
    grads = torch.autograd.grad(found, sources, direction.to(dtype))
    exact_grads = torch.autograd.grad(expected, wanted, direction)
    for source, grad, gradient in zip(sources, grads, exact_grads, strict=True):
        assert grad.dtype == source.dtype
        assert deviation(grad, gradient) <= max(TOLERANCE[dtype], 0 if stored == dtype else 1e-6)


def test_a_product_that_adds_to_a_map_has_the_gradients_of_the_sum():
    torch.manual_seed(0)
    shapes = ((2, 3, 4), (2, 3, 5), (4, 5))
    total, x, weight = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    torch.testing.assert_close(add_product(total * 1, x, weight), total + x @ weight.t())
    assert torch.autograd.gradcheck(lambda *given: add_product(given[0] * 1, *given[1:]), (total, x, weight))
