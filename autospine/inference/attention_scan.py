"""Where a network's attention looks in an image: its maps, stitched over all tiles.

Each tile's maps lie on the token grid of their stage. They are interpolated to voxels and averaged with the
weights of the sliding window, over blocks and networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from autospine.core.errors import ModelError
from autospine.core.geometry import Box
from autospine.core.types import ImageArray, ScoreMap, Shape3
from autospine.inference.tiles import TileGrid, gaussian_weights
from autospine.network.swin.attention import AttentionMaps
from autospine.network.swin.swin_unetr import AdaptiveSwinUNETR
from autospine.system.log import track

HeadMaps = Float32[np.ndarray, "heads S P L"]
"""A map of each head of a stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageAttention:
    """Attention of one stage, on the prepared image's voxels."""

    stage: int
    """Number of the stage, from 1."""

    saliency: HeadMaps | None
    """Logits that adaptive attention adds to keys: positive where they gain weight; None where the stage has
    Swin's own attention."""

    received: ScoreMap
    """Attention that a token receives, mean over the heads: 1 where attention is uniform."""


def scan_attention(
    networks: Sequence[nn.Module], image: ImageArray, tile: Shape3
) -> tuple[StageAttention, ...]:
    """Return the attention of every stage that has any, mean over blocks and networks.

    Args:
        networks: Networks of one configuration, in evaluation mode.
        image: Prepared and normalised image (C, S, P, L).
        tile: Voxels of a tile.

    Raises:
        ModelError: If the networks have no attention.
    """
    swin = [network for network in networks if isinstance(network, AdaptiveSwinUNETR)]
    if len(swin) < len(networks) or any(network.attention == "identity" for network in swin):
        raise ModelError(
            "expected a network with attention (adaptive_swin_unetr or swin_unetr), found one without; name "
            "another model with -m"
        )
    shape = (image.shape[1], image.shape[2], image.shape[3])
    grid = TileGrid.covering(shape, tile)
    sums: dict[tuple[int, str], Tensor] = {}
    total, weights = torch.zeros(shape), gaussian_weights(tile)
    for box in track(list(grid.boxes), "attention"):
        voxels = _tile(image, box)
        inside, part = _overlap(box, shape)
        total[inside.slices] += weights[part.slices] * len(swin)
        for network in swin:
            for stage, blocks in enumerate(network.attention_maps(voxels), start=1):
                for kind, maps in _mean_maps(blocks).items():
                    fine = interpolate(maps, size=tile, mode="trilinear", align_corners=False)[0]
                    place = sums.setdefault((stage, kind), torch.zeros(len(fine), *shape))
                    place[:, *inside.slices] += (fine * weights)[:, *part.slices]
    stages = sorted({stage for stage, _ in sums})
    return tuple(
        StageAttention(
            stage=stage,
            saliency=(sums[stage, "saliency"] / total).numpy() if (stage, "saliency") in sums else None,
            received=(sums[stage, "received"] / total).mean(dim=0).numpy(),
        )
        for stage in stages
    )


def _mean_maps(blocks: Sequence[AttentionMaps]) -> dict[str, Tensor]:
    """Return the mean of a stage's maps (1, heads, s, p, l) over its blocks; none of a stage without any."""
    if not blocks:
        return {}
    found = {"received": torch.stack([maps.received for maps in blocks]).mean(dim=0)}
    saliencies = [maps.saliency for maps in blocks if maps.saliency is not None]
    if saliencies:
        found["saliency"] = torch.stack(saliencies).mean(dim=0)
    return found


def _tile(image: ImageArray, box: Box) -> Tensor:
    """Return a tile (1, C, S, P, L); outside of the image it has the image's least value."""
    shape = (image.shape[1], image.shape[2], image.shape[3])
    inside, part = _overlap(box, shape)
    voxels = torch.from_numpy(np.ascontiguousarray(image[:, *inside.slices]))[None]
    margins = [
        n
        for start, stop, size in reversed(list(zip(part.start, part.stop, box.shape, strict=True)))
        for n in (start, size - stop)
    ]
    return pad(voxels, margins, value=float(image.min()))


def _overlap(box: Box, shape: Shape3) -> tuple[Box, Box]:
    """Return the part of a tile that lies in the image, in the image's voxels and in the tile's."""
    inside = Box.of(slice(max(0, a), min(n, b)) for a, b, n in zip(box.start, box.stop, shape, strict=True))
    return inside, inside.counted_from(box.start)
