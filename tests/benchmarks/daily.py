"""What a user of one day sees, on twelve lumbar MR and models of a quarter of an hour.

    python tests/benchmarks/daily.py [--workspace FOLDER] [--minutes 15] [--write docs/results/daily.md]

plans, trains five folds in the given time, and measures:

- `cleanup_*`: what post-processing changes in held-out cases, chosen by the other folds (`daily_cleanup.py`);
- `palette_*`: how far the colours of labels are apart (`palette.py`);
- `validation_cost`: share of the folds' training time that held-out tiles take after the epochs;
- `heldout_dice_error`: the held-out Dice shown at the end against the fold's whole validation, the largest of
  the folds, and the mean of all;
- `hours_error`: the hours of a fold that the plan says against those of epochs that are then trained;
- `habits`: commands of nnU-Net v2 and TotalSegmentator that are typed, and how many get no hand;
- `air_voxels_changed`: voxels that leaving out air changes in real cases (`daily_air.py`).

It needs the real cases and a machine with nothing else to do, as it times steps. A workspace that is given is
trained further where it was left. Prints one JSON object last.
"""

import argparse
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from daily_air import air_figures
from daily_cleanup import cleanup_figures
from palette import report
from processes import autospine
from result_page import measured_on, write_measured

DATASET = "Dataset002_LumbarMR"
IMAGES = ("Dataset001_SpineReal/imagesTr", "Dataset001_SpineReal/imagesTs", f"{DATASET}/imagesTr")
"""Folders of the real cases that air is left out of."""

EPOCHS = 4
"""Epochs that are trained to know how long one takes; the first ones, which also start up, do not count."""

LIMITS = {
    "cleanup_foreground_change": (">=", 0.0),
    "cleanup_foreground_change_worst": (">=", -0.002),
    "cleanup_recall_change": (">=", 0.0),
    "cleanup_recall_change_worst": (">=", -0.002),
    "cleanup_dice_change": (">=", 0.0),
    "palette_min_difference": (">=", 20.0),
    "palette_min_difference_any": (">=", 8.0),
    "palette_min_difference_blind": (">=", 10.0),
    "palette_min_difference_blind_any": (">=", 5.0),
    "validation_cost": ("<=", 0.05),
    "heldout_dice_error": ("<=", 0.05),
    "hours_error": ("<=", 0.25),
    "habits": (">=", 25),
    "habits_unhelped": ("<=", 0),
    "air_voxels_changed": ("<=", 0),
}
"""What each figure is to be."""


def prepare(workspace: Path, data: Path, minutes: float) -> Path:
    """Plan and train where that is not done yet; return the model folder."""
    raw = workspace / "raw" / DATASET
    raw.parent.mkdir(parents=True, exist_ok=True)
    if not raw.exists():
        raw.symlink_to(data / DATASET)
    if not (workspace / "preprocessed" / DATASET / "plan.json").is_file():
        autospine(workspace, "plan-and-preprocess", "-d", "2")
    autospine(workspace, "train", "0", "--fold", "all", "--max-minutes", str(minutes))
    (model,) = {path.parents[1] for path in workspace.glob(f"results/{DATASET}/*/fold_0/model.safetensors")}
    return model


