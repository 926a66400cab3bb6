"""What the starter is worth as the start of a training: `make bench-tuned`.

    python tests/benchmarks/tuned.py [--workspace FOLDER] [--only NAME ...] [--write docs/results/tuned.md]

Every training is made twice in the same minutes, from the starter with its own plan and from nothing with
the plan that AutoSpine makes by itself:

- `tuned_mean`, `tuned_mean_nothing`: Dice over the six real cases of Dataset001, by cross-validation in 20
  minutes for the five folds together;
- `tuned_1`, `tuned_3`, `tuned_5` and `..._nothing`: mean Dice of the other cases of Dataset001, where so
  many are trained on for four minutes, as long as a fold is above;
- `levels`, `levels_nothing`: mean Dice of the levels L1 to L5 over twelve lumbar MR, by cross-validation in
  15 minutes;
- `levels_2`, `levels_2_nothing`: the same over ten cases, where two are trained on for three minutes.

It needs the real cases and a machine with nothing else to do. A workspace that is given keeps the figures, so
that the next run goes on. Prints one JSON object last.
"""

import argparse
import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import autospine
from result_page import measured_on, write_measured

START = "starter"
SPINE, LEVELS = "Dataset001_SpineReal", "Dataset002_LumbarMR"

ORDER = ("ct_lumbosacral", "mr_t2w_crop", "ct_cervical", "ct_lumbar_crop", "mr_abdomen", "ct_hip_metal")
"""Cases of Dataset001 in the order in which they are trained on: CT and MR, the whole anatomy first."""

LEVELS_ORDER = ("mr_lumbar_01", "mr_lumbar_02")
"""Cases of Dataset002 that are trained on where two are."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training that is made from the starter and from nothing."""

    name: str
    dataset: str
    minutes: float
    trained_on: tuple[str, ...] = ()
    """Cases that a single model is trained on, the others being predicted; none for a cross-validation."""


TRIALS = (
    Trial(name="tuned_mean", dataset=SPINE, minutes=20),
    Trial(name="levels", dataset=LEVELS, minutes=15),
    Trial(name="levels_2", dataset=LEVELS, minutes=3, trained_on=LEVELS_ORDER),
    *(Trial(name=f"tuned_{n}", dataset=SPINE, minutes=4, trained_on=ORDER[:n]) for n in (1, 3, 5)),
)

GOALS = {"tuned_mean": ">= 0.85", "levels": ">= `levels_nothing`", "levels_2": ">= `levels_2_nothing` + 0.05"}


def measured(trial: Trial, data: Path, workspace: Path, start: str | None) -> float:
    """Train and score in a workspace of its own; return the mean Dice."""
    pretrained = () if start is None else ("--pretrained", start)
    raw = workspace / "raw" / trial.dataset
    if not raw.exists():
        lay_out(data / trial.dataset, raw, trial.trained_on)
    if not list(workspace.glob("preprocessed/*/plan.json")):
        autospine(workspace, "plan-and-preprocess", "-d", trial.dataset, *pretrained)
    fold = "full" if trial.trained_on else "all"
    limit = ("--max-minutes", str(trial.minutes))
    autospine(workspace, "train", "0", "-d", trial.dataset, "--fold", fold, *limit, *pretrained)
    if not trial.trained_on:
        (scores,) = workspace.glob("results/*/*/cross_validation.json")
        return float(json.loads(scores.read_text(encoding="utf-8"))["mean_dice"])
    predictions = workspace / "predictions"
    autospine(workspace, "predict", "-d", trial.dataset, "-i", str(raw / "imagesTs"), "-o", str(predictions))
    autospine(workspace, "evaluate", str(predictions), str(raw / "labelsTs"))
    scores = predictions / "evaluation.json"
    return float(json.loads(scores.read_text(encoding="utf-8"))["mean_dice"])


def lay_out(source: Path, target: Path, trained_on: Sequence[str]) -> None:
    """Link a dataset, or lay out a new one that trains on some of its cases and tests the others."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not trained_on:
        target.symlink_to(source)
        return
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    ending = description["file_ending"]
    for kind in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (target / kind).mkdir(parents=True)
    for labels in (source / "labelsTr").glob(f"*{ending}"):
        case = labels.name.removesuffix(ending)
        part = "Tr" if case in trained_on else "Ts"
        (target / f"labels{part}" / labels.name).symlink_to(labels)
        (image,) = (source / "imagesTr").glob(f"{case}_0000{ending}")
        (target / f"images{part}" / image.name).symlink_to(image)
    text = json.dumps({**description, "numTraining": len(trained_on)})
    (target / "dataset.json").write_text(text, encoding="utf-8")
    with (source / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            row for row in csv.DictReader(file) if any(target.glob(f"images*/{row['case']}_0000{ending}"))
        ]
    with (target / "cases.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def figures_of(trials: Sequence[Trial], data: Path, folder: Path) -> Iterator[tuple[str, float]]:
    """Make each trial from the starter and from nothing; what a workspace has finished is kept."""
    for trial in trials:
        for start in (START, None):
            name = trial.name if start else f"{trial.name}_nothing"
            kept = folder / f"{name}.json"
            if not kept.is_file():
                workspace = folder / name
                workspace.mkdir(parents=True, exist_ok=True)
                dice = measured(trial, data, workspace, start)
                kept.write_text(json.dumps(dice), encoding="utf-8")
                shutil.rmtree(workspace)
            yield name, round(float(json.loads(kept.read_text(encoding="utf-8"))), 4)


def table(figures: Mapping[str, float]) -> str:
    """The figures with what they are to be, as Markdown."""
    lines = [measured_on(), "", "| figure | from the starter | from nothing | to be |", "|---|--:|--:|---|"]
    for name in figures:
        if not name.endswith("_nothing"):
            nothing = figures[f"{name}_nothing"]
            lines.append(f"| `{name}` | {figures[name]:.3f} | {nothing:.3f} | {GOALS.get(name, '')} |")
    return "\n".join([*lines, "", "```json", json.dumps(figures), "```"])


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help=f"folder with {SPINE} and {LEVELS}")
    parser.add_argument("--workspace", type=Path, help="folder to train in, and to keep the figures in")
    names = [trial.name for trial in TRIALS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="trials to make")
    parser.add_argument("--write", type=Path, help="page that gets the table")
    arguments = parser.parse_args()
    if not (arguments.data / SPINE).is_dir():
        raise SystemExit(f"expected {SPINE} in {arguments.data}, found none; name its folder with --data")
    trials = [trial for trial in TRIALS if trial.name in arguments.only]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.workspace or Path(temporary)).resolve()
        figures = dict(figures_of(trials, arguments.data.resolve(), folder))
    if arguments.write:
        write_measured(arguments.write, table(figures))
    print(json.dumps(figures))  # noqa: T201 (a script's result)


if __name__ == "__main__":
    main()
