"""Geometry of attention windows: the window and offset of each token, and the shift masks."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from autospine.core.geometry import triple
from autospine.core.types import Shape3
from autospine.network.constants import TensorShapes, constant

MASKED_LOGIT = -100.0
"""Added to the logit of a pair of tokens for each axis on which the shift alone made them neighbours."""

EXCLUDED_LOGIT = -1e4
"""The same where masks are written out: its exponential is zero, not a denormal number, which is slow."""


MERGING_ORDER = (
    (0, 0, 0),
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (1, 1, 0),
    (1, 0, 1),
    (0, 1, 1),
    (1, 1, 1),
)
"""Order in which the tokens of a cell are stacked, as offsets (S, P, L); that of MONAI since 1.5."""

LEGACY_MERGING_ORDER = (
    (0, 0, 0),
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (1, 0, 1),
    (0, 1, 0),
    (0, 0, 1),
    (1, 1, 1),
)
"""The order of MONAI up to 1.4, which stacks two tokens twice and omits two; weights trained so need it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowLayout:
    """Partition of a grid of T tokens into W windows of N tokens; the same for every sample and head."""

    window: Shape3
    """Window in tokens (S, P, L), clamped to the grid."""

    to_windows: Tensor
    """(W * N,) token index of each place in the windows; T where the place is padding."""

    to_grid: Tensor
    """(T,) place in the windows of each token."""

    query_mask: Tensor | None
    """(W, N, 6) channels whose product with `key_mask` is the shift mask; None without shift."""

    key_mask: Tensor | None
    """(W, N, 6); see `query_mask`."""

    masks: Tensor
    """(classes, N, N) the distinct shift masks; (1, 1, 1) without shift."""

    runs: tuple[int, ...]
    """Windows of each class; windows are in the order of their classes."""

    @property
    def tokens_per_window(self) -> int:
        """N, the tokens of a window."""
        return self.window[0] * self.window[1] * self.window[2]


