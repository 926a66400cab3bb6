import mmap
from dataclasses import replace
from math import prod

import makers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.planners import facts

from autospine.core.errors import PlanError
from autospine.inference.case_memory import CaseMemory
from autospine.memory.estimate import inference_memory, parameter_count, training_memory
from autospine.memory.swin_layout import SwinLayout
from autospine.memory.trace import Ledger, trace_step, trace_tile
from autospine.network.cnn3d_plan import CNNPlan
from autospine.network.swin.fused_attention import BIAS_GRADIENT_BYTES
from autospine.network.unet_plans import UNetPlan
from planners import calibration_factor as calibration
from planners.calibration_factor import LARGEST_FACTOR, SMALLEST_FACTOR, calibrate
from trainers.losses.dice_ce import DiceCE

NETWORK = makers.network_plan()
UNIT = (1.0, 1.0, 1.0)
THICK = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1))


def given_as(**changes):
    return {"batch_size": 1, "precision": "bfloat16", "in_channels": 1, "out_channels": 4} | changes


def estimate(network=NETWORK, patch=(32, 32, 32), **changes) -> int:
    return training_memory(network, patch, spacing_mm=UNIT, **given_as(**changes)).total


COUNTED = {
    "as planned": {},
    "wider": {"feature_size": 16},
    "plain": {"attention": "plain", "fusion": None},
    "identity": {"attention": "identity"},
    "first version": {"use_v2": False},
    "stem": {"fusion": replace(NETWORK.fusion, placement="stem")},
    "levels": {"fusion": replace(NETWORK.fusion, levels=True)},
    "gradient channel": {"attention": replace(NETWORK.attention, gradient_channel=True)},
    "deeper": {"depths": (2, 2, 2, 2)},
    "checkpointing": {"checkpointing": True},
    "thick": {"strides": THICK, "window_sizes": ((4, 4, 4),) * 4, "fusion": None},
}


@pytest.mark.parametrize("windows", [((2, 2, 2),) * 4, ((7, 3, 5), (4, 4, 4), (1, 2, 3), (6, 6, 1))])
@pytest.mark.parametrize("changes", COUNTED.values(), ids=COUNTED)
def test_parameters_are_counted_exactly(changes, windows):
    plan = makers.network_plan(**{**changes, "window_sizes": windows})
    with torch.device("meta"):
        network = plan.build(2, 5, spacing_mm=UNIT, patch_size=(32, 32, 32))
    assert parameter_count(plan, 2, 5) == sum(p.numel() for p in network.parameters())


def step_of(network, image, classes) -> tuple[int, int]:
    """Bytes kept by a real forward pass, and how many more the backward pass takes; as in training."""
    loss = DiceCE(facts.plain_labels(classes - 1), lambda_ce=0.5)
    labels = torch.randint(0, classes, (len(image), *image.shape[2:]), dtype=torch.uint8)
    network.train()
    loss(network(image), labels).total.backward()  # makes what is made once
    network.zero_grad()
    ledger = Ledger()
    with ledger:
        logits = network(image)
        kept = ledger.now
        gradient = torch.ones_like(logits)
        ledger.peak = 0
        logits.backward(gradient)
    return kept, ledger.peak - kept


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("changes", COUNTED.values(), ids=COUNTED)
def test_the_layout_counts_what_a_real_step_keeps(changes, precision):
    plan, classes = makers.network_plan(**changes), 3
    patch = (16, 48, 64) if "strides" in changes else (48, 32, 48)
    network = plan.build(1, classes, spacing_mm=UNIT, patch_size=patch)
    network.compute_dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    kept, beyond = step_of(network, torch.randn(1, 1, *patch), classes)
    size = {"float32": 4, "bfloat16": 2}[precision]
    layout = SwinLayout(network=plan, patch=patch, batch_size=1, size=size, gpu=False)
    logits = size * classes * prod(patch) + layout.level_logits(classes) + layout.gradient_channel
    cast = size * parameter_count(plan, 1, classes) if precision == "bfloat16" else 0
    recomputed = 2 * layout.map(0) if plan.checkpointing else layout.recomputed
    assert layout.always + recomputed + logits + cast == pytest.approx(kept, rel=0.08)
    passing = layout.backward + (layout.decoder(0) - layout.map(0) if plan.checkpointing else 0)
    assert passing == pytest.approx(beyond, rel=0.25)


