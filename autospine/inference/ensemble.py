"""The mean class probabilities of several networks, tile by tile, and of those that see its mirror image."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from autospine.core.errors import ModelError
from autospine.core.geometry import Box
from autospine.core.labels import LabelSpace
from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.core.types import Slices3
from autospine.inference.tiles import TileGrid
from autospine.network.base import SegmentationNetwork
from autospine.plan import Augmentation

Network = Callable[[Tensor], Tensor]
"""Maps tiles (B, C, S, P, L) to logits (B, K, S, P, L)."""

CACHED_BYTES = 1 << 20
"""Probabilities that a CPU computes at a time, but at least one row of the tile: they stay in its cache."""

LEFT = -1
"""The axis of a batch that runs from right to left."""


def ready_networks(
    networks: Sequence[nn.Module], device: torch.device, half: torch.dtype | None = None
) -> list[nn.Module]:
    """Move networks to the device that they predict on, and put them into evaluation mode.

    Args:
        networks: Networks.
        device: Device that they predict on.
        half: 16-bit format that networks of nothing but predictions compute in. On a GPU, weights are
            converted to it here, which else would be done for every tile; those of a CPU stay.
    """
    ready = [network.to(device).eval() for network in networks]
    if half is not None and device.type != "cpu":
        for network in ready:
            convert_kernels(network, half)
    return ready


def convert_kernels(network: nn.Module, half: torch.dtype) -> None:
    """Convert the weights that AutoSpine's networks round to `half` in every pass, which changes no result.

    Those are the weights of linear layers and of torch's convolutions. Other ones are computed with in
    float32 first, and so may be any of another distribution's network.
    """
    for part in network.modules():
        if isinstance(part, SegmentationNetwork):
            for layer in part.modules():
                if isinstance(layer, nn.Linear | nn.Conv3d):
                    layer.to(half)


class _TimedConvolutions:
    """cuDNN's switch for timing convolutions, on for as long as any thread is in the block."""

    def __init__(self) -> None:
        self._lock, self._users, self._before = threading.Lock(), 0, False

    def __enter__(self) -> None:
        cudnn = torch.backends.cudnn
        with self._lock:
            if not self._users:
                self._before = cudnn.benchmark
                fixed = cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
                cudnn.benchmark = self._before or not fixed
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                torch.backends.cudnn.benchmark = self._before


_TIMED_CONVOLUTIONS = _TimedConvolutions()


def timed_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Return a context in which cuDNN times its convolutions, once for each shape, and takes the fastest.

    That pays because all tiles, and all patches of a training, have the same shape, and is what nnU-Net does.
    Where cuDNN has to be deterministic, and on a CPU, nothing changes.
    """
    return _TIMED_CONVOLUTIONS if device.type == "cuda" else nullcontext()


class TileEnsemble:
    """Networks that predict tiles of one prepared image.

    Args:
        tiles: Returns the input (B, C, S, P, L) of neighbouring tiles on the networks' device.
        tile_grid: Positions of the image's tiles.
        probabilities: Maps tiles (B, C, S, P, L) to class probabilities, as `mean_probabilities` does.
        advance: Told the number of tiles that have been run.
    """

    def __init__(
        self,
        tiles: Callable[[Sequence[Box]], Tensor],
        tile_grid: TileGrid,
        probabilities: Callable[..., Tensor],
        advance: Callable[[int], None],
    ) -> None:
        self._tiles, self._tile_grid = tiles, tile_grid
        self._probabilities, self._advance = probabilities, advance

    def scores(self, boxes: Sequence[Box]) -> list[Float32[Tensor, "K s p l"]]:
        """Return the mean probabilities of each of several tiles in the tile's valid region."""
        valid = [self._tile_grid.valid_region(box.start).counted_from(box.start).slices for box in boxes]
        tiles = self._tiles(boxes)
        if len(boxes) == 1:  # of a single tile nothing is computed that is not used
            means = [self._probabilities(tiles, valid=valid[0])[0]]
        else:
            every = self._probabilities(tiles)
            means = [mean[:, *part] for mean, part in zip(every, valid, strict=True)]
        self._advance(len(boxes))
        return means


