"""Whether the two mechanisms earn their place: `make bench-evidence`.

    python tests/benchmarks/evidence.py [--workspace FOLDER] [--only NAME ...] [--seeds N] [--write PAGE]

Sections:

- `saliency`: the starter's adaptive attention in the six real cases of Dataset001, which it has not seen:
  `saliency_boundary_auc_ct` and `_mr` (mean area under the ROC curve by which the saliency of the first stage
  tells voxels within 2 mm of a labelled boundary from others, whichever of the two it prefers), `gamma` and
  `gamma_effective` (spread of the saliency in logits);
- `gains`: the planned design against designs without mechanisms, by the protocol of `designs.py`:
  `mechanisms_gain_phantom` and `_real`, mean Dice more than without both mechanisms, and
  `attention_identity_loss`, mean Dice that is lost on phantoms without attention and its gradient channel;
- `minutes`: networks trained in equal time, by `equal_minutes.py`: `mechanisms_gain_equal_minutes_phantom`
  and `_real`, and `compare_margin_phantom_ct`, `_phantom_mr` and `_real_mr`, mean Dice more than the best
  other network;
- `efficiency`: `dice_in_half_phantom` and `_real`, mean Dice of the planned design after half of the steps
  minus that of the design before it after all of them, and `efficiency_ratio`, the time of the one in parts
  of that of the other;
- `shares`: `fusion_share`, share of the decoder's coarser levels in the spread of the logits, and
  `gamma_effective_phantom`, spread of the saliency in logits of attention, of the networks of `efficiency`.

Differences are in points of 0.01, paired by image, with the ends of a bootstrap interval of 95 %; `_boundary`
is the Dice of rims of 2 mm. The trainings take hours on two cores; a workspace that is given keeps what is
trained, so that the next run goes on. Prints one JSON object last.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import equal_minutes
import mechanism_shares
from designs import NAMES, STEPS, CaseScores, interval, prepare, scored
from processes import autospine
from result_page import measured_on, write_measured

from autospine.core.errors import counted

REAL = "Dataset001_SpineReal"
SEEDS = 3

HALF_SEEDS = {"phantom": 3, "real": 1}
"""Most seeds of `efficiency`: those of real MR take twice as long."""

GOALS = {
    "saliency_boundary_auc_ct": ">= 0.8",
    "saliency_boundary_auc_mr": ">= 0.8",
    "mechanisms_gain_phantom": ">= 1, or 1.5 in rims, interval above 0",
    "mechanisms_gain_real": ">= 0",
    "attention_identity_loss": ">= 1",
    "mechanisms_gain_equal_minutes_phantom": "> 0",
    "mechanisms_gain_equal_minutes_real": "> 0",
    "compare_margin_phantom_ct": ">= 0",
    "compare_margin_phantom_mr": ">= 0",
    "compare_margin_real_mr": ">= 0",
    "efficiency_ratio": "<= 0.6",
    "fusion_share": ">= 0.05",
    "dice_in_half_phantom": ">= 0",
    "dice_in_half_real": ">= 0",
}

Figures = dict[str, float | list[float]]

Section = tuple[Figures, list[str]]
"""Figures, and rows of a table."""


def saliency(data: Path, workspace: Path, _seeds: int) -> Section:
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
    return figures, []


def gains(data: Path, workspace: Path, seeds: int) -> Section:
    """Take the mechanisms out."""
    figures: Figures = {}
    asked = [("mechanisms_gain_phantom", "phantom", "both_off"), ("mechanisms_gain_real", "real", "both_off")]
    for key, benchmark, other in (*asked, ("attention_identity_loss", "phantom", "ours_identity")):
        prepared = prepare(benchmark, workspace, data)
        pairs = [
            [scored(benchmark, design, seed, prepared) for design in ("ours", other)] for seed in range(seeds)
        ]
        figures |= differences(key, pairs)
    return figures, []


def minutes(data: Path, workspace: Path, seeds: int) -> Section:
    """Train every network in equal time."""
    figures: Figures = {}
    rows = ["| benchmark | network | time of a step | steps | Dice | ours more | Dice of rims | ours more |"]
    rows.append("|---|---|--:|--:|--:|--:|--:|--:|")
    for benchmark in STEPS:
        found, lines = equal_minutes.minutes_figures(benchmark, prepare(benchmark, workspace, data), seeds)
        figures |= found
        rows += lines
    return figures, rows


def efficiency(data: Path, workspace: Path, seeds: int) -> Section:
    """Train the planned design for half of the steps, and the one before it for all."""
    figures: Figures = {}
    ratios = []
    for benchmark in STEPS:
        prepared = prepare(benchmark, workspace, data)
        pairs = [
            [equal_minutes.in_half(benchmark, seed, prepared), scored(benchmark, "paper", seed, prepared)]
            for seed in range(min(seeds, HALF_SEEDS[benchmark]))
        ]
        figures |= differences(f"dice_in_half_{benchmark}", pairs)
        ratios.append(equal_minutes.time_in_half(benchmark, prepared))
    return figures | {"efficiency_ratio": round(mean(ratios), 3)}, []


def shares(data: Path, workspace: Path, seeds: int) -> Section:
    """Ask how much the mechanisms make up in the networks that `efficiency` trains on phantoms."""
    prepared = prepare("phantom", workspace, data)
    fused, spreads = [], []
    for seed in range(seeds):
        equal_minutes.in_half("phantom", seed, prepared)
        model = equal_minutes.model_in_half("phantom", seed, prepared)
        images = prepared / "raw" / NAMES["phantom"] / "imagesTs"
        fused.append(mechanism_shares.fusion_share(model, images))
        spreads += [
            mechanism_shares.saliency_spread(model, image, workspace) for image in sorted(images.iterdir())
        ]
    return {
        "fusion_share": round(mean(fused), 3),
        "gamma_effective_phantom": round(mean(spreads), 4),
    }, []


def differences(key: str, pairs: Sequence[Sequence[Mapping[str, CaseScores]]]) -> Figures:
    """Return by how much the first of each pair of scores is better, with its interval, for both metrics."""
    figures: Figures = {}
    for metric, suffix in (("dice", ""), ("boundary_dice_2mm", "_boundary")):
        found = interval([one[case][metric] - other[case][metric] for one, other in pairs for case in one])
        figures |= {f"{key}{suffix}": found[0], f"{key}{suffix}_interval": list(found[1:])}
    return figures


SECTIONS = {
    "saliency": saliency,
    "gains": gains,
    "minutes": minutes,
    "efficiency": efficiency,
    "shares": shares,
}


def table(figures: Figures, rows: Sequence[str], seeds: int) -> str:
    """The figures with what they are to be, as Markdown."""
    lines = [measured_on(), "", "| figure | measured | to be |", "|---|--:|---|"]
    for name, value in figures.items():
        if name.endswith("_interval"):
            continue
        ends = figures.get(f"{name}_interval")
        shown = f"{value} [{ends[0]}, {ends[1]}]" if isinstance(ends, list) else f"{value}"
        lines.append(f"| `{name}` | {shown} | {GOALS.get(name, '')} |")
    lines += ["", f"Trainings with {counted(seeds, 'seed')}; differences in points of 0.01.", "", *rows]
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
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of each training")
    parser.add_argument("--write", type=Path, help="page that gets the table")
    arguments = parser.parse_args()
    if not (arguments.data / REAL).is_dir():
        raise SystemExit(f"expected {REAL} in {arguments.data}, found none; name its folder with --data")
    figures: Figures = {}
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.workspace or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.only:
            found, lines = SECTIONS[name](arguments.data.resolve(), folder, arguments.seeds)
            figures |= found
            rows += lines
    if arguments.write:
        write_measured(arguments.write, table(figures, rows, arguments.seeds))
    print(json.dumps(figures))  # noqa: T201 (a script's result)


if __name__ == "__main__":
    main()
