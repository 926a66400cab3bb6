import pytest
import torch

from autospine.network.swin.gradient import gradient_magnitude, gradient_pyramid


@pytest.mark.parametrize("axis, spacing", [(0, 4.0), (2, 0.5)])
def test_ramp_has_its_slope_in_millimetres(axis: int, spacing: float) -> None:
    spacing_mm = [1.0, 1.0, 1.0]
    spacing_mm[axis] = spacing
    shape = [1, 1, 24, 24, 24]
    ramp = torch.arange(24.0) * spacing * 0.3
    image = ramp.view([24 if a == axis + 2 else 1 for a in range(5)]).expand(shape)
    magnitude = gradient_magnitude(image, (spacing_mm[0], spacing_mm[1], spacing_mm[2]))
    inner = magnitude[0, 0, 8:16, 8:16, 8:16]
    torch.testing.assert_close(inner, inner[:1, :1, :1].expand_as(inner))
    assert magnitude.mean().item() == pytest.approx(1.0, rel=1e-4)


def test_steeper_physical_edges_weigh_more() -> None:
    """Two ramps in one patch, of slope 1 and 2 per mm, stand in the ratio log 2 to log 3."""
    slope = torch.where(torch.arange(40) < 20, 1.0, 2.0)
    image = (slope * 2.0).cumsum(0).view(1, 1, 1, 40, 1).expand(1, 1, 8, 40, 8)
    magnitude = gradient_magnitude(image, (1.0, 2.0, 1.0))[0, 0, 4, :, 4]
    ratio = torch.log(torch.tensor(3.0)) / torch.log(torch.tensor(2.0))
    assert (magnitude[30] / magnitude[10]).item() == pytest.approx(ratio.item(), rel=1e-4)


def test_constant_images_have_no_edges() -> None:
    assert gradient_magnitude(torch.full((2, 1, 8, 8, 8), 5.0), (1.0, 1.0, 3.0)).abs().max() < 0.1


def test_pyramid_takes_the_maximum_of_each_token() -> None:
    magnitude = torch.rand(1, 1, 8, 8, 4)
    first, second = gradient_pyramid(magnitude, [(2, 2, 1), (2, 2, 2)])
    assert first.shape == (1, 4, 4, 4, 1) and second.shape == (1, 2, 2, 2, 1)
    assert second[0, 1, 0, 1, 0] == magnitude[0, 0, 4:8, 0:4, 2:4].max()
