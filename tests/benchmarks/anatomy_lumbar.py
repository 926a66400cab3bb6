"""Levels that a model of lumbar MR names right in its held-out cases, before and after naming."""

from pathlib import Path

import numpy as np

from autospine.core.types import LabelArray
from autospine.io.images import read_labels
from autospine.plan import Plan
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.storage.serialization import read_json

Row = tuple[str, int, int, int, float, float]
"""Case, levels, how many are right before and after, mean Dice before and after."""


def lumbar_rows(model: Path, references: Path) -> list[Row]:
    """Name the held-out predictions of a cross-validated model, as `predict` names its own.

    A level is right if most of what is predicted in its body has its label.

    Args:
        model: Model folder whose classes are levels, with the predictions of its folds.
        references: Folder of the reference label maps.
    """
    plan = read_json(model / "plan.json", Plan)
    naming = VertebraNaming.of_labels(plan.labels)
    if naming is None:
        raise SystemExit(f"expected a model whose classes are levels in {model}, found others")
    rows = []
    for path in sorted(model.glob(f"fold_[0-9]/validation/*{plan.file_ending}")):
        predicted = read_labels(path)
        true = read_labels(references / path.name).turned_to(predicted.grid)[0]
        before = predicted.array[0]
        after = naming.apply(path.name, before, predicted.grid).labels
        values = [value for value in np.unique(true).tolist() if value]
        right = [sum(_is_right(found, true, value) for value in values) for found in (before, after)]
        dice = [float(np.mean([_dice(found, true, value) for value in values])) for found in (before, after)]
        name = path.name.removesuffix(plan.file_ending)
        rows.append((name, len(values), right[0], right[1], dice[0], dice[1]))
    return rows


def lumbar_figures(rows: list[Row]) -> dict[str, float]:
    """Return the shares of levels that are right, and the means of Dice over the cases."""
    levels = sum(row[1] for row in rows)
    return {
        "lumbar_mr_levels_before": sum(row[2] for row in rows) / levels,
        "lumbar_mr_levels_right": sum(row[3] for row in rows) / levels,
        "lumbar_mr_dice_before": float(np.mean([row[4] for row in rows])),
        "lumbar_mr_dice": float(np.mean([row[5] for row in rows])),
    }


def _is_right(found: LabelArray, true: LabelArray, value: int) -> bool:
    inside = found[(true == value) & (found > 0)]
    return bool(inside.size) and int(np.bincount(inside.astype(np.int64)).argmax()) == value


def _dice(found: LabelArray, true: LabelArray, value: int) -> float:
    one, other = found == value, true == value
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())
