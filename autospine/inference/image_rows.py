"""The rows of a prepared image that tiles are cut from, made when they are needed."""

import numpy as np
import torch

from autospine.core.geometry import Box
from autospine.core.types import ImageArray
from autospine.preprocessing import Preparation
from autospine.preprocessing.resample import BLOCK


class ImageWindow:
    """A few rows of a prepared image, as 16-bit integers, moving along S."""

    def __init__(self, preparation: Preparation) -> None:
        self._preparation = preparation
        self._first = 0
        self._rows = preparation.rows(slice(0, 0))

    def tile(self, box: Box) -> torch.Tensor:
        """The network's input (1, C, *tile); voxels outside the image have the value of its background.

        Args:
            box: in voxels of the prepared image; starts along S must not decrease from call to call.
        """
        shape = self._preparation.shape
        inside = [slice(max(a, 0), min(b, n)) for a, b, n in zip(box.start, box.stop, shape, strict=True)]
        self._move(inside[0])
        rows = slice(inside[0].start - self._first, inside[0].stop - self._first)
        image = self._normalised(self._rows[:, rows, inside[1], inside[2]])
        if image.shape[1:] == box.shape:
            return torch.from_numpy(image)[None]
        background = np.asarray(self._preparation.transform.background, dtype=np.float32)
        padded = np.empty((len(image), *box.shape), dtype=np.float32)
        padded[:] = background[:, None, None, None]
        s, p, left = (slice(i.start - a, i.stop - a) for i, a in zip(inside, box.start, strict=True))
        padded[:, s, p, left] = image
        return torch.from_numpy(padded)[None]

    def _move(self, rows: slice) -> None:
        """Forget rows before `rows` and make those up to its end, whole blocks at a time."""
        end = max(self._first + self._rows.shape[1], rows.start)
        last = self._preparation.shape[0]
        if rows.stop <= end:
            return
        kept = self._rows[:, max(0, rows.start - self._first) :]
        made = self._preparation.rows(slice(end, min(last, -(-rows.stop // BLOCK) * BLOCK)))
        self._rows = np.concatenate([kept, made], axis=1)
        self._first = end - kept.shape[1]

    def _normalised(self, stored: np.ndarray) -> ImageArray:
        return self._preparation.transform.apply(self._preparation.encoding.decode(stored))
