import json
import resource
import sys

import makers
import pytest

from autospine.core.errors import FormatError, PlanError
from autospine.plan import LARGEST_PLAN, Plan
from autospine.storage.serialization import PROBLEMS_MENTIONED, from_json, read_json, to_json

NETWORK = ("configurations", 0, "network")
TRAINING = ("configurations", 0, "training")
NONSENSE = (
    ((*NETWORK, "depths"), [2_000_000, 1, 1, 1]),
    ((*NETWORK, "feature_size"), 10**9),
    ((*NETWORK, "feature_size"), 0),
    ((*NETWORK, "num_heads"), [0, 2, 4, 4]),
    ((*NETWORK, "window_sizes", 0), [10**6, 2, 2]),
    ((*NETWORK, "strides", 0), [0, 0, 0]),
    ((*NETWORK, "strides", 1), [2, 0, 2]),
    ((*NETWORK, "strides", 0), [-2, 2, 2]),
    ((*NETWORK, "fusion", "kernels"), [[2, 2, 2]] * 1000),
    ((*TRAINING, "batch_size"), 10**9),
    ((*TRAINING, "batch_size"), 0),
    ((*TRAINING, "epochs"), 10**12),
    ((*TRAINING, "iterations_per_epoch"), -1),
    ((*TRAINING, "learning_rate"), float("nan")),
    ((*TRAINING, "learning_rate"), float("inf")),
    ((*TRAINING, "learning_rate"), -1.0),
    ((*TRAINING, "gradient_clip"), 0.0),
    ((*TRAINING, "ema_decay"), 2.0),
    ((*TRAINING, "lambda_ce"), float("nan")),
    ((*TRAINING, "loss_settings"), {str(i): 1 for i in range(1000)}),
    (("configurations", 0, "spacing_mm"), [0.0, 1.0, 1.0]),
    (("configurations", 0, "spacing_mm"), [1e-3, 1e-3, 1e-3]),
    (("configurations", 0, "spacing_mm"), [1.0, 1.0, float("nan")]),
    (("configurations", 0, "patch_size"), [8192, 8192, 8192]),
    (("configurations", 0, "patch_size"), [0, 16, 16]),
    (("configurations", 0, "memory_bytes"), 10**30),
    (("configurations", 0, "augmentation", "mirror_axes"), [5]),
    (("configurations", 0, "augmentation", "mirror_pairs"), [[1, 2]] * 10_000),
    (("configurations", 0, "augmentation", "spatial_probability"), 7.0),
    (("normalisation", "CT", "std"), 0.0),
    (("normalisation", "CT", "mean"), float("inf")),
    (("channels",), ["image"] * 10_000),
)


def plan_with(place, value) -> str:
    described = json.loads(to_json(makers.plan()))
    inner = described
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return json.dumps(described)


@pytest.mark.parametrize(("place", "value"), NONSENSE, ids=lambda part: str(part)[:60])
def test_numbers_that_no_plan_has_are_refused_on_reading(place, value):
    with pytest.raises(FormatError, match=rf"expected a plan in plan\.json, found .*{place[-1]}"):
        from_json(plan_with(place, value), Plan, "plan.json")


def test_a_patch_of_more_voxels_than_any_memory_holds_is_refused():
    with pytest.raises(PlanError, match="patch of at most"):
        from_json(plan_with(("configurations", 0, "patch_size"), [2048, 2048, 2048]), Plan, "plan.json")


@pytest.mark.parametrize(
    "wrong",
    [
        ("rationale", [1] * 700_000),
        ("configurations", [1] * 700_000),
        ("channels", [1] * 700_000),
        ("surplus", {str(index): 1 for index in range(100_000)}),
    ],
    ids=lambda wrong: wrong[0],
)
def test_a_plan_of_wrong_entries_is_answered_in_few_words_and_little_memory(wrong):
    text = json.dumps(json.loads(to_json(makers.plan())) | dict([wrong]), separators=(",", ":"))
    assert len(text) < LARGEST_PLAN
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError, match=wrong[0]) as caught:
        from_json(text, Plan, "plan.json")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(str(caught.value)) < 5000
    assert grown < (500e6 if sys.platform == "darwin" else 500e3)


def test_faults_are_cut(tmp_path):
    described = json.loads(to_json(makers.plan())) | {f"key{index}": 1 for index in range(22)}
    with pytest.raises(FormatError, match=f"and {22 - PROBLEMS_MENTIONED} more"):
        from_json(json.dumps(described), Plan, "plan.json")


def test_a_plan_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(to_json(makers.plan()) + " " * LARGEST_PLAN)
    with pytest.raises(FormatError, match=r"more than 2 MiB"):
        read_json(path, Plan)
