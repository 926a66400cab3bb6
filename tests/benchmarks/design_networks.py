"""Designs that `designs.py` compares: the planned network with one thing changed in its modules.

    python tests/benchmarks/design_networks.py DESIGN train 0 --fold full ...

runs a command of AutoSpine in which a plan's Swin UNETR is built as the design says. The starter, which may
count vertebrae in a validation, is built as it was trained.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autospine.cli import main
from autospine.core.types import Shape3, Vector3
from autospine.models.archive import opened_model
from autospine.network import AdaptiveSwinUNETR
from autospine.network.blocks import (
    Convolution,
    ResidualBlock,
    UpBlock,
    channels_first,
    channels_last,
    convolve,
    upsample,
)
from autospine.network.convolution import conv3d, convolve_upsampled
from autospine.network.normalisation import norm_act
from autospine.network.swin.gradient import gradient_magnitude, gradient_pyramid
from autospine.network.swin.swin_plan import SwinPlan
from autospine.network.swin.swin_settings import AttentionSettings, FusionSettings
from autospine.network.swin.swin_unetr import STAGES
from autospine.network.tokenwise import linear
from autospine.storage.trained_models import STARTER_FILE

Make = Callable[[SwinPlan, int, int, Vector3], nn.Module]


class SingleConvolution(nn.Module):
    """One convolution of the image with norm and activation, in place of a residual block."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Convolution(in_channels, out_channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        return norm_act(self.conv(x))


