"""Whether the two mechanisms earn their place: `make bench-evidence`.

    python tests/benchmarks/evidence.py [--workspace FOLDER] [--only NAME ...] [--steps N] [--write PAGE]

Sections:

- `saliency`: the starter's adaptive attention in the six real cases of Dataset001, which it has not seen:
  `saliency_boundary_auc_ct` and `_mr` (mean area under the ROC curve by which the saliency of the first stage
  tells voxels within 2 mm of a labelled boundary from others, whichever of the two it prefers), `gamma` and
  `gamma_effective` (spread of the saliency in logits);
- `phantom` and `real`: `autospine experiment ablation` with three seeds at equal steps, on twenty phantoms of
  seed 77 and on Dataset001: `mechanisms_gain_...`, mean Dice with both mechanisms minus without, in points of
  0.01, with the ends of its interval, and `attention_identity_loss_...`, that of removing attention.

The last two take hours on two cores; a workspace that is given keeps what is trained, so that the next run
goes on. Prints one JSON object last.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import mean

from processes import autospine
from result_page import measured_on, write_measured

REAL = "Dataset001_SpineReal"
PHANTOM = "Dataset977_Evidence"
PHANTOMS, SEED = 20, 77
STEPS, SEEDS = 2000, 3

GOALS = {
    "saliency_boundary_auc_ct": ">= 0.8",
    "saliency_boundary_auc_mr": ">= 0.8",
    "mechanisms_gain_phantom": ">= 1, interval above 0",
    "mechanisms_gain_real": ">= 0",
    "attention_identity_loss_phantom": ">= 1",
}

Figures = dict[str, float | list[float]]


def saliency(data: Path, workspace: Path, _steps: int) -> Figures:
    """Look into the starter in every case."""
    found: dict[str, list[tuple[float, float, float]]] = {"ct": [], "mr": []}
    for labels in sorted((data / REAL / "labelsTr").glob("*.nii.gz")):
        case = labels.name.removesuffix(".nii.gz")
        image, output = data / REAL / "imagesTr" / f"{case}_0000.nii.gz", workspace / "attention" / case
        if not (output / "attention.json").is_file():
            words = ("-m", "starter", "-i", str(image), "-l", str(labels), "-o", str(output))
            autospine(workspace, "attention", *words)
        maps = json.loads((output / "attention.json").read_text(encoding="utf-8"))["maps"]
        first = next(each for each in maps if each["map"] == "mean")
        found[case[:2]].append((first["auc"], first["gamma"], first["spread"]))
    figures: Figures = {}
    for modality, values in found.items():
        aucs, gammas, spreads = zip(*values, strict=True)
        figures[f"saliency_boundary_auc_{modality}"] = round(mean(max(auc, 1 - auc) for auc in aucs), 3)
        figures[f"saliency_auc_signed_{modality}"] = round(mean(aucs), 3)
        figures["gamma"] = round(mean(gammas), 3)
        figures[f"gamma_effective_{modality}"] = round(mean(spreads), 3)
    return figures


def phantom(_data: Path, workspace: Path, steps: int) -> Figures:
    """Take the mechanisms out on phantoms."""
    raw = workspace / "raw" / PHANTOM
    if not raw.exists():
        words = ("-o", str(raw), "-n", str(PHANTOMS), "--labels", "structures", "--seed", str(SEED))
        autospine(workspace, "phantom", *words)
    return ablation(workspace, PHANTOM, "phantom", steps)


def real(data: Path, workspace: Path, steps: int) -> Figures:
    """Take the mechanisms out on real cases."""
    raw = workspace / "raw" / REAL
    if not raw.exists():
        raw.parent.mkdir(parents=True, exist_ok=True)
        raw.symlink_to(data / REAL)
    return ablation(workspace, REAL, "real", steps)


def ablation(workspace: Path, dataset: str, name: str, steps: int) -> Figures:
    """Run the ablation of a dataset and return its figures in points of 0.01."""
    if not (workspace / "preprocessed" / dataset / "plan.json").is_file():
        autospine(workspace, "plan-and-preprocess", "-d", dataset)
    limits = ("--steps", str(steps), "--seeds", str(SEEDS))
    autospine(workspace, "experiment", "ablation", "-d", dataset, *limits)
    written = workspace / "results" / dataset / "experiments" / "ablation" / "experiment.json"
    designs = json.loads(written.read_text(encoding="utf-8"))["designs"]
    figures: Figures = {}
    for key, design in (("mechanisms_gain", "both_off"), ("attention_identity_loss", "attention_identity")):
        for metric, suffix in (("dice", ""), ("boundary_dice_2mm", "_boundary")):
            (found,) = (
                each
                for each in designs[design]["differences"]
                if each["metric"] == metric and each["class"] is None
            )
            figures[f"{key}_{name}{suffix}"] = round(-100 * found["difference"], 2)
            figures[f"{key}_{name}{suffix}_interval"] = [
                round(-100 * end, 2) for end in (found["high"], found["low"])
            ]
    return figures


SECTIONS = {"saliency": saliency, "phantom": phantom, "real": real}


def table(figures: Mapping[str, float | list[float]], steps: int) -> str:
    """The figures with what they are to be, as Markdown."""
    lines = [measured_on(), "", "| figure | measured | to be |", "|---|--:|---|"]
    lines += [f"| `{name}` | {value} | {GOALS.get(name, '')} |" for name, value in figures.items()]
    if any(name.startswith("mechanisms") for name in figures):
        lines += ["", f"Gains and losses: {SEEDS} seeds, {steps} steps each, in points of 0.01."]
    return "\n".join([*lines, "", "```json", json.dumps(figures), "```"])


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=default, help=f"folder with {REAL}")
    parser.add_argument("--workspace", type=Path, help="folder to train in, and to keep what is trained")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps of each training")
    parser.add_argument("--write", type=Path, help="page that gets the table")
    arguments = parser.parse_args()
    if not (arguments.data / REAL).is_dir():
        raise SystemExit(f"expected {REAL} in {arguments.data}, found none; name its folder with --data")
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.workspace or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.only:
            figures |= SECTIONS[name](arguments.data.resolve(), folder, arguments.steps)
    if arguments.write:
        write_measured(arguments.write, table(figures, arguments.steps))
    print(json.dumps(figures))  # noqa: T201 (a script's result)


if __name__ == "__main__":
    main()
