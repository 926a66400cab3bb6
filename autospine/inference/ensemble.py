"""Several networks' mean probabilities of tiles."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from autospine.errors import ModelError

Network = Callable[[Tensor], Tensor]

CACHED_BYTES = 4 << 20
"""Probabilities that a CPU computes at a time, but at least a row of the tile: they stay in its cache."""


def mean_probabilities(
    tiles: Float[Tensor, "N C S P L"],
    networks: Sequence[Network],
    *,
    regions: bool,
    half: torch.dtype | None = None,
) -> Float[Tensor, "N K S P L"]:
    """The mean over networks of tiles' class probabilities, float32.

    Args:
        tiles: normalised, on the networks' device.
        networks: each maps the tiles to logits (N, K, S, P, L).
        regions: sigmoid channels instead of one softmax.
        half: 16-bit format to compute in where PyTorch finds it safe; None for float32 alone.

    Raises:
        ModelError: if there is no network, or one gives scores that are not finite.
    """
    total: Tensor | None = None
    for network in networks:
        with torch.no_grad(), torch.autocast(tiles.device.type, half, enabled=half is not None):
            logits = network(tiles)
        if total is None:
            total = torch.zeros(logits.shape, device=logits.device)
        _add_probabilities(total, logits, regions)
    if total is None:
        raise ModelError("expected at least one network to predict with, found none")
    # A sum of finite numbers is finite, and one NaN makes it NaN.
    if not torch.isfinite(total.sum()):
        raise ModelError("expected finite scores, found NaN or infinity; predict with float32 or train again")
    return total.div_(len(networks))


def _add_probabilities(total: Tensor, logits: Tensor, regions: bool) -> None:
    rows, row_bytes = total.shape[2], total[:, :, 0].nbytes
    step = max(1, CACHED_BYTES // row_bytes) if total.device.type == "cpu" else rows
    for start in range(0, rows, step):
        part = logits[:, :, start : start + step].float()
        total[:, :, start : start + step] += part.sigmoid() if regions else part.softmax(1)
