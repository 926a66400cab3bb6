"""Each monitor speaks in a case that was made to fail, and is silent in a healthy one."""

import json
from dataclasses import replace

import makers
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from autospine.core.labels import parse_labels
from autospine.network.swin.swin_settings import FusionSettings
from autospine.phantom import STRUCTURES, PhantomSettings, by_structure, generate
from autospine.plan import build_network
from trainers.label_targets import LabelTargets
from trainers.learner import Learner
from trainers.monitors import Monitors, PatchCounts, known_warnings
from trainers.monitors.failures import SAMPLES, Readings, effective_kernel_mm, thinnest_class

NAMES = tuple(STRUCTURES)
SPACE = parse_labels({"background": 0, **STRUCTURES})
LOSS = LabelTargets(SPACE)
KERNELS = ((2, 2, 2), (10, 10, 10))
CONFIGURATION = makers.configuration(
    spacing_mm=(2.0, 2.0, 2.0),
    network=makers.network_plan(
        fusion=FusionSettings(kernels=KERNELS, weighting="trainable", placement="embedding")
    ),
)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Structures of a phantom, stored indices."""
    phantom = generate(PhantomSettings(spacing_mm=(2, 2, 2), size_mm=(100, 90, 64), modality="CT"), seed=3)
    return by_structure(phantom.labels)


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(makers.plan(CONFIGURATION, labels=SPACE), CONFIGURATION)


def soft(labels: np.ndarray, voxels: float, threshold: float = 0.5) -> torch.Tensor:
    """Logits of a prediction whose classes are blurred, and win where they are above a threshold."""
    classes = [gaussian_filter((labels == i).astype(np.float32), voxels) for i in STRUCTURES.values()]
    return torch.from_numpy(np.stack([np.full(labels.shape, threshold, np.float32), *classes]))


def seen(logits: torch.Tensor, labels: np.ndarray) -> PatchCounts:
    return LOSS.count(logits, torch.from_numpy(labels))


def monitored(
    counts: PatchCounts, network, *, progress=0.5, samples=SAMPLES
) -> tuple[Readings, dict[str, str]]:
    monitors = Monitors(NAMES, CONFIGURATION)
    monitors.update([counts] * samples)
    readings = monitors.read(network)
    return readings, monitors.warnings(readings, network, progress)


def set_fusion(network, *weights: float) -> None:
    network.embedding.scale_weights.data = torch.tensor(weights)


def set_gamma(network, value: float) -> None:
    for name, parameter in network.named_parameters():
        if name.endswith("gamma"):
            parameter.data.fill_(value)


def test_a_healthy_prediction_is_silent(labels, network):
    readings, warnings = monitored(seen(soft(labels, 1.0), labels), network)
    assert warnings == {}
    assert readings.foreground_ratio == pytest.approx(1, abs=0.2)
    assert abs(readings.border_shift) < 0.3
    assert readings.thinnest_class in NAMES
    assert 0.2 < readings.kernel_ratio < 0.8
    assert readings.dice_ratio == pytest.approx(1, abs=0.2)


def test_a_prediction_of_background_alone_has_collapsed(labels, network):
    readings, warnings = monitored(seen(soft(labels, 1.0, threshold=2.0), labels), network)
    assert readings.foreground_ratio == 0
    assert set(warnings) == {"collapse"}
    assert (
        "expected at least 10% of the true foreground, found 0.0%; lower training.lambda_ce (now 0.5)"
        in (warnings["collapse"])
    )


@pytest.mark.parametrize(
    ("lambda_ce", "size", "expected"),
    [(1.0, 2, {"collapse"}), (0.0, 2, {"flood"}), (0.5, 8, set())],
    ids=["cross-entropy alone", "Dice alone", "both, a large bone"],
)
def test_a_wrong_lambda_collapses_or_floods_where_there_is_little_foreground(lambda_ce, size, expected):
    """A bone of 8 voxels among 4096 is lost in either way, one of 512 is not."""
    configuration = makers.configuration(training={"lambda_ce": lambda_ce})
    learner = Learner(makers.plan(configuration), configuration, seed=0, device=torch.device("cpu"))
    monitors = Monitors(("bone", "canal"), configuration, window=10)
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        labels = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
        s, p, left = torch.randint(0, 16 - size, (3,), generator=random).tolist()
        labels[0, s : s + size, p : p + size, left : left + size] = 1
        image = labels.float()[None] + 0.5 * torch.randn(labels[None].shape, generator=random)
        step = learner.step(image, labels, 0.05, True)
        assert step.counts is not None
        monitors.update([step.counts])
    readings = monitors.read(learner.network)
    assert set(monitors.warnings(readings, learner.network, 0.5)) & {"collapse", "flood"} == expected


def test_blurred_edges_that_reach_into_the_background_bleed(labels, network):
    counts = seen(soft(labels, 2.0, threshold=0.12), labels)
    readings, warnings = monitored(counts, network)
    assert readings.border_shift > 0.5
    assert set(warnings) == {"bleeding"}
    assert "compare with --attention adaptive in all stages" in warnings["bleeding"]
    set_gamma(network, 0.2)
    assert "compare with --attention plain" in monitored(counts, network)[1]["bleeding"]


def test_a_thin_class_that_is_missed_under_wide_kernels_is_said(labels, network):
    logits = soft(labels, 0.5)
    thinnest, thickness_mm = thinnest_class(seen(logits, labels), CONFIGURATION.spacing_mm)
    logits[1 + thinnest] = -1
    missed = seen(logits, labels)
    assert monitored(missed, network)[1] == {}  # the kernels have not moved
    set_fusion(network, 0.0, 1.0)
    readings, warnings = monitored(missed, network)
    assert readings.kernel_ratio == pytest.approx(20 / thickness_mm, rel=1e-3)
    assert readings.dice_ratio == 0
    assert set(warnings) == {"small_structures"}
    assert f"expected a Dice of {NAMES[thinnest]} of at least 50%" in warnings["small_structures"]


def test_wide_kernels_alone_are_no_failure(labels, network):
    set_fusion(network, 0.0, 1.0)
    assert monitored(seen(soft(labels, 0.5), labels), network)[1] == {}


def test_warnings_wait_for_warm_up_and_for_enough_looks(labels, network):
    nothing = seen(soft(labels, 1.0, threshold=2.0), labels)
    warmup = CONFIGURATION.training.warmup_fraction
    assert monitored(nothing, network, progress=warmup)[1] == {}
    assert monitored(nothing, network, samples=SAMPLES - 1)[1] == {}
    assert "collapse" in monitored(nothing, network, progress=warmup + 0.01)[1]


def test_a_warning_is_said_once_and_not_again_when_training_goes_on(labels, network):
    monitors = Monitors(NAMES, CONFIGURATION)
    monitors.update([seen(soft(labels, 1.0, threshold=2.0), labels)] * SAMPLES)
    readings = monitors.read(network)
    said = monitors.warnings(readings, network, 0.5)
    assert monitors.warnings(readings, network, 0.6) == {}
    again = Monitors(NAMES, CONFIGURATION, known=known_warnings([{"epoch": 1}, {"warnings": said}]))
    again.update([seen(soft(labels, 1.0, threshold=2.0), labels)] * SAMPLES)
    assert again.warnings(readings, network, 0.7) == {}


def test_the_numbers_are_those_of_the_last_looks(labels, network):
    monitors = Monitors(NAMES, CONFIGURATION, window=2)
    monitors.update([seen(soft(labels, 1.0, threshold=2.0), labels)] * 5)
    monitors.update([seen(soft(labels, 0.1), labels)] * 2)
    assert monitors.read(network).foreground_ratio == pytest.approx(1, abs=0.01)


def test_monitors_go_on_from_their_state(labels, network):
    first = Monitors(NAMES, CONFIGURATION)
    first.update([seen(soft(labels, 0.5), labels)] * 3 + [seen(soft(labels, 1.0), labels)] * SAMPLES)
    again = Monitors(NAMES, CONFIGURATION, state=json.loads(json.dumps(first.state())))
    assert again.read(network) == first.read(network)
    assert again.state() == first.state()
    assert Monitors(NAMES, CONFIGURATION, state=Monitors(NAMES, CONFIGURATION).state()).state() == []


def test_mechanisms_that_stay_at_their_start_are_inert_at_the_end(labels, network):
    healthy = seen(soft(labels, 1.0), labels)
    assert monitored(healthy, network, progress=0.99)[1] == {}
    warnings = monitored(healthy, network, progress=1.0)[1]
    assert set(warnings) == {"inert_fusion", "inert_attention"}
    assert "moved by at most 0.0000" in warnings["inert_fusion"]
    assert "mean |gamma| is at most 0.0000 in any stage" in warnings["inert_attention"]
    set_fusion(network, 0.9, 0.3)
    set_gamma(network, 0.05)
    assert monitored(healthy, network, progress=1.0)[1] == {}


@pytest.mark.parametrize("samples", [0, 1, 3, SAMPLES - 1])
def test_nothing_is_inert_after_a_few_steps(labels, network, samples):
    """No weight moves by a hundredth in a dozen of steps."""
    healthy = seen(soft(labels, 1.0), labels)
    assert monitored(healthy, network, progress=1.0, samples=samples)[1] == {}


def test_networks_without_the_mechanisms_are_watched_for_the_rest(labels):
    network = torch.nn.Identity()
    readings, warnings = monitored(seen(soft(labels, 1.0, 2.0), labels), network, progress=1.0)
    assert readings.kernel_ratio is None
    assert set(warnings) == {"collapse"}


def test_fixed_fusion_weights_are_not_called_inert(labels):
    fusion = FusionSettings(kernels=KERNELS, weighting="ones", placement="both")
    configuration = replace(CONFIGURATION, network=makers.network_plan(fusion=fusion))
    network = build_network(makers.plan(configuration, labels=SPACE), configuration)
    # The stem's kernels are widened to 3 and 11, those of the embedding are as planned.
    assert network.fusion_kernels() == [(3, 3, 3), (11, 11, 11), *KERNELS]
    assert effective_kernel_mm(network, (1.0, 1.0, 1.0)) == pytest.approx((3 + 11 + 2 + 10) / 4)
    monitors = Monitors(NAMES, configuration)
    monitors.update([seen(soft(labels, 1.0), labels)] * SAMPLES)
    assert set(monitors.warnings(Readings(), network, 1.0)) == {"inert_attention"}


def test_nothing_seen_is_nothing_said(network):
    monitors = Monitors(NAMES, CONFIGURATION)
    assert monitors.read(network) == Readings()
    background = np.zeros((8, 8, 8), np.uint8)
    monitors.update([seen(soft(background, 1.0), background)] * SAMPLES)
    assert monitors.read(network) == Readings()
    assert monitors.warnings(Readings(), network, 0.5) == {}
