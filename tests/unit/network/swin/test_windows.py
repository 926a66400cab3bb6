from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.network.swin.windows import (
    LEGACY_MERGING_ORDER,
    WindowLayout,
    legacy_merging_index,
    merging_layout,
    partition,
    relative_position_index,
    unpartition,
    window_layout,
)

CPU = torch.device("cpu")
Triple = tuple[int, int, int]
triples = st.tuples(*(st.integers(1, 7),) * 3)


@settings(max_examples=30, deadline=None)
@given(grid=triples, window=triples, shifted=st.booleans())
def test_every_token_comes_back(
    grid: tuple[int, int, int], window: tuple[int, int, int], shifted: bool
) -> None:
    layout = window_layout(grid, window, shifted, CPU)
    x = torch.randn(2, grid[0] * grid[1] * grid[2], 3, requires_grad=True)
    windows = partition(x, layout)
    back = unpartition(windows, layout)
    assert torch.equal(back, x)
    assert windows.shape[1] % layout.tokens_per_window == 0
    assert (windows.abs().sum(-1) > 0).sum() == 2 * grid[0] * grid[1] * grid[2]
    weight = torch.randn_like(windows)
    (gradient,) = torch.autograd.grad((windows * weight).sum(), x)
    assert torch.equal(gradient, unpartition(weight, layout))


def shapes(layout: WindowLayout) -> list[tuple[torch.dtype, torch.Size] | None]:
    tensors = (layout.to_windows, layout.to_grid, layout.masks, layout.query_mask, layout.key_mask)
    return [None if tensor is None else (tensor.dtype, tensor.shape) for tensor in tensors]


@settings(max_examples=50, deadline=None)
@given(grid=triples, window=triples, shifted=st.booleans())
def test_without_values_layouts_have_the_same_shapes(grid: Triple, window: Triple, shifted: bool) -> None:
    """Memory is estimated on the meta device, where no value is computed."""
    meta = torch.device("meta")
    layouts = [window_layout(grid, window, shifted, device) for device in (CPU, meta)]
    assert shapes(layouts[0]) == shapes(layouts[1])
    assert layouts[1].to_windows.is_meta
    merged = [merging_layout(grid, (1, 1, 1), device) for device in (CPU, meta)]
    assert shapes(merged[0]) == shapes(merged[1])
    doubled = tuple(2 * n for n in grid)
    merged = [merging_layout(doubled, (1, 2, 2), device) for device in (CPU, meta)]
    assert shapes(merged[0]) == shapes(merged[1])
    indices = [relative_position_index(window, window, device) for device in (CPU, meta)]
    assert (indices[0].dtype, indices[0].shape) == (indices[1].dtype, indices[1].shape)


@pytest.mark.parametrize("grid, window", [((4, 8, 6), (4, 4, 4)), ((7, 4, 5), (2, 4, 3))])
def test_mask_separates_what_the_shift_brought_together(
    grid: tuple[int, int, int], window: tuple[int, int, int]
) -> None:
    layout = window_layout(grid, window, True, CPU)
    assert layout.query_mask is not None and layout.key_mask is not None
    mask = layout.query_mask @ layout.key_mask.transpose(1, 2)
    positions = torch.tensor(list(product(*(range(g) for g in grid))))
    tokens = layout.to_windows.view(-1, layout.tokens_per_window)
    for window_tokens, window_mask in zip(tokens, mask, strict=True):
        real = window_tokens < len(positions)
        places = positions[window_tokens[real]]
        distance = (places[:, None] - places[None]).abs()
        neighbours = (distance < torch.tensor(layout.window)).all(-1)
        assert torch.equal(window_mask[real][:, real] == 0, neighbours)


def test_unshifted_or_clamped_layouts_have_no_mask() -> None:
    assert window_layout((4, 4, 4), (2, 2, 2), False, CPU).query_mask is None
    assert window_layout((4, 4, 4), (7, 7, 7), True, CPU).query_mask is None


def test_clamped_windows_read_the_bias_of_their_own_offsets() -> None:
    window, table = (2, 3, 1), (4, 3, 2)
    offsets = torch.tensor(list(product(*(range(1 - w, w) for w in table))))
    places = torch.tensor(list(product(*(range(w) for w in window))))
    rows = relative_position_index(window, table, CPU).view(6, 6)
    assert torch.equal(offsets[rows], places[:, None] - places[None])


def test_classes_of_windows_hold_the_same_mask() -> None:
    layout = window_layout((7, 8, 9), (2, 4, 3), True, CPU)
    assert layout.query_mask is not None and layout.key_mask is not None
    assert sum(layout.runs) == len(layout.query_mask) and len(layout.runs) == len(layout.masks) <= 8
    low_rank = layout.query_mask @ layout.key_mask.transpose(1, 2)
    classes = layout.masks.repeat_interleave(torch.tensor(layout.runs), dim=0)
    assert torch.equal(classes < 0, low_rank < 0)


def test_legacy_bias_slice_reads_the_first_rows_and_columns() -> None:
    full = relative_position_index((3, 3, 3), (3, 3, 3), CPU).view(27, 27)
    sliced = relative_position_index((2, 3, 2), (3, 3, 3), CPU, legacy_slice=True)
    assert torch.equal(sliced.view(12, 12), full[:12, :12])
    assert not torch.equal(sliced, relative_position_index((2, 3, 2), (3, 3, 3), CPU))


def test_legacy_merging_stacks_two_tokens_twice() -> None:
    grid = (2, 4, 2)
    tokens = torch.arange(16).view(grid)
    rows = legacy_merging_index(grid, CPU).view(2, 8)
    expected = [tokens[i, 2 + j, k] for i, j, k in LEGACY_MERGING_ORDER]
    assert rows[1].tolist() == [int(token) for token in expected]
    assert len(set(rows[0].tolist())) == 6