def mean_probabilities(
    tiles: Float[Tensor, "B C S P L"],
    networks: Sequence[Network],
    *,
    regions: bool,
    amp_dtype: torch.dtype | None = None,
    valid: Slices3 | None = None,
) -> Float32[Tensor, "B K s p l"]:
    """Return the mean over networks of the class probabilities of tiles.

    Beside the mean, the logits of one network are held at a time.

    Args:
        tiles: Normalised tiles on the networks' device.
        networks: Each maps the tiles to logits (B, K, S, P, L).
        regions: Whether channels are regions that may overlap (sigmoid) or classes (softmax).
        amp_dtype: 16-bit format for automatic mixed precision; None for float32 alone.
        valid: Part of each tile whose probabilities are wanted; by default all of it.

    Raises:
        ModelError: If there is no network.
    """
    if not networks:
        raise ModelError("expected at least one network to predict with, found none")
    part: tuple[slice, ...] = (slice(None), slice(None), *(valid or ()))
    mean: Tensor | None = None
    for network in networks:
        with (
            timed_convolutions(tiles.device),
            torch.no_grad(),
            torch.autocast(tiles.device.type, amp_dtype, enabled=amp_dtype is not None),
        ):
            logits = network(tiles)[part]
        if mean is None:
            mean = torch.zeros(logits.shape, device=logits.device)
        _add_probabilities(mean, logits, regions=regions, share=1 / len(networks))
        del logits  # else these would be held while the next network runs
    assert mean is not None
    return mean


def _add_probabilities(
    mean: Float32[Tensor, "B K s p l"], logits: Float[Tensor, "B K s p l"], *, regions: bool, share: float
) -> None:
    """Add a network's share to the mean, a few rows at a time on a CPU; a GPU has room for all at once."""
    depth, row_bytes = logits.shape[2], 4 * logits[:, :, 0].numel()
    step = max(1, CACHED_BYTES // row_bytes) if logits.device.type == "cpu" else depth
    buffer = torch.empty(logits[:, :, :step].shape, device=logits.device)
    for start in range(0, depth, step):
        rows = slice(start, min(start + step, depth))
        some, out = logits[:, :, rows].float(), buffer[:, :, : rows.stop - start]
        probabilities = torch.sigmoid(some, out=out) if regions else torch.softmax(some, 1, out=out)
        mean[:, :, rows].add_(probabilities, alpha=share)


class Mirrored(nn.Module):
    """A network that sees tiles mirrored; its logits are mirrored back.

    Args:
        network: Maps tiles to logits.
        channels: For each channel of the logits, the one that takes its place in the mirror image.
    """

    def __init__(self, network: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.network, self.channels = network, list(channels)

    def forward(self, tiles: ImageBatch) -> LogitBatch:
        """Return the logits (B, K, S, P, L) of tiles (B, C, S, P, L)."""
        logits: Tensor = self.network(tiles.flip(LEFT))
        if self.channels != sorted(self.channels):
            logits = logits[:, self.channels]
        return logits.flip(LEFT)


def with_mirror(
    networks: Sequence[nn.Module], labels: LabelSpace, augmentation: Augmentation
) -> list[nn.Module]:
    """Return every network, each followed by itself seeing the mirror image.

    Args:
        networks: Networks of a plan.
        labels: Labels of the plan.
        augmentation: The plan's augmentation, which says whether and how training has mirrored.

    Raises:
        ModelError: If training has not mirrored.
    """
    channels = mirrored_channels(labels, augmentation)
    return [view for network in networks for view in (network, Mirrored(network, channels))]


def mirrored_channels(labels: LabelSpace, augmentation: Augmentation) -> list[int]:
    """Return for each channel the one that has its label values in the mirror image.

    Raises:
        ModelError: If training has not mirrored, or a channel has no counterpart.
    """
    swapped = np.arange(len(labels.integers) + 1)
    for a, b in augmentation.mirror_pairs:
        swapped[[a, b]] = b, a
    rows = [tuple(row) for row in labels.membership]
    mirrored = [tuple(row) for row in labels.membership[:, swapped]]
    if not augmentation.mirror_axes or set(mirrored) != set(rows):
        raise ModelError(
            "expected a model that was trained with left and right mirrored, found one that was not (why: "
            "mirror_axes of its plan); leave --mirror out"
        )
    return [rows.index(row) for row in mirrored]
