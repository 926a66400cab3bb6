import math
import re
from itertools import pairwise, product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.planners import facts

from autospine.core.labels import parse_labels
from autospine.network.swin.swin_plan import token_grids
from planners import rules

MM = st.floats(0.2, 8.0).map(lambda d: round(d, 3))
SPACINGS = st.tuples(MM, MM, MM)
SHAPES = st.tuples(*[st.integers(1, 900)] * 3)
THICKNESSES = st.lists(st.floats(0.5, 90.0), max_size=20)
STRIDES = st.lists(st.tuples(*[st.sampled_from([1, 2])] * 3), min_size=5, max_size=5)


@given(st.lists(SPACINGS, min_size=1, max_size=9))
def test_target_spacing_lies_among_the_cases(spacings):
    target, _ = rules.target_spacing(spacings)
    for axis in range(3):
        own = [spacing[axis] for spacing in spacings]
        # The thick axis may be refined to the others' spacing, no further.
        others = max(np.median([s[a] for s in spacings]) for a in range(3) if a != axis)
        assert min(*own, others) - 1e-3 <= target[axis] <= max(own) + 1e-3


def test_target_spacing_is_the_median_of_each_axis():
    spacings = [(1.0, 0.5, 0.5), (2.0, 0.7, 0.6), (1.5, 0.9, 0.4)]
    target, reason = rules.target_spacing(spacings)
    assert target == (1.5, 0.7, 0.5)
    assert reason == "median of 3 cases"


def test_a_thick_sliced_axis_takes_its_low_percentile():
    spacings = [(0.7, 0.7, d) for d in (2.2, 3.3, 4.4, 4.4, 5.5)]
    target, reason = rules.target_spacing(spacings)
    assert target == (0.7, 0.7, pytest.approx(np.percentile([2.2, 3.3, 4.4, 4.4, 5.5], 10), abs=1e-3))
    assert "L is thick-sliced" in reason


def test_slices_that_are_thick_along_different_axes_do_not_spoil_each_other():
    spacings = [(0.65, 0.65, 4.4)] * 5 + [(5.0, 0.7, 0.7)] * 5
    target, reason = rules.target_spacing(spacings)
    assert target == (0.65, 0.675, 0.7)
    assert "thick along S and L" in reason


@given(SPACINGS, THICKNESSES)
def test_fast_spacing_is_never_finer_and_loses_no_structure(full, thicknesses):
    fast, _ = rules.fast_spacing(full, thicknesses)
    assert all(f >= d for f, d in zip(fast, full, strict=True))
    coarsened = [f for f, d in zip(fast, full, strict=True) if f > d]
    assert all(f <= rules.FAST_MM for f in coarsened)
    if thicknesses:
        assert all(f <= min(thicknesses) / rules.VOXELS_ACROSS + 0.01 for f in coarsened)


@given(SPACINGS, SHAPES)
def test_strides_halve_finest_axes_first_and_leave_voxels(spacing, shape):
    levels, _ = rules.strides(spacing, shape)
    assert len(levels) == rules.LEVELS
    now, size = np.asarray(spacing), np.asarray(shape, dtype=float)
    for stride in levels:
        halved = [axis for axis in range(3) if stride[axis] == 2]
        assert set(stride) <= {1, 2}
        for axis in halved:
            assert size[axis] >= 4 * (1 - rules.SPARE)
        waiting = [
            axis
            for axis in range(3)
            if axis not in halved
            and size[axis] >= 4 * (1 - rules.SPARE)
            and 2 * math.ceil(0.9 * size[axis] / 2) <= 1.1 * size[axis]
        ]
        for a, b in product(halved, waiting):
            assert now[a] < now[b]
        now, size = now * stride, size / stride


