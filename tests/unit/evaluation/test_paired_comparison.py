import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autospine.core.errors import EvaluationError
from autospine.evaluation.export import write_evaluation
from autospine.evaluation.metrics import find_metrics
from autospine.evaluation.overlap import Counts
from autospine.evaluation.paired_comparison import compare_with, write_comparison
from autospine.evaluation.scores import CaseScores, Evaluation

CLASSES = ("L1", "disc")


def evaluation(found: dict[str, tuple[int, int]], **changes: object) -> Evaluation:
    """Cases of which so many of a hundred voxels are found of each class."""
    cases = tuple(
        CaseScores(
            case=name,
            classes=CLASSES,
            counts=tuple(Counts(tp=tp, fp=0, fn=100 - tp) for tp in both),
            metrics=find_metrics(["recall", "dice"]),
        )
        for name, both in found.items()
    )
    return replace(Evaluation(classes=CLASSES, cases=cases), **changes)


@pytest.fixture
def ours() -> Evaluation:
    """Six cases; L1 gains one to six per cent, and the disc now gains, now loses one per cent."""
    return evaluation({f"case{i}": (50 + i, 60 + (-1) ** i) for i in range(1, 7)})


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    write_evaluation(evaluation({f"case{i}": (50, 60) for i in range(1, 7)}), tmp_path / "other")
    return tmp_path / "other"


def test_differences_of_classes_and_of_the_mean(ours, theirs):
    level, disc, mean, *others = compare_with(ours, theirs)
    assert (level.metric, level.of, level.class_name, level.n_subjects) == ("recall", "class", "L1", 6)
    assert (level.value, level.other) == (pytest.approx(0.535), pytest.approx(0.5))
    assert level.difference == pytest.approx(0.035)
    assert 0.01 < level.low < 0.035 < level.high < 0.06
    assert level.p == pytest.approx(2 / 2**6)
    assert level.p_corrected == pytest.approx(2 * level.p)
    assert (disc.p, disc.p_corrected, disc.difference) == (1, 1, pytest.approx(0, abs=1e-9))
    assert (mean.of, mean.class_name) == ("mean", None)
    assert mean.difference == pytest.approx(0.0175)
    assert mean.p == mean.p_corrected
    assert [each.metric for each in others] == ["dice"] * 3


def test_cases_of_one_subject_count_once(ours, theirs):
    cases = [replace(case, subject="one" if case.case < "case4" else None) for case in ours.cases]
    level, *_ = compare_with(replace(ours, cases=tuple(cases)), theirs)
    assert level.n_subjects == 4
    assert level.p == pytest.approx(2 / 2**4)


def test_cases_of_one_evaluation_alone_are_left_out(ours, theirs):
    level, *_ = compare_with(replace(ours, cases=ours.cases[:2]), theirs)
    assert level.n_subjects == 2
    assert level.value == pytest.approx(0.515)


def test_what_is_undefined_in_one_has_no_difference(ours, theirs):
    path = theirs / "evaluation.csv"
    table = pd.read_csv(path)
    table.loc[0, "recall"] = np.nan
    table.to_csv(path, index=False)
    level, *_ = compare_with(ours, theirs)
    assert (level.n_subjects, level.value) == (5, pytest.approx(0.54))


def test_the_files_have_every_difference(ours, theirs, tmp_path):
    differences = compare_with(ours, theirs)
    write_comparison(differences, theirs, tmp_path)
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert table["difference"].tolist() == pytest.approx([each.difference for each in differences], abs=1e-6)
    assert table["class_name"].isna().tolist() == [each.of == "mean" for each in differences]
    written = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert written["other"] == str(theirs)
    assert written["differences"][0]["p"] == 0.03125


def test_one_case_has_neither_interval_nor_significance(ours, theirs):
    level, *_ = compare_with(replace(ours, cases=ours.cases[:1]), theirs)
    assert math.isnan(level.low)
    assert level.p == 1


def test_other_references_are_refused(ours, theirs):
    case = ours.cases[0]
    other = replace(case, counts=(replace(case.counts[0], fn=7), case.counts[1]))
    with pytest.raises(EvaluationError, match=r"same references.*case1, L1"):
        compare_with(replace(ours, cases=(other, *ours.cases[1:])), theirs)


def test_nothing_in_common_is_refused(ours, theirs):
    with pytest.raises(EvaluationError, match=r"case1.*autospine evaluate"):
        compare_with(evaluation({"elsewhere": (1, 1)}), theirs)


def test_files_that_are_no_scores_are_refused(ours, theirs, tmp_path):
    with pytest.raises(EvaluationError, match=r"evaluation\.csv.*autospine evaluate"):
        compare_with(ours, tmp_path)
    path = theirs / "evaluation.csv"
    text = path.read_text()
    for wrong, message in (
        ("a,b\n1,2\n", "no column case"),
        (text + text.splitlines()[1] + "\n", "case1 has L1 twice"),
        (text.replace("0.5,", "half,", 1), "half"),
    ):
        path.write_text(wrong)
        with pytest.raises(EvaluationError, match=f"no table of scores.*{message}"):
            compare_with(ours, theirs)
