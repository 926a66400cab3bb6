"""The sliding window: tiles run in order, and scores come out as soon as they are final."""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from autospine.core.geometry import Box
from autospine.core.types import Shape3
from autospine.inference.slab import Piece, Slab
from autospine.inference.tiles import Layout
from autospine.system.log import get_logger

logger = get_logger(__name__)

TileScores = Callable[[Sequence[Box]], Sequence[Tensor]]
"""The scores (K, s, p, l) of each of some tiles, as far as the layout counts them."""


def finished_pieces(
    layout: Layout,
    slab: Slab,
    tile_scores: TileScores,
    *,
    run: Collection[Shape3] | None = None,
    at_once: int = 1,
) -> Iterator[Piece]:
    """Run the tiles and hand out scores as soon as no later tile touches them.

    Where the device is out of memory fewer tiles are run at once, and where there is but one the slab goes to
    the CPU. Every tile that has been added stays in it.

    Args:
        layout: where the tiles lie.
        slab: an empty one for this layout.
        tile_scores: runs neighbouring tiles.
        run: starts of the tiles that are run, by default all.
        at_once: most tiles to hand to `tile_scores` at once.

    Yields:
        Pieces that cover the image once, ordered along S, then P.

    Raises:
        torch.OutOfMemoryError: if a tile does not fit the device even so.
    """
    for rows in slab.rows:
        for columns in slab.columns:
            slab.begin(rows, columns)
            tiles = product(rows.tiles, columns.tiles, layout.starts[2])
            boxes = [layout.box(tile) for tile in tiles if run is None or tile in run]
            at_once = _add_tiles(slab, boxes, tile_scores, at_once)
            yield from slab.pieces()


def _add_tiles(slab: Slab, boxes: Sequence[Box], tile_scores: TileScores, at_once: int) -> int:
    """Run tiles and add their scores; returns how many at once the memory has room for."""
    while boxes:
        if _add_together(slab, boxes[:at_once], tile_scores):
            boxes = boxes[at_once:]
        else:  # The error is over: it had held on to what the tiles had taken.
            at_once = _make_room(slab, min(at_once, len(boxes)))
    return at_once


def _add_together(slab: Slab, boxes: Sequence[Box], tile_scores: TileScores) -> bool:
    """Run tiles at once and add their scores; False where the memory has no room for them."""
    try:
        scores = tile_scores(boxes)
    except torch.OutOfMemoryError:
        if len(boxes) == 1 and slab.device.type == "cpu":
            raise
        return False
    for box, of_tile in zip(boxes, scores, strict=True):
        slab.add(box.start, of_tile)
    return True


def _make_room(slab: Slab, at_once: int) -> int:
    """Half as many tiles at once; where it was but one, the slab makes room for it."""
    if at_once > 1:
        logger.info("the memory has no room for %d tiles at once; %d are run", at_once, at_once // 2)
    else:
        logger.info("the scores go on in RAM, as the memory of %s is used up", slab.device)
        slab.to(torch.device("cpu"))
    torch.cuda.empty_cache()
    return max(1, at_once // 2)