def rows(fold: Path) -> list[dict[str, Any]]:
    """The epochs of a fold."""
    return [json.loads(line) for line in (fold / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def held_out(model: Path) -> dict[str, Any]:
    """Cost of the held-out tiles, and how near their Dice comes to that of the whole validation."""
    validated = json.loads((model / "cross_validation.json").read_text(encoding="utf-8"))["folds"]
    logs = {name: rows(model / f"fold_{name}") for name in validated}
    every = [row for log in logs.values() for row in log]
    held_out_seconds, seconds = (sum(row[key] for row in every) for key in ("seconds_held_out", "seconds"))
    shown = {name: log[-1]["held_out_dice"] for name, log in logs.items()}
    errors = {name: abs(shown[name] - validated[name]["mean_dice"]) for name in logs}
    return {
        "validation_cost": round(held_out_seconds / seconds, 4),
        "heldout_dice_error": round(max(errors.values()), 4),
        "heldout_dice_error_mean": round(sum(errors.values()) / len(errors), 4),
        "held_out_folds": {
            name: {
                "epochs": len(logs[name]),
                "shown": round(shown[name], 4),
                "validation": round(validated[name]["mean_dice"], 4),
            }
            for name in logs
        },
    }


def hours(workspace: Path, name: str) -> dict[str, float]:
    """The plan's hours of a fold, measured now, against those of a few epochs that are trained alone."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        (fresh / "raw").mkdir()
        (fresh / "raw" / DATASET).symlink_to((workspace / "raw" / DATASET).resolve())
        preprocessed = fresh / "preprocessed" / DATASET
        shutil.copytree(workspace / "preprocessed" / DATASET, preprocessed)
        (preprocessed / "costs.json").unlink(missing_ok=True)
        autospine(fresh, "plan", "-d", "2")
        costs = json.loads((preprocessed / "costs.json").read_text(encoding="utf-8"))["configurations"]
        said = next(cost["hours"] for cost in costs if cost["name"] == name)
        plan = json.loads((preprocessed / "plan.json").read_text(encoding="utf-8"))
        planned = next(each for each in plan["configurations"] if each["name"] == name)["training"]["epochs"]
        words = ("train", name, "--fold", "0", "--epochs", str(EPOCHS))
        whole, again = (seconds_of(fresh, *words) for _ in range(2))
        epochs = [row["seconds"] for row in rows(fresh / "results" / DATASET / name / "fold_0")]
    # What a complete fold takes again is the start; the rest is the prediction of its held-out cases.
    validation = max(0.0, whole - again - sum(epochs))
    # The first epoch predicts every tile once, and starts up.
    measured = (planned * sorted(epochs[1:])[len(epochs[1:]) // 2] + validation) / 3600
    return {
        "hours_said": round(said, 3),
        "hours_measured": round(measured, 3),
        "hours_error": round(abs(said / measured - 1), 3),
    }


def seconds_of(workspace: Path, *words: str) -> float:
    """Time that a command takes."""
    began = time.monotonic()
    autospine(workspace, *words)
    return time.monotonic() - began


def habits() -> dict[str, int]:
    """Type what users of other programs would; who is told in one line what to type here is helped.

    That is done in an empty folder, since the answers also name what there is.
    """
    from unit.cli.test_habits import LINES

    unhelped = 0
    with tempfile.TemporaryDirectory() as folder:
        for line, hand in LINES.items():
            said = autospine(Path(folder), *shlex.split(line), check=False).stderr
            unhelped += not (hand in said and said.count("\n") == 1)
    return {"habits": len(LINES), "habits_unhelped": unhelped}


def colours() -> dict[str, float]:
    """The smallest differences of colours, by the names of the figures."""
    found = report()
    return {
        "palette_min_difference": found["all_within_three_levels"],
        "palette_min_difference_any": found["all_any_two"],
        "palette_min_difference_blind": min(
            value for name, value in found.items() if name.endswith("within_three_levels")
        ),
        "palette_min_difference_blind_any": min(
            value for name, value in found.items() if name.endswith("any_two")
        ),
    }


def table(figures: Mapping[str, Any]) -> str:
    """The figures with what they are to be, as Markdown."""
    lines = [
        measured_on(),
        "",
        "| figure | measured | to be |",
        "|---|--:|--:|",
        *(f"| `{name}` | {figures[name]} | {sign} {limit:g} |" for name, (sign, limit) in LIMITS.items()),
        "",
        "```json",
        json.dumps(figures),
        "```",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure everything and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help=f"folder with {DATASET} and real/")
    parser.add_argument("--workspace", type=Path, help="folder to train in, and to keep")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--write", type=Path, help="page that gets the table")
    arguments = parser.parse_args()
    if not (arguments.data / DATASET).is_dir():
        raise SystemExit(f"expected {DATASET} in {arguments.data}, found none; name its folder with --data")
    with tempfile.TemporaryDirectory() as temporary:
        workspace = (arguments.workspace or Path(temporary)).resolve()
        model = prepare(workspace, arguments.data, arguments.minutes)
        figures: dict[str, Any] = {
            **hours(workspace, model.name),
            **held_out(model),
            **cleanup_figures(workspace),
            **colours(),
            **habits(),
            **air_figures([model], [arguments.data / images for images in IMAGES]),
        }
    if arguments.write:
        write_measured(arguments.write, table(figures))
    print(json.dumps(figures))  # noqa: T201 (a script's result)


if __name__ == "__main__":
    main()
