"""Validation after each epoch: tiles of the held-out cases, predicted with the averaged weights so far.

A fold's validation predicts its held-out cases whole, once the fold is trained. Until then a few of their
tiles after each epoch show how well the network does on cases that it does not learn from, at a small part of
the time that the epoch took.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor, isfinite
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Integer, UInt8

from autospine.core.geometry import Box
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.core.types import ImageArray, LabelArray, Shape3
from autospine.data.spatial import cut
from autospine.evaluation.overlap import count_overlap
from autospine.inference.tiles import TileGrid
from autospine.plan import Configuration
from autospine.preprocessing.store import StoredCase
from trainers import distributed
from trainers.metrics_log import HELD_OUT, HELD_OUT_CLASSES

SHARE_OF_PATCHES = 0.15
"""Tiles that are predicted after an epoch, as a share of the patches that it learnt from. A patch takes a
backward pass and the optimiser's step besides the forward pass of a tile, and is augmented: on a CPU this is
2 % of the epoch's time (docs/results/daily.md), and 4 to 5 % where a step takes as long as three forward
passes."""

FEWEST_TILES = 40
"""Tiles that the Dice is computed from, if the cases have as many. Where an epoch predicts fewer of them, the
others count as they were predicted in one of the epochs before."""

FOREGROUND_SHARE = 0.75
"""Share of the chosen tiles that hold a class, as far as there are such tiles: most tiles of a large CT hold
none, and tell little more than that they are empty."""

Predict = Callable[[ImageBatch], LogitBatch]
"""Function from normalised images (B, C, S, P, L) to logits (B, K, S, P, L)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutTile:
    """A tile of a held-out case."""

    case: int
    """Position of the case among the held-out cases."""

    box: Box
    """The tile, which reaches out of the case if this is smaller."""

    counted: Box
    """Part of the case that is counted by this tile: where it weighs most in a sliding window."""

    weight: float
    """Number of tiles of the held-out cases that it stands for."""


@dataclass(kw_only=True, slots=True)
class EpochValidation:
    """The validation of one fold after each of its epochs.

    Processes that train together share the tiles of an epoch, and come to the same Dice.
    """

    cases: Sequence[StoredCase]
    """Held-out cases."""

    labels: LabelSpace
    patch_size: Shape3
    batch_size: int
    """Number of tiles that are predicted at once."""

    tiles: Sequence[HeldOutTile]
    """Tiles that the Dice is computed from."""

    tiles_per_epoch: int
    """Number of tiles that each epoch but the first predicts in turn."""

    latest: dict[int, Float64[np.ndarray, "n 3"]] = field(default_factory=dict)
    """True positives, false positives and false negatives of each class in the tiles predicted so far, by the
    tile's position; those of the last time."""

    next_tile: int = 0
    """Position of the tile that is predicted next."""

    predicted: int = 0
    """Number of tiles that the latest epoch has predicted, those of all processes together."""

    def finish_epoch(self, predict: Predict) -> dict[str, Any]:
        """Predict the next tiles, and return the columns of the epoch.

        Args:
            predict: Function from normalised images to logits, as `Learner.predicting` lends it.

        Returns:
            `held_out_dice`, the mean over the classes that occur in the tiles, in [0, 1], None if there is
            none or the prediction is not finite; and `held_out_dice_by_class`, where a class that occurs
            neither in the tiles nor in their prediction has None.
        """
        # All of them the first time, or the Dice would change with every tile that joins.
        number = self.predicted = self.tiles_per_epoch if self.latest else len(self.tiles)
        turn = [(self.next_tile + n) % len(self.tiles) for n in range(number)]
        counted = torch.zeros(len(turn), len(self.labels.names), 3, dtype=torch.float64)
        own = range(distributed.rank(), len(turn), distributed.size())
        for first in range(0, len(own), self.batch_size):
            places = list(own[first : first + self.batch_size])
            counted[places] = torch.from_numpy(self._predicted([turn[n] for n in places], predict))
        (counted,) = distributed.add_up(counted)
        self.latest |= dict(zip(turn, counted.numpy(), strict=True))
        self.next_tile = (self.next_tile + number) % len(self.tiles)
        return self._columns()

    def time_tile(self, predict: Predict) -> float:
        """Return the seconds that a held-out tile takes now; its prediction is not kept.

        Args:
            predict: Function as `finish_epoch` takes it.
        """
        for _ in range(2):  # in the first pass kernels are loaded and chosen
            began = time.monotonic()
            self._predicted([self.next_tile], predict)
        return time.monotonic() - began

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, so that a resumed training shows the same Dice."""
        return {
            "tiles": len(self.tiles),
            "next": self.next_tile,
            "latest": {str(number): counts.tolist() for number, counts in self.latest.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, unless other tiles are predicted now."""
        if state.get("tiles") == len(self.tiles):
            self.next_tile = state["next"]
            self.latest = {int(number): np.asarray(counts) for number, counts in state["latest"].items()}

    def _predicted(self, numbers: Sequence[int], predict: Predict) -> Float64[np.ndarray, "B n 3"]:
        """Predict some tiles; return their weighted counts, NaN where the prediction is not finite."""
        tiles = [self.tiles[number] for number in numbers]
        images, references = zip(*(self._read(tile) for tile in tiles), strict=True)
        logits = predict(torch.stack([torch.from_numpy(np.ascontiguousarray(image)) for image in images]))
        # Regions are sigmoid channels, each predicted above one half.
        channels = (logits > 0) if self.labels.regions else logits.argmax(1).byte()
        counts = np.zeros((len(tiles), len(self.labels.names), 3))
        for row, each, reference in zip(counts, channels.cpu().numpy(), references, strict=True):
            overlap = count_overlap(self._indices(each), reference, self.labels)
            row[:] = [(count.tp, count.fp, count.fn) for count in overlap]
        counts[~torch.isfinite(logits).flatten(1).all(1).cpu().numpy()] = np.nan
        counts *= np.array([tile.weight for tile in tiles]).reshape(-1, 1, 1)
        return counts

    def _read(self, tile: HeldOutTile) -> tuple[ImageArray, LabelArray]:
        """Read the image and the stored indices of a tile; those that are not counted are to be ignored."""
        image, labels = cut(self.cases[tile.case], tile.box.start, tile.box.shape)
        counted = np.full_like(labels, IGNORE_INDEX)
        own = tile.counted.counted_from(tile.box.start).slices
        counted[own] = labels[own]
        return image, counted

    def _indices(self, channels: np.ndarray) -> UInt8[np.ndarray, "S P L"]:
        """Convert predicted channels to stored indices, as a finished prediction would be read."""
        position = {integer: index for index, integer in enumerate(self.labels.integers, start=1)}
        stored = replace(self.labels, painted=tuple(position[integer] for integer in self.labels.painted))
        indices: np.ndarray = stored.decode(channels).astype(np.uint8)
        return indices

    def _columns(self) -> dict[str, Any]:
        tp, fp, fn = np.sum(list(self.latest.values()), axis=0).T
        with np.errstate(invalid="ignore"):  # 0 / 0 where a class is nowhere
            dice = 2 * tp / (2 * tp + fp + fn)
        present = [float(value) for value, there in zip(dice, tp + fn > 0, strict=True) if there]
        mean = sum(present) / len(present) if present else float("nan")
        return {
            HELD_OUT: _rounded(mean),
            HELD_OUT_CLASSES: {
                name: _rounded(float(value)) for name, value in zip(self.labels.names, dice, strict=True)
            },
        }


