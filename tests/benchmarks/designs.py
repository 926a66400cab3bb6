"""Designs of the mechanisms, and of full resolution, at equal steps: `make bench-designs`.

    python tests/benchmarks/designs.py [--workspace FOLDER] [--only DESIGN ...] [--seeds N] [--write PAGE]

The protocol, which is the same for every design:

- `phantom`: 20 lumbar phantoms of seed 77, CT and MR, with vertebra, disc, canal and sacrum; one model of all
  of them, 1000 steps, scored on 10 others;
- `real`: the twelve lumbar MR of Dataset002 with five levels, which have names that tell no level, so that
  nothing but the network decides; two of three folds, 600 steps each, scored on their eight held-out images;
- configuration `fast`, as it is planned for a CPU, with the planned recipe, on one thread;
- scores are means over classes, of Dice and of the Dice of rims of 2 mm, and differences are paired by image
  and seed, with a bootstrap interval of 95 % over these pairs;
- a gain is an interval of either score above 0.

A design is a change of the planned network, in `design_networks.py`. Trainings go on where they were stopped
in a workspace that is given; each takes minutes. Prints one JSON object last.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean

import numpy as np
from design_networks import DESIGNS
from processes import autospine
from result_page import measured_on, write_measured

from autospine.evaluation.evaluate_maps import evaluate_folder
from autospine.pipeline.experiments.results import METRICS
from autospine.plan import Plan
from autospine.storage.serialization import read_json

PHANTOM, REAL = "Dataset977_Evidence", "Dataset002_LumbarMR"
NAMES = {"phantom": PHANTOM, "real": REAL}
STEPS = {"phantom": (5, 200), "real": (5, 120)}
"""Epochs, and steps of each."""

FOLDS = 3
TRAINED_FOLDS = ("0", "1")
RESAMPLES = 10_000

CaseScores = Mapping[str, float]
"""Mean over the classes by metric."""


def prepare(benchmark: str, workspace: Path, data: Path) -> Path:
    """Make and plan a dataset, and return its workspace."""
    folder, name = workspace / benchmark, NAMES[benchmark]
    raw = folder / "raw" / name
    if not raw.exists() and benchmark == "phantom":
        raw.parent.mkdir(parents=True)
        words = ("--cases", "20", "--test-cases", "10", "--labels", "structures", "--seed", "77")
        autospine(folder, "phantom", "-o", str(raw), *words)
    elif not raw.exists():
        raw.mkdir(parents=True)
        for part in ("imagesTr", "labelsTr", "cases.csv"):
            (raw / part).symlink_to((data / name / part).resolve())
        described = json.loads((data / name / "dataset.json").read_text(encoding="utf-8"))
        described["labels"] = {
            "background": 0,
            **{f"body {value} of five": value for value in described["labels"].values() if value},
        }
        (raw / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    planned = folder / "preprocessed" / name
    if not (planned / "plan.json").is_file():
        autospine(folder, "plan-and-preprocess", "-d", name, "--no-report")
        if benchmark == "real":
            folds = json.loads((planned / "folds.json").read_text(encoding="utf-8"))
            cases = sorted(case for fold in folds["validation"] for case in fold)
            folds["validation"] = [cases[place::FOLDS] for place in range(FOLDS)]
            (planned / "folds.json").write_text(json.dumps(folds), encoding="utf-8")
    return folder


def scored(benchmark: str, design: str, seed: int, prepared: Path) -> dict[str, CaseScores]:
    """Train a design, unless it is trained, and return the scores of each image."""
    folder = prepared / "designs" / f"{design}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("raw", "preprocessed"):
        if not (folder / part).exists():
            (folder / part).symlink_to(prepared / part)
    return trained_scores(benchmark, folder, design, seed, *STEPS[benchmark])


def trained_scores(
    benchmark: str, folder: Path, design: str, seed: int, epochs: int, iterations: int
) -> dict[str, CaseScores]:
    """Train and score in a workspace of its own, unless that is done, and return the scores of each image."""
    written = folder / "scores.json"
    if written.is_file():
        found: dict[str, CaseScores] = json.loads(written.read_text(encoding="utf-8"))
        return found
    name = NAMES[benchmark]
    usual = ("-d", name, "--device", "cpu", "--no-report")
    train = ("--seed", str(seed), "--workers", "0", "--epochs", str(epochs), "--iterations", str(iterations))
    if benchmark == "phantom":
        run_as(design, folder, "train", "0", "--fold", "full", *usual, *train)
        words = ("--fold", "full", "--no-naming", "--no-postprocessing", "--continue")
        images = folder / "raw" / name / "imagesTs"
        run_as(design, folder, "predict", "-i", str(images), "-o", str(folder / "found"), *usual, *words)
        pairs = [(folder / "found", folder / "raw" / name / "labelsTs")]
    else:
        for fold in TRAINED_FOLDS:
            run_as(design, folder, "train", "0", "--fold", fold, *usual, *train)
        validations = sorted(folder.glob("results/*/*/fold_*/validation"))
        pairs = [(validation, folder / "raw" / name / "labelsTr") for validation in validations]
    plan = read_json(folder / "preprocessed" / name / "plan.json", Plan)
    scores = {
        case.case: {metric.name: case.mean.values[metric.name] for metric in METRICS}
        for predicted, references in pairs
        for case in evaluate_folder(predicted, references, plan.labels, (), METRICS).cases
    }
    written.write_text(json.dumps(scores), encoding="utf-8")
    return scores


def run_as(design: str, folder: Path, *words: str) -> None:
    """Run a command of AutoSpine with its network built as a design."""
    script = Path(__file__).with_name("design_networks.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), design, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{design}: {' '.join(words)} failed:\n{done.stderr[-2000:]}")


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Return the mean of paired differences and the ends of its bootstrap interval, in points of 0.01."""
    values = 100 * np.array(differences)
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return round(float(values.mean()), 2), round(float(low), 2), round(float(high), 2)


