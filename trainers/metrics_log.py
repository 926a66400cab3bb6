"""The training log of a fold: metrics.jsonl, and the curves drawn from it."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from autospine.core.errors import FormatError, WorkspaceError
from autospine.network import AdaptiveSwinUNETR
from autospine.plan import Configuration
from autospine.report.curves import write_curves, write_mechanisms
from autospine.storage.atomic import write_text
from autospine.storage.file_names import read_text, refuse_link
from autospine.storage.serialization import parse_json
from autospine.system.log import get_logger
from trainers.monitors import LIMITS, Monitors, known_warnings
from trainers.step_result import StepResult
from trainers.trackers import Trackers

logger = get_logger(__name__)

METRICS = "metrics.jsonl"
CURVES = "curves.png"
MECHANISMS = "mechanisms.png"

LARGEST = 2**30
"""Bytes of the longest log that is read: some hundred thousand epochs."""

REMEDY = "move the fold's folder elsewhere and train again, or restore the file"

PART_COLUMNS = ("ce", "dice_loss")
"""Parts of the loss that have columns of their own, as in files from before the loss could be chosen."""

PARTS = "loss_parts"
"""Column that maps the names of all other parts of the loss to their values."""

SKIPPED = "skipped_steps"
"""Column with the number of the epoch's steps that were not taken."""

HELD_OUT = "held_out_dice"
"""Column with the mean Dice over the classes in the tiles of held-out cases."""

HELD_OUT_CLASSES = "held_out_dice_by_class"
"""Column with the Dice of each class there."""

EARLY_STOP = "early_stop"
"""Column of the one epoch after which --stop-early shortens the schedule: a sentence that says so."""

CURVES_SECONDS = 30.0
"""Least time between two drawings of the curves; drawing takes as long as a few steps."""


