"""Resampling between voxel grids that cover the same field of view.

Interpolation on an axis-aligned grid is linear and separable, so each axis becomes one small matrix
(out x in) and a volume is resampled by three matrix products. The cubic matrix solves the B-spline
interpolation problem of Unser (IEEE Signal Processing Magazine 1999) and equals
`scipy.ndimage.zoom(order=3, mode="nearest", grid_mode=True)`.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from scipy import ndimage
from scipy.linalg import solve_banded
from torch import Tensor

from autospine.core.geometry import triple
from autospine.core.types import ImageArray, LabelArray, Shape3, Vector3

Order = Literal[0, 1, 3]
Orders = tuple[Order, Order, Order]

CUBIC: Orders = (3, 3, 3)
LINEAR: Orders = (1, 1, 1)

THICK_RATIO = 3.0
"""An axis whose voxels are this many times longer than the others' is resampled linearly.

A cubic spline rings across thick slices. The ratio is nnU-Net's anisotropy threshold.
"""

_TINY = 1e-7
"""Matrix entries below this are zeroed: the spline's tails end in denormal numbers, which are slow."""

_EDGE = 12
"""Voxels by which the edge value is continued before the spline is fitted, as in scipy."""

_TIE = 1e-3
"""Shift of label samples, in voxels: it breaks the ties that sampling halfway between voxels makes."""

KEPT_PARTS = 64
"""Parts of a matrix that `LinearAxis` keeps: those of a piece, of some kilobytes each."""

BLOCK = 32
"""Output positions computed at a time: each needs only the inputs near it."""


def target_shape(shape: Shape3, spacing_mm: Vector3, target_mm: Vector3) -> Shape3:
    """Return the shape of a field of view at another spacing: round(n * spacing / target), at least 1."""
    sizes = zip(shape, spacing_mm, target_mm, strict=True)
    return triple(max(1, round(n * old / new)) for n, old, new in sizes)


def image_orders(spacing_mm: Vector3, target_mm: Vector3) -> Orders:
    """Return the interpolation order per axis: cubic, but linear across thick slices.

    Slices are thick where one axis's spacing is more than `THICK_RATIO` times the others' largest, in the
    source or else in the target.
    """
    for spacing in (spacing_mm, target_mm):
        axis = int(np.argmax(spacing))
        others = [value for i, value in enumerate(spacing) if i != axis]
        if spacing[axis] > THICK_RATIO * max(others):
            orders: list[Order] = [3, 3, 3]
            orders[axis] = 1
            return triple(orders)
    return CUBIC


def resample(array: ImageArray, shape: Shape3, orders: Orders = CUBIC) -> Float32[np.ndarray, "C s p l"]:
    """Resample each channel to `shape`; the outer edges of both grids coincide.

    Args:
        array: float32 (C, S, P, L).
        shape: Voxels of the result along S, P, L.
        orders: Per axis: 0 nearest, 1 linear, 3 cubic B-spline.

    Returns:
        float32 (C, *shape); `array` itself where the shape is the same.
    """
    if array.shape[1:] == shape:
        return array
    rows, n_in = slice(0, shape[0]), array.shape[1]
    needed = slice(0, n_in)
    return np.stack(
        [resample_rows(x, needed, n_in, shape, orders, rows) for x in np.ascontiguousarray(array)]
    )


def needed_rows(n_in: int, n_out: int, order: Order, rows: slice) -> slice:
    """Return the input positions along an axis that some output positions depend on."""
    return rows if n_in == n_out else _span(_matrix(n_in, n_out, order)[rows].any(dim=0))


def resample_rows(
    part: Float32[np.ndarray, "s P L"], needed: slice, n_in: int, shape: Shape3, orders: Orders, rows: slice
) -> Float32[np.ndarray, "r p l"]:
    """Compute some rows of the result of `resample` for one channel, from the rows that they depend on.

    Args:
        part: Rows `needed` of the input.
        needed: Result of `needed_rows`.
        n_in: Number of rows of the whole input.
        shape: Voxels of the whole result.
        orders: Interpolation order per axis, as for `resample`.
        rows: Rows of the result along S that are computed.

    Returns:
        float32 (rows, *shape[1:]); `part` itself where nothing changes.
    """
    volume = torch.from_numpy(part)
    sizes = (n_in, *part.shape[1:])
    # The axes that shrink most go first, which saves work and memory.
    for axis in sorted(range(3), key=lambda a: shape[a] / sizes[a]):
        if shape[axis] != sizes[axis]:
            matrix = _matrix(sizes[axis], shape[axis], orders[axis])
            volume = _product(matrix[rows, needed] if axis == 0 else matrix, volume, axis)
    return volume.numpy()


