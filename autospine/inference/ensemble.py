"""Several networks' probabilities of tiles."""

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from autospine.errors import ModelError
from autospine.types import Slices3

Network = Callable[[Tensor], Tensor]

CACHED_BYTES = 4 << 20
"""Probabilities that a CPU computes at a time, but at least a row of the tile: they stay in its cache."""


def probabilities(
    tiles: Float[Tensor, "N C S P L"],
    networks: Sequence[Network],
    *,
    regions: bool,
    half: torch.dtype | None = None,
    counted: Slices3 | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "N K s p l"]]]:
    """One network after the other's class probabilities of tiles, some rows at a time.

    Args:
        tiles: normalised, on the networks' device.
        networks: each maps the tiles to logits (N, K, S, P, L).
        regions: sigmoid channels instead of one softmax.
        half: 16-bit format to compute in where PyTorch finds it safe; None for float32 alone.
        counted: the part of each tile that is asked for; by default all.

    Yields:
        Rows of the tiles, and their probabilities in the part, float32, valid until the next are asked for.
        A GPU has room for all rows of a network at once.
    """
    part: tuple[slice, ...] = (slice(None), slice(None), *(counted or ()))
    first = counted[0].start if counted else 0
    for network in networks:
        with torch.no_grad(), torch.autocast(tiles.device.type, half, enabled=half is not None):
            logits = network(tiles)[part]
        depth, row_bytes = logits.shape[2], 4 * logits[:, :, 0].numel()
        step = max(1, CACHED_BYTES // row_bytes) if logits.device.type == "cpu" else depth
        held = torch.empty(logits[:, :, :step].shape, device=logits.device)
        for start in range(0, depth, step):
            stop = min(start + step, depth)
            some, out = logits[:, :, start:stop].float(), held[:, :, : stop - start]
            found = torch.sigmoid(some, out=out) if regions else torch.softmax(some, 1, out=out)
            yield slice(first + start, first + stop), found
        del logits, some  # or they would be held while the next network runs


def mean_probabilities(
    tiles: Float[Tensor, "N C S P L"],
    networks: Sequence[Network],
    *,
    regions: bool,
    half: torch.dtype | None = None,
) -> Float[Tensor, "N K S P L"]:
    """The mean over networks of `probabilities`, float32; the arguments are the same.

    Raises:
        ModelError: if there is no network.
    """
    total: Tensor | None = None
    for rows, found in probabilities(tiles, networks, regions=regions, half=half):
        if total is None:
            shape = (*found.shape[:2], *tiles.shape[2:])
            total = torch.zeros(shape, device=found.device)
        total[:, :, rows].add_(found, alpha=1 / len(networks))
    if total is None:
        raise ModelError("expected at least one network to predict with, found none")
    return total
