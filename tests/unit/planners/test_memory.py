from dataclasses import replace

import makers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.network.build import assemble
from autospine.plan import CNNPlan, UNetPlan
from planners.memory import attention_weights, parameter_count, training_bytes
from planners.trace import Ledger, trace_step

NETWORK = makers.network_plan()


def estimate(network=NETWORK, patch=(32, 32, 32), **changes) -> int:
    arguments = (
        {"batch_size": 1, "precision": "bfloat16", "in_channels": 1, "out_channels": 4}
        | {"spacing_mm": (1.0, 1.0, 1.0)}
        | changes
    )
    return training_bytes(network, patch, **arguments)


def test_parameters_are_counted_exactly():
    network = assemble(NETWORK, 2, 5, spacing_mm=(1.0, 1.0, 1.0), patch_size=(32, 32, 32))
    assert parameter_count(NETWORK, 2, 5) == sum(p.numel() for p in network.parameters())


def test_attention_weights_by_hand():
    network = makers.network_plan(
        depths=(2, 1, 1, 1),
        num_heads=(2, 4, 8, 16),
        window_sizes=((4, 4, 4), (4, 4, 4), (2, 2, 2), (7, 7, 7)),
    )
    # Grids 16^3, 8^3, 4^3 and 4^3, whose window of 7 is cut to 4: blocks x heads x tokens x window.
    expected = 2 * 2 * 16**3 * 64 + 4 * 8**3 * 64 + 8 * 4**3 * 8 + 16 * 4**3 * 64
    assert attention_weights(network, (32, 32, 32)) == expected


def test_padded_windows_count_whole():
    network = makers.network_plan(window_sizes=((3, 3, 3),) * 4, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    assert attention_weights(network, (16, 16, 16)) == (9**3 + 6**3 + 2 * 2**3) * 27 - 2 * 2**3 * (27 - 8)


@given(st.integers(0, 2), st.integers(1, 8))
@settings(deadline=None)
def test_memory_grows_with_every_argument(axis, times):
    base = estimate()
    longer = [32, 32, 32]
    longer[axis] += 8 * times
    assert estimate(patch=tuple(longer)) > base
    assert estimate(batch_size=1 + times) > base
    assert estimate(in_channels=1 + times) > base
    assert estimate(out_channels=4 + times) > base
    assert estimate(precision="float32") > base
    for larger in (
        replace(NETWORK, feature_size=8 + 8 * times),
        replace(NETWORK, depths=(1 + times, 1, 1, 1)),
        replace(NETWORK, num_heads=(4, 4, 4, 4)),
        replace(NETWORK, window_sizes=((4, 4, 4), *NETWORK.window_sizes[1:])),
        replace(NETWORK, fusion=replace(NETWORK.fusion, kernels=(*NETWORK.fusion.kernels, (6, 6, 6)))),
    ):
        assert estimate(larger) > base


def test_a_batch_shares_the_weights():
    one, two, three = (estimate(batch_size=n) for n in (1, 2, 3))
    assert three - two == pytest.approx(two - one, abs=2)
    assert 2 * one > two


TRACED = (
    UNetPlan(
        name="unet3d",
        features=(8, 16),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=((3, 3, 3),) * 2,
        checkpointing=False,
    ),
    CNNPlan(name="cnn3d", features=8, dilations=((1, 1, 1),) * 4, checkpointing=False),
    makers.network_plan(checkpointing=True),
    makers.network_plan(fusion=replace(NETWORK.fusion, placement="stem")),
)


@pytest.mark.parametrize("network", TRACED)
def test_traced_memory_grows_with_every_argument(network):
    base = estimate(network)
    assert estimate(network) == base
    for changes in (
        {"patch": (32, 32, 48)},
        {"batch_size": 2},
        {"out_channels": 9},
        {"precision": "float32"},
    ):
        assert estimate(network, **changes) > base


def test_checkpointing_saves_memory():
    assert estimate(makers.network_plan(checkpointing=True), (64, 64, 64)) < estimate(patch=(64, 64, 64))
    assert estimate(replace(TRACED[0], checkpointing=True)) < estimate(TRACED[0])


def test_a_trace_by_hand():
    """One convolution to 3 channels: its output and their sum, whose gradient is one number expanded."""
    with torch.device("meta"):
        network = torch.nn.Conv3d(1, 3, 1, bias=False)
        ledger = trace_step(network, torch.empty(1, 1, 10, 10, 10))
    volume = 4 * 3 * 10**3
    assert ledger.largest == volume
    assert ledger.peak == volume + 4


def test_what_is_freed_is_counted_no_longer():
    ledger = Ledger()
    with torch.device("meta"), ledger:
        for _ in range(5):
            torch.empty(100).add(1)
    assert 400 <= ledger.peak <= 800


def test_views_count_once():
    with torch.device("meta"):
        x, ledger = torch.empty(10, 10), Ledger()
        with ledger:
            kept = [x.t(), x.view(100), x.reshape(4, 25)]
    assert len(kept) == 3
    assert ledger.peak == 0
