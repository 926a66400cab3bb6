"""The sliding window: tiles are cut and run in order, and scores come out as soon as they are final."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, product

import numpy as np
import torch
from jaxtyping import Float, Float32, Int16
from torch import Tensor

from autospine.core.geometry import Box, triple
from autospine.core.types import Shape3, Slices3
from autospine.inference.slab import Piece, Slab
from autospine.inference.tiles import TileGrid
from autospine.preprocessing.prepare import Preparation
from autospine.preprocessing.resample import BLOCK
from autospine.system.allocation import is_out_of_memory
from autospine.system.log import get_logger

logger = get_logger(__name__)

TileScores = Callable[[Sequence[Box]], Sequence[Float[Tensor, "K s p l"]]]
"""Function that returns the scores (K, s, p, l) of each of several tiles in the tile's valid region."""


def finished_pieces(
    tile_grid: TileGrid,
    slab: Slab,
    tile_scores: TileScores,
    *,
    run: Collection[Shape3] | None = None,
    rest_is_background: bool = False,
    batch_size: int = 1,
) -> Iterator[Piece]:
    """Run the tiles and yield scores as soon as no later tile touches them.

    If the device is out of memory, the tile batch size is halved; if it is one already, the slab moves to
    RAM. No tile is run twice: all that have been added stay in the slab.

    Args:
        tile_grid: Positions of the tiles.
        slab: An empty slab for this tile grid.
        tile_scores: Runs the networks on neighbouring tiles.
        run: Starts of the tiles that are run; by default all.
        rest_is_background: Whether the other tiles count as background where they overlap with tiles that are
            run; else these decide alone.
        batch_size: Largest number of tiles that are handed to `tile_scores` at once.

    Yields:
        Pieces that cover the image once, ordered along S, then P.

    Raises:
        RuntimeError: If a single tile does not fit while the slab is in RAM.
    """
    for rows in slab.rows:
        for columns in slab.columns:
            slab.begin(rows, columns)
            tiles = product(rows.tiles, columns.tiles, tile_grid.starts[2])  # as in `tiles_in_order`
            counting = (tile for tile in tiles if rest_is_background or run is None or tile in run)
            # Tiles are added in their order, so that sums are the same to the last bit whichever are run.
            for is_run, group in groupby(counting, lambda tile: run is None or tile in run):
                if is_run:
                    boxes = [tile_grid.box(tile) for tile in group]
                    batch_size = _run_tiles(boxes, tile_scores, slab, batch_size)
                else:
                    for tile in group:
                        slab.add_background(tile)
            yield from slab.pieces()


def tiles_in_order(tile_grid: TileGrid, slab: Slab, run: Collection[Shape3]) -> list[Box]:
    """Return the tiles that are run in the order in which `finished_pieces` runs them."""
    return [
        tile_grid.box(tile)
        for rows in slab.rows
        for columns in slab.columns
        for tile in product(rows.tiles, columns.tiles, tile_grid.starts[2])
        if tile in run
    ]


def _run_tiles(boxes: Sequence[Box], tile_scores: TileScores, slab: Slab, batch_size: int) -> int:
    """Run tiles and add their scores to the slab; return the tile batch size for which there was room."""
    waiting = boxes
    while waiting:
        batch = waiting[:batch_size]
        scores = _scores_if_they_fit(batch, tile_scores, slab)
        if scores is None:
            batch_size = _make_room(slab, len(batch))
            continue
        for box, scores_of_tile in zip(batch, scores, strict=True):
            slab.add(box.start, scores_of_tile)
        waiting = waiting[len(batch) :]
        # Else these would be held while the next tiles are run.
        del scores, scores_of_tile
    return batch_size


def _scores_if_they_fit(
    batch: Sequence[Box], tile_scores: TileScores, slab: Slab
) -> Sequence[Float[Tensor, "K s p l"]] | None:
    """Run tiles at once; return None where the device's memory has no room for them but can be given some.

    The caller makes room only after this has returned: the error holds on to what the tiles had allocated.
    """
    try:
        return tile_scores(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error) or (len(batch) == 1 and slab.device.type == "cpu"):
            raise
        return None


