import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

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
            "something_new": "ignored",
        }
        for i in range(count)
    ]


def pixels(path: Path) -> np.ndarray:
    return imread(path)[..., :3]


@pytest.mark.parametrize("count", [1, 2, 30])
def test_six_panels(tmp_path: Path, count: int) -> None:
    write_curves(tmp_path / "curves.png", rows(count), title="fold 0")
    picture = pixels(tmp_path / "curves.png")
    width = round(PANEL_INCHES[0] * COLUMNS * DPI)
    assert picture.shape == pytest.approx((round((PANEL_INCHES[1] * 2 + 0.45) * DPI), width, 3), abs=1)
    for column in range(COLUMNS):
        panel = picture[picture.shape[0] // 2 :, column * width // 3 : (column + 1) * width // 3]
        assert panel.std() > 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


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
