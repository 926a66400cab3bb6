import itertools

import torch
import torch.nn.functional as F

from autospine.network import blocks
from autospine.network.blocks import UpBlock
from autospine.network.convolution import convolve_upsampled, interleaved, interleaved_views


def test_composed_convolution_equals_the_two_steps() -> None:
    torch.manual_seed(0)
    shapes = ((2, 3, 1, 2, 3), (3, 4, 2, 2, 2), (5, 3, 3, 3, 4))
    x, transposed, weight = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    up = F.conv_transpose3d(x.permute(0, 4, 1, 2, 3), transposed, stride=2)
    expected = F.conv3d(up, weight.permute(0, 4, 1, 2, 3), padding=1).permute(0, 2, 3, 4, 1)
    composed = convolve_upsampled(x, transposed, weight)
    torch.testing.assert_close(composed, expected)
    upstream = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(composed, (x, transposed, weight), upstream),
        torch.autograd.grad(expected, (x, transposed, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_both_ways_through_the_up_block_agree(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    block = UpBlock(6, 4, (2, 2, 2)).double()
    x, skip = torch.randn(1, 3, 2, 4, 6).double(), torch.randn(1, 6, 4, 8, 4).double()
    plain = block(x, skip)
    monkeypatch.setattr(blocks, "COMPOSED_VOXELS", 1)
    torch.testing.assert_close(block(x, skip), plain)


def test_up_block_follows_its_stride() -> None:
    block = UpBlock(6, 4, (1, 2, 2))
    assert block(torch.randn(1, 3, 2, 4, 6), torch.randn(1, 3, 4, 8, 4)).shape == (1, 3, 4, 8, 4)


def test_one_view_holds_all_parts_at_their_places() -> None:
    d, sizes = 3, (2, 4, 3)
    coarse = torch.randn(2, *(n + 1 for n in sizes), 8 * d)
    fine = torch.empty(2, *(2 * n for n in sizes), d)
    source, target = interleaved_views(coarse, fine)
    target.copy_(source)
    assert torch.equal(interleaved(coarse), fine), "written out for a compiler"
    for i, j, k in itertools.product(range(2), repeat=3):
        first = d * (4 * i + 2 * j + k)
        part = coarse[:, i : i + 2, j : j + 4, k : k + 3, first : first + d]
        assert torch.equal(fine[:, i::2, j::2, k::2], part)


def test_a_map_may_be_added_to_the_composed_convolution() -> None:
    torch.manual_seed(0)
    shapes = ((1, 2, 3, 2, 3), (3, 4, 2, 2, 2), (2, 3, 3, 3, 4), (1, 4, 6, 4, 2))
    given = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    x, transposed, weight, addend = given
    expected = convolve_upsampled(x, transposed, weight) + addend
    torch.testing.assert_close(convolve_upsampled(x, transposed, weight, addend * 1), expected)
    assert torch.autograd.gradcheck(lambda *a: convolve_upsampled(*a[:3], a[3] * 1), given)