def window_layout(grid: Shape3, window: Shape3, shifted: bool, device: torch.device) -> WindowLayout:
    """Return the layout of a grid under a window.

    Axes not longer than the window take one window of the axis' length and no shift. The others are padded at
    the end to a multiple of the window and rolled by half a window where `shifted`.

    The shift mask keeps tokens that the roll has carried round the border apart from the others. Only the
    last window of an axis holds both, so there are at most eight classes of windows with one mask each. The
    mask also is a sum over axes of rank two: with a bit that is 1 for a carried token, a pair with different
    bits gets `MASKED_LOGIT`: m * (a_i (1 - a_j) + (1 - a_i) a_j). As six extra channels of queries and keys
    it costs no tensor of the size of the attention matrix.

    Args:
        grid: Tokens per axis.
        window: Largest window per axis.
        shifted: Whether to roll the grid by half a window.
        device: Where the indices will be used.
    """
    size = tuple(min(g, w) for g, w in zip(grid, window, strict=True))
    padded = tuple(-(-g // w) * w for g, w in zip(grid, size, strict=True))
    shift = tuple(w // 2 if shifted and g > w else 0 for g, w in zip(grid, size, strict=True))
    counts = [(n // w - 1, 1) if s else (n // w,) for n, w, s in zip(padded, size, shift, strict=True)]
    tensors = _window_tensors(grid, size, padded, shift, device=device)
    return WindowLayout(
        window=triple(size),
        to_windows=tensors[0],
        to_grid=tensors[1],
        masks=tensors[2],
        query_mask=tensors[3] if any(shift) else None,
        key_mask=tensors[4] if any(shift) else None,
        runs=tuple(s * p * left for s, p, left in product(*counts)),
    )


def merging_layout(grid: Shape3, stride: Shape3, device: torch.device) -> WindowLayout:
    """Return the layout of a grid whose windows are the cells of a merging, tokens in `MERGING_ORDER`."""
    to_windows, to_grid, masks = _merging_tensors(grid, stride, device=device)
    cells = to_windows.numel() // (stride[0] * stride[1] * stride[2])
    return WindowLayout(
        window=stride,
        to_windows=to_windows,
        to_grid=to_grid,
        masks=masks,
        query_mask=None,
        key_mask=None,
        runs=(cells,),
    )


def legacy_merging_index(grid: Shape3, device: torch.device) -> Tensor:
    """Return (cells * 8,) token indices of a grid cut into cells of 2 x 2 x 2, in `LEGACY_MERGING_ORDER`."""
    return _legacy_merging_tensors(grid, device=device)[0]


def relative_position_index(
    window: Shape3, table_window: Shape3, device: torch.device, legacy_slice: bool = False
) -> Tensor:
    """Return for each pair of tokens of a window the row of the bias table that holds their offset.

    Args:
        window: The window in use; not larger than `table_window` on any axis.
        table_window: The window that the table was made for: prod(2 w - 1) rows, row-major in the offset.
        device: Where the index will be used.
        legacy_slice: Take the first N rows and columns of the index of `table_window`, as MONAI does. Where
            the window is smaller than the table's, these are other offsets.

    Returns:
        (N * N,) row numbers, query-major.
    """
    return _relative_position_tensors(window, table_window, legacy_slice, device=device)[0]


def partition(x: Float[Tensor, "B T C"], layout: WindowLayout) -> Float[Tensor, "B WN C"]:
    """Return tokens in window order, zeros in the padding."""
    rows: Tensor = _TakeRows.apply(x, layout.to_windows, layout.to_grid)  # type: ignore[no-untyped-call]
    return rows


def unpartition(x: Float[Tensor, "B WN C"], layout: WindowLayout) -> Float[Tensor, "B T C"]:
    """Return windows in grid order, padding dropped."""
    rows: Tensor = _TakeRows.apply(x, layout.to_grid, layout.to_windows)  # type: ignore[no-untyped-call]
    return rows


class _TakeRows(torch.autograd.Function):
    """Row selection whose gradient is a row selection too, because no row is taken twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.inverse = inverse
        ctx.index = index
        return _take_rows(x, index, inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _take_rows(grad, ctx.inverse, ctx.index), None, None


def _take_rows(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """Return x[:, index] with a row of zeros wherever the index is the number of rows."""
    if index.numel() > inverse.numel():
        x = torch.cat((x, x.new_zeros(x.shape[0], 1, x.shape[2])), dim=1)
    return x.index_select(1, index)


def _window_shapes(grid: Shape3, size: Shape3, padded: Shape3, shift: Shape3) -> TensorShapes:
    """Return types and shapes of what `_window_tensors` makes."""
    tokens = size[0] * size[1] * size[2]
    indices = (torch.int64, (prod(padded),)), (torch.int64, (prod(grid),))
    if not any(shift):
        return (*indices, (torch.float32, (1, 1, 1)))
    classes = 2 ** sum(s > 0 for s in shift)
    channels = (torch.float32, (prod(padded) // tokens, tokens, 6))
    return (*indices, (torch.float32, (classes, tokens, tokens)), channels, channels)


@partial(constant, shapes=_window_shapes)
def _window_tensors(grid: Shape3, size: Shape3, padded: Shape3, shift: Shape3) -> tuple[Tensor, ...]:
    """Return `to_windows`, `to_grid` and `masks` of a layout; with shift, `query_mask` and `key_mask` too."""
    tokens = grid[0] * grid[1] * grid[2]
    index = torch.full(padded, tokens, dtype=torch.int64)
    index[: grid[0], : grid[1], : grid[2]] = torch.arange(tokens).view(grid)
    index = _partition(index.roll([-s for s in shift], dims=(0, 1, 2)), size)
    if not any(shift):
        return index.flatten(), _inverse(index, tokens), torch.zeros(1, 1, 1)
    classes = _classes(padded, size, shift)
    order = classes.argsort(stable=True)
    index, wrapped = index[order], _wrapped(padded, size, shift)[order]
    first = [int((classes[order] == c).nonzero()[0]) for c in range(int(classes.max()) + 1)]
    patterns = wrapped[first]
    masks = (patterns[:, :, None] != patterns[:, None]).any(-1) * EXCLUDED_LOGIT
    query_mask = torch.cat((wrapped, 1 - wrapped), dim=-1) * MASKED_LOGIT
    key_mask = torch.cat((1 - wrapped, wrapped), dim=-1)
    return index.flatten(), _inverse(index, tokens), masks, query_mask, key_mask


def _merging_shapes(grid: Shape3, _: Shape3) -> TensorShapes:
    """Return types and shapes of what `_merging_tensors` makes."""
    tokens = (prod(grid),)
    return (torch.int64, tokens), (torch.int64, tokens), (torch.float32, (1, 1, 1))


@partial(constant, shapes=_merging_shapes)
def _merging_tensors(grid: Shape3, stride: Shape3) -> tuple[Tensor, ...]:
    offsets = list(product(*(range(step) for step in stride)))
    order = [offsets.index(offset) for offset in MERGING_ORDER if offset in offsets]
    tokens = grid[0] * grid[1] * grid[2]
    index = _partition(torch.arange(tokens).view(grid), stride)[:, order]
    return index.flatten(), _inverse(index, tokens), torch.zeros(1, 1, 1)


@constant
def _legacy_merging_tensors(grid: Shape3) -> tuple[Tensor, ...]:
    offsets = list(product(range(2), repeat=3))
    order = [offsets.index(offset) for offset in LEGACY_MERGING_ORDER]
    tokens = torch.arange(grid[0] * grid[1] * grid[2]).view(grid)
    return (_partition(tokens, (2, 2, 2))[:, order].flatten(),)


def _relative_position_shapes(window: Shape3, _: Shape3, __: bool) -> TensorShapes:
    """Return type and shape of what `_relative_position_tensors` makes."""
    return ((torch.int64, (prod(window) ** 2,)),)


@partial(constant, shapes=_relative_position_shapes)
def _relative_position_tensors(
    window: Shape3, table_window: Shape3, legacy_slice: bool
) -> tuple[Tensor, ...]:
    used = table_window if legacy_slice else window
    axes = torch.meshgrid(*(torch.arange(w) for w in used), indexing="ij")
    total, n = used[0] * used[1] * used[2], window[0] * window[1] * window[2]
    rows = torch.zeros(total, total, dtype=torch.int64)
    for positions, w in zip(axes, table_window, strict=True):
        flat = positions.flatten()
        rows = rows * (2 * w - 1) + flat[:, None] - flat[None, :] + w - 1
    return (rows[:n, :n].flatten(),)


def _inverse(index: Tensor, tokens: int) -> Tensor:
    """Return (T,) the place of each token in the windows (W, N)."""
    places = torch.empty(tokens + 1, dtype=torch.int64)
    places[index.flatten()] = torch.arange(index.numel())
    return places[:tokens]


def _partition(x: Tensor, window: tuple[int, ...]) -> Tensor:
    """Return a grid (S, P, L) as windows (W, N)."""
    counts = [length // w for length, w in zip(x.shape, window, strict=True)]
    x = x.reshape(counts[0], window[0], counts[1], window[1], counts[2], window[2])
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, window[0] * window[1] * window[2])


def _wrapped(padded: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """Return (W, N, 3): whether the roll has carried a token round the border, per axis, as 0 or 1."""
    bits = []
    for axis, (length, s) in enumerate(zip(padded, shift, strict=True)):
        wrapped = torch.arange(length) >= length - s
        shape = [length if a == axis else 1 for a in range(3)]
        bits.append(_partition(wrapped.float().view(shape).expand(padded), window))
    return torch.stack(bits, dim=-1)


def _classes(padded: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """Return (W,) the class of each window: on which of the shifted axes it is the last."""
    classes = torch.zeros(1, 1, 1, dtype=torch.int64)
    for axis, (length, w, s) in enumerate(zip(padded, window, shift, strict=True)):
        if s:
            last = torch.arange(length // w) == length // w - 1
            classes = 2 * classes + last.view([-1 if a == axis else 1 for a in range(3)])
    counts = [length // w for length, w in zip(padded, window, strict=True)]
    return classes.expand(counts).flatten()
