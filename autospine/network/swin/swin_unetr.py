"""Swin UNETR with multi-scale fusion and adaptive attention, for 3D segmentation.

The layout is that of SwinUNETR (Hatamizadeh et al., arXiv 2201.01266) with the residual blocks of
SwinUNETR-V2 (He et al., MICCAI 2023); multi-scale fusion and adaptive attention realise arXiv 2503.12853
in our own reading. At their initial values the fusion of kernels and the attention's terms change nothing:
without the fusion of levels and the gradient's channel the network is the plain one, number for number.
"""

from collections.abc import Sequence
from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from autospine.core.errors import PlanError
from autospine.core.geometry import triple
from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.core.types import Shape3, Vector3
from autospine.network.base import SegmentationNetwork, without_autocast
from autospine.network.blocks import Convolution, ResidualBlock, UpBlock, channels_first, channels_last
from autospine.network.network_plan import total_stride
from autospine.network.swin.attention import AttentionMaps, KeySaliency, QueryTemperature
from autospine.network.swin.fusion import LevelFusion, PatchEmbedding, Stem, repeated
from autospine.network.swin.gradient import gradient_magnitude, gradient_pyramid
from autospine.network.swin.stages import MergeOrder, SwinStage
from autospine.network.swin.swin_settings import (
    AttentionBounds,
    AttentionKind,
    AttentionSettings,
    FusionSettings,
)
from autospine.network.tokenwise import layer_norm, linear

STAGES = 4

LARGE_SAMPLE = 2**19
"""Voxels of a patch from which a GPU computes sample by sample at full resolution; smaller ones are bound by
the number of launches."""


class _Gradients(NamedTuple):
    magnitude: Float[Tensor, "B 1 S P L"]
    """Gradient magnitude, of mean 1."""

    of_tokens: list[Float[Tensor, "B _ _ _ 1"]]
    """Its maximum over each token of each stage."""


