"""Import of weights, without MONAI: its checkpoints are made from our own networks."""

from collections import OrderedDict

import pytest
import torch
from checkpoints import as_monai, as_self_supervised, small
from torch import Tensor

from autospine.core.errors import FormatError
from autospine.network import AdaptiveSwinUNETR, AttentionSettings, FusionSettings, ImportReport, load_monai
from autospine.network.swin.stages import PatchMerging
from autospine.network.swin.windows import relative_position_index
from autospine.network.weights.conversion import (
    MergingWeights,
    rearrange_merging,
    resize_table,
    window_of_table,
)
from autospine.network.weights.monai import TOKENS
from autospine.network.weights.names import monai_name

MISSING_HEADS = ["module.norm.weight", "module.norm.bias", "module.rotation_head.weight"]


@pytest.fixture(scope="module")
def source() -> AdaptiveSwinUNETR:
    torch.manual_seed(0)
    return spread(small())


def spread(network: AdaptiveSwinUNETR) -> AdaptiveSwinUNETR:
    """Move norms and biases away from one and zero, so that none is taken for another."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def image(channels: int = 1, shape: tuple[int, ...] = (64, 32, 32)) -> Tensor:
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(1))


def answer(network: AdaptiveSwinUNETR, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x)


def assert_whole(report: ImportReport) -> None:
    assert report.matched
    assert (report.converted, report.missing, report.own, report.unused) == ({}, (), (), ())
    assert report.encoder_share == 1.0


def test_every_tensor_of_the_plain_network_has_a_name_of_its_own_in_monais():
    names = [monai_name(name) for name in small(use_v2=True).state_dict()]
    assert None not in names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("use_v2", [False, True])
def test_a_network_comes_back_from_its_checkpoint(use_v2):
    first, second = (spread(small(use_v2=use_v2)) for _ in range(2))
    assert_whole(load_monai(second, as_monai(first)))
    assert torch.equal(answer(second, image()), answer(first, image()))


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone.", "_orig_mod.module."])
def test_prefixes_are_seen_through(source, prefix):
    target = small()
    state = OrderedDict((prefix + name, tensor) for name, tensor in as_monai(source).items())
    assert_whole(load_monai(target, state))
    assert torch.equal(answer(target, image()), answer(source, image()))


@pytest.mark.parametrize("path", [("state_dict",), ("model",), ("model", "state_dict")])
def test_containers_are_opened(source, path):
    target, content = small(), as_monai(source)
    for key in reversed(path):
        content = {"epoch": 3, key: content, "optimizer": {"state": {}}}
    assert_whole(load_monai(target, content))
    assert torch.equal(answer(target, image()), answer(source, image()))


def test_the_first_name_of_the_encoder_is_known_and_its_merging_is_legacy(source):
    state = {name.replace("swinViT", "swin_vit"): tensor for name, tensor in as_monai(source).items()}
    report = load_monai(small(merge_order="legacy"), state)
    assert (report.layout, report.merge_order) == ("swin_vit", "legacy")
    assert_whole(report)


@pytest.mark.parametrize("contained", [False, True])
def test_the_self_supervised_layout_fills_the_encoder(source, contained):
    target = spread(small(merge_order="legacy", out_channels=5))
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    state = as_self_supervised(source)
    report = load_monai(target, {"state_dict": state} if contained else state)
    assert (report.layout, report.merge_order) == ("self-supervised", "legacy")
    assert report.encoder_share == 1.0
    assert list(report.unused) == MISSING_HEADS
    assert not [name for name in report.missing if name.startswith(("embedding", "stages"))]
    for name, tensor in target.state_dict().items():
        expected = source.state_dict() if name in report.matched else before
        assert torch.equal(tensor, expected[name]), name


def test_the_autoencoders_layout_fills_the_encoder(source):
    """Its stages lie one list deeper."""
    state = {"encoder.mask_token": torch.zeros(1, 1, 8), "encoder.norm.weight": torch.ones(128)}
    for name, tensor in as_monai(source).items():
        if name.startswith("swinViT."):
            inner = name.removeprefix("swinViT.").replace(".0.", ".0.0.", 1)
            state["encoder." + (inner if inner.startswith("layers") else name.removeprefix("swinViT."))] = (
                tensor
            )
    report = load_monai(small(merge_order="legacy"), {"model": state})
    assert (report.layout, report.merge_order, report.encoder_share) == ("autoencoder", "legacy", 1.0)
    assert report.unused == ("encoder.mask_token", "encoder.norm.weight")


def test_mechanisms_keep_their_initial_values(source):
    target = small(fusion=FusionSettings(kernels=((2, 2, 2), (4, 4, 4))), attention=AttentionSettings())
    report = load_monai(target, as_monai(source))
    assert not report.missing
    assert {
        name.split(".")[-2 if "saliency" in name or "temperature" in name else 0] for name in report.own
    } == {
        "embedding",
        "saliency",
        "temperature",
    }
    torch.testing.assert_close(answer(target, image()), answer(source, image()))


def test_every_tensor_is_in_one_list(source):
    target = small(2, 5, use_v2=True, window_size=(3, 4, 2), attention=AttentionSettings())
    report = load_monai(target, as_monai(source))
    listed = [*report.matched, *report.converted, *report.missing, *report.own]
    assert sorted(listed) == sorted(target.state_dict())
    assert sum("residual" in name for name in report.missing) == 8


# Classes and channels.


def test_a_head_for_other_classes_is_left_out(source):
    target = small(out_channels=4)
    before = target.head.weight.clone()
    report = load_monai(target, as_monai(source))
    assert report.missing == ("head.weight", "head.bias")
    assert report.unused == ("out.conv.conv.weight", "out.conv.conv.bias")
    assert torch.equal(target.head.weight, before)


@pytest.mark.parametrize(("old", "new"), [(1, 3), (3, 2), (2, 1)])
def test_other_channels_answer_equal_channels_alike(old, new):
    first, second = spread(small(old)).double(), small(new).double()  # rounding grows through the layers
    report = load_monai(second, as_monai(first))
    assert set(report.converted) == {
        "embedding.weight",
        "encoders.0.conv1.weight",
        "encoders.0.conv3.weight",
    }
    assert report.converted["embedding.weight"] == f"from {old} to {new} input channels, evenly"
    x = image().double()
    expected = answer(first, x.expand(-1, old, -1, -1, -1))
    torch.testing.assert_close(answer(second, x.expand(-1, new, -1, -1, -1)), expected)


# Windows.


@pytest.mark.parametrize("wanted", [(7, 6, 1), (2, 3, 8), (4, 4, 4)])
def test_a_constant_table_stays_constant(wanted):
    table = torch.tensor([0.5, -2.0]).expand(7**3, 2)
    rows = (2 * wanted[0] - 1) * (2 * wanted[1] - 1) * (2 * wanted[2] - 1)
    torch.testing.assert_close(resize_table(table, (4, 4, 4), wanted), table[:1].expand(rows, 2))


def test_the_same_window_keeps_its_table():
    table = torch.randn(7 * 5 * 3, 2)
    assert torch.equal(resize_table(table, (4, 3, 2), (4, 3, 2)), table)


def test_tables_are_stretched_linearly_along_each_axis():
    """A bias that is the sum of the offsets, each as a share of the longest, is so in any window."""

    def slopes(window):
        axes = [torch.linspace(-1, 1, 2 * w - 1, dtype=torch.float64) for w in window]
        s, p, left = torch.meshgrid(*axes, indexing="ij")
        return (s + 10 * p + 100 * left).reshape(-1, 1)

    for wanted in ((7, 2, 4), (2, 5, 3)):
        torch.testing.assert_close(resize_table(slopes((3, 4, 5)), (3, 4, 5), wanted), slopes(wanted))


def test_offset_zero_keeps_its_bias():
    table = torch.randn(13**3, 3)
    for window in ((6, 6, 6), (1, 1, 1), (8, 1, 5)):
        resized = resize_table(table, (7, 7, 7), window)
        torch.testing.assert_close(resized[len(resized) // 2], table[len(table) // 2])


def test_the_window_of_a_table_is_told_by_its_index():
    cpu = torch.device("cpu")
    for window in ((7, 6, 4), (4, 6, 7), (5, 5, 5)):
        n = window[0] * window[1] * window[2]
        rows = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        index = relative_position_index(window, window, cpu).view(n, n)
        assert window_of_table(rows, index, (1, 1, 1)) == window
    assert window_of_table(13**3, None, (6, 6, 6)) == (7, 7, 7)
    assert window_of_table(7 * 5 * 3, None, (4, 3, 2)) == (4, 3, 2)
    assert window_of_table(7 * 5 * 3, None, (4, 4, 4)) is None


def test_other_windows_take_interpolated_tables(source):
    target = small(window_size=((2, 3, 4), (4, 4, 4), (4, 2, 1), (1, 1, 1)))
    report = load_monai(target, as_monai(source))
    assert set(report.converted) == {f"stages.{i}.blocks.0.attention.bias_table" for i in (0, 2, 3)}
    expected = resize_table(source.stages[0].blocks[0].attention.bias_table, (4, 4, 4), (2, 3, 4))
    torch.testing.assert_close(target.stages[0].blocks[0].attention.bias_table, expected)
    assert "interpolated from window (4, 4, 4) to (2, 3, 4)" in report.converted.values()


def test_a_window_that_cannot_be_told_is_asked_for():
    state = as_monai(small(window_size=(4, 3, 2)))
    state = {name: tensor for name, tensor in state.items() if not name.endswith("index")}
    with pytest.raises(FormatError, match=r"105 offsets .* window_size \(--window\)"):
        load_monai(small(), state)
    with pytest.raises(FormatError, match=r"found \(7, 7, 7\)"):
        load_monai(small(), state, window_size=7)
    target = small(window_size=(4, 3, 2))
    assert_whole(load_monai(target, state))
    assert load_monai(small(), state, window_size=(4, 3, 2)).encoder_share == 1.0


# Mergings.


def merging(order, weights: MergingWeights, tokens) -> Tensor:
    """The merging written out: tokens (K, C) by offset, stacked in an order."""
    stacked = torch.cat([tokens[offset] for offset in order])
    normed = torch.nn.functional.layer_norm(stacked, stacked.shape, weights.gain, weights.shift)
    return weights.reduction @ normed


@pytest.fixture
def weights() -> MergingWeights:
    torch.manual_seed(3)
    parts = torch.randn(24), torch.randn(24), torch.randn(6, 24)
    gain, shift, reduction = (part.double() for part in parts)
    return MergingWeights(gain=gain, shift=shift, reduction=reduction)


def tokens_by_offset(equal_along: tuple[int, ...] = ()) -> dict:
    """Random tokens of a cell, equal to their neighbour along some axes."""
    generator = torch.Generator().manual_seed(4)
    drawn = {o: torch.randn(3, generator=generator, dtype=torch.float64) for o in TOKENS["v2"]}
    return {o: drawn[tuple(0 if a in equal_along else o[a] for a in range(3))] for o in drawn}


def test_another_order_of_the_same_tokens_is_exact(weights):
    changed = rearrange_merging(weights, TOKENS["v2"], TOKENS["fixed"])
    tokens = tokens_by_offset()
    expected = merging(TOKENS["v2"], weights, tokens)
    torch.testing.assert_close(merging(TOKENS["fixed"], changed, tokens), expected)


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1)])
@pytest.mark.parametrize("order", ["fixed", "legacy", "v2"])
def test_a_shorter_cell_is_exact_where_neighbours_are_equal(weights, axes, order):
    wanted = [offset for offset in TOKENS["fixed"] if not any(offset[axis] for axis in axes)]
    changed = rearrange_merging(weights, TOKENS[order], wanted)
    tokens = tokens_by_offset(axes)
    if order == "legacy":  # its mean and deviation are over tokens that count twice
        tokens = dict.fromkeys(tokens, tokens[0, 0, 0])
    expected = merging(TOKENS[order], weights, tokens)
    torch.testing.assert_close(merging(wanted, changed, tokens), expected)


def test_tokens_stacked_twice_act_with_the_sum_of_both_weights(weights):
    """All but the norm's mean and deviation is kept: they differ by the tokens that are counted."""
    changed = rearrange_merging(weights, TOKENS["legacy"], TOKENS["fixed"])
    joint = (weights.reduction * weights.gain).view(6, 8, 3)
    summed = (changed.reduction * changed.gain).view(6, 8, 3)
    for place, offset in enumerate(TOKENS["fixed"]):
        both = [joint[:, k] for k, other in enumerate(TOKENS["legacy"]) if other == offset]
        torch.testing.assert_close(summed[:, place], sum(both, torch.zeros(6, 3).double()))
    torch.testing.assert_close(changed.reduction @ changed.shift, weights.reduction @ weights.shift)


