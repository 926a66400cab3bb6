"""Class scores of a whole volume, handed out band by band or piece by piece."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from autospine.core.geometry import Box
from autospine.core.labels import LabelSpace
from autospine.core.types import ScoreArray, Shape3
from autospine.inference.case_memory import with_fallback_to_ram
from autospine.inference.to_native import NativePiece

BAND_BYTES = 256 << 20
"""Scores in one band at most, but at least one row."""

ScoreBand = tuple[slice, Float32[np.ndarray, "K _ P L"]]
"""Rows of a volume along S, and their scores (K, rows, P, L)."""

ScoreSink = Callable[[Box, int, Float32[Tensor, "s p l"]], None]
"""Takes the scores (s, p, l) of a channel in a box of the volume's canonical grid. Boxes come in order along
S, and what no box covers is background."""


def score_bands(
    pieces: Iterable[NativePiece], crop: Box, shape: Shape3, labels: LabelSpace
) -> Iterator[ScoreBand]:
    """Put pieces together to bands that cover the volume in order; the rest is background.

    Args:
        pieces: Pieces of whole rows, in order along S, in voxels of the crop.
        crop: Part of the volume that they lie in.
        shape: Voxels of the volume.
        labels: Label space of the model.
    """
    done, height = 0, _band_rows(shape, labels)
    for piece in pieces:
        box = piece.box.moved(crop.start)
        yield from _background_bands(slice(done, box.start[0]), shape, labels)
        for rows in piece.bands(height):
            band = _background((rows.stop - rows.start, *shape[1:]), labels)
            with_fallback_to_ram(partial(_fill, band=band, box=box, rows=rows), piece)
            yield slice(rows.start + crop.start[0], rows.stop + crop.start[0]), band
            del band  # else it would be held while the next one is made
        done = max(done, box.stop[0])
        del piece  # else its scores would be held while the next tiles are run
    yield from _background_bands(slice(done, shape[0]), shape, labels)


def hand_over(piece: NativePiece, crop: Box, score_sink: ScoreSink) -> None:
    """Hand a piece's scores to a sink, channel by channel."""
    box = piece.box.moved(crop.start)
    if 0 in box.shape:
        return
    for channel in range(piece.channels):
        score_sink(box, channel, piece.scores(channel, piece.box.slices[0]))


def _fill(piece: NativePiece, band: ScoreArray, box: Box, rows: slice) -> None:
    for channel in range(piece.channels):
        band[channel][:, *box.slices[1:]] = piece.scores(channel, rows).cpu().numpy()


def _background_bands(rows: slice, shape: Shape3, labels: LabelSpace) -> Iterator[ScoreBand]:
    step = _band_rows(shape, labels)
    for start in range(rows.start, rows.stop, step):
        stop = min(start + step, rows.stop)
        yield slice(start, stop), _background((stop - start, *shape[1:]), labels)


def _band_rows(shape: Shape3, labels: LabelSpace) -> int:
    return max(1, BAND_BYTES // (4 * labels.n_channels * shape[1] * shape[2]))


def _background(shape: Shape3, labels: LabelSpace) -> ScoreArray:
    """Return the scores of background: the first class is certain, or no region is there."""
    band = np.zeros((labels.n_channels, *shape), dtype=np.float32)
    if not labels.regions:
        band[0] = 1
    return band
