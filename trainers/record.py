"""The written record of a fold: metrics.jsonl and the curves drawn from it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from autospine.network import AdaptiveSwinUNETR
from autospine.report.curves import write_curves
from trainers.learner import Step

METRICS = "metrics.jsonl"
CURVES = "curves.png"


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
        self.rows = self._read()[:epochs]
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        (folder / METRICS).write_text(text, encoding="utf-8")

    def add(self, steps: Sequence[Step], network: nn.Module, **facts: float) -> dict[str, Any]:
        """Append an epoch and draw the curves anew.

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
        write_curves(self._folder / CURVES, self.rows, title=self._title)
        return row

    def _read(self) -> list[dict[str, Any]]:
        path = self._folder / METRICS
        if not path.is_file():
            return []
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break  # a line cut short when the process was killed
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