def test_the_second_order_of_monai_is_put_in_ours(source):
    state = as_monai(source)
    back = [TOKENS["fixed"].index(offset) for offset in TOKENS["v2"]]
    for name, tensor in state.items():
        if "downsample" in name:
            blocks = tensor.unflatten(-1, (8, -1))
            state[name] = blocks[..., back, :].flatten(-2)
    target = small()
    report = load_monai(target, state, merge_order="v2", exact=True)
    assert set(report.converted.values()) == {"tokens put in another order"}
    assert torch.equal(answer(target, image()), answer(source, image()))


def test_legacy_weights_are_approximated_in_a_network_of_the_present_order(source):
    legacy = small(merge_order="legacy")
    load_monai(legacy, as_monai(source), merge_order="legacy", exact=True)
    target = small()
    report = load_monai(target, as_monai(source), merge_order="legacy")
    assert (report.merge_order, report.merge_reason) == ("legacy", "as was asked for")
    assert len(report.converted) == 12
    naive = small()
    load_monai(naive, as_monai(source), merge_order="fixed")

    @torch.no_grad()
    def deviation(network: AdaptiveSwinUNETR) -> float:
        # Neighbouring tokens of an image are alike.
        smooth = torch.nn.functional.interpolate(torch.randn(1, 8, 4, 4, 4), scale_factor=4, mode="trilinear")
        x = smooth.permute(0, 2, 3, 4, 1)
        expected = legacy.stages[0].merging(x)
        return float((network.stages[0].merging(x) - expected).norm() / expected.norm())

    torch.manual_seed(5)
    assert deviation(target) < 0.5 * deviation(naive)


