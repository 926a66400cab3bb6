"""The sliding window: tiles run in order, and scores come out as soon as they are final."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from autospine.geometry import Box
from autospine.inference.slab import Piece, Slab, row_steps
from autospine.inference.tiles import Layout
from autospine.log import get_logger

logger = get_logger(__name__)

TileScores = Callable[[Box], Tensor | None]


def finished_pieces(layout: Layout, slab: Slab, tile_scores: TileScores) -> Iterator[Piece]:
    """Run the tiles and hand out scores as soon as no later tile touches them.

    Where the device is out of memory the slab goes to the CPU, with every tile that has been added.

    Args:
        layout: where the tiles lie.
        slab: an empty one for this layout.
        tile_scores: a tile's scores (K, *tile) on any device, or None where the tile is left out.

    Yields:
        Pieces that cover the image once, ordered along S, then P.

    Raises:
        torch.OutOfMemoryError: if a tile does not fit the device even so.
    """
    row, last = layout.starts[0][0], len(layout.starts[0])
    for index, step in enumerate(row_steps(layout)):
        for starts, columns in _strips(layout, slab.wide):
            for start in starts if index < last else ():
                for first in layout.starts[2]:
                    _add_tile(slab, layout.box((row, start, first)), tile_scores)
            piece = slab.finished(row, columns, step)
            if piece is not None:
                yield piece
            slab.advance(columns, step)
        row += step


def _strips(layout: Layout, wide: bool) -> Iterator[tuple[tuple[int, ...], slice]]:
    """Tile starts along P that are run together, and the columns that are finished after them."""
    starts = layout.starts[1]
    end = starts[-1] + layout.tile[1]
    if wide:
        yield starts, slice(starts[0], end)
        return
    for start, following in zip(starts, (*starts[1:], end), strict=True):
        yield (start,), slice(start, following)


def _add_tile(slab: Slab, box: Box, tile_scores: TileScores) -> None:
    try:
        scores = tile_scores(box)
    except torch.OutOfMemoryError:
        if slab.device.type == "cpu":
            raise
        logger.info("the scores go on in RAM, as the memory of %s is used up", slab.device)
        slab.to(torch.device("cpu"))
        torch.cuda.empty_cache()
        scores = tile_scores(box)
    if scores is not None:
        slab.add(scores.to(slab.device), box.start[1], box.start[2])
