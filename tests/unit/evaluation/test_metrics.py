import math
import re
from dataclasses import replace
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.core.errors import EvaluationError
from autospine.core.labels import parse_labels
from autospine.evaluation.class_pair import CasePair, ClassPair
from autospine.evaluation.metrics import BUILT_IN, DEFAULT_METRICS, Metric, find_metrics, metric_names
from autospine.evaluation.overlap import Counts

SPACING = (1.0, 1.0, 1.0)
PAGE = Path(__file__).parents[3] / "docs" / "concepts" / "metrics.md"

MODULE = """
from autospine.evaluation.metrics import Metric

false_positives = Metric(
    name="false_positives",
    title="FP",
    from_counts=lambda counts: counts.fp,
    range=(0, float("inf")),
    higher_is_better=False,
    undefined="never",
    unit="voxels",
)
number = 3
"""

ENTRIES = """[autospine.metrics]
false_positives = other_metrics:false_positives
renamed = other_metrics:false_positives
number = other_metrics:number
absent = other_metrics:absent
broken = no_such_module_of_metrics:metric
leaving = other_metrics_that_exit:metric
dice = other_metrics:number
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with metrics, good and bad ones."""
    (tmp_path / "other_metrics.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "other_metrics_that_exit.py").write_text("raise SystemExit('goodbye')", encoding="utf-8")
    makers.install_distribution(tmp_path, "other", ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_none_named_are_the_default_ones():
    assert find_metrics(()) == DEFAULT_METRICS
    assert [metric.name for metric in DEFAULT_METRICS] == ["dice", "iou", "recall"]


def test_names_are_found_in_their_order_and_once():
    assert [metric.name for metric in find_metrics(["hd95", "dice", "hd95"])] == ["hd95", "dice"]


def test_a_group_stands_for_its_metrics():
    names = [metric.name for metric in find_metrics(["assd", "surface", "dice"])]
    assert names == ["assd", "hd95", "nsd_1mm", "boundary_dice_2mm", "dice"]
    assert find_metrics(["all"]) == BUILT_IN


def test_the_tolerance_of_the_surface_dice_is_in_its_name():
    one, other = np.zeros((2, 9, 9, 9), dtype=bool)
    one[2, 4, 4] = other[4, 4, 4] = True
    found = {metric.name: metric for metric in find_metrics(["nsd_2mm", "nsd_0_5mm", "nsd_1mm"])}
    values = {name: metric.of_pair(pair_of(one, other)) for name, metric in found.items()}
    assert values == {"nsd_2mm": 1, "nsd_0_5mm": 0, "nsd_1mm": 0.5}
    assert found["nsd_0_5mm"].title == "NSD0.5mm"


def test_an_unknown_name_is_told_with_all_that_are_known():
    with pytest.raises(
        EvaluationError, match=r"dice, iou, recall, volume_error, hd95, nsd_1mm.*nsd_Xmm.*surface.*'f1'"
    ):
        find_metrics(["dice", "f1"])


def test_a_metric_of_another_distribution_is_found_by_its_name(installed):
    (found,) = find_metrics(["false_positives"])
    assert found.origin == "other 1.0"
    assert found.of_counts(Counts(tp=1, fp=4, fn=0)) == 4
    assert "false_positives" in metric_names()


def test_a_built_in_metric_is_never_replaced(installed):
    assert find_metrics(["dice"]) == (DEFAULT_METRICS[0],)
    assert metric_names().count("dice") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"'broken'.*other 1\.0.*ModuleNotFoundError.*uninstall"),
        ("leaving", r"'leaving'.*other 1\.0.*SystemExit.*uninstall"),
        ("absent", r"'absent'.*other 1\.0.*AttributeError.*uninstall"),
        ("number", r"Metric named 'number'.*other 1\.0.*found int"),
        ("renamed", r"Metric named 'renamed'.*other 1\.0.*'false_positives'"),
    ],
)
def test_a_bad_one_is_named_with_its_distribution_and_no_other_fails(installed, name, message):
    with pytest.raises(EvaluationError, match=message):
        find_metrics([name])
    assert find_metrics(["false_positives", "dice"])


