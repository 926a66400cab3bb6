from itertools import product

import pytest
import torch
from torch.nn import functional as F

from autospine.network.convolution import conv3d
from autospine.system.devices import multiplies_bfloat16

LAST = torch.channels_last_3d


def gradients(shape, kernel, stride, padding, dtype, convolve) -> list[torch.Tensor]:
    """Output and gradients of x and weight, after memory has been filled with NaN."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, *shape, generator=generator).to(dtype).to(memory_format=LAST).requires_grad_()
    weight = (
        (0.05 * torch.randn(16, 16, *kernel, generator=generator)).to(memory_format=LAST).requires_grad_()
    )
    used = [torch.full((n,), float("nan")) for n in (64, 1000, 30_000, 300_000)]
    del used
    out = convolve(x, weight, stride=stride, padding=padding)
    out.backward(torch.randn(out.shape, generator=generator).to(dtype))
    return [out.detach().float(), x.grad.float(), weight.grad]


@pytest.mark.parametrize("depth", range(1, 6))
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((2, 2, 2), (1, 1, 1), (1, 1, 1)),
        ((4, 4, 4), (2, 2, 2), (1, 1, 1)),
        ((8, 8, 8), (2, 2, 2), (3, 3, 3)),
        ((5, 8, 8), (1, 2, 2), (2, 3, 3)),
    ],
)
def test_gradients_in_half_precision_are_those_in_single_precision(depth, kernel, stride, padding):
    for shape in ((depth, 4, 4), (4, depth, 4), (4, 4, depth)):
        setting = (shape, kernel, stride, padding)
        if any(n + 2 * p < k for n, k, p in zip(shape, kernel, padding, strict=True)):
            continue
        exact = gradients(*setting, torch.float32, F.conv3d)
        for found, expected in zip(gradients(*setting, torch.bfloat16, conv3d), exact, strict=True):
            assert float((found - expected).norm() / expected.norm()) < 0.02


def test_the_result_has_the_inputs_type_and_layout():
    weight, bias = torch.randn(6, 4, 3, 3, 3), torch.randn(6)
    x = torch.randn(1, 4, 8, 8, 8).to(memory_format=LAST)
    out = conv3d(x, weight, bias, padding=(1, 1, 1))
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=LAST)
    x = x.bfloat16()
    out = conv3d(x, weight, bias, padding=(1, 1, 1))
    assert out.dtype == torch.bfloat16
    # PyTorch's own kernels, for CPUs that do not multiply bfloat16, have another layout.
    assert out.is_contiguous(memory_format=LAST) or not multiplies_bfloat16(x.device)
    torch.testing.assert_close(out.float(), F.conv3d(x.float(), weight, bias, padding=1), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3, 3), (1, 1, 1), (1, 1, 1)), ((1, 1, 1), (1, 1, 1), (0, 0, 0)), ((1, 4, 4), (1, 2, 2), (0, 1, 1))],
)
def test_one_small_image_is_convolved_by_onednn(kernel, stride, padding, threads, monkeypatch):
    generator, before = torch.Generator().manual_seed(0), torch.get_num_threads()
    x = torch.randn(1, 16, 6, 8, 8, generator=generator).to(memory_format=LAST)
    weight = torch.randn(24, 16, *kernel, generator=generator).to(memory_format=LAST)
    bias = torch.randn(24, generator=generator)
    settings = {"stride": stride, "padding": padding}
    exact = F.conv3d(x.double(), weight.double(), bias.double(), **settings)
    asked = []
    usual = torch.mkldnn_convolution
    monkeypatch.setattr(torch, "mkldnn_convolution", lambda *given: asked.append(1) or usual(*given))
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            found = conv3d(x, weight, bias, **settings)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found.double(), exact, atol=1e-4, rtol=1e-4)
    assert found.is_contiguous(memory_format=LAST)
    assert len(asked) == 1
    conv3d(x.clone().requires_grad_(), weight, bias, **settings).sum().backward()
    assert len(asked) == 2
    # Elsewhere torch decides.
    conv3d(x.expand(2, -1, -1, -1, -1), weight, bias, **settings)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        conv3d(x, weight, bias, **settings)
    assert len(asked) == 2


@pytest.mark.parametrize("wanted", list(product((True, False), repeat=3)))
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
        ((3, 3, 3), (1, 1, 1), (1, 2, 2), (1, 2, 2)),
        ((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1)),
        ((4, 4, 4), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 1, 4), (6, 8, 7)])
def test_gradients_by_onednn_are_those_of_double_precision(shape, kernel, stride, padding, dilation, wanted):
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    if any(n + 2 * p < d * (k - 1) + 1 for n, k, p, d in zip(shape, kernel, padding, dilation, strict=True)):
        pytest.skip("the kernel is larger than the map")
    tensors = [
        torch.randn(1, 12, *shape).to(memory_format=LAST),
        torch.randn(20, 12, *kernel).to(memory_format=LAST),
        torch.randn(20),
    ]
    pairs = []
    for dtype, convolve in ((torch.float32, conv3d), (torch.float64, F.conv3d)):
        given = [
            t.detach().clone().to(dtype).requires_grad_(need) for t, need in zip(tensors, wanted, strict=True)
        ]
        out = convolve(*given, **settings)
        if out.requires_grad:
            (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view(out.shape)).sum().backward()
        pairs.append([out.detach().double(), *(None if t.grad is None else t.grad.double() for t in given)])
    for found, exact in zip(*pairs, strict=True):
        if exact is None:
            assert found is None
        else:
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
