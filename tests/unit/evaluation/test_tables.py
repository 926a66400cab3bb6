import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from autospine.evaluation.metrics import find_metrics
from autospine.evaluation.overlap import Counts
from autospine.evaluation.scores import CaseScores, Evaluation
from autospine.evaluation.tables import WORST_CASES, evaluation_table

CLASSES = ("vertebra", "disc")

CI = ("95", "%", "CI")


def evaluation(cases: int, missing: tuple[str, ...] = ()) -> Evaluation:
    made = tuple(
        CaseScores(
            case=f"case_{i:03d}_with_a_rather_long_name_that_does_not_fit",
            classes=CLASSES,
            counts=(Counts(tp=i, fp=1, fn=1), Counts(tp=0, fp=0, fn=0)),
            modality="CT" if i % 2 else "MR",
            site="north" if i < 3 else "south",
        )
        for i in range(1, cases + 1)
    )
    return Evaluation(classes=CLASSES, cases=made, missing=missing)


def named(*names: str) -> Evaluation:
    found = evaluation(len(names))
    cases = tuple(replace(case, case=name) for case, name in zip(found.cases, names, strict=True))
    return replace(found, cases=cases)


def shown(found: Evaluation, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(evaluation_table(found, title="Held-out cases", width=width).shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_holds_every_block() -> None:
    text = shown(evaluation(3, missing=("lost",)))
    for part in (
        "Held-out cases",
        "vertebra",
        "disc",
        "mean",
        "modality",
        "CT",
        "MR",
        "north",
        "south",
        "case_002",
    ):
        assert part in text
    assert "No prediction, in no mean: lost" in text
    assert "nan" not in text
    assert "0.639" in text  # (1/2 + 2/3 + 3/4) / 3


def test_all_classes_as_one_have_a_row_where_they_were_counted() -> None:
    found = evaluation(2)
    assert "foreground" not in shown(found)
    counted = tuple(replace(case, foreground=Counts(tp=3, fp=0, fn=1)) for case in found.cases)
    (row,) = [line for line in shown(replace(found, cases=counted)).splitlines() if "foreground" in line]
    assert row.split()[:-1] == ["foreground", "0.857", "0.86–0.86", "0.857", "0.750", "0.750", "2"]


def test_classes_that_are_called_others_are_named_the_largest_share_first() -> None:
    found = evaluation(1)
    confusion = np.asarray([[50, 9, 9], [10, 80, 10], [30, 48, 22]])
    text = shown(replace(found, cases=(replace(found.cases[0], confusion=confusion),)))
    assert text.index("of disc 70 % was found, of which 69 % is called vertebra") < text.index(
        "of vertebra 90 % was found, of which 11 % is called disc"
    )
    assert "called background" not in text
    slight = np.asarray([[50, 9, 9], [10, 86, 4], [30, 0, 70]])
    assert "is called" not in shown(replace(found, cases=(replace(found.cases[0], confusion=slight),)))
    names = tuple(f"L{i}" for i in range(12))
    worse = replace(found.cases[0], classes=names, counts=found.cases[0].counts[:1] * 12)
    many = replace(worse, confusion=np.roll(np.eye(13, dtype=int), 1, axis=1))
    text = shown(Evaluation(classes=names, cases=(many,)))
    assert text.count("100 % is called") == 8
    assert "and 3 more pairs of classes above 5 %" in text


def test_fits_a_narrow_terminal() -> None:
    lines = shown(evaluation(3)).splitlines()
    assert max(map(len, lines)) <= 80
    assert all("…" not in line for line in lines if "case_" not in line and "fit" not in line)


def test_the_spread_and_the_worst_case_stand_beside_the_means() -> None:
    rows = (line.split() for line in shown(named("one", "two", "three")).splitlines() if line.strip())
    lines = {row[0]: row for row in rows}
    assert lines["Dice"] == ["Dice", "95", "%", "CI", "worst", "IoU", "Recall", "cases", "worst", "case"]
    assert lines["vertebra"] == ["vertebra", "0.639", "0.50–0.75", "0.500", "0.478", "0.639", "3", "one"]
    assert lines["disc"] == ["disc", "–", "–", "–", "–", "–", "0"]
    assert lines["mean"][1:4] == ["0.639", "0.50–0.75", "0.500"]
    assert lines["two"] == ["two", "0.667", "0.500", "0.667"]


def test_a_single_case_has_no_spread() -> None:
    (line,) = [line for line in shown(named("one")).splitlines() if "vertebra" in line]
    assert line.split() == ["vertebra", "0.500", "–", "0.500", "0.333", "0.500", "1", "one"]


@pytest.mark.parametrize(
    ("width", "heads"),
    [
        (30, ["Dice", "cases"]),
        (37, ["Dice", *CI, "cases"]),
        (44, ["Dice", *CI, "worst", "cases"]),
        (51, ["Dice", *CI, "worst", "IoU", "cases"]),
        (66, ["Dice", *CI, "worst", "IoU", "Recall", "cases"]),
        (80, ["Dice", *CI, "worst", "IoU", "Recall", "cases", "worst", "case"]),
        (110, ["Dice", *CI, "SD", "worst", "IoU", "Recall", "cases", "worst", "case"]),
    ],
)
def test_narrow_terminals_have_fewer_columns(width: int, heads: list[str]) -> None:
    text = shown(evaluation(30), width)
    assert max(map(len, text.splitlines())) <= width
    assert next(line for line in text.splitlines() if "Dice" in line).split() == heads
    if "case" in heads:
        assert "…hat_does_not_fit" in text or "_not_fit" in text


def test_columns_without_room_are_named() -> None:
    found = evaluation(3)
    assert evaluation_table(found, width=120).left_out == ()
    assert evaluation_table(found, width=80).left_out == ("SD",)
    assert evaluation_table(found, width=66).left_out == ("SD", "worst case")
    assert evaluation_table(found, width=37).left_out == ("SD", "worst", "IoU", "Recall", "worst case")


def test_distances_have_intervals_too() -> None:
    metrics = find_metrics(["hd95"])
    cases = tuple(
        replace(case, metrics=metrics, measured={"hd95": (distance, math.nan)})
        for case, distance in zip(evaluation(2).cases, (2.0, 12.5), strict=True)
    )
    text = shown(replace(evaluation(2), cases=cases))
    assert "2.0–12.5" in text


def test_five_metrics_keep_the_interval_of_the_first() -> None:
    metrics = find_metrics(["dice", "iou", "recall", "hd95", "nsd_1mm"])
    measured = {"hd95": (1.0, math.nan), "nsd_1mm": (0.5, math.nan)}
    found = evaluation(3)
    cases = tuple(replace(case, metrics=metrics, measured=measured) for case in found.cases)
    head = next(line for line in shown(replace(found, cases=cases), 60).splitlines() if "Dice" in line)
    assert head.split()[:5] == ["Dice", *CI, "worst"]
    assert "NSD1mm" not in head


def test_what_is_misnamed_is_a_share_of_what_was_found() -> None:
    found = evaluation(1)
    rare = np.asarray([[50, 0, 0], [670, 20, 310], [0, 0, 10]])
    text = shown(replace(found, cases=(replace(found.cases[0], confusion=rare),)))
    assert "of vertebra 33 % was found, of which 94 % is called disc" in text


def test_modalities_and_sites_have_a_spread() -> None:
    (row,) = [line.split() for line in shown(named("a", "b", "c")).splitlines() if "CT " in line]
    assert row[:4] == ["CT", "0.625", "0.50–0.75", "0.500"]


def test_one_modality_needs_no_block_of_its_own() -> None:
    text = shown(evaluation(1))
    assert "modality" not in text
    assert "site" not in text


def test_many_cases_show_the_worst() -> None:
    text = shown(evaluation(60))
    assert f"worst {WORST_CASES} of 60" in text
    assert text.count("case_0") == WORST_CASES
    assert "case_001" in text


def test_other_metrics_have_their_columns_and_sort_the_worst_first() -> None:
    metrics = find_metrics(["hd95", "nsd_1mm", "dice"])
    found = evaluation(60)
    cases = tuple(
        replace(case, metrics=metrics, measured={"hd95": (float(i), math.nan), "nsd_1mm": (0.5, math.nan)})
        for i, case in enumerate(found.cases, start=1)
    )
    text = shown(replace(found, cases=cases))
    assert max(map(len, text.splitlines())) <= 80
    for part in ("HD95 mm", "NSD1mm", "Dice", "case_060", "60.000"):
        assert part in text
    assert "case_001" not in text