@pytest.mark.parametrize("changes", COUNTED.values(), ids=COUNTED)
def test_the_layout_counts_what_a_trace_as_on_a_gpu_keeps(changes):
    plan = makers.network_plan(**changes)
    patch = (16, 64, 64) if "strides" in changes else (64, 32, 64)
    with torch.device("meta"):
        network = plan.build(1, 3, spacing_mm=UNIT, patch_size=patch)
        network.compute_dtype = torch.bfloat16
        trace = trace_step(network, torch.empty(2, 1, *patch))
    layout = SwinLayout(network=plan, patch=patch, batch_size=2, size=2, gpu=True)
    ends = 2 * (3 * layout.voxels[0] + parameter_count(plan, 1, 3))
    ends += layout.level_logits(3) + layout.gradient_channel
    recomputed = 2 * layout.map(0) if plan.checkpointing else layout.recomputed
    assert layout.always + recomputed + ends == pytest.approx(trace.kept, rel=0.05)


def test_a_loss_of_another_distribution_is_planned_to_take_more():
    for precision in ("float32", "bfloat16"):
        for gpu in (False, True):
            kinds = {"precision": precision, "gpu": gpu, "out_channels": 27}
            of_dice_ce = estimate(patch=(96, 96, 96), **kinds)
            assert estimate(patch=(96, 96, 96), **kinds, other_loss=True) > of_dice_ce


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
    assert estimate(factor=1 + times) > base
    for larger in (
        replace(NETWORK, feature_size=8 + 8 * times),
        replace(NETWORK, depths=(1 + times, 1, 1, 1)),
        replace(NETWORK, fusion=replace(NETWORK.fusion, kernels=(*NETWORK.fusion.kernels, (6, 6, 6)))),
        replace(NETWORK, fusion=replace(NETWORK.fusion, placement="stem")),
    ):
        assert estimate(larger) > base


def test_padded_windows_count_whole():
    padded = makers.network_plan(window_sizes=((3, 3, 3),) * 4)
    assert estimate(padded) > estimate(makers.network_plan(window_sizes=((4, 4, 4),) * 4))


def test_pairs_of_tokens_take_memory_on_a_gpu_only():
    def first_stage(edge: int, gpu: bool) -> int:
        network = makers.network_plan(window_sizes=((edge,) * 3,) * 4)
        layout = SwinLayout(network=network, patch=(32, 32, 32), batch_size=1, size=2, gpu=gpu)
        return layout.late

    assert first_stage(8, gpu=False) == first_stage(4, gpu=False)
    heads, tokens = NETWORK.num_heads[0], 16**3
    assert first_stage(8, gpu=True) - first_stage(4, gpu=True) == 2 * heads * tokens * (8**3 - 4**3)


def test_the_gradient_of_position_biases_passes_a_few_windows_at_a_time_on_a_gpu():
    large, small = (
        SwinLayout(
            network=makers.network_plan(window_sizes=((edge,) * 3,) * 4),
            patch=(256, 256, 256),
            batch_size=2,
            size=2,
            gpu=True,
        ).late
        for edge in (8, 4)
    )
    assert abs(large - small) < 0.02 * BIAS_GRADIENT_BYTES


def test_a_batch_shares_the_weights():
    one, two = estimate(), estimate(batch_size=2)
    assert 2 * one > two


def test_the_state_is_counted_and_the_rest_calibrated():
    plain, doubled = (
        training_memory(NETWORK, (32, 32, 32), spacing_mm=UNIT, factor=factor, **given_as())
        for factor in (1.0, 2.0)
    )
    parameters = parameter_count(NETWORK, 1, 4)
    assert (plain.weights, plain.optimiser) == (4 * parameters, 12 * parameters)
    assert plain.gradients in (0, 4 * parameters)
    assert doubled.fixed == plain.fixed
    assert doubled.total - doubled.fixed == pytest.approx(2 * (plain.total - plain.fixed), abs=3)


TRACED = (
    UNetPlan(
        name="unet3d",
        features=(8, 16),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=((3, 3, 3),) * 2,
        checkpointing=False,
    ),
    CNNPlan(name="cnn3d", features=8, dilations=((1, 1, 1),) * 4, checkpointing=False),
)


@pytest.mark.parametrize("network", [*TRACED, makers.network_plan(checkpointing=True)])
def test_traced_and_recomputed_memory_grow_with_every_argument(network):
    base = estimate(network)
    assert estimate(network) == base
    for changes in (
        {"patch": (32, 32, 48)},
        {"batch_size": 2},
        {"out_channels": 9},
        {"precision": "float32"},
        {"gpu": True},
    ):
        assert estimate(network, **changes) > base


@pytest.mark.parametrize("network", [NETWORK, TRACED[1]], ids=lambda network: network.name)
@pytest.mark.parametrize("gpu", [True, False])
def test_checkpointing_saves_memory(network, gpu):
    saving = replace(network, checkpointing=True)
    assert estimate(saving, (64, 64, 64), gpu=gpu) < estimate(network, (64, 64, 64), gpu=gpu)