class Neighbours(NamedTuple):
    """The two inputs that each output depends on; the same one twice if it is the only one."""

    lower: Tensor
    upper: Tensor
    share: Tensor
    """Weight of the upper input, 0 to 1."""


class LinearAxis:
    """Linear interpolation along one axis, for results that are computed block by block.

    An output depends on two neighbouring inputs at most: it can be computed as soon as the second is there,
    if the last input of the previous block has been kept.

    Args:
        n_in: Number of inputs along the axis.
        n_out: Number of outputs along the axis.
        first: First input that will be given; outputs that depend on earlier ones are never ready.
    """

    def __init__(self, n_in: int, n_out: int, first: int = 0) -> None:
        self.same = n_in == n_out
        self._matrix = _matrix(n_in, n_out, 1)
        self._last = n_in - 1 - self._matrix.flip(1).ne(0).int().argmax(dim=1)
        self._start = int(self._matrix[:, :first].any(dim=1).sum())
        self._kept: dict[tuple[object, ...], tuple[_Block, ...]] = {}

    def ready(self, inputs: slice) -> slice:
        """Return the outputs whose last input lies in this block of inputs."""
        if self.same:
            return inputs
        bounds = torch.tensor([inputs.start, inputs.stop])
        start, stop = torch.searchsorted(self._last, bounds).tolist()
        return slice(max(start, self._start), max(stop, self._start))

    def neighbours(self, outputs: slice) -> Neighbours:
        """Return the inputs, and their weights, that these outputs are interpolated from."""
        upper = self._last[outputs]
        share = self._matrix[outputs].gather(1, upper[:, None])[:, 0]
        lower = torch.where(share < 1 - _TINY, upper - 1, upper)
        return Neighbours(lower=lower, upper=upper, share=share)

    def apply(self, values: Tensor, axis: int, first: int, outputs: slice) -> Tensor:
        """Interpolate outputs along an axis of (S, P, L) values that begin with input `first`."""
        if self.same:
            return values.narrow(axis, outputs.start - first, outputs.stop - outputs.start)
        return _multiply(self._blocks(outputs, first, values.shape[axis], values.device), values, axis)

    def _blocks(self, outputs: slice, first: int, n: int, device: torch.device) -> "tuple[_Block, ...]":
        """Return the part of the matrix between some outputs and n inputs, on a device.

        Where its zeros lie is found out on the CPU, since a GPU would have to be waited for. All channels of
        a piece ask for the same parts, which are therefore kept.
        """
        key = (outputs.start, outputs.stop, first, n, device)
        if key not in self._kept:
            if len(self._kept) >= KEPT_PARTS:
                self._kept.clear()
            self._kept[key] = _blocks(self._matrix[outputs, first : first + n], device)
        return self._kept[key]


def resample_labels(indices: LabelArray, shape: Shape3) -> UInt8[np.ndarray, "s p l"]:
    """Resample stored label indices: the index whose linearly interpolated indicator is largest.

    Every index is interpolated inside its own bounding box only. Where two are equally large the sample's
    next voxel decides, so that no structure grows or shrinks.

    Args:
        indices: uint8 (S, P, L).
        shape: Voxels of the result.

    Returns:
        uint8 of `shape`; `indices` itself where the shape is the same.
    """
    if indices.shape == shape:
        return indices
    matrices = [_matrix(n, m, 1, _TIE) for n, m in zip(indices.shape, shape, strict=True)]
    boxes = bounding_boxes(indices)
    labels = np.zeros(shape, dtype=np.uint8)
    for rows, columns in _bands(matrices[0]):
        _elect(indices[columns], boxes, columns, [matrices[0][rows, columns], *matrices[1:]], labels[rows])
    return labels


def bounding_boxes(indices: LabelArray) -> dict[int, tuple[slice, slice, slice]]:
    """Return the bounding box of each non-zero index that occurs.

    Args:
        indices: uint8 (S, P, L).
    """
    found = ndimage.find_objects(indices)
    return {index: triple(box) for index, box in enumerate(found, start=1) if box is not None}


