"""Several networks' probabilities of tiles."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from autospine.core.errors import ModelError
from autospine.core.types import Slices3

Network = Callable[[Tensor], Tensor]

CACHED_BYTES = 1 << 20
"""Probabilities that a CPU computes at a time, but at least a row of the tile: they stay in its cache."""


def mean_probabilities(
    tiles: Float[Tensor, "N C S P L"],
    networks: Sequence[Network],
    *,
    regions: bool,
    half: torch.dtype | None = None,
    counted: Slices3 | None = None,
) -> Float[Tensor, "N K s p l"]:
    """The mean over networks of the class probabilities of tiles, float32.

    Beside the mean, the scores of one network are held at a time.

    Args:
        tiles: normalised, on the networks' device.
        networks: each maps the tiles to logits (N, K, S, P, L).
        regions: sigmoid channels instead of one softmax.
        half: 16-bit format to compute in where PyTorch finds it safe; None for float32 alone.
        counted: the part of each tile that is asked for; by default all.

    Raises:
        ModelError: if there is no network.
    """
    if not networks:
        raise ModelError("expected at least one network to predict with, found none")
    part: tuple[slice, ...] = (slice(None), slice(None), *(counted or ()))
    mean: Tensor | None = None
    for network in networks:
        with torch.no_grad(), torch.autocast(tiles.device.type, half, enabled=half is not None):
            logits = network(tiles)[part]
        if mean is None:
            mean = torch.zeros(logits.shape, device=logits.device)
        _add_probabilities(mean, logits, regions=regions, share=1 / len(networks))
        del logits  # or they would be held while the next network runs
    assert mean is not None
    return mean


def _add_probabilities(mean: Tensor, logits: Tensor, *, regions: bool, share: float) -> None:
    """Some rows at a time on a CPU; a GPU has room for all at once."""
    depth, row_bytes = logits.shape[2], 4 * logits[:, :, 0].numel()
    step = max(1, CACHED_BYTES // row_bytes) if logits.device.type == "cpu" else depth
    held = torch.empty(logits[:, :, :step].shape, device=logits.device)
    for start in range(0, depth, step):
        rows = slice(start, min(start + step, depth))
        some, out = logits[:, :, rows].float(), held[:, :, : rows.stop - start]
        found = torch.sigmoid(some, out=out) if regions else torch.softmax(some, 1, out=out)
        mean[:, :, rows].add_(found, alpha=share)