def prepare_validation(
    cases: Sequence[StoredCase], labels: LabelSpace, configuration: Configuration, seed: int
) -> EpochValidation | None:
    """Choose the tiles of held-out cases that are predicted after each epoch.

    Args:
        cases: Stored held-out cases.
        labels: The dataset's label space.
        configuration: Configuration with patch size, batch size and steps per epoch of each process.
        seed: Seed of the fold; the same seed gives the same tiles.

    Returns:
        None if the cases hold no class, so that there would be no Dice.
    """
    if not show_classes(cases):
        return None
    training = configuration.training
    patches = training.iterations_per_epoch * training.batch_size * distributed.size()
    per_epoch = max(1, floor(SHARE_OF_PATCHES * patches))
    tiles = choose_tiles(cases, configuration.patch_size, max(FEWEST_TILES, per_epoch), seed)
    return EpochValidation(
        cases=cases,
        labels=labels,
        patch_size=configuration.patch_size,
        batch_size=training.batch_size,
        tiles=tiles,
        tiles_per_epoch=min(per_epoch, len(tiles)),
    )


def show_classes(cases: Sequence[StoredCase]) -> bool:
    """Tell whether any class occurs in the labels of any of these cases."""
    return any(label not in (0, IGNORE_INDEX) for case in cases for label, _ in case.record.label_voxels)


def choose_tiles(
    cases: Sequence[StoredCase], patch_size: Shape3, count: int, seed: int
) -> tuple[HeldOutTile, ...]:
    """Choose tiles that stand for all tiles of a sliding window over the cases, in a random order.

    Of cases with more tiles than wanted, those with and those without a class are drawn at random, each with
    the number of tiles of its kind that it stands for.

    Args:
        cases: Stored cases, at least one.
        patch_size: Voxels of a tile.
        count: Number of tiles that are wanted, at least one.
        seed: Seed of the order and of what is drawn.
    """
    rng = np.random.default_rng(seed)
    kinds: dict[bool, list[HeldOutTile]] = {True: [], False: []}
    for number, case in enumerate(cases):
        grid = TileGrid.covering(case.shape, patch_size)
        own = [grid.own_region(box.start) for box in grid.boxes]
        for box, counted, shown in zip(grid.boxes, own, _with_class(case, own), strict=True):
            kinds[shown].append(HeldOutTile(case=number, box=box, counted=counted, weight=1.0))
    with_class, without = ([tiles[n] for n in rng.permutation(len(tiles))] for tiles in kinds.values())
    n_without = max(count - len(with_class), round((1 - FOREGROUND_SHARE) * count))
    n_without = min(n_without, len(without))
    chosen = [*_drawn(with_class, count - n_without), *_drawn(without, n_without)]
    return tuple(chosen[n] for n in rng.permutation(len(chosen)))


def _with_class(case: StoredCase, regions: Sequence[Box]) -> list[bool]:
    """Tell which regions hold a located voxel of a class; together they are a grid that covers the case."""
    located = np.concatenate([np.zeros((0, 3), np.int32), *case.locations.values()])
    starts = [np.unique([region.start[axis] for region in regions]) for axis in range(3)]

    def place(positions: Integer[np.ndarray, "N 3"]) -> tuple[np.ndarray, ...]:
        return tuple(
            np.searchsorted(axis, column, side="right") - 1
            for axis, column in zip(starts, positions.T, strict=True)
        )

    shown = np.zeros([len(axis) for axis in starts], dtype=bool)
    shown[place(located)] = True
    shown_by_region: list[bool] = shown[place(np.asarray([region.start for region in regions]))].tolist()
    return shown_by_region


def _drawn(tiles: Sequence[HeldOutTile], count: int) -> list[HeldOutTile]:
    """Return the first tiles, with the weight that lets them stand for all."""
    return [replace(tile, weight=max(1.0, len(tiles) / count)) for tile in tiles[:count]]


def _rounded(dice: float) -> float | None:
    return round(dice, 5) if isfinite(dice) else None