class Record:
    """The log `folder/metrics.jsonl` with one row per epoch, which is sent to the trackers as well.

    Args:
        folder: Folder of the fold.
        title: Title above the curves and prefix of the warnings.
        classes: Names of the foreground classes.
        configuration: Configuration that is trained, for the monitors.
        epochs: Rows to keep from an earlier run; later ones, written after its last checkpoint, are dropped.
        seen: State of the monitors that `seen` returned in an earlier run.
        trackers: Experiment trackers that get every row; None for none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        classes: Sequence[str],
        configuration: Configuration,
        epochs: int,
        seen: Sequence[Sequence[int]] = (),
        trackers: Trackers | None = None,
    ) -> None:
        self._folder, self._title, self._classes = folder, title, classes
        self._trackers = trackers or Trackers([])
        self.rows = read_rows(folder)[:epochs]
        known = known_warnings(rows_now(self.rows))
        self._monitors = Monitors(classes, configuration, known=known, state=seen)
        self._drawn = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        path, text = folder / METRICS, "".join(map(_line, self.rows))
        refuse_link(path)  # rows are appended in its place
        if not path.is_file() or read_text(path, LARGEST) != text:
            write_text(path, text)

    def add(
        self, steps: Sequence[StepResult], network: nn.Module, *, progress: float, **facts: object
    ) -> dict[str, Any]:
        """Append the row of an epoch, and draw the curves if `CURVES_SECONDS` have passed.

        Args:
            steps: Results of the epoch's steps, at least one.
            network: Network, whose fusion weights and gammas are recorded.
            progress: Progress of the training in [0, 1].
            facts: Further columns, such as the learning rate; the sentence `early_stop` is logged.

        Returns:
            The row.

        Raises:
            WorkspaceError: If the row cannot be written.
        """
        taken = [step for step in steps if step.finite]
        parts = {
            name: _mean([step.parts[name] for step in taken if name in step.parts])
            for name in dict.fromkeys(name for step in steps for name in step.parts)
        }
        others = {name: parts.pop(name) for name in list(parts) if name not in PART_COLUMNS}
        row: dict[str, Any] = _finite(
            {
                "epoch": len(self.rows) + 1,
                "progress": round(progress, 5),
                "loss": _mean([step.loss for step in taken]),
                **parts,
                **({PARTS: others} if others else {}),
                "pseudo_dice": dict(zip(self._classes, epoch_dice(taken), strict=False)),
                SKIPPED: len(steps) - len(taken),
                **facts,
                **_mechanisms(network),
                **self._judged(taken, network, progress),
            }
        )
        self._trackers.log_metrics(numbers(row), row["epoch"])
        row["warnings"] |= self._trackers.failures()
        self._warn(row["warnings"])
        if EARLY_STOP in row:
            logger.info("%s: %s", self._title, row[EARLY_STOP])
        self.rows.append(row)
        try:
            with (self._folder / METRICS).open("a", encoding="utf-8") as file:
                file.write(_line(row))
        except OSError as error:
            raise WorkspaceError(
                f"expected to write {self._folder / METRICS}, found {error}; free disk space and run the "
                "same command again: the fold resumes from its last checkpoint"
            ) from None
        logger.debug("%s: %s", self._title, "  ".join(summary(row)))
        if time.monotonic() - self._drawn >= CURVES_SECONDS:
            self.draw()
        return row

    def seen(self) -> list[list[int]]:
        """Return the state of the monitors, for a checkpoint."""
        return self._monitors.state()

    def draw(self) -> None:
        """Draw the curves; if they cannot be written, warn and go on."""
        self._drawn = time.monotonic()
        try:
            write_curves(self._folder / CURVES, self.rows, title=self._title)
            write_mechanisms(self._folder / MECHANISMS, self.rows, title=self._title, limits=LIMITS)
        except OSError as error:
            logger.warning("%s: the curves cannot be drawn: %s", self._title, error)

    def close(self) -> None:
        """Draw the curves a last time, send them to the trackers and end the trackers' runs."""
        if self.rows:
            self.draw()
            for picture in (self._folder / CURVES, self._folder / MECHANISMS):
                if picture.is_file():
                    self._trackers.log_image(picture.stem, picture, len(self.rows))
        self._trackers.close()
        self._warn(self._trackers.failures())

    def _judged(self, steps: Sequence[StepResult], network: nn.Module, progress: float) -> dict[str, Any]:
        """Update the monitors; return their readings and new warnings as columns."""
        self._monitors.update([step.counts for step in steps if step.counts is not None])
        readings = self._monitors.read(network)
        warnings = self._monitors.warnings(readings, network, progress)
        return {"monitors": asdict(readings), "warnings": warnings}

    def _warn(self, warnings: Mapping[str, str]) -> None:
        for text in warnings.values():
            logger.warning("%s: %s", self._title, text)


def epoch_dice(steps: Sequence[StepResult]) -> list[float | None]:
    """Compute the soft Dice of each foreground class over all patches of an epoch, without smoothing.

    Args:
        steps: Results of the epoch's steps; those without overlap do not count.

    Returns:
        Dice of each class; None for a class that is in no patch, whose Dice would be 0 whatever is predicted.
        Empty if no step has an overlap.
    """
    overlaps = [step.overlap for step in steps if step.overlap]
    if not overlaps:
        return []
    both, predicted, true = np.sum(overlaps, axis=0).T
    # A class without a single voxel has the Dice 0 / 1 here and is left out below.
    dice = 2 * both / np.maximum(predicted + true, 1)
    return [
        round(float(value), 5) if present else None for value, present in zip(dice, true > 0, strict=True)
    ]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Read the complete rows of a fold's metrics.jsonl; there are none before the first epoch has ended.

    Raises:
        FormatError: If the file cannot be read, or a complete line is no row.
    """
    path = folder / METRICS
    if not os.path.lexists(path):
        return []
    try:
        lines = read_text(path, LARGEST).splitlines()
    except OSError as error:
        raise FormatError(f"expected the log of a training at {path}, found {error}; {REMEDY}") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = _finite(parse_json(line))  # earlier versions wrote NaN
        except ValueError:
            break  # the line is incomplete: the process was killed, or is writing it now
        if not _is_row(row):
            raise FormatError(f"expected an epoch in line {number} of {path}, found {line[:40]!r}; {REMEDY}")
        rows.append(row)
    return rows


def _is_row(row: object) -> bool:
    """Return whether a line has nothing that it could not be counted, summed up and shown by."""
    return (
        isinstance(row, dict)
        and all(
            row.get(key) is None or _is_number(row[key])
            for key in ("epoch", "progress", "loss", "seconds", SKIPPED)
        )
        and isinstance(row.get("pseudo_dice", {}), dict)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _line(row: Mapping[str, Any]) -> str:
    """Return a row as the log has it; the row holds no number that JSON does not know."""
    return json.dumps(row, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Return what a row holds with None in the place of every number that is not finite, however deep."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def rows_now(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return the rows of the current training: if a finished one is extended, the rows after its end."""
    ends = [number for number, row in enumerate(rows, start=1) if (row["progress"] or 0) >= 1]
    return rows[max(ends, default=0) :]


