import json
import re

from autospine.report.training_section import MOST_POINTS, read_logs, training_section
from autospine.storage.trained_models import WEIGHTS


def row(epoch: int, **more: object) -> dict[str, object]:
    return {
        "epoch": epoch,
        "loss": 1 / epoch,
        "learning_rate": 1e-3,
        "pseudo_dice": {"L1": 0.1 * epoch, "L2": None},
        "held_out_dice": None,
        "fusion_weights": [0.5, 0.3, 0.2],
        "gamma": [0.0, 0.01 * epoch],
        "monitors": {"foreground_ratio": 0.9, "border_shift": None},
        "warnings": {},
        **more,
    }


def test_each_fold_has_a_line_and_what_was_not_recorded_no_chart():
    logs = {"0": [row(1), row(2)], "3": [row(1), row(2, loss=None)]}
    figures = {figure.title: figure.svg for figure in training_section(logs).figures}
    assert set(figures) == {
        "Loss",
        "Learning rate",
        "Dice on training patches",
        "Foreground: predicted / labelled",
        "Fusion weights",
        "Attention: mean |γ|",
    }
    assert re.findall(r"</svg> ([^<]+)</li>", figures["Loss"]) == ["fold 0", "fold 3"]
    assert re.findall(r"</svg> ([^<]+)</li>", figures["Fusion weights"]) == [
        "kernel 1",
        "kernel 2",
        "kernel 3",
    ]
    assert figures["Dice on training patches"].count("<polyline") == 1  # L2 has no value


def test_warnings_of_monitors_are_listed_with_their_fold_and_epoch():
    logs = {"1": [row(1), row(2, warnings={"collapse": "nearly nothing is predicted"})]}
    (table,) = training_section(logs).tables
    assert table.rows == (("1", "2", "collapse", "nearly nothing is predicted"),)


def test_long_trainings_have_fewer_points():
    figures = training_section({"0": [row(n) for n in range(1, 5 * MOST_POINTS)]}).figures
    (line,) = re.findall(r'points="([^"]+)"', figures[0].svg)
    assert MOST_POINTS / 2 <= len(line.split()) <= MOST_POINTS


def test_logs_of_complete_and_of_unfinished_folds_are_read_and_damaged_ones_passed_over(tmp_path):
    cut = json.dumps(row(1)) + '\n{"epoch": 2, "lo'  # its process was killed
    for fold, text in (("0", json.dumps(row(1)) + "\n"), ("1", cut), ("2", "{broken")):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}/metrics.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / f"fold_0/{WEIGHTS}").touch()
    assert {fold: len(rows) for fold, rows in read_logs(tmp_path).items()} == {"0": 1, "1": 1}
