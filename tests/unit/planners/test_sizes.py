from functools import partial
from itertools import pairwise
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planners import rules
from planners.rules import StepSize

MM = st.floats(0.2, 8.0).map(lambda d: round(d, 3))
SPACINGS = st.tuples(MM, MM, MM)
SHAPES = st.tuples(*[st.integers(1, 900)] * 3)
DEVICES = st.sampled_from([rules.GPU(), rules.CPU()])


def path_to(spacing, shape):
    """The patches of a Swin UNETR."""
    levels, _ = rules.strides(spacing, shape)
    divisor = tuple(prod(stride[axis] for stride in levels) for axis in range(3))
    return rules.patch_path(spacing, shape, lambda _: divisor, (1, 1, 1)), divisor


def ladder_of(device, spacing, shape) -> list[StepSize]:
    goals = [
        (partial(rules.holds, extent_mm=mm, spacing_mm=spacing, shape=shape), width)
        for mm, width in device.goals
    ]
    path, _ = path_to(spacing, shape)
    return rules.candidate_sizes(path, goals, widths=device.widths, batches=device.batches)


@given(SPACINGS, SHAPES)
def test_a_path_grows_to_the_median_case_and_not_beyond(spacing, shape):
    path, divisor = path_to(spacing, shape)
    for small, large in pairwise(path):
        assert sum(a != b for a, b in zip(small, large, strict=True)) == 1
        assert prod(large) > prod(small)
    for patch in path:
        assert not any(n % d for n, d in zip(patch, divisor, strict=True))
        assert all(n < limit + d for n, limit, d in zip(patch, shape, divisor, strict=True))
    assert all(n >= (1 - rules.SPARE) * m for n, m in zip(path[-1], shape, strict=True))
    assert rules.holds(path[-1], 1e9, spacing, shape)


@given(SPACINGS, st.tuples(*[st.integers(8, 900)] * 3))
def test_no_axis_is_padded_by_more_than_a_tenth_or_a_voxel(spacing, shape):
    path, _ = path_to(spacing, shape)
    assert all(n <= max((1 + rules.SPARE) * m, m + 1) for n, m in zip(path[-1], shape, strict=True))


def test_a_patch_reaches_further_along_the_spine():
    path = rules.patch_path((1.0, 1.0, 1.0), (900, 900, 900), lambda _: (16, 16, 16), (1, 1, 1))
    assert (144, 96, 96) in path
    assert (176, 96, 96) not in path


@given(SPACINGS, SHAPES, st.floats(0, 400))
def test_a_path_along_the_spine_ends_like_any_other(spacing, shape, along_mm):
    levels, _ = rules.strides(spacing, shape)
    divisor = tuple(prod(stride[axis] for stride in levels) for axis in range(3))
    plain = rules.patch_path(spacing, shape, lambda _: divisor, (1, 1, 1))
    path = rules.patch_path(spacing, shape, lambda _: divisor, (1, 1, 1), along_mm)
    assert all(prod(large) > prod(small) for small, large in pairwise(path))
    assert (path[0], path[-1], len(path)) == (plain[0], plain[-1], len(plain))


def test_a_patch_of_levels_spans_a_region_once_a_vertebra_fits_across_it():
    isotropic = ((1.0, 1.0, 1.0), (900, 900, 900), lambda _: (16, 16, 16), (1, 1, 1))
    path = rules.patch_path(*isotropic, along_mm=rules.REGION_MM)
    assert (304, 112, 112) in path
    assert not any(n < 290 and max(p, left) > 112 for n, p, left in path)


@given(DEVICES, SPACINGS, SHAPES)
def test_every_rung_is_larger_than_the_one_before(device, spacing, shape):
    rungs = ladder_of(device, spacing, shape)
    assert all(small.extent < large.extent for small, large in pairwise(rungs))
    assert {rung.width for rung in rungs} <= set(device.widths)
    assert {rung.batch for rung in rungs} <= set(device.batches)
    assert rungs[0].width == device.widths[0]
    assert rungs[-1].width == device.widths[-1]
    path, _ = path_to(spacing, shape)
    assert (rungs[0].patch, rungs[-1].patch) == (path[0], path[-1])


