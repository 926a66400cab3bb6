"""Tiles of a prepared image, whose rows are resampled only when they are needed."""

import numpy as np
import torch
from jaxtyping import Float32, Int16
from torch import Tensor

from autospine.core.geometry import Box, triple
from autospine.core.types import ImageArray
from autospine.preprocessing.prepare import Preparation
from autospine.preprocessing.resample import BLOCK


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
        places = triple(slice(i.start - a, i.stop - a) for i, a in zip(inside, box.start, strict=True))
        padded[:, *places] = image
        return torch.from_numpy(padded)[None]

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

    def _normalised(self, stored: Int16[np.ndarray, "C s p l"]) -> ImageArray:
        return self._preparation.transform.apply(self._preparation.encoding.decode(stored))