def predicted(network=NETWORK, tile=(32, 32, 32), **changes):
    case = CaseMemory(image=1000, scores=2000)
    arguments = {"precision": "bfloat16", "in_channels": 1, "out_channels": 4, "case": case} | changes
    return inference_memory(network, tile, spacing_mm=UNIT, **arguments)


@pytest.mark.parametrize("network", [NETWORK, TRACED[0]])
def test_inference_counts_volume_tile_and_ensemble(network):
    base = predicted(network)
    assert (base.image, base.scores) == (1000, 2000)
    larger = predicted(network, case=CaseMemory(image=5000, scores=7000))
    assert larger.total - base.total == 9000
    assert base.activations > 2 * 4 * 4 * 32**3
    assert predicted(network, networks=5).weights == 5 * base.weights
    assert predicted(network, gpu=True).weights == base.weights
    assert predicted(network, tile=(32, 32, 64)).activations > base.activations
    assert base.total < estimate(network)


def test_a_trace_by_hand():
    """One convolution to 3 channels: its output, a gradient of the same size, and that of its weight."""
    with torch.device("meta"):
        network = torch.nn.Conv3d(1, 3, 1, bias=False)
        image = torch.empty(1, 1, 10, 10, 10)
        trace = trace_step(network, image)
        tile = trace_tile(network, image)
    volume = 4 * 3 * 10**3
    assert tile == trace.kept == volume
    assert 2 * volume <= trace.peak < 2 * volume + 100


class Attention(torch.nn.Module):
    """Of every token to every other, over a bias that is learnt."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.empty(1, 1, 512, 512))

    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, self.bias)


def test_traced_attention_keeps_no_pairs_but_their_gradient_lives_for_a_moment():
    with torch.device("meta"):
        network, tokens = Attention(), torch.empty(4, 1, 512, 8, requires_grad=True)
        trace = trace_step(network, tokens)
    pairs = 4 * 4 * 512**2
    assert trace.kept < pairs / 10
    assert pairs < trace.peak < 2 * pairs


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


FACTORS = ((1.0, 1.0), (1.5, 1.5), (9.0, LARGEST_FACTOR), (0.0, SMALLEST_FACTOR))


@pytest.mark.parametrize(("share", "factor"), FACTORS)
def test_calibration_compares_what_steps_take_with_what_is_predicted(monkeypatch, share, factor):
    """A step that takes a share of what is estimated, in memory that is counted as a GPU's."""
    plan = makers.plan()
    configuration = plan.configurations[0]
    predicted = calibration.predict(plan, configuration, gpu=True)
    wanted = predicted.fixed + share * (predicted.total - predicted.fixed)
    device, taken = FakeGPU(context=1000), []
    device.install(monkeypatch)

    def make_step():
        taken.append("made")
        return lambda: (taken.append("step"), device.reserve(int(wanted) - 1000))

    found = calibrate(plan, configuration, torch.device("cuda"), make_step)
    assert found == pytest.approx(factor, rel=1e-4)
    assert taken == ["made", "step", "step"]


class FakeGPU:
    """Counts bytes as CUDA's allocator would."""

    def __init__(self, context: int):
        self.context, self.reserved, self.peak = context, 0, 0

    def reserve(self, bytes_: int) -> None:
        self.reserved = bytes_
        self.peak = max(self.peak, bytes_)

    def install(self, monkeypatch) -> None:
        total = 2**50
        for name, function in {
            "empty_cache": lambda: None,
            "synchronize": lambda _device: None,
            "reset_peak_memory_stats": lambda _device: None,
            "memory_reserved": lambda _device: self.reserved,
            "max_memory_reserved": lambda _device: self.peak,
            "mem_get_info": lambda _device: (total - self.reserved - self.context, total),
        }.items():
            monkeypatch.setattr(torch.cuda, name, function)


def test_calibration_sees_what_a_step_takes_on_a_cpu():
    plan = makers.plan()
    configuration = replace(plan.configurations[0], patch_size=(128, 128, 64))
    predicted = calibration.predict(plan, configuration, gpu=False)
    wanted = predicted.fixed + 1.3 * (predicted.total - predicted.fixed)

    def make_step():
        kept = []

        def step():
            # Straight from the system: what earlier tests have freed must not be used again.
            memory = np.frombuffer(mmap.mmap(-1, int(wanted / 2)), dtype=np.uint8)
            memory[:] = 1
            kept.append(memory)

        return step

    assert calibrate(plan, configuration, torch.device("cpu"), make_step) == pytest.approx(1.3, abs=0.15)


def test_calibration_says_that_a_step_does_not_fit():
    plan = makers.plan()

    def make_step():
        raise MemoryError

    with pytest.raises(PlanError, match="expected a training step of 'fullres' to fit"):
        calibrate(plan, plan.configurations[0], torch.device("cpu"), make_step)