def seconds_trained(folder: Path) -> float:
    """Return the seconds for which a fold was trained, according to its metrics.jsonl."""
    return sum(float(row.get("seconds") or 0) for row in read_rows(folder))


def summary(row: Mapping[str, Any]) -> tuple[str, str]:
    """Summarise a row in two lines for the screen.

    Returns:
        The first line with loss, its parts, Dice and the time spent waiting for data; the second one with
        monitors, fusion weights and gammas.
    """
    if row["loss"] is None:
        return brief_summary(row), ""
    parts = {**({"CE": row["ce"]} if "ce" in row else {}), **row.get(PARTS, {})}
    first = [
        brief_summary(row),
        *(f"{name} {value:.2f}" for name, value in parts.items() if value is not None),
    ]
    if "seconds_waited_for_data" in row:
        first.append(f"waited {row['seconds_waited_for_data']:.0f} of {row['seconds']:.0f} s")
    monitors, second = row.get("monitors", {}), []
    if (ratio := monitors.get("foreground_ratio")) is not None:
        second.append(f"foreground ×{ratio:.2f}")
    if (shift := monitors.get("border_shift")) is not None:
        second.append(f"border {shift:+.2f}")
    if len(weights := row.get("fusion_weights", ())) > 1:
        second.append("fusion " + " ".join("?" if weight is None else f"{weight:.2f}" for weight in weights))
    if weights := row.get("level_weights", ()):
        second.append("levels " + " ".join("?" if weight is None else f"{weight:.2f}" for weight in weights))
    if gammas := [gamma for gamma in row.get("gamma", ()) if gamma]:
        second.append("γ " + " ".join(f"{gamma:.3f}" for gamma in gammas))
    return "  ".join(first), "  ".join(second)


def brief_summary(row: Mapping[str, Any]) -> str:
    """Summarise a row in a few words: held-out Dice, loss and Dice on training patches.

    The first words are those that a narrow terminal shows still.
    """
    if row["loss"] is None:
        return f"epoch {row['epoch']}  no step was taken"
    words = [f"epoch {row['epoch']}"]
    if (held_out := row.get(HELD_OUT)) is not None:
        words.append(f"held-out {held_out:.2f}")
    words.append(f"loss {row['loss']:.2f}")
    if dice := [value for value in row["pseudo_dice"].values() if value is not None]:
        words.append(f"Dice {sum(dice) / len(dice):.2f}")
    return "  ".join(words)


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row under flat names, such as `pseudo_dice/disc` and `gamma/1`."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        inner = value if isinstance(value, dict) else {}
        if isinstance(value, list):
            inner = {str(place): item for place, item in enumerate(value, start=1)}
        flat |= {f"{key}/{name}": item for name, item in inner.items()} if inner else {key: value}
    return {name: float(value) for name, value in flat.items() if isinstance(value, int | float)}


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 5) if values else None


def _mechanisms(network: nn.Module) -> dict[str, list[float]]:
    """Return the weights of kernels and levels, and the mean |gamma| of each stage, as columns."""
    if not isinstance(network, AdaptiveSwinUNETR):
        return {}
    gammas = [[float(gamma.abs().mean()) for gamma in stage] for stage in network.saliency_gammas()]
    return {
        "fusion_weights": [round(float(w), 5) for w in network.fusion_weights()],
        "level_weights": [round(float(w), 5) for w in network.level_weights()],
        "gamma": [round(sum(stage) / len(stage), 6) if stage else 0.0 for stage in gammas],
    }
