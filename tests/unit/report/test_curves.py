import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from autospine.report import curves
from autospine.report.curves import COLUMNS, DPI, PANEL_INCHES, write_curves, write_mechanisms


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": i + 1,
            "loss": 1 / (i + 1),
            "ce": None if i == 1 else 0.5 / (i + 1),
            "dice_loss": math.nan,
            "pseudo_dice": {"vertebra": i / count, "disc": None},
            "learning_rate": 1e-3,
            "seconds": 2.0,
            "fusion_weights": [1.0, 0.01 * i],
            "gamma": [0.0, 0.001 * i],
            "monitors": {"foreground_ratio": 1.0, "border_shift": -0.1, "dice_ratio": 0.9, "kernel_ratio": 2},
            "warnings": {},
            "something_new": "ignored",
        }
        for i in range(count)
    ]


def pixels(path: Path) -> np.ndarray:
    return imread(path)[..., :3]


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize(("write", "lines"), [(write_curves, 1), (write_mechanisms, 3)])
def test_every_panel_has_something(
    tmp_path: Path, count: int, write: Callable[..., None], lines: int
) -> None:
    """Three panels of how well a network learns, and seven of how."""
    recorded = [row | {"held_out_dice": 0.5} for row in rows(count)]
    write(tmp_path / "curves.png", recorded, title="fold 0")
    picture = pixels(tmp_path / "curves.png")
    width = round(PANEL_INCHES[0] * COLUMNS * DPI)
    assert picture.shape == pytest.approx((round((PANEL_INCHES[1] * lines + 0.45) * DPI), width, 3), abs=1)
    for column in range(COLUMNS):
        below = picture.shape[0] // 2 if lines == 1 else 0
        panel = picture[below : picture.shape[0] // lines, column * width // 3 : (column + 1) * width // 3]
        assert panel.std() > 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: list[dict[str, Any]]) -> Figure:
    """The figure that is drawn of some rows."""
    figures: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    write_curves(tmp_path / "curves.png", recorded, title="fold 0")
    return figures[0]


def test_the_best_and_the_last_held_out_dice_are_told_apart(tmp_path, monkeypatch) -> None:
    course = [0.2, None, 0.6, 0.55]
    recorded = [
        row | {"held_out_dice": dice, "held_out_dice_by_class": {"vertebra": dice, "disc": None}}
        for row, dice in zip(rows(4), course, strict=True)
    ]
    panel = shown(tmp_path, monkeypatch, recorded).axes[2]
    assert panel.get_title(loc="left") == "Dice on held-out cases: 0.55 (best 0.60, epoch 3)"
    (marked,) = (line for line in panel.lines if line.get_marker() == "o")
    assert (list(marked.get_xdata()), list(marked.get_ydata())) == ([3], [0.6])
    (mean,) = (line for line in panel.lines if line.get_label() == "mean")
    assert list(mean.get_ydata()) == [0.2, 0.6, 0.55]


def test_of_many_classes_the_worst_is_drawn_among_the_range_of_all(tmp_path, monkeypatch) -> None:
    values = {f"T{i}": i / 12 for i in range(1, 13)}
    recorded = [{"epoch": 1, "pseudo_dice": values}, {"epoch": 2, "pseudo_dice": values | {"T5": 0.01}}]
    (panel,) = shown(tmp_path, monkeypatch, recorded).axes
    assert [line.get_label() for line in panel.lines] == ["T5 (worst)", "T1", "T2", "mean"]


def test_the_worst_of_many_classes_are_those_that_were_scored_last(tmp_path, monkeypatch) -> None:
    values = {f"T{i}": None if i == 2 else i / 12 for i in range(1, 13)}
    recorded = [row | {"held_out_dice": 0.5, "held_out_dice_by_class": values} for row in rows(2)]
    panel = shown(tmp_path, monkeypatch, recorded).axes[2]
    assert [line.get_label() for line in panel.lines][:4] == ["T1 (worst)", "T3", "T4", "mean"]


def test_an_early_end_is_marked_among_the_held_out_dice(tmp_path, monkeypatch) -> None:
    recorded = [row | {"held_out_dice": 0.5} for row in rows(30)]
    recorded[20]["early_stop"] = "training stops early"
    panels = shown(tmp_path, monkeypatch, recorded).axes
    marked = [[line for line in axes.lines if line.get_linestyle() == ":"] for axes in panels]
    assert [len(lines) for lines in marked] == [0, 0, 1]
    assert marked[2][0].get_xdata()[0] == 21


@pytest.mark.parametrize(
    "partial",
    [
        [],
        [{}],
        [{"epoch": 1, "loss": None, "pseudo_dice": {"disc": None}}],
        [{"loss": 1.0}, {"epoch": 2, "pseudo_dice": {"disc": 0.5}}],
        [{"epoch": 1, "gamma": []}, {"epoch": 2, "gamma": [0.1, 0.2]}],
        [{"epoch": 1, "loss": math.inf, "seconds": "many"}],
        [{"epoch": 1, "pseudo_dice": {f"T{i}": i / 12 for i in range(1, 13)}}, {"epoch": 2}],
        [{"epoch": 1, "held_out_dice": 0.5}, {"held_out_dice_by_class": {"L1": None}}],
    ],
)
def test_whatever_is_missing(tmp_path: Path, partial: list[dict[str, Any]]) -> None:
    for name, write in (("curves", write_curves), ("mechanisms", write_mechanisms)):
        write(tmp_path / "new" / f"{name}.png", partial, title="fold 0")
        assert pixels(tmp_path / "new" / f"{name}.png").std() > 0


def test_limits_and_warnings_are_drawn(tmp_path: Path) -> None:
    usual, warned = rows(5), rows(5)
    warned[3]["warnings"] = {"collapse": "the prediction collapses"}
    limits = {"foreground_ratio": 0.1, "border_shift": 0.5}
    for name, recorded, drawn in (("a", usual, {}), ("b", usual, limits), ("c", warned, limits)):
        write_mechanisms(tmp_path / f"{name}.png", recorded, title="fold 0", limits=drawn)
    without, limited, red = (pixels(tmp_path / f"{name}.png") for name in "abc")
    third = len(without) // 3
    assert (limited[:third] != without[:third]).any()
    # The red line stands in the second panel of the first row, and nowhere else.
    changed = np.argwhere((red != limited).any(axis=-1))
    assert len(changed)
    assert changed[:, 0].max() < third
    assert red.shape[1] / 3 < changed[:, 1].min() <= changed[:, 1].max() < red.shape[1] * 2 / 3


def test_named_parts_of_a_loss_are_drawn_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[dict[str, Any]] = [
        {"epoch": i, "loss": 1 / i, "loss_parts": {"focal": 2 / i, "boundary": 3 / i}} for i in (1, 2, 3)
    ]
    recorded[1]["loss_parts"] = {"focal": 1.0, "boundary": None}
    drawn = shown(tmp_path, monkeypatch, recorded)
    lines = {line.get_label(): line for axes in drawn.axes for line in axes.lines}
    assert list(lines) == ["loss", "focal", "boundary"]
    assert list(lines["focal"].get_ydata()) == [2.0, 1.0, pytest.approx(2 / 3)]
    assert list(lines["boundary"].get_xdata()) == [1, 3]
    legend = drawn.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["loss", "focal", "boundary"]