def test_exactness_is_refused_where_there_is_none(source):
    state = as_monai(source)
    for target, order in (
        (small(), "legacy"),
        (small(2), "auto"),
        (small(window_size=3), "auto"),
        (small(strides=((1, 2, 2), *((2, 2, 2),) * 4)), "auto"),
        (small(strides=((2, 2, 2), (1, 2, 2), *((2, 2, 2),) * 3)), "auto"),
        (small(use_v2=True), "auto"),
        (small(legacy_bias_slice=False), "auto"),
    ):
        with pytest.raises(FormatError, match=r"expected .* found .*; build"):
            load_monai(target, state, merge_order=order, exact=True)


def test_a_legacy_network_takes_legacy_weights_only(source):
    for order in ("auto", "fixed", "v2"):
        with pytest.raises(FormatError, match='build the network with merge_order="fixed"'):
            load_monai(small(merge_order="legacy"), as_monai(source), merge_order=order)


# Strides.


def test_strides_of_one_count_a_slice_as_two(source):
    target = small(strides=((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)))
    report = load_monai(target, as_monai(source))
    assert not report.missing
    assert report.encoder_share == 1.0
    assert set(report.converted) == {
        "embedding.weight",
        "stages.0.merging.norm.weight",
        "stages.0.merging.norm.bias",
        "stages.0.merging.reduction.weight",
        "decoders.0.transposed",
        "decoders.1.transposed",
    }
    x = image(shape=(4, 8, 8))
    torch.testing.assert_close(target.embedding(x), source.embedding(x.repeat_interleave(2, dim=2)))
    tokens = torch.randn(1, 4, 8, 8, 8)
    mine, theirs = target.stages[0].merging, source.stages[0].merging
    assert isinstance(mine, PatchMerging)
    torch.testing.assert_close(mine(tokens), theirs(tokens.repeat_interleave(2, dim=1)), rtol=1e-4, atol=1e-5)
    assert torch.isfinite(answer(target, image(shape=(16, 32, 32)))).all()