def test_strides_of_isotropic_and_thick_slices():
    assert rules.strides((1.0, 1.0, 1.0), (200, 200, 200))[0] == ((2, 2, 2),) * 5
    thick, _ = rules.strides((0.7, 0.7, 4.4), (512, 512, 15))
    assert thick[:3] == ((2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert prod(stride[2] for stride in thick) == 8


def test_an_axis_is_not_halved_if_it_had_to_be_padded_for_it():
    assert prod(stride[1] for stride in rules.strides((1.0, 1.0, 1.0), (48, 40, 50))[0]) == 8
    assert prod(stride[0] for stride in rules.strides((1.0, 1.0, 1.0), (48, 40, 50))[0]) == 16


@given(st.tuples(*[st.integers(1, 24)] * 3), STRIDES, st.sampled_from([4, 8]))
def test_windows_tile_the_token_grids(multiple, strides, largest):
    divisor = [prod(stride[axis] for stride in strides) for axis in range(3)]
    patch = tuple(m * d for m, d in zip(multiple, divisor, strict=True))
    grids = token_grids(patch, strides)
    assert grids[0] == tuple(n // k for n, k in zip(patch, strides[0], strict=True))
    assert len(grids) == 4
    for grid, window in zip(grids, rules.windows(grids, largest)[0], strict=True):
        for n, w in zip(grid, window, strict=True):
            assert n % w == 0
            assert w >= min(n, largest / 2)
            if w <= largest:
                assert not any(n % larger == 0 for larger in range(w + 1, min(largest, n) + 1))


def test_a_grid_without_a_good_divisor_takes_the_next_one_above():
    chosen, _ = rules.windows([(11, 22, 7), (9, 5, 6)], 8)
    assert chosen == ((11, 11, 7), (9, 5, 6))


@given(st.integers(2, 24).map(lambda n: 4 * n))
def test_heads_divide_their_channels(feature_size):
    for stage, n in enumerate(rules.heads(feature_size)):
        assert feature_size * 2**stage % n == 0


@given(SPACINGS, st.tuples(*[st.sampled_from([1, 2])] * 3), THICKNESSES)
def test_fusion_kernels_start_with_the_embeddings_own_and_grow(spacing, stride, thicknesses):
    kernels, _ = rules.fusion_kernels(spacing, stride, thicknesses)
    assert kernels[0] == stride
    assert len(set(kernels)) == len(kernels) <= 4
    for before, after in pairwise(kernels):
        assert all(a <= b for a, b in zip(before, after, strict=True))
    for kernel in kernels:
        for axis in range(3):
            assert (kernel[axis] - stride[axis]) % 2 == 0, "the padding would differ between the sides"
            assert kernel[axis] <= rules.LARGEST_KERNEL


def test_fusion_kernels_span_the_structures():
    kernels, reason = rules.fusion_kernels((1.0, 1.0, 3.0), (2, 2, 1), [5.0, 5.0, 5.0])
    assert kernels == ((2, 2, 1), (6, 6, 3))
    assert "structures of 5 mm" in reason


def test_normalisation_takes_the_datasets_own_values_or_the_usual_ones():
    measured, reason = rules.normalisation(facts.fingerprint([((9, 9, 9), (1, 1, 1))], [4.0]))
    assert (measured["CT"].lower, measured["CT"].upper) == (-110.0, 1150.0)
    assert (measured["CT"].mean, measured["CT"].std) == (310.0, 220.0)
    assert measured["CT"].scope == "dataset"
    assert measured["MR"].scope == "image"
    assert "foreground percentiles" in reason
    usual, reason = rules.normalisation(facts.fingerprint([((9, 9, 9), (1, 1, 1))], [4.0], modality="MR"))
    assert usual["CT"].lower < usual["CT"].mean < usual["CT"].upper
    assert "no CT here" in reason


def test_left_and_right_change_places_in_a_flip():
    labels = parse_labels({"hip_left": 40, "hip_right": 30, "sacrum": 5})
    axes, pairs, _ = rules.mirroring(labels)
    # Stored indices follow the integers: sacrum 1, right 2, left 3.
    assert axes == (2,)
    assert {tuple(sorted(pair)) for pair in pairs} == {(2, 3)}


LEVELS = parse_labels({"T12": 1, "L1": 2, "L2": 3, "rib_left": 4, "rib_right": 5})


def test_levels_are_never_turned_upside_down():
    axes, pairs, reason = rules.mirroring(LEVELS)
    assert axes == (2,)
    assert pairs == ((4, 5),)
    assert "from the feet to the head" in reason


def test_a_zoom_does_not_make_a_level_of_another():
    (least, most), reason = rules.scaling(levels=True)
    usual, _ = rules.scaling(levels=False)
    assert usual[0] < least < 1 < most < usual[1]
    assert 24.0 * most <= 27.6  # the distance at T10
    assert 24.0 * least >= 20.8  # that at T1
    assert "another level" in reason


def test_where_levels_are_counted_a_region_is_the_least_context():
    assert rules.context_mm(600.0, levels=False)[0] == 300.0
    assert rules.context_mm(600.0, levels=True)[0] == 300.0
    assert rules.context_mm(400.0, levels=True)[0] == pytest.approx(261.0)
    assert rules.context_mm(200.0, levels=True)[0] == pytest.approx(180.0)
    fine, coarse, size = (1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (220.0, 160.0, 160.0)
    enough, _ = rules.context_mm(200.0, levels=True)
    assert rules.why_no_lowres(fine, coarse, size, 160.0, enough, "") is None
    half = rules.context_mm(200.0, levels=False)
    assert "half of the spine (100 mm)" in (rules.why_no_lowres(fine, coarse, size, 160.0, *half) or "")


def test_without_its_counterpart_a_side_forbids_flips():
    axes, pairs, reason = rules.mirroring(parse_labels({"Hip_Left": 1, "sacrum": 2}))
    assert (axes, pairs) == ((), ())
    assert "Hip_Left has no counterpart" in reason


def test_middle_structures_flip_freely():
    assert rules.mirroring(parse_labels({"vertebra": 1, "canal": 2}))[:2] == ((2,), ())


@pytest.mark.parametrize(
    ("spacing", "shape", "strides", "kernels"),
    [
        # Written by hand from nnU-Net's rules: as for isotropic CT, thick sagittal MR and a tiny patch.
        (
            (1.0, 1.0, 1.0),
            (128, 128, 128),
            ((1, 1, 1), *((2, 2, 2),) * 5),
            ((3, 3, 3),) * 6,
        ),
        (
            (0.6, 0.6, 3.3),
            (384, 384, 10),
            ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 1), (2, 2, 1), (2, 2, 1)),
            ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
        ),
        ((1.0, 1.0, 1.0), (7, 7, 7), ((1, 1, 1),), ((3, 3, 3),)),
        # The last axis that can be halved is kept above six voxels, not four.
        ((1.0, 1.0, 1.0), (10, 7, 7), ((1, 1, 1),), ((3, 3, 3),)),
        ((1.0, 1.0, 1.0), (12, 7, 7), ((1, 1, 1), (2, 1, 1)), ((3, 3, 3),) * 2),
    ],
)
def test_unet_levels_are_nnunets(spacing, shape, strides, kernels):
    assert rules.unet_levels(spacing, shape)[:2] == (strides, kernels)


@given(SPACINGS, SHAPES)
def test_a_unet_ends_with_enough_voxels(spacing, shape):
    strides, kernels, _ = rules.unet_levels(spacing, shape)
    assert len(strides) == len(kernels)
    assert kernels[-1] == (3, 3, 3)
    for axis in range(3):
        total = prod(stride[axis] for stride in strides)
        padded = -(-shape[axis] // total)
        assert total == 1 or padded >= rules.SHORTEST_EDGE
    padded = tuple(
        -(-n // d) * d
        for n, d in zip(shape, (prod(s[axis] for s in strides) for axis in range(3)), strict=True)
    )
    assert rules.unet_levels(spacing, padded)[0] == strides, "rounding up to the strides keeps them"


def test_resenc_l_at_128():
    """nnU-Net's published topology for a patch of 128 cubed."""
    strides, _, _ = rules.unet_levels((0.8, 0.8, 0.8), (128, 128, 128))
    assert rules.unet_features(32, len(strides)) == (32, 64, 128, 256, 320, 320)
    assert rules.resenc_blocks(len(strides)) == (1, 3, 4, 6, 6, 6)


def test_heads_divide_the_channels():
    assert [rules.transformer_heads(c) for c in (320, 256, 64, 32, 224, 72)] == [5, 4, 1, 1, 2, 1]


def test_dilations_follow_the_strides():
    isotropic, _ = rules.dilations((1.0, 1.0, 1.0), (100, 100, 100))
    assert [dilation[0] for dilation in isotropic] == [1, 1, 2, 4, 8, 16, 1]
    thick, _ = rules.dilations((0.7, 0.7, 4.4), (512, 512, 15))
    assert thick[:4] == ((1, 1, 1), (1, 1, 1), (2, 2, 1), (4, 4, 1))


def test_patches_of_any_size_grow_by_a_few_voxels():
    assert rules.step((1, 1, 1), (100, 100, 3)) == (8, 8, 3)
    assert rules.step((32, 4, 3), (100, 100, 100)) == (32, 8, 9)


def test_the_table_of_gpus_finds_the_name_that_cuda_reports():
    for name, found in {
        "NVIDIA GeForce RTX 4090": "RTX 4090",
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA A100-SXM4-40GB": "A100",
        "Tesla V100-SXM2-32GB": "V100",
        "NVIDIA H200": "H200",
    }.items():
        assert rules.throughput_of(name, 10**9)[0].name == found
    by_memory = {7: "RTX 3070", 22: "RTX 3090", 72: "A100", 126: "H200", 500: "B200"}
    for gib, found in by_memory.items():
        for name in ("a new one", "NVIDIA GeForce RTX 4090 Laptop GPU"):
            assert rules.throughput_of(name, gib * 2**30)[0].name == found


def test_numbers_of_gpus_are_from_a_document_or_by_the_formula_of_the_others():
    number = r"([\d.]+)"
    formula = re.compile(f"{number} tensor cores x {number} products and sums x {number} GHz")
    for gpu in rules.GPUS:
        estimated = formula.search(gpu.source)
        if estimated is None:
            assert "white paper" in gpu.source or "data sheet" in gpu.source
        else:
            cores, products, gigahertz = map(float, estimated.groups())
            assert gpu.arithmetic == pytest.approx(2e9 * cores * products * gigahertz, rel=0.005)
    by_name = {gpu.name: gpu for gpu in rules.GPUS}
    # 512 tensor cores at 2.52 GHz, of which NVIDIA does state the product.
    assert by_name["RTX 4090"].arithmetic == pytest.approx(2e9 * 512 * 64 * 2.52, rel=0.005)


def test_a_step_takes_longer_the_more_it_computes_and_the_slower_the_gpu():
    by_name = {gpu.name: gpu for gpu in rules.GPUS}
    seconds = rules.step_seconds(by_name["H200"], 48, 2 * 128**3)
    assert seconds == pytest.approx(0.075, rel=0.1)
    assert rules.step_seconds(by_name["H200"], 96, 2 * 128**3) > 2 * seconds
    assert rules.step_seconds(by_name["Tesla T4"], 48, 2 * 128**3) > 10 * seconds
    assert rules.step_seconds(by_name["H200"], 16, 16**3) == rules.SHORTEST_STEP


@pytest.mark.parametrize(
    ("voxels", "dataset", "seconds", "epochs", "reason"),
    [
        (4 * 10**6, 10**9, 0.1, 400, "the device's default"),
        (2 * 10**7, 10**9, 0.1, 209, "as nnU-Net's training does"),
        (4 * 10**6, 2 * 10**7, 0.1, 200, "10000 times"),
        (4 * 10**6, 10**5, 0.1, 100, "25000 steps"),
        (4 * 10**6, 10**9, 10.0, 32, "24 hours by the estimate"),
        (4 * 10**6, 10**9, 10**6, 1, "24 hours by the estimate"),
    ],
)
def test_steps_follow_from_patch_dataset_and_card(voxels, dataset, seconds, epochs, reason):
    found, why = rules.epochs_worth(rules.GPU(), voxels, dataset, seconds)
    assert found == epochs
    assert reason in why
    assert rules.fold_hours(found, 250, seconds) <= 24 or found == 1