def rows(
    found: Mapping[tuple[str, str, int], Mapping[str, CaseScores]],
) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each design of each benchmark with its scores and its differences from the first design."""
    control = next(iter(DESIGNS))
    for benchmark, design in dict.fromkeys(key[:2] for key in found):
        seeds = [seed for one, other, seed in found if (one, other) == (benchmark, design)]
        row: dict[str, object] = {"seeds": len(seeds)}
        for metric in ("dice", "boundary_dice_2mm"):
            cases = [scores[metric] for seed in seeds for scores in found[benchmark, design, seed].values()]
            row[metric] = round(mean(cases), 4)
            differences = [
                scores[metric] - found[benchmark, control, seed][case][metric]
                for seed in seeds
                if (benchmark, control, seed) in found
                for case, scores in found[benchmark, design, seed].items()
            ]
            if design != control and differences:
                row[f"{metric}_gain"] = interval(differences)
        yield f"{benchmark} {design}", row


def table(figures: Mapping[str, Mapping[str, object]]) -> str:
    """The figures as Markdown."""
    lines = [measured_on(), ""]
    for benchmark in STEPS:
        lines += [f"| {benchmark} | change | seeds | Dice | gain | Dice of rims | gain |"]
        lines += ["|---|---|--:|--:|--:|--:|--:|"]
        for name, row in figures.items():
            of, design = name.split()
            if of != benchmark:
                continue
            gains = [row.get(f"{metric}_gain") for metric in ("dice", "boundary_dice_2mm")]
            shown = [f"{g[0]:+.1f} [{g[1]:+.1f}, {g[2]:+.1f}]" if isinstance(g, tuple) else "" for g in gains]
            lines.append(
                f"| `{design}` | {DESIGNS[design][0]} | {row['seeds']} | {row['dice']:.3f} | {shown[0]} | "
                f"{row['boundary_dice_2mm']:.3f} | {shown[1]} |"
            )
        lines.append("")
    return "\n".join([*lines, "```json", json.dumps(figures), "```"])


def main() -> None:
    """Train, compare and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, help=f"folder with {REAL}")
    parser.add_argument("--workspace", type=Path, help="folder to train in, and to keep what is trained")
    parser.add_argument("--only", nargs="+", choices=DESIGNS, default=list(DESIGNS), help="designs")
    parser.add_argument("--on", nargs="+", choices=STEPS, default=list(STEPS), help="benchmarks")
    parser.add_argument("--seeds", type=int, default=2, help="seeds of each design")
    parser.add_argument("--write", type=Path, help="page that gets the tables")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        workspace = (arguments.workspace or Path(temporary)).resolve()
        for benchmark in arguments.on:
            prepared = prepare(benchmark, workspace, arguments.data)
            for seed in range(arguments.seeds):
                for design in arguments.only:
                    found[benchmark, design, seed] = scored(benchmark, design, seed, prepared)
    figures = dict(rows(found))
    if arguments.write:
        write_measured(arguments.write, table(figures))
    print(json.dumps(figures))  # noqa: T201 (a script's result)


if __name__ == "__main__":
    main()
