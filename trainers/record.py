"""The written record of a fold: metrics.jsonl and the curves drawn from it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from autospine.network import AdaptiveSwinUNETR
from autospine.report.curves import write_curves
from trainers.learner import Step

METRICS = "metrics.jsonl"
CURVES = "curves.png"

CURVES_SECONDS = 30.0
"""Time between two drawings of the curves; one takes as long as a step or two."""


class Record:
    """Rows of `folder/metrics.jsonl`, one per epoch.

    Args:
        folder: of the fold.
        title: above the curves.
        classes: names of the foreground classes.
        epochs: rows to keep from an earlier run; later ones, written after its last checkpoint, are dropped.
    """

    def __init__(self, folder: Path, *, title: str, classes: Sequence[str], epochs: int) -> None:
        self._folder, self._title, self._classes = folder, title, classes
        self.rows = _read(folder / METRICS)[:epochs]
        self._drawn = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        (folder / METRICS).write_text(text, encoding="utf-8")

    def add(self, steps: Sequence[Step], network: nn.Module, **facts: float) -> dict[str, Any]:
        """Append an epoch; the curves are drawn anew every now and then.

        Args:
            steps: the epoch's steps, at least one.
            network: for the mechanisms' state.
            facts: further columns, such as the learning rate.
        """
        taken = [step for step in steps if step.finite]
        dice = [round(sum(v) / len(v), 5) for v in zip(*(step.dice for step in taken), strict=True)]
        row = {
            "epoch": len(self.rows) + 1,
            "loss": _mean([step.loss for step in taken]),
            "ce": _mean([step.cross_entropy for step in taken]),
            "dice_loss": None if not dice else round(1 - sum(dice) / len(dice), 5),
            "pseudo_dice": dict(zip(self._classes, dice, strict=False)),
            "skipped_steps": len(steps) - len(taken),
            **facts,
            **_mechanisms(network),
        }
        self.rows.append(row)
        with (self._folder / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if time.monotonic() - self._drawn >= CURVES_SECONDS:
            self.draw()
        return row

    def draw(self) -> None:
        """Draw the curves."""
        self._drawn = time.monotonic()
        write_curves(self._folder / CURVES, self.rows, title=self._title)


def last_row(folder: Path) -> dict[str, Any] | None:
    """The newest complete row of a fold's metrics.jsonl, None before the first."""
    rows = _read(folder / METRICS)
    return rows[-1] if rows else None


def seconds_trained(folder: Path) -> float:
    """How long a fold was trained, by its metrics.jsonl."""
    return sum(float(row["seconds"]) for row in _read(folder / METRICS))


def summary(row: dict[str, Any]) -> str:
    """A row in a few words, for the progress bar."""
    if row["loss"] is None:
        return f"epoch {row['epoch']}"
    dice = row["pseudo_dice"].values()
    mean = f", Dice {sum(dice) / len(dice):.2f}" if dice else ""
    return f"epoch {row['epoch']}, loss {row['loss']:.2f}{mean}"


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break  # a line cut short, because the process was killed or is writing it now
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 5) if values else None


def _mechanisms(network: nn.Module) -> dict[str, list[float]]:
    """Fusion weights w_i, and the mean size of gamma in each stage."""
    if not isinstance(network, AdaptiveSwinUNETR):
        return {}
    gammas = [[float(gamma.abs().mean()) for gamma in stage] for stage in network.saliency_gammas()]
    return {
        "fusion_weights": [round(float(w), 5) for w in network.fusion_weights()],
        "gamma": [round(sum(stage) / len(stage), 6) if stage else 0.0 for stage in gammas],
    }