# Refusals.


def state_of(network: AdaptiveSwinUNETR) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_size": 16}, "feature size 8, found 16; plan with --feature-size 16"),
        ({"num_heads": (2, 4, 4, 4)}, "network's 2 heads in stage 2, found 4; change num_heads"),
        ({"depths": (1, 1, 1, 1)}, r"at least 90% .* found 8\d%: .*layers2\.0\.blocks\.1"),
    ],
)
def test_weights_of_another_architecture_are_refused(changes, message):
    target = small()
    before = state_of(target)
    with pytest.raises(FormatError, match=message):
        load_monai(target, as_monai(small(**changes)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_weights_of_another_network_are_refused():
    with pytest.raises(FormatError, match=r"found 0%: .* missing, and weight, bias has no place"):
        load_monai(small(), torch.nn.Linear(2, 2).state_dict())
    with pytest.raises(FormatError, match="expected named tensors in the state dict, found only epoch"):
        load_monai(small(), {"epoch": 3})


def test_shapes_that_contradict_are_listed(source):
    state = as_monai(source)
    state["decoder1.conv_block.conv1.conv.weight"] = torch.zeros(8, 16, 5, 5, 5)
    state["swinViT.layers2.0.downsample.norm.weight"] = torch.zeros(7)
    with pytest.raises(FormatError, match=r"downsample\.norm\.weight \(7,\) for \(128,\)") as caught:
        load_monai(small(), state)
    assert "decoder1.conv_block.conv1.conv.weight" in str(caught.value)


def test_weights_that_are_not_finite_are_refused(source):
    state = as_monai(source)
    state["swinViT.layers1.0.blocks.0.norm1.bias"][3] = float("nan")
    with pytest.raises(FormatError, match=r"found NaN or infinity in swinViT\.layers1\.0\.blocks\.0\.norm1"):
        load_monai(small(), state)


def test_two_networks_in_one_file_are_refused(source):
    state = as_monai(source)
    state |= {f"module.{name}": tensor for name, tensor in state.items()}
    with pytest.raises(FormatError, match=r"found .* and module\..*; leave one"):
        load_monai(small(), state)
