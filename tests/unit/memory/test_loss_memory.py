from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_bytes import loss_bytes_per_voxel_class, peaks
from plain_loss import plain_dice_ce
from unit.planners import facts

from autospine.core.labels import parse_labels
from autospine.memory import loss_memory
from autospine.memory.loss_memory import BACKWARD_PIECES, loss_bytes, other_loss_bytes, piece_slices
from autospine.memory.trace import Ledger
from trainers.losses.dice_ce import DiceCE

REGIONS = parse_labels({"whole": [1, 2], "core": [2]}, regions_class_order=(1, 2))
SHAPE = (24, 16, 16)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_loss_takes_at_most_six_bytes_per_voxel_and_class(device):
    edge = 128 if device == "meta" else 96
    assert 4 < loss_bytes_per_voxel_class(edge=edge, device=device) <= 6
    assert 4 < loss_bytes_per_voxel_class(27, edge=edge, device=device) <= 6


@pytest.mark.parametrize("space", [facts.plain_labels(1), facts.plain_labels(26), REGIONS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_passes_take_what_is_planned_for_them(monkeypatch, space, dtype):
    """In pieces of a few slices, so that one that is too large would be seen."""
    monkeypatch.setattr(loss_memory, "CPU_PIECE", 5 * 2 * space.n_channels * 16 * 16)
    taken = peaks(space, 2, SHAPE, dtype, "cpu")
    planned = loss_bytes(SHAPE, 2, space.n_channels, dtype.itemsize, gpu=False)
    assert 0.3 * planned.forward < taken.forward <= planned.forward
    assert 0.5 * planned.gradient < taken.gradient <= planned.gradient
    assert taken.left <= 2 * prod(SHAPE), "which voxels are ignored, and nothing by class"


@pytest.mark.parametrize("classes", [2, 8, 27])
def test_another_loss_is_planned_as_pytorchs_own_functions_would_take(classes):
    space = facts.plain_labels(classes - 1)
    logits = torch.randn(1, classes, *SHAPE, requires_grad=True)
    labels = torch.randint(0, classes, (1, *SHAPE), dtype=torch.uint8)
    planned = other_loss_bytes(SHAPE, 1, classes, 4)
    plain_dice_ce(space, 0.5, logits, labels)[0].backward()
    logits.grad, ledger = None, Ledger()
    with ledger:
        value = plain_dice_ce(space, 0.5, logits, labels)[0]
        forward, ledger.peak = ledger.peak, 0
        value.backward()
    assert planned.forward == pytest.approx(forward, rel=0.5)
    assert planned.gradient == pytest.approx(ledger.peak, rel=0.5)


@given(st.integers(1, 400), st.integers(1, 10**8), st.booleans())
@settings(deadline=None)
def test_pieces_are_some_slices_and_few(slices, per_slice, gpu):
    of_piece = piece_slices(slices, per_slice, BACKWARD_PIECES, gpu=gpu)
    assert 1 <= of_piece <= slices
    assert of_piece == 1 or of_piece * per_slice <= (loss_memory.LARGEST_GPU_PIECE if gpu else 2**19)


def test_the_loss_waits_for_nothing_on_a_gpu():
    """On the meta device, where a read of a value would fail."""
    loss = DiceCE(facts.plain_labels(4), lambda_ce=0.5).to("meta")
    logits = torch.empty(2, 5, 128, 128, 128, dtype=torch.bfloat16, device="meta", requires_grad=True)
    labels = torch.empty(2, 128, 128, 128, dtype=torch.uint8, device="meta")
    loss(logits, labels).total.backward()
    assert logits.grad.dtype == torch.bfloat16