def test_one_name_in_two_distributions_is_refused(installed):
    makers.install_distribution(
        installed, "second", "[autospine.metrics]\nfalse_positives = other_metrics:false_positives\n"
    )
    with pytest.raises(EvaluationError, match=r"false_positives.*(other|second) 1\.0, (other|second) 1\.0"):
        find_metrics(["false_positives"])


def pair_of(prediction: np.ndarray, reference: np.ndarray) -> ClassPair:
    labels = parse_labels({"background": 0, "L1": 1})
    (pair,) = CasePair(prediction.astype(np.uint8), reference.astype(np.uint8), labels, SPACING).classes
    return pair


@pytest.mark.parametrize("metric", BUILT_IN, ids=lambda metric: metric.name)
def test_built_in_metrics_of_equal_and_of_empty_masks(metric):
    mask, empty = np.zeros((2, 4, 5, 6), dtype=bool)
    mask[1:3, 1:4, 2:5] = True

    def measured(prediction: np.ndarray, reference: np.ndarray) -> float:
        if metric.from_counts is None:
            return metric.of_pair(pair_of(prediction, reference))
        hits = int((prediction & reference).sum())
        counts = Counts(tp=hits, fp=int(prediction.sum()) - hits, fn=int(reference.sum()) - hits)
        return metric.of_counts(counts)

    best = metric.range[1] if metric.higher_is_better else metric.range[0]
    assert measured(mask, mask) == best
    pairs = {
        "prediction": measured(empty, mask),
        "reference": measured(mask, empty),
        "both": measured(empty, empty),
    }
    undefined = {name for name, value in pairs.items() if math.isnan(value)}
    assert (
        undefined
        == {
            "prediction and reference are empty": {"both"},
            "the reference is empty": {"reference", "both"},
            "prediction or reference is empty": {"prediction", "reference", "both"},
            "no instance has a partner": {"prediction", "reference", "both"},
            "the reference has no small structure": {"reference", "both"},
            "the class is no vertebra by name, or the reference is empty": {"reference", "both"},
        }[metric.undefined]
    )
    for value in pairs.values():  # the worst, where there is one
        worst = metric.range[0] if metric.higher_is_better else 1.0
        assert math.isnan(value) or value == worst


@pytest.mark.parametrize("value", [-0.1, 1.1, math.inf])
def test_a_value_out_of_range_names_the_metric(value):
    metric = replace(DEFAULT_METRICS[0], name="odd", from_counts=lambda _: value)
    with pytest.raises(EvaluationError, match="from 0 to 1 of the metric odd of autospine"):
        metric.of_counts(Counts(tp=1, fp=0, fn=0))


def test_a_function_that_fails_names_the_metric():
    metric = replace(DEFAULT_METRICS[0], name="odd", from_counts=lambda counts: counts.tp / 0)
    with pytest.raises(EvaluationError, match=r"metric odd of autospine.*ZeroDivisionError"):
        metric.of_counts(Counts(tp=1, fp=0, fn=0))


def test_a_metric_takes_counts_or_masks():
    with pytest.raises(EvaluationError, match=r"dice.*masks"):
        DEFAULT_METRICS[0].of_masks(*np.zeros((2, 1, 1, 1), dtype=bool), SPACING)
    with pytest.raises(EvaluationError, match=r"hd95.*masks.*counts"):
        find_metrics(["hd95"])[0].of_counts(Counts(tp=1, fp=0, fn=0))
    for functions in ({"from_counts": None}, {"from_masks": lambda *_: 0.0}, {"from_pair": lambda _: 0.0}):
        with pytest.raises(EvaluationError, match="exactly one"):
            replace(DEFAULT_METRICS[0], **functions)


@pytest.mark.parametrize("name", ["Dice", "case", "tp", "acc", "all", "surface", "95hd", ""])
def test_a_name_that_would_confuse_the_files_is_refused(name):
    with pytest.raises(EvaluationError, match="rename"):
        Metric(
            name=name,
            title="",
            from_counts=lambda _: 0.0,
            range=(0, 1),
            higher_is_better=True,
            undefined="never",
        )


def test_the_manual_lists_every_metric():
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]* \| (.*?) \| (.*?) \| (.*?) \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert rows == [
        (
            metric.name,
            f"{metric.range[0]:g} to {metric.range[1]:g} {metric.unit}".strip(),
            "higher" if metric.higher_is_better else "lower",
            metric.undefined,
        )
        for metric in BUILT_IN
    ]
