"""AutoSpine's Swin UNETR with MONAI's weights computes what MONAI's network computes, number for number."""

import warnings
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from autospine.network import AdaptiveSwinUNETR, AttentionSettings, FusionSettings, load_monai
from autospine.network.swin.stages import SwinBlock
from autospine.network.swin.windows import LEGACY_MERGING_ORDER
from autospine.network.weights.names import monai_name

pytest.importorskip("einops")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    swin_unetr = pytest.importorskip("monai.networks.nets.swin_unetr")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # MONAI's own
    pytest.mark.timeout(900),
]

FLAT = (64, 32, 32)
"""Windows of every size are clamped from stage 1 on, and MONAI cannot take a smaller input."""

FORWARD = 1e-5
BACKWARD = 1e-4
FLOAT64 = 1e-9


class LegacyMerging(swin_unetr.PatchMergingV2):
    """MONAI's merging up to version 1.4, which stacks two tokens twice and leaves two out."""

    def forward(self, x: Tensor) -> Tensor:
        stacked = [x[:, i::2, j::2, k::2] for i, j, k in LEGACY_MERGING_ORDER]
        return self.reduction(self.norm(torch.cat(stacked, -1)))


def monai_network(**changes) -> nn.Module:
    """MONAI's network with weights that are far from their start.

    Gains of 1 would hide an exchange of norms, and biases of 0.02 that they are read at the wrong place.
    """
    torch.manual_seed(0)
    settings = {"in_channels": 1, "out_channels": 3, "feature_size": 12, **changes}
    network = swin_unetr.SwinUNETR(**settings)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            size = 1.0 if name.endswith("table") else 0.3 * float(parameter.std(correction=0).clamp_min(0.02))
            parameter.add_(size * torch.randn_like(parameter))
    return network.eval()


def own_network(theirs: nn.Module, order: str = "auto", **changes) -> AdaptiveSwinUNETR:
    """AutoSpine's network with their weights, every one of them."""
    settings = {"feature_size": 12, "use_v2": False, "legacy_bias_slice": True, **changes}
    network = AdaptiveSwinUNETR(1, 3, **settings).to(next(theirs.parameters()).dtype)
    exact = settings["legacy_bias_slice"]
    report = load_monai(network, theirs.state_dict(), merge_order=order, exact=exact)
    assert report.differences == ()
    assert (report.missing, report.unused) == ((), ())
    return network.eval()


@cache
def image(shape: Sequence[int] = FLAT) -> Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))


def deviation(found: Tensor, expected: Tensor) -> float:
    """Relative difference in the Euclidean norm."""
    return float((found - expected).norm() / expected.norm())


def assert_equal_answers(ours: nn.Module, theirs: nn.Module, x: Tensor, bound: float = FORWARD) -> None:
    with torch.no_grad():
        expected = theirs(x)
        found = ours(x)
    assert deviation(found, expected) <= bound
    assert (found - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize(
    ("feature_size", "use_v2", "window", "shape"),
    [
        (12, True, 7, FLAT),
        (12, False, 6, (64, 64, 64)),
        (12, False, (7, 6, 4), (64, 32, 96)),
        (24, False, 8, (32, 64, 64)),
        (48, True, 7, FLAT),
    ],
)
def test_answers_are_monais(feature_size, use_v2, window, shape):
    theirs = monai_network(feature_size=feature_size, use_v2=use_v2, window_size=window)
    ours = own_network(theirs, feature_size=feature_size, use_v2=use_v2, window_size=window)
    assert_equal_answers(ours, theirs, image(shape))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 64, 64), (96, 64, 32)])
@pytest.mark.parametrize("window", [6, 7, 8])
@pytest.mark.parametrize("use_v2", [False, True])
@pytest.mark.parametrize("feature_size", [12, 24, 48])
def test_answers_and_gradients_are_monais_everywhere(feature_size, use_v2, window, shape):
    """Gradients as far as float32 can say.

    Where a pre-activation next to zero falls on the other side of a LeakyReLU, gradients change by more than
    rounding; MONAI's own lie that far from those in float64.
    """
    theirs = monai_network(feature_size=feature_size, use_v2=use_v2, window_size=window)
    ours = own_network(theirs, feature_size=feature_size, use_v2=use_v2, window_size=window)
    assert_equal_answers(ours, theirs, image(shape))
    found, expected = gradients(ours, image(shape)), gradients(theirs, image(shape))
    theirs.zero_grad()
    doubt = whole_deviation(expected, gradients(theirs.double(), image(shape)))
    assert whole_deviation(found, expected) <= max(BACKWARD, 10 * doubt)


