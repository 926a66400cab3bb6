import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from autospine.report import curves
from autospine.report.curves import COLUMNS, DPI, PANEL_INCHES, write_curves


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
def test_nine_panels(tmp_path: Path, count: int) -> None:
    write_curves(tmp_path / "curves.png", rows(count), title="fold 0")
    picture = pixels(tmp_path / "curves.png")
    width = round(PANEL_INCHES[0] * COLUMNS * DPI)
    assert picture.shape == pytest.approx((round((PANEL_INCHES[1] * 3 + 0.45) * DPI), width, 3), abs=1)
    for column in range(COLUMNS):
        panel = picture[picture.shape[0] // 3 :, column * width // 3 : (column + 1) * width // 3]
        assert panel.std() > 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_the_held_out_dice_is_drawn_among_that_of_training_patches(tmp_path: Path) -> None:
    plain, stopped = tmp_path / "plain.png", tmp_path / "stopped.png"
    write_curves(plain, rows(30), title="fold 0")
    held_out = [row | {"held_out_dice": 0.5} for row in rows(30)]
    held_out[20]["early_stop"] = "training stops early"
    write_curves(stopped, held_out, title="fold 0")
    assert pixels(stopped).shape == pixels(plain).shape
    columns = np.flatnonzero((pixels(stopped) != pixels(plain)).any((0, 2)))
    width = pixels(plain).shape[1]
    assert width // 3 < columns.min() < columns.max() < 2 * width // 3


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
    ],
)
def test_whatever_is_missing(tmp_path: Path, partial: list[dict[str, Any]]) -> None:
    write_curves(tmp_path / "new" / "curves.png", partial, title="fold 0")
    assert pixels(tmp_path / "new" / "curves.png").std() > 0


def test_limits_and_warnings_are_drawn(tmp_path: Path) -> None:
    usual, warned = rows(5), rows(5)
    warned[3]["warnings"] = {"collapse": "the prediction collapses"}
    limits = {"foreground_ratio": 0.1, "border_shift": 0.5}
    for name, shown, drawn in (("a", usual, {}), ("b", usual, limits), ("c", warned, limits)):
        write_curves(tmp_path / f"{name}.png", shown, title="fold 0", limits=drawn)
    without, limited, red = (pixels(tmp_path / f"{name}.png") for name in "abc")
    third = len(without) // 3
    assert (limited[third : 2 * third] != without[third : 2 * third]).any()
    # The red line stands in the first panel of the second row, and nowhere else.
    changed = np.argwhere((red != limited).any(axis=-1))
    assert len(changed)
    assert third < changed[:, 0].min() <= changed[:, 0].max() < 2 * third
    assert changed[:, 1].max() < red.shape[1] / 3


def test_named_parts_of_a_loss_are_drawn_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: figures.append(figure))
    recorded: list[dict[str, Any]] = [
        {"epoch": i, "loss": 1 / i, "loss_parts": {"focal": 2 / i, "boundary": 3 / i}} for i in (1, 2, 3)
    ]
    recorded[1]["loss_parts"] = {"focal": 1.0, "boundary": None}
    write_curves(tmp_path / "curves.png", recorded, title="fold 0")
    lines = {line.get_label(): line for axes in figures[0].axes for line in axes.lines}
    assert list(lines) == ["loss", "focal", "boundary"]
    assert list(lines["focal"].get_ydata()) == [2.0, 1.0, pytest.approx(2 / 3)]
    assert list(lines["boundary"].get_xdata()) == [1, 3]
    legend = figures[0].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["loss", "focal", "boundary"]
