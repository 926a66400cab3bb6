from dataclasses import replace

import makers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.network.build import assemble
from planners.memory import attention_weights, parameter_count, training_bytes

NETWORK = makers.network_plan()


def estimate(network=NETWORK, patch=(32, 32, 32), **changes) -> int:
    arguments = {"batch_size": 1, "precision": "bfloat16", "in_channels": 1, "out_channels": 4} | changes
    return training_bytes(network, patch, **arguments)


def test_parameters_are_counted_exactly():
    network = assemble(NETWORK, 2, 5)
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
        replace(NETWORK, fusion_kernels=(*NETWORK.fusion_kernels, (6, 6, 6))),
    ):
        assert estimate(larger) > base


def test_a_batch_shares_the_weights():
    one, two, three = (estimate(batch_size=n) for n in (1, 2, 3))
    assert three - two == pytest.approx(two - one, abs=2)
    assert 2 * one > two