def gradients(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Gradients of the mean square of the logits by MONAI's names, and that of the image."""
    x = x.to(next(network.parameters()).dtype).clone().requires_grad_()
    network(x).square().mean().backward()
    assert x.grad is not None
    found = {"image": x.grad}
    for name, parameter in network.named_parameters():
        grad = parameter.grad
        assert grad is not None, name
        if isinstance(network, AdaptiveSwinUNETR):
            if grad.ndim == 5 and name != "embedding.weight" and not name.endswith("transposed"):
                grad = grad.permute(0, 4, 1, 2, 3)
            name = str(monai_name(name))
        found[name] = grad
    return found


def whole_deviation(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The relative difference of all weights' gradients, taken as one vector."""
    names = [name for name in expected if name != "image"]
    whole = [torch.cat([part[name].double().flatten() for name in names]) for part in (found, expected)]
    return deviation(*whole)


@pytest.mark.parametrize(
    ("feature_size", "use_v2", "window"), [(12, True, 7), (12, False, 6), (24, False, 8)]
)
def test_gradients_are_monais(feature_size, use_v2, window):
    theirs = monai_network(feature_size=feature_size, use_v2=use_v2, window_size=window)
    ours = own_network(theirs, feature_size=feature_size, use_v2=use_v2, window_size=window)
    assert whole_deviation(gradients(ours, image()), gradients(theirs, image())) <= BACKWARD


@pytest.mark.parametrize(("window", "use_v2"), [(7, True), (6, False)])
def test_every_tensors_gradient_is_monais_in_float64(window, use_v2):
    theirs = monai_network(window_size=window, use_v2=use_v2).double()
    ours = own_network(theirs, window_size=window, use_v2=use_v2)
    assert_equal_answers(ours, theirs, image().double(), 1e-12)
    found, expected = gradients(ours, image()), gradients(theirs, image())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert deviation(found[name].reshape(gradient.shape), gradient) <= FLOAT64, name


def test_mechanisms_at_their_start_change_nothing():
    theirs = monai_network()
    ours = AdaptiveSwinUNETR(
        1,
        3,
        feature_size=12,
        use_v2=False,
        legacy_bias_slice=True,
        fusion=FusionSettings(kernels=((2, 2, 2), (4, 4, 4), (6, 6, 6)), placement="both"),
        attention=AttentionSettings(),
    )
    report = load_monai(ours, theirs.state_dict(), exact=True)
    assert report.own
    assert (report.missing, report.unused) == ((), ())
    assert_equal_answers(ours.eval(), theirs, image())


# Mergings.


def test_legacy_mergings_are_those_of_monai_up_to_1_4():
    theirs = monai_network(downsample=LegacyMerging).double()
    ours = own_network(theirs, "legacy", merge_order="legacy")
    assert_equal_answers(ours, theirs, image().double(), 1e-12)


def test_the_second_merging_of_monai_is_converted():
    theirs = monai_network(downsample="mergingv2").double()
    assert_equal_answers(own_network(theirs, "v2"), theirs, image().double(), 1e-12)


# Position bias in clamped windows.


def test_without_the_flag_clamped_windows_differ_from_monais():
    """MONAI reads the bias of other offsets there, which is not what a table of offsets is for."""
    theirs = monai_network()
    with torch.no_grad():
        native = own_network(theirs, legacy_bias_slice=False)(image())
        assert deviation(native, theirs(image())) > 100 * FORWARD


def test_without_windows_to_clamp_the_flag_changes_nothing():
    theirs = monai_network(window_size=(4, 2, 2), depths=(1, 1, 1, 1))
    shape = (64, 32, 32)
    changes = {"window_size": (4, 2, 2), "depths": (1, 1, 1, 1)}
    assert_equal_answers(own_network(theirs, legacy_bias_slice=False, **changes), theirs, image(shape))


@pytest.mark.parametrize("grid", [(6, 6, 6), (7, 4, 2), (3, 7, 5)])
def test_the_native_bias_of_a_clamped_window_is_that_of_its_own_offsets(grid):
    """A block with window 7 on a smaller grid is MONAI's block with that window and the same biases."""
    torch.manual_seed(0)
    ours = SwinBlock(12, 3, (7, 7, 7), shifted=False)
    theirs = swin_unetr.SwinTransformerBlock(12, 3, grid, (0, 0, 0)).eval()
    state = {}
    for name, tensor in ours.state_dict().items():
        inner = str(monai_name(f"stages.0.blocks.0.{name}")).removeprefix("swinViT.layers1.0.blocks.0.")
        state[inner] = tensor
    table = state["attn.relative_position_bias_table"].view(13, 13, 13, 3)
    inside = table[tuple(slice(7 - n, 6 + n) for n in grid)]
    state["attn.relative_position_bias_table"] = inside.reshape(-1, 3)
    assert theirs.load_state_dict(state, strict=False).missing_keys == ["attn.relative_position_index"]
    x = torch.randn(2, *grid, 12)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs(x, None), rtol=1e-5, atol=1e-5)