def _elect(
    indices: LabelArray,
    boxes: dict[int, tuple[slice, slice, slice]],
    columns: slice,
    matrices: list[Tensor],
    out: UInt8[np.ndarray, "rows p l"],
) -> None:
    """Write the index with the largest indicator into a slab that is 0 so far.

    Args:
        indices: Rows of the labels that the slab depends on.
        boxes: Bounding box of every index in the whole volume.
        columns: Range of those rows in the whole volume.
        matrices: Interpolation matrices of the three axes, the first for those rows only.
        out: Slab (rows, p, l) that is written to.
    """
    labels = torch.from_numpy(out)
    best, rest = torch.zeros(out.shape), torch.ones(out.shape)
    for index, (s, p, left) in boxes.items():
        start, stop = max(s.start, columns.start), min(s.stop, columns.stop)
        if start >= stop:
            continue
        box = (slice(start - columns.start, stop - columns.start), p, left)
        inside = torch.from_numpy((indices[box] == index).astype(np.float32))
        reached = tuple(_reached(matrix, span) for matrix, span in zip(matrices, box, strict=True))
        for axis in (2, 1, 0):
            inside = _product(matrices[axis][reached[axis], box[axis]], inside, axis)
        rest[reached] -= inside
        wins = inside > best[reached]
        labels[reached].masked_fill_(wins, index)
        torch.maximum(best[reached], inside, out=best[reached])
    labels.masked_fill_(rest >= best, 0)


class _Block(NamedTuple):
    """Rows of a matrix without the zeros beside them."""

    rows: slice
    columns: slice
    part: Tensor


def _blocks(matrix: Tensor, device: torch.device) -> tuple[_Block, ...]:
    """Cut a matrix on the CPU into blocks of rows, and move them to a device."""
    return tuple(_Block(rows, columns, matrix[rows, columns].to(device)) for rows, columns in _bands(matrix))


def _product(matrix: Tensor, volume: Tensor, axis: int) -> Tensor:
    """Apply an (out x in) matrix along an axis, block by block so that its zeros cost little."""
    return _multiply(_blocks(matrix, volume.device), volume, axis)


def _multiply(blocks: Sequence[_Block], volume: Tensor, axis: int) -> Tensor:
    """Apply the blocks of a matrix along an axis."""
    shape = list(volume.shape)
    shape[axis] = blocks[-1].rows.stop if blocks else 0
    out = volume.new_empty(shape)
    for rows, columns, part in blocks:
        if axis == 0:
            torch.mm(part, volume[columns].flatten(1), out=out[rows].flatten(1))
        elif axis == 1:
            out[:, rows] = torch.matmul(part, volume[:, columns])
        else:
            out[:, :, rows] = torch.matmul(volume[:, :, columns], part.T)
    return out


def _bands(matrix: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield blocks of rows with the columns that they depend on."""
    for start in range(0, matrix.shape[0], BLOCK):
        rows = slice(start, min(start + BLOCK, matrix.shape[0]))
        yield rows, _span(matrix[rows].any(dim=0))


def _reached(matrix: Tensor, columns: slice) -> slice:
    """Return the output positions to which some inputs contribute."""
    return _span(matrix[:, columns].any(dim=1))


def _span(flags: Tensor) -> slice:
    where = flags.nonzero()
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0)


@lru_cache(maxsize=64)
def _matrix(n_in: int, n_out: int, order: Order, shift: float = 0.0) -> Tensor:
    """Return the interpolation matrix (n_out x n_in), whose rows sum to one.

    Output voxel i lies at (i + 1/2) n_in / n_out - 1/2 in input voxels, plus `shift`.
    """
    positions = (np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5 + shift
    if order == 3:
        matrix = _cubic(positions, n_in)
    elif order == 1:
        matrix = _linear(positions, n_in)
    else:
        # Exactly halfway the upper voxel counts as nearest, as in scipy.
        matrix = _one_hot(np.floor(positions + 0.5), n_in)
    matrix[np.abs(matrix) < _TINY] = 0
    return torch.from_numpy(matrix.astype(np.float32))


def _one_hot(columns: np.ndarray, n: int) -> np.ndarray:
    table: np.ndarray = np.clip(columns, 0, n - 1)[:, None] == np.arange(n)
    return table.astype(np.float64)


def _linear(positions: np.ndarray, n: int) -> np.ndarray:
    below = np.floor(positions)
    weight = (positions - below)[:, None]
    matrix: np.ndarray = (1 - weight) * _one_hot(below, n) + weight * _one_hot(below + 1, n)
    return matrix


def _cubic(positions: np.ndarray, n: int) -> np.ndarray:
    """Return B-spline values at the positions times the spline's coefficients for every unit vector."""
    length = n + 2 * _EDGE
    continued = _one_hot(np.arange(-_EDGE, n + _EDGE), n)
    # Coefficients c solve (c[k-1] + 4 c[k] + c[k+1]) / 6 = x[k], mirrored at the ends.
    bands = np.full((3, length), 1 / 6)
    bands[1] = 4 / 6
    bands[1, [0, -1]] = 5 / 6
    coefficients = solve_banded((1, 1), bands, continued)
    distance = np.abs(positions[:, None] + _EDGE - np.arange(length))
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    matrix: np.ndarray = np.where(distance < 1, near, far) @ coefficients
    return matrix