@given(DEVICES, SPACINGS, SHAPES, st.lists(st.floats(1e3, 1e12), min_size=2, max_size=2), st.floats(0, 1e6))
def test_more_memory_never_gives_a_smaller_step(device, spacing, shape, budgets, per_parameter):
    """Whatever a size costs: the cost need not even rise from rung to rung."""
    rungs = ladder_of(device, spacing, shape)

    def cost(size: StepSize) -> float:
        return size.extent + per_parameter * size.width**2

    small, large = (
        rules.largest_fitting(rungs, lambda size, b=budget: cost(size) <= b, bisect=False)
        for budget in sorted(budgets)
    )
    if small is None:
        return
    assert large is not None
    assert rungs[small].extent <= rungs[large].extent
    assert cost(rungs[large]) <= max(budgets)
    assert all(cost(rung) > max(budgets) for rung in rungs[large + 1 :])


@given(st.integers(1, 200), st.integers(-1, 200))
def test_asking_in_the_middle_finds_the_same_rung(count, last):
    rungs = [StepSize(1, (n + 1, 1, 1), 1) for n in range(count)]
    asked = []

    def fits(size: StepSize) -> bool:
        asked.append(size)
        return size.patch[0] <= last

    slow = rules.largest_fitting(rungs, fits, bisect=False)
    asked.clear()
    assert rules.largest_fitting(rungs, fits, bisect=True) == slow
    assert len(asked) <= count.bit_length() + 2


def test_context_and_width_grow_in_turn():
    rungs = ladder_of(rules.GPU(), (1.0, 1.0, 1.0), (640, 400, 400))
    first_at = {width: next(r for r in rungs if r.width == width) for width in (16, 32, 48, 64)}
    assert first_at[16].patch[0] == 128
    assert first_at[32].patch[0] == 128
    assert first_at[48].patch[0] >= 192
    assert first_at[64].patch == (576, 384, 384)
    assert next(r for r in rungs if r.batch == 2).width == 12


def test_a_large_patch_is_taken_before_a_wider_network_that_would_cost_more():
    path = [(32, 32, 32), (64, 32, 32), (64, 64, 32), (64, 64, 64), (96, 64, 64)]
    rungs = rules.candidate_sizes(path, [(lambda p: p[0] >= 64, 32)], widths=(16, 32), batches=(1,))
    assert [(r.width, r.patch) for r in rungs] == [
        (16, (32, 32, 32)),
        (16, (64, 32, 32)),
        (32, (64, 32, 32)),
        (32, (64, 64, 32)),
        (32, (64, 64, 64)),
        (32, (96, 64, 64)),
    ]
    finer = rules.candidate_sizes(path, [(lambda p: p[0] >= 64, 48)], widths=(16, 48), batches=(1,))
    assert [(r.width, r.patch) for r in finer[1:4]] == [
        *((16, (64, 32, 32)), (16, (64, 64, 32)), (48, (64, 32, 32))),
    ]


def test_nothing_fits_is_none():
    rungs = [StepSize(1, (1, 1, 1), 1), StepSize(1, (2, 1, 1), 1)]
    for halving in (False, True):
        assert rules.largest_fitting(rungs, lambda _: False, bisect=halving) is None


def test_context_is_five_lumbar_levels():
    holds = partial(
        rules.holds, extent_mm=rules.CONTEXT_MM, spacing_mm=(1.0, 1.0, 1.0), shape=(900, 100, 100)
    )
    assert holds((170, 8, 8))
    assert not holds((169, 8, 8))


@pytest.mark.parametrize(
    ("voxels", "batches"), [(10**9, (1, 2, 4)), (8 * 10**5, (1, 2, 4)), (7 * 10**5, (1, 2)), (10**4, (1, 2))]
)
def test_a_batch_is_a_small_part_of_the_dataset(voxels, batches):
    assert rules.batches_within((1, 2, 4), (10, 100, 10), voxels) == batches