def _make_room(slab: Slab, batch_size: int) -> int:
    """Return half the tile batch size or, if that was one already, move the slab to RAM and return one."""
    if batch_size > 1:
        logger.info(
            "the device has no memory for %d tiles at once; %d are run instead", batch_size, batch_size // 2
        )
    else:
        logger.info("scores are kept in RAM from here on, as the memory of %s is full", slab.device)
        slab.to(torch.device("cpu"))
    torch.cuda.empty_cache()
    return max(1, batch_size // 2)


class ImageRows:
    """A few rows of a prepared image as 16-bit integers, moving along S with the tiles.

    Args:
        preparation: Makes the rows.
    """

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._first = 0
        self._rows: Int16[np.ndarray, "C s P L"] = preparation.rows(slice(0, 0))

    def tile(self, box: Box) -> Float32[Tensor, "1 C s p l"]:
        """Return the networks' input for a tile; voxels outside the image have its background's value.

        Args:
            box: Tile in voxels of the prepared image. Its start along S must not decrease between calls.
        """
        stored, places = self.stored(box)
        image = self._preparation.transform.apply(self._preparation.encoding.decode(stored))
        if image.shape[1:] == box.shape:
            return torch.from_numpy(image)[None]
        background = np.asarray(self._preparation.transform.background, dtype=np.float32)
        padded = np.empty((len(image), *box.shape), dtype=np.float32)
        padded[:] = background[:, None, None, None]
        padded[:, *places] = image
        return torch.from_numpy(padded)[None]

    def tiles(self, boxes: Sequence[Box]) -> Float32[Tensor, "B C s p l"]:
        """Return the networks' input for several tiles of one size; see `tile`."""
        return torch.cat([self.tile(box) for box in boxes])

    def stored(self, box: Box) -> tuple[Int16[np.ndarray, "C s p l"], Slices3]:
        """Return the part of a tile that lies in the image, as stored, and its place in the tile.

        Args:
            box: Tile, as for `tile`. The array is overwritten by none of the next calls.
        """
        shape = self._preparation.shape
        inside = [slice(max(a, 0), min(b, n)) for a, b, n in zip(box.start, box.stop, shape, strict=True)]
        self._move(inside[0])
        rows = slice(inside[0].start - self._first, inside[0].stop - self._first)
        places = triple(slice(i.start - a, i.stop - a) for i, a in zip(inside, box.start, strict=True))
        return self._rows[:, rows, inside[1], inside[2]], places

    def normalised(
        self, stored: Int16[Tensor, "C s p l"], places: Slices3, shape: Shape3
    ) -> Float32[Tensor, "1 C S P L"]:
        """Compute on a device what `tile` computes on the CPU, to the last bit.

        Args:
            stored: What `stored` has returned, on the device.
            places: Its place in the tile.
            shape: Voxels of the tile.
        """
        encoding, transform = self._preparation.encoding, self._preparation.transform
        tile = torch.empty((1, len(stored), *shape), device=stored.device)
        for c, integers in enumerate(stored):
            values = integers.float()
            if encoding.scale[c] != 1:
                values.mul_(encoding.scale[c])
            if encoding.offset[c] != 0:
                values.add_(encoding.offset[c])
            values.clamp_(transform.lower[c], transform.upper[c])
            values.sub_(transform.mean[c]).mul_(1 / transform.std[c])
            if values.shape != shape:
                tile[0, c] = transform.background[c]
            tile[0, c][places] = values
        return tile

    def _move(self, rows: slice) -> None:
        """Forget the rows before `rows`, and make those up to its end in whole blocks."""
        end = max(self._first + self._rows.shape[1], rows.start)
        last = self._preparation.shape[0]
        if rows.stop <= end:
            return
        kept = self._rows[:, max(0, rows.start - self._first) :]
        # Rows are the same to the last bit only where they are made in blocks; see `Preparation.rows`.
        made = self._preparation.rows(slice(end, min(last, -(-rows.stop // BLOCK) * BLOCK)))
        self._rows = np.concatenate([kept, made], axis=1)
        self._first = end - kept.shape[1]


class TilesAhead:
    """The networks' input for tiles on a GPU, whose next ones are prepared in a thread while tiles are run.

    Rows are resampled and cut by the thread, sent as 16-bit integers, and normalised on the device. It is of
    no use on a CPU, whose cores are busy with the networks.

    Args:
        rows: The prepared image.
        order: All tiles, in the order in which they are asked for.
        device: Device of the networks.
    """

    def __init__(self, rows: ImageRows, order: Sequence[Box], device: torch.device) -> None:
        self._rows, self._order, self._device = rows, order, device
        self._number = {box.start: i for i, box in enumerate(order)}
        self._prepared: dict[int, Future[tuple[Int16[Tensor, "C s p l"], Slices3]]] = {}
        # A single thread, since rows only move on.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tiles")

    def __enter__(self) -> "TilesAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._prepared.clear()
        self._thread.shutdown(cancel_futures=True)

    def tiles(self, boxes: Sequence[Box]) -> Float32[Tensor, "B C s p l"]:
        """Return the input of neighbouring tiles, and let as many of the next ones be prepared.

        Tiles may be asked for again, as where there was no memory for them, but not those before them.
        """
        first = self._number[boxes[0].start]
        for number in [number for number in self._prepared if number < first]:
            del self._prepared[number]
        for number in range(first, min(first + 2 * len(boxes), len(self._order))):
            if number not in self._prepared:
                self._prepared[number] = self._thread.submit(self._prepare, self._order[number])
        return torch.cat([self._on_device(first + i, box) for i, box in enumerate(boxes)])

    def _prepare(self, box: Box) -> tuple[Int16[Tensor, "C s p l"], Slices3]:
        stored, places = self._rows.stored(box)
        integers = torch.from_numpy(np.ascontiguousarray(stored))
        # From pinned memory the device fetches by itself, while the CPU goes on.
        return integers.pin_memory() if self._device.type == "cuda" else integers, places

    def _on_device(self, number: int, box: Box) -> Float32[Tensor, "1 C s p l"]:
        integers, places = self._prepared[number].result()
        return self._rows.normalised(integers.to(self._device, non_blocking=True), places, box.shape)