class SingleUp(nn.Module):
    """act(norm(conv(up(x)) + conv(skip))) in place of a residual block; a bare skip is added as it is."""

    def __init__(self, in_channels: int, out_channels: int, stride: Shape3, *, bare: bool) -> None:
        super().__init__()
        self.stride = stride
        self.transposed = nn.Parameter(torch.empty(in_channels, out_channels, *stride))
        nn.init.kaiming_uniform_(self.transposed, a=5**0.5)
        self.conv_up = Convolution(out_channels, out_channels, 3)
        self.conv_skip = None if bare else Convolution(out_channels, out_channels, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return the features at the size of the skip connection."""
        joined = skip.clone() if self.conv_skip is None else self.conv_skip(skip)
        if self.stride == (2, 2, 2):
            return norm_act(convolve_upsampled(x, self.transposed, self.conv_up.weight, addend=joined))
        return norm_act(convolve(upsample(x, self.transposed, self.stride), self.conv_up.weight) + joined)


class DilatedTokens(AdaptiveSwinUNETR):
    """Tokens t + sum_i w_i act(norm(conv_i(t))) of growing dilation, for the Swin branch and its skip."""

    dilations = (1, 2, 4)

    def begin(self) -> None:
        """Make the branches; their weights are equal at the start."""
        f = self.embedding.weight.shape[0]
        self.branches = nn.ModuleList(Convolution(f, f, 3) for _ in self.dilations)
        self.branch_weights = nn.Parameter(torch.full((len(self.dilations),), 1 / len(self.dilations)))
        self.embedding.register_forward_hook(lambda _module, _inputs, tokens: self.fused(tokens))

    def fused(self, tokens: Tensor) -> Tensor:
        """Return the tokens with what the branches add."""
        first = channels_first(tokens)
        for weight, branch, d in zip(self.branch_weights, self.branches, self.dilations, strict=True):
            kernel = channels_first(branch.weight)  # type: ignore[arg-type]
            found = norm_act(channels_last(conv3d(first, kernel, padding=(d,) * 3, dilation=(d,) * 3)))
            tokens = tokens + weight.to(found.dtype) * found
        return tokens


class BoundaryGates(AdaptiveSwinUNETR):
    """Attention on the skip connections: skip (1 + tanh(W skip + u |grad| + b))."""

    def begin(self) -> None:
        """Make the gates, which change little at the start."""
        f = self.embedding.weight.shape[0]
        self.gates = nn.ModuleList(nn.Linear(width + 1, width) for width in (f, f, 2 * f, 4 * f))
        for gate in self.gates:
            nn.init.normal_(gate.weight, std=0.05)  # type: ignore[arg-type]
            nn.init.zeros_(gate.bias)  # type: ignore[arg-type]
        for level, encoder in enumerate(self.encoders):
            encoder.register_forward_hook(lambda _m, _i, skip, level=level: self.gated(skip, level))

    def gated(self, skip: Tensor, level: int) -> Tensor:
        """Return a skip connection, weighted."""
        gate: Any = self.gates[level]
        seen = torch.cat([skip, self.magnitudes[level].to(skip.dtype)], -1)
        return skip * (1 + torch.tanh(linear(seen, gate.weight, gate.bias)))

    def _pass(self, image: Tensor, *others: Any) -> Tensor:
        magnitude = gradient_magnitude(image, self.spacing_mm)
        self.magnitudes = [
            channels_last(magnitude),
            *gradient_pyramid(magnitude, self.strides[:STAGES]),
        ]
        return super()._pass(image, *others)


class TrilinearLevels(AdaptiveSwinUNETR):
    """Levels of the decoder up-sampled trilinearly, and not by repetition."""

    def _logits(self, x: Tensor, gradients: Any, coarse: list[Tensor] | None, records: Any) -> Tensor:
        fusion, self.level_fusion = self.level_fusion, None
        levels: list[Tensor] = []
        logits = super()._logits(x, gradients, levels, records)
        self.level_fusion = fusion
        assert fusion is not None
        if coarse is not None:
            coarse.extend(levels)
        total: Tensor | None = None
        pairs = zip(fusion.heads, fusion.level_weights, levels[::-1], strict=True)
        for head, weight, level in reversed(list(pairs)):
            found = linear(channels_last(level), head.weight, head.bias)  # type: ignore[arg-type]
            own = weight.to(level.dtype) * channels_first(found)
            total = own if total is None else own + _enlarged(total, own)
        assert total is not None
        return logits + _enlarged(total, logits)


def _enlarged(coarse: Tensor, fine: Tensor) -> Tensor:
    return F.interpolate(coarse, size=fine.shape[2:], mode="trilinear")


def changed(kind: type[AdaptiveSwinUNETR] = AdaptiveSwinUNETR, **changes: Any) -> Make:
    """Return how to make the network with other settings, as an object of another class."""

    def make(plan: SwinPlan, in_channels: int, out_channels: int, spacing_mm: Vector3) -> nn.Module:
        settings = {name: change(plan) if callable(change) else change for name, change in changes.items()}
        plan = replace(plan, **settings)
        network = kind(
            in_channels,
            out_channels,
            feature_size=plan.feature_size,
            depths=plan.depths,
            num_heads=plan.num_heads,
            window_size=plan.window_sizes,
            strides=plan.strides,
            use_v2=plan.use_v2,
            fusion=plan.fusion,
            attention=plan.attention,
            spacing_mm=spacing_mm,
            checkpointing=plan.checkpointing,
        )
        begin = getattr(network, "begin", None)
        if begin is not None:
            begin()
        return network

    return make


def top(kind: str, share: float) -> Make:
    """Return how to make the plain network with other blocks at full resolution."""

    def make(plan: SwinPlan, in_channels: int, out_channels: int, spacing_mm: Vector3) -> nn.Module:
        network: Any = BOTH_OFF(plan, in_channels, out_channels, spacing_mm)
        width, below, stride = round(share * plan.feature_size), network.coarse_widths[0], network.strides[0]
        if kind == "blocks":
            network.encoders[0] = ResidualBlock(in_channels, width)
            network.decoders[0] = UpBlock(below, width, stride)
        else:
            network.encoders[0] = SingleConvolution(in_channels, width)
            network.decoders[0] = SingleUp(below, width, stride, bare=kind == "bare")
        network.head = nn.Linear(width, out_channels)
        return network  # type: ignore[no-any-return]

    return make


def _kernels(plan: SwinPlan, *, levels: bool) -> FusionSettings:
    assert plan.fusion is not None
    return replace(plan.fusion, levels=levels)


def _levels_alone(plan: SwinPlan) -> FusionSettings:
    return FusionSettings(kernels=(plan.strides[0],), levels=True)


def _attention(plan: SwinPlan, *, channel: bool) -> AttentionSettings:
    assert isinstance(plan.attention, AttentionSettings)
    return replace(plan.attention, gradient_channel=channel)


CHANNEL_ALONE = AttentionSettings(saliency=(False,) * 4, temperature=(False,) * 4, gradient_channel=True)
BOTH_OFF = changed(fusion=None, attention="plain")

DESIGNS: Mapping[str, tuple[str, Make]] = {
    "both_off": ("neither mechanism", BOTH_OFF),
    "identity": ("neither, and no attention at all", changed(fusion=None, attention="identity")),
    "paper": (
        "kernels fused in the embedding, saliency and temperature in attention: the design until now",
        changed(
            fusion=lambda plan: _kernels(plan, levels=False),
            attention=lambda plan: _attention(plan, channel=False),
        ),
    ),
    "ours": ("`paper`, levels fused, gradient as a channel: the design now", changed()),
    "levels": ("levels of the decoder fused", changed(fusion=_levels_alone, attention="plain")),
    "levels_trilinear": (
        "levels of the decoder fused, up-sampled trilinearly",
        changed(TrilinearLevels, fusion=_levels_alone, attention="plain"),
    ),
    "channel": ("gradient as a channel", changed(fusion=None, attention=CHANNEL_ALONE)),
    "levels_channel": (
        "levels, trilinearly, and the channel",
        changed(TrilinearLevels, fusion=_levels_alone, attention=CHANNEL_ALONE),
    ),
    "ours_trilinear": ("`ours`, levels up-sampled trilinearly", changed(TrilinearLevels)),
    "ours_identity": (
        "`ours_trilinear` without attention and the gradient's channel",
        changed(TrilinearLevels, attention="identity"),
    ),
    "gates": (
        "skip connections weighted by gradient",
        changed(BoundaryGates, fusion=None, attention="plain"),
    ),
    "dilated_tokens": (
        "tokens fused from three dilations, each with norm and activation",
        changed(DilatedTokens, fusion=None, attention="plain"),
    ),
    "single_top": ("one convolution a side at full resolution", top("single", 1.0)),
    "bare_top": ("one convolution in all at full resolution", top("bare", 1.0)),
    "narrow_single_top": ("`single_top` with half the channels there", top("single", 0.5)),
    "narrow_bare_top": ("`bare_top` with half the channels there", top("bare", 0.5)),
}
"""What each design changes, and how to make it. The first is what the others are compared with."""


def build_as(design: str) -> None:
    """Let every Swin UNETR of a plan be built as a design, but for that of the starter."""
    _, make = DESIGNS[design]
    as_planned = SwinPlan.build
    with opened_model(STARTER_FILE) as model:
        starter = model.configuration.network

    def build(
        self: SwinPlan, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
    ) -> nn.Module:
        if self == starter:
            return as_planned(self, in_channels, out_channels, spacing_mm=spacing_mm, patch_size=patch_size)
        return make(self, in_channels, out_channels, spacing_mm)

    SwinPlan.build = build  # type: ignore[method-assign]


if __name__ == "__main__":
    build_as(sys.argv[1])
    sys.argv = ["autospine", *sys.argv[2:]]
    sys.exit(main())
