"""Several networks' mean probabilities of tiles."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from autospine.errors import ModelError
from autospine.types import Slices3

Network = Callable[[Tensor], Tensor]

CACHED_BYTES = 2 << 20
"""Probabilities that a CPU computes at a time, but at least a row of the tile: they stay in its cache."""


def mean_probabilities(
    tiles: Float[Tensor, "N C S P L"],
    networks: Sequence[Network],
    *,
    regions: bool,
    half: torch.dtype | None = None,
    counted: Slices3 | None = None,
) -> Float[Tensor, "N K S P L"]:
    """The mean over networks of tiles' class probabilities, float32.

    Args:
        tiles: normalised, on the networks' device.
        networks: each maps the tiles to logits (N, K, S, P, L).
        regions: sigmoid channels instead of one softmax.
        counted: the part of each tile that is asked for, by default all; the rest is undefined.
        half: 16-bit format to compute in where PyTorch finds it safe; None for float32 alone.

    Raises:
        ModelError: if there is no network, or one gives scores that are not finite.
    """
    total: Tensor | None = None
    share, part = 1 / max(1, len(networks)), (slice(None), slice(None), *(counted or ()))
    for network in networks:
        with torch.no_grad(), torch.autocast(tiles.device.type, half, enabled=half is not None):
            logits = network(tiles)
        first = total is None
        if total is None:
            total = logits if _is_ours(logits, tiles) else torch.empty(logits.shape, device=logits.device)
        for rows, probabilities in _probabilities(logits[part], regions):
            if first:
                torch.mul(probabilities, share, out=total[part][:, :, rows])
            else:
                total[part][:, :, rows].add_(probabilities, alpha=share)
    if total is None:
        raise ModelError("expected at least one network to predict with, found none")
    # A sum of finite numbers is finite, and one NaN makes it NaN.
    if not torch.isfinite(total[part].sum()):
        raise ModelError("expected finite scores, found NaN or infinity; predict with float32 or train again")
    return total


def _is_ours(logits: Tensor, tiles: Tensor) -> bool:
    """Whether probabilities can take the logits' place, which spares memory and the time to clear it."""
    shared = logits.untyped_storage().data_ptr() == tiles.untyped_storage().data_ptr()
    return logits.dtype == torch.float32 and logits.is_contiguous() and not shared


def _probabilities(logits: Tensor, regions: bool) -> Iterator[tuple[slice, Tensor]]:
    """Rows along S and their probabilities, which are valid until the next are asked for."""
    depth, row_bytes = logits.shape[2], 4 * logits[:, :, 0].numel()
    step = max(1, CACHED_BYTES // row_bytes) if logits.device.type == "cpu" else depth
    held = torch.empty(logits[:, :, :step].shape, device=logits.device)
    for start in range(0, depth, step):
        rows = slice(start, min(start + step, depth))
        part, out = logits[:, :, rows].float(), held[:, :, : rows.stop - start]
        yield rows, torch.sigmoid(part, out=out) if regions else torch.softmax(part, 1, out=out)