class AdaptiveSwinUNETR(SegmentationNetwork):
    """Swin Transformer encoder with a convolutional U-Net decoder.

    Channels double from stage to stage: f at full and half resolution, then 2f, 4f, 8f, 16f.
    Instance norm over a single voxel is left out, so a bottleneck of one voxel works; plans keep at least
    two.

    Computation runs in `compute_dtype` if it is set, else in the dtype of an enclosing autocast, else in the
    parameters' dtype; the network casts its weights itself and statistics of norms stay in float32.

    Args:
        in_channels: Channels of the image.
        out_channels: Classes, background included.
        feature_size: f, channels at full resolution. Multiples of 16 run fastest.
        depths: Swin blocks per stage.
        num_heads: Attention heads per stage; each divides the stage's channels.
        window_size: Attention window in tokens: an edge length or a triple (S, P, L) for all stages, which
            is clamped where a token grid is smaller; or a triple per stage, which must fit its grid.
        strides: Strides of the patch embedding and of the four mergings, 1 or 2 per axis.
        use_v2: Residual convolution block before each stage.
        fusion: Settings of the multi-scale fusion; None is the plain patch embedding.
        attention: Settings of the adaptive attention; `plain` is Swin's own; `identity` leaves attention out
            of the blocks, as a control.
        attention_bounds: Bounds of the adaptive attention; the defaults if None.
        legacy_bias_slice: Where a window is clamped to its grid, read its position bias as MONAI does, which
            is at the offsets of other pairs. For weights that were trained so.
        merge_order: `legacy` stacks the tokens of a merging as MONAI did up to 1.4. For weights that were
            trained so.
        spacing_mm: Voxel spacing (S, P, L) in mm, for the image gradient of the adaptive attention.
        checkpointing: Recompute stages and full-resolution blocks in the backward pass to save memory.

    Raises:
        PlanError: If sizes do not fit each other.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        feature_size: int = 24,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int | Shape3 | Sequence[Shape3] = 7,
        strides: Sequence[Shape3] = ((2, 2, 2),) * 5,
        use_v2: bool = True,
        fusion: FusionSettings | None = None,
        attention: AttentionKind = "plain",
        attention_bounds: AttentionBounds | None = None,
        legacy_bias_slice: bool = False,
        merge_order: MergeOrder = "fixed",
        spacing_mm: Vector3 = (1.0, 1.0, 1.0),
        checkpointing: bool = False,
    ) -> None:
        bounds = attention_bounds or AttentionBounds()
        windows = stage_windows(window_size)
        _check_numbers(in_channels, out_channels, feature_size, spacing_mm)
        _check_architecture(feature_size, depths, num_heads, strides)
        _check_kinds(attention, merge_order, strides)
        super().__init__(in_channels, total_stride(strides), checkpointing=checkpointing)
        self.strides = tuple(strides)
        self.attention, self.attention_bounds = attention, bounds
        self.merge_order = merge_order
        self.legacy_bias_slice = legacy_bias_slice
        self.windows = windows
        self.clamps_windows = isinstance(window_size, int) or isinstance(window_size[0], int)
        self.spacing_mm = spacing_mm

        f = feature_size
        self.stem = Stem(in_channels, fusion) if fusion is not None and fusion.has_stem else None
        seen = in_channels + self._sees_gradient
        self.embedding = PatchEmbedding(seen, f, self.strides[0], fusion)
        self.stages = nn.ModuleList(
            SwinStage(
                f * 2**i,
                num_heads[i],
                windows[i],
                self.strides[i + 1],
                depth=depths[i],
                use_v2=use_v2,
                attention=attention,
                bounds=bounds,
                stage=i,
                legacy_bias_slice=legacy_bias_slice,
                merge_order=merge_order,
            )
            for i in range(STAGES)
        )
        self.encoders = nn.ModuleList(
            [ResidualBlock(seen, f), *(ResidualBlock(f * 2**i, f * 2**i) for i in range(3))]
        )
        self.bottleneck = ResidualBlock(16 * f, 16 * f)
        widths = (f, f, 2 * f, 4 * f, 8 * f, 16 * f)
        self.coarse_widths = widths[1:-1]
        self.decoders = nn.ModuleList(
            UpBlock(widths[i + 1], widths[i], self.strides[i]) for i in range(len(self.strides))
        )
        self.head = nn.Linear(f, out_channels)
        self.level_fusion = (
            LevelFusion(self.coarse_widths, out_channels, self.strides, fusion.weighting)
            if fusion is not None and fusion.levels
            else None
        )

    def logits(self, x: ImageBatch, coarse: list[Tensor] | None) -> LogitBatch:
        """Return the logits of an image in its dtype, from which the gradients are taken too."""
        return self._logits(x, self._gradients(x), coarse, None)

    @torch.no_grad()
    def attention_maps(self, image: ImageBatch) -> list[list[AttentionMaps]]:
        """Return the attention maps (B, heads, S, P, L) of every block of each stage, on the stage's tokens.

        The list of a stage is empty where attention is `identity`. Passes without maps take no longer for
        this.
        """
        records: list[list[AttentionMaps]] = [[] for _ in range(STAGES)]
        self._pass(image, None, records)
        return [[maps.on_grid(lambda m: channels_first(m).float()) for maps in record] for record in records]

    def fusion_weights(self) -> Float[Tensor, "scales"]:
        """Return the weights w_i of the fusion, detached: the stem's, then the embedding's; (1,) without."""
        parts = [] if self.stem is None else [self.stem.scale_weights]
        if self.stem is None or self.embedding.is_fused:
            parts.append(self.embedding.scale_weights)
        return torch.cat(parts).detach()

    def fusion_kernels(self) -> list[Shape3]:
        """Return the size in voxels of the kernel that each of the `fusion_weights` belongs to."""
        scales = [] if self.stem is None else [*self.stem.scales]
        if self.stem is None or self.embedding.is_fused:
            scales += [self.embedding.weight, *self.embedding.scales]
        return [(scale.shape[2], scale.shape[3], scale.shape[4]) for scale in scales]

    def level_weights(self) -> Float[Tensor, "levels"]:
        """Return the weights of the decoder's levels in the logits, finest first, detached; (0,) without."""
        return torch.zeros(0) if self.level_fusion is None else self.level_fusion.level_weights.detach()

    def saliency_gammas(self) -> list[list[Float[Tensor, "heads"]]]:
        """Return gamma_h of every block of each stage, detached; an empty list where there is no saliency."""
        return [
            [m.gamma.detach().clone() for m in stage.modules() if isinstance(m, KeySaliency)]
            for stage in self.stages
        ]

    def _pass(
        self,
        image: ImageBatch,
        coarse: list[Tensor] | None,
        records: list[list[AttentionMaps]] | None = None,
    ) -> LogitBatch:
        self.check(image)
        dtype, gradients = self.dtype_for(image), self._gradients(image)
        with without_autocast(image.device.type):
            return self._logits(image.to(dtype), gradients, coarse, records)

    def _logits(
        self,
        x: ImageBatch,
        gradients: _Gradients | None,
        coarse: list[Tensor] | None,
        records: list[list[AttentionMaps]] | None,
    ) -> LogitBatch:
        if self.stem is not None:
            x = self.run(self.stem, x)
        if gradients is not None and self._sees_gradient:
            x = torch.cat([x, gradients.magnitude.to(x.dtype) - 1], dim=1)
        return channels_first(self._decode(x, self._encode(x, gradients, records), coarse))

    def _encode(
        self, x: Tensor, gradients: _Gradients | None, records: list[list[AttentionMaps]] | None
    ) -> list[Tensor]:
        """Return the normalised token grids after the embedding and after each stage."""
        tokens = self.embedding(x)
        hidden = [layer_norm(tokens)]
        for i, stage in enumerate(self.stages):
            gradient = None if gradients is None else gradients.of_tokens[i].to(x.dtype)
            record = None if records is None else records[i]
            tokens = self.run(stage, tokens, gradient, record)
            hidden.append(layer_norm(tokens))
        return hidden

    def _decode(self, x: Tensor, hidden: list[Tensor], coarse: list[Tensor] | None) -> Tensor:
        """Return the logits, channels last."""
        x = channels_last(x)
        samples = x.tensor_split(len(x) if computes_by_sample(x) else 1)
        finest_skips = [self.run(self.encoders[0], sample) for sample in samples]
        skips = [encoder(h) for encoder, h in zip(self.encoders[1:], hidden[:3], strict=True)]
        skips.append(hidden[3])
        y = self.bottleneck(hidden[4])
        levels: list[Tensor] = []
        for i in reversed(range(1, len(self.decoders))):
            y = self.decoders[i](y, skips[i - 1])
            if self.level_fusion is not None:
                levels.insert(0, y)
            if coarse is not None:
                coarse.append(channels_first(y))
        logits = [
            linear(self.run(self.decoders[0], part, skip), self.head.weight, self.head.bias)
            for part, skip in zip(y.tensor_split(len(samples)), finest_skips, strict=True)
        ]
        if self.level_fusion is not None:
            fused = self.level_fusion(levels).tensor_split(len(samples))
            pairs = zip(logits, fused, strict=True)
            logits = [fine + repeated(part, self.strides[0]) for fine, part in pairs]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def parameters_of_maps(self) -> list[tuple[nn.Module, str]]:
        """Return the parameters of layers, but for kernels that are composed or added up in float32."""
        blocks = [decoder.block for decoder in self.decoders if isinstance(decoder, UpBlock)]
        composed = {conv for block in blocks for conv in (block.conv1, block.conv3)}
        kinds = (nn.Linear, nn.LayerNorm, Convolution, KeySaliency, QueryTemperature)
        layers = [m for m in self.modules() if isinstance(m, kinds) and m not in composed]
        return [(layer, name) for layer in layers for name, _ in layer.named_parameters(recurse=False)]

    @property
    def _sees_gradient(self) -> bool:
        return isinstance(self.attention, AttentionSettings) and self.attention.gradient_channel

    def _gradients(self, image: ImageBatch) -> _Gradients | None:
        """Return the gradient magnitude of the image, if any part uses it."""
        if not isinstance(self.attention, AttentionSettings):
            return None
        if not (self._sees_gradient or any((*self.attention.saliency, *self.attention.temperature))):
            return None
        magnitude = gradient_magnitude(
            image, self.spacing_mm, sigma_mm=self.attention_bounds.gradient_sigma_mm
        )
        return _Gradients(magnitude, gradient_pyramid(magnitude, self.strides[:STAGES]))

    def check(self, image: ImageBatch) -> None:
        """Refuse an image that the network cannot take; see `forward`."""
        super().check(image)
        if not self.clamps_windows:
            self._check_windows((image.shape[2], image.shape[3], image.shape[4]))

    def _check_windows(self, size: Shape3) -> None:
        """Refuse windows that were given per stage and are larger than the stage's token grid."""
        grid = size
        for i, (window, stride) in enumerate(zip(self.windows, self.strides, strict=False)):
            grid = (grid[0] // stride[0], grid[1] // stride[1], grid[2] // stride[2])
            if any(w > g for w, g in zip(window, grid, strict=True)):
                raise PlanError(
                    f"expected the window of stage {i} to fit its token grid {grid}, found {window} for an "
                    f"image of {size}; choose a smaller window or a larger patch"
                )


def computes_by_sample(x: Float[Tensor, "B S P L C"]) -> bool:
    """Return whether the samples of a batch go through the blocks at full resolution one after the other.

    A GPU is busy with one large sample. Norms then need no copy to put samples together, and the maps that
    live for a moment only are those of one sample.
    """
    return len(x) > 1 and x.device.type != "cpu" and x[0, ..., 0].numel() >= LARGE_SAMPLE


def stage_windows(window_size: int | Shape3 | Sequence[Shape3]) -> tuple[Shape3, ...]:
    """Return the window of each of the four stages, from one edge length, one triple or four triples.

    Raises:
        PlanError: If it is none of these, or a window is smaller than one token.
    """
    sizes = (window_size,) * 3 if isinstance(window_size, int) else window_size
    single = tuple(edge for edge in sizes if isinstance(edge, int))
    triples = [single] * STAGES if single else [tuple(size) for size in sizes if not isinstance(size, int)]
    if len(triples) != STAGES or any(len(t) != 3 or min(t) < 1 for t in triples):
        raise PlanError(
            f"expected a window size, a triple, or {STAGES} triples of at least 1 token, found "
            f"{window_size}; correct the window sizes"
        )
    return tuple(triple(t) for t in triples)


def _check_numbers(in_channels: int, out_channels: int, feature_size: int, spacing_mm: Vector3) -> None:
    if min(in_channels, out_channels, feature_size) < 1:
        raise PlanError(
            f"expected at least one input channel, class and feature, found {in_channels}, {out_channels} "
            f"and {feature_size}; correct them"
        )
    if not all(isfinite(spacing) and spacing > 0 for spacing in spacing_mm):
        raise PlanError(f"expected a spacing of three positive lengths in mm, found {spacing_mm}; correct it")


def _check_architecture(
    feature_size: int,
    depths: Sequence[int],
    num_heads: Sequence[int],
    strides: Sequence[Shape3],
) -> None:
    if len(depths) != STAGES or len(num_heads) != STAGES or min(depths) < 1 or min(num_heads) < 1:
        raise PlanError(
            f"expected {STAGES} positive depths and numbers of heads, found {tuple(depths)} and "
            f"{tuple(num_heads)}; give one per stage"
        )
    for i, heads in enumerate(num_heads):
        if feature_size * 2**i % heads:
            raise PlanError(
                f"expected the heads of stage {i} to divide its {feature_size * 2**i} channels, found "
                f"{heads}; change num_heads or feature_size"
            )
    if len(strides) != STAGES + 1 or any(len(t) != 3 or not set(t) <= {1, 2} for t in strides):
        raise PlanError(
            f"expected {STAGES + 1} stride triples of 1 or 2, found {tuple(strides)}; correct the strides"
        )


def _check_kinds(attention: AttentionKind, merge_order: str, strides: Sequence[Shape3]) -> None:
    if not (attention in ("plain", "identity") or isinstance(attention, AttentionSettings)):
        raise PlanError(
            f"expected attention settings, 'plain' or 'identity', found {attention!r}; choose one of them"
        )
    if merge_order not in ("fixed", "legacy"):
        raise PlanError(f"expected the merge order 'fixed' or 'legacy', found {merge_order!r}; correct it")
    if merge_order == "legacy" and any(stride != (2, 2, 2) for stride in strides[1:]):
        raise PlanError(
            f"expected mergings of stride (2, 2, 2) for the legacy merge order, found {tuple(strides[1:])}; "
            "use the order 'fixed'"
        )
