"""Ensembled sliding window: mean class probabilities over tiles and networks."""

from collections.abc import Callable, Sequence

import torch

from autospine.errors import ModelError
from autospine.geometry import Box
from autospine.inference.tiles import importance, tiles
from autospine.types import Shape3

Network = Callable[[torch.Tensor], torch.Tensor]


def class_probabilities(
    image: torch.Tensor,
    networks: Sequence[Network],
    tile: Shape3,
    *,
    regions: bool,
    advance: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Gaussian-weighted mean of the networks' probabilities over all tiles.

    Every network sees a tile while it is loaded. Volumes shorter than a tile are padded with their
    smallest value (normalised background) for the network and cut back afterwards.

    Args:
        image: normalised, (C, S, P, L), on the networks' device.
        networks: each maps (1, C, *tile) to logits (1, K, *tile).
        tile: voxels of a tile.
        regions: sigmoid channels instead of one softmax.
        advance: called after each tile.

    Returns:
        (K, S, P, L) float32 in [0, 1].

    Raises:
        ModelError: if a network gives logits that are not finite.
    """
    padded, inside = _pad(image, tile)
    weights = importance(tile).to(image.device)
    total: torch.Tensor | None = None
    weight_sum = torch.zeros(padded.shape[1:], device=image.device)
    for box in tiles((padded.shape[1], padded.shape[2], padded.shape[3]), tile):
        where = (slice(None), *box.slices)
        probabilities = _mean_probabilities(padded[where][None], networks, regions)
        if total is None:
            total = torch.zeros((probabilities.shape[0], *padded.shape[1:]), device=image.device)
        total[where] += probabilities * weights
        weight_sum[box.slices] += weights
        advance()
    if total is None:
        raise ModelError("expected at least one tile, found an empty volume")
    total /= weight_sum
    return total[(slice(None), *inside.slices)]


def count_tiles(shape: Shape3, tile: Shape3) -> int:
    """Number of tiles that `class_probabilities` runs for a volume of this shape."""
    padded = [max(n, k) for n, k in zip(shape, tile, strict=True)]
    return sum(1 for _ in tiles((padded[0], padded[1], padded[2]), tile))


def _mean_probabilities(batch: torch.Tensor, networks: Sequence[Network], regions: bool) -> torch.Tensor:
    mean: torch.Tensor | None = None
    for network in networks:
        logits = network(batch)[0].float()
        if not torch.isfinite(logits).all():
            raise ModelError(
                "expected finite scores, found NaN or infinity; predict with float32 or train again"
            )
        probabilities = logits.sigmoid() if regions else logits.softmax(0)
        mean = probabilities if mean is None else mean.add_(probabilities)
    if mean is None:
        raise ModelError("expected at least one network to predict with, found none")
    return mean.div_(len(networks))


def _pad(image: torch.Tensor, tile: Shape3) -> tuple[torch.Tensor, Box]:
    """The image grown to at least a tile on every axis, and the box where it lies."""
    shape = image.shape[1:]
    missing = [max(0, k - n) for n, k in zip(shape, tile, strict=True)]
    before = [m // 2 for m in missing]
    inside = Box(
        start=(before[0], before[1], before[2]),
        stop=(before[0] + shape[0], before[1] + shape[1], before[2] + shape[2]),
    )
    if not any(missing):
        return image, inside
    grown = [n + m for n, m in zip(shape, missing, strict=True)]
    padded = image.amin(dim=(1, 2, 3))[:, None, None, None].expand(-1, *grown).clone()
    padded[(slice(None), *inside.slices)] = image
    return padded, inside
