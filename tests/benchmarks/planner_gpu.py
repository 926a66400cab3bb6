"""Plan for cards from 4 to 80 GB, train two steps with no more than each has, and compare the memory.

Run by `make bench-gpu`. Needs a CUDA device that nothing else uses; cards larger than it are left out. Each
row has a process of its own, and is printed as a JSON object as soon as it is measured: a row that fails
says why, and loses no other. The last JSON object has the figures of merit, among them the `base` and
`share` of `autospine.memory.estimate.GPU` that would fit the rows best. `--write FILE` puts the table into
that file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from unit.planners import facts

from autospine.core.errors import PlanError, first_line
from autospine.dataset.raw import Dataset
from autospine.fingerprint import Fingerprint
from autospine.inference.ensemble import timed_convolutions
from autospine.memory.estimate import GPU as PRESENT
from autospine.memory.estimate import Overhead
from autospine.pipeline.smaller_patch import with_smaller_patch
from autospine.plan import Configuration, Plan
from autospine.system.allocation import is_out_of_memory
from autospine.system.cards import CARD_SHARE
from autospine.system.devices import choose_device
from planners.calibration_factor import predict
from planners.planner import make_plan
from planners.sizing import Budget
from trainers.learner import Learner

RATE = 1e-3
GPU = torch.device("cuda:0")
CARDS_GB = (4, 6, 8, 11, 16, 24, 40, 80)
LUMBAR, WHOLE, SAGITTAL = "lumbar CT", "whole-spine CT", "sagittal MR"
ARCHETYPES = (LUMBAR, WHOLE, SAGITTAL)

WARM_VOXELS = 64**3
"""Voxels of the steps that load CUDA's kernels before anything is counted."""

BASES = [gb * 1e8 for gb in range(2, 31)]
SHARES = [percent / 100 for percent in range(0, 155, 5)]
"""Values of `base` and `share` that are tried on the rows."""

MOST_UNDER = 0.05
"""Part by which a fitted estimate may stay under a measurement."""

SECONDS = 240
"""Longest time of a row."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One archetype on one card; memory in bytes."""

    archetype: str
    card: int
    outcome: str
    """The patch, width and batch that were planned, or why nothing was trained."""

    predicted: int = 0
    measured: int = 0
    """0 where nothing was trained, or memory ran out."""

    context: int = 0
    """Part of it that CUDA itself takes once its kernels are loaded."""

    @property
    def error(self) -> float:
        """Relative; negative where too little was predicted."""
        return self.predicted / self.measured - 1


def archetype(name: str) -> tuple[Dataset, Fingerprint]:
    """A dataset of one of three kinds, without images."""
    if name == LUMBAR:
        cases, thicknesses, modality = [((300, 400, 400), (1.0, 0.8, 0.8))], [30.0] * 5, "CT"
    elif name == WHOLE:
        cases, thicknesses, modality = [((700, 350, 350), (1.0, 1.0, 1.0))], [20.0] * 25, "CT"
    else:
        cases, thicknesses, modality = [((16, 512, 512), (4.0, 0.6, 0.6))], [20.0, 9.0, 6.0], "MR"
    labels = facts.plain_labels(len(thicknesses))
    return facts.dataset(labels), facts.fingerprint(cases * 3, thicknesses, modality)


def plan_for(card: int, name: str) -> Plan:
    """The plan of an archetype for a card of so many bytes."""
    dataset, fingerprint = archetype(name)
    amount = int(CARD_SHARE * card)
    given = Budget(memory_bytes=amount, gpu=True, precision="bfloat16", reason="the benchmark's")
    return make_plan(dataset, fingerprint, given)


def take_steps(plan: Plan, configuration: Configuration) -> None:
    """Two training steps on noise, as calibration takes them."""
    batch = configuration.training.batch_size
    images = torch.randn(batch, len(plan.channels), *configuration.patch_size)
    labels = torch.randint(0, plan.labels.n_channels, (batch, *configuration.patch_size), dtype=torch.uint8)
    learner = Learner(plan, configuration, seed=0, device=GPU)
    with timed_convolutions(GPU):
        learner.step(images, labels, RATE)
        learner.step(images, labels, RATE)
    torch.cuda.synchronize(GPU)


def context_bytes() -> int:
    """What CUDA itself takes on the device now."""
    free, total = torch.cuda.mem_get_info(GPU)
    return total - free - torch.cuda.memory_reserved(GPU)


def train_on(card: int, name: str) -> Row:
    """Plan for the card and train two steps of configuration 0 with no more than it has."""
    choose_device("cuda:0")  # as a command does, with its settings of the allocator
    try:
        plan = plan_for(card, name)
    except PlanError as error:
        return Row(archetype=name, card=card, outcome=str(error))
    configuration = plan.configurations[0]
    take_steps(plan, with_smaller_patch(plan, configuration, WARM_VOXELS))
    torch.cuda.empty_cache()
    context, total = context_bytes(), torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (card - context) / total), GPU)
    torch.cuda.reset_peak_memory_stats(GPU)
    row = {
        "archetype": name,
        "card": card,
        "outcome": _outcome(configuration),
        "predicted": predict(plan, configuration, gpu=True).total,
    }
    try:
        take_steps(plan, configuration)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return Row(**{**row, "outcome": f"{row['outcome']}: out of memory"}, context=context)
    context = max(context, context_bytes())
    return Row(**row, measured=torch.cuda.max_memory_reserved(GPU) + context, context=context)


def _outcome(configuration: Configuration) -> str:
    patch = "x".join(map(str, configuration.patch_size))
    width = getattr(configuration.network, "feature_size", "")
    return f"{configuration.name}, {patch}, {width} channels, batch {configuration.training.batch_size}"


def in_fresh_process(card: int, name: str) -> Row:
    """The same where no other row's memory is left; a process that fails makes a row that says why."""
    command = [sys.executable, __file__, "--card", str(card), "--archetype", name]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
        return Row(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        why = f"no end within {SECONDS} s"
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
    except (ValueError, TypeError, IndexError) as error:
        why = first_line(error)
    return Row(archetype=name, card=card, outcome=f"failed: {why}")


def fitted(rows: Sequence[Row]) -> dict[str, float]:
    """The base and share of the estimate that fit the rows best, and the mean error with them.

    None stays under a measurement by more than `MOST_UNDER`, if any values tried do so.
    """
    trained = [row for row in rows if row.measured]
    if not trained:
        return {}
    plans = [plan_for(row.card, row.archetype) for row in trained]
    best, least = (PRESENT.base, PRESENT.share), (float("inf"), float("inf"))
    for base, share in product(BASES, SHARES):
        overhead = Overhead(base=base, per_parameter=PRESENT.per_parameter, share=share)
        errors = [
            predict(plan, plan.configurations[0], gpu=True, overhead=overhead).total / row.measured - 1
            for plan, row in zip(plans, trained, strict=True)
        ]
        under = max(0.0, -min(errors) - MOST_UNDER)
        if (under, statistics.mean(map(abs, errors))) < least:
            best, least = (base, share), (under, statistics.mean(map(abs, errors)))
    return {"fitted_base_gb": best[0] / 1e9, "fitted_share": best[1], "fitted_mean_abs_error": least[1]}


def figures(rows: Sequence[Row]) -> dict[str, float | None]:
    """The figures of merit; a step that ran out of memory counts as one that used nothing."""
    trained = [row for row in rows if row.measured]
    used = [row.measured / row.card for row in rows if row.predicted]
    return {
        "gpu_mean_abs_error": statistics.mean(abs(row.error) for row in trained) if trained else None,
        "gpu_worst_error": max((abs(row.error) for row in trained), default=None),
        "gpu_worst_under": max(0.0, *(-row.error for row in trained)) if trained else None,
        "card_used_min": min(used, default=None),
        "card_used_max": max(used, default=None),
        "out_of_memory": float(sum(1 for row in rows if row.predicted and not row.measured)),
        "failed": float(sum(1 for row in rows if row.outcome.startswith("failed"))),
        "context_gb_max": max((row.context / 1e9 for row in rows if row.context), default=None),
        **fitted(rows),
    }


def report(rows: Sequence[Row], merits: dict[str, float | None]) -> str:
    """The Markdown page of all that was measured."""
    lines = ["# Predicted and measured memory on a GPU", "", "```sh", "make bench-gpu", "```", ""]
    lines += [
        f"{date.today()}, {torch.cuda.get_device_name()}, torch {version('torch')}; two training steps of "
        f"configuration 0, planned for {CARD_SHARE:.0%} of a card's memory and held to the card's. CUDA's "
        "context counts.",
        "",
        "| dataset | card (GB) | planned | predicted (GB) | measured (GB) | error | card used |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        numbers = [f"{row.predicted / 1e9:.2f}", "", "", ""]
        if row.measured:
            numbers[1:] = [
                f"{row.measured / 1e9:.2f}",
                f"{row.error:+.0%}",
                f"{row.measured / row.card:.0%}",
            ]
        cells = (row.archetype, f"{row.card / 1e9:.0f}", row.outcome.replace("|", "/"), *numbers)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| | |", "|---|--:|"]
    lines += [f"| `{name}` | {value:.3g} |" for name, value in merits.items() if value is not None]
    return "\n".join(lines) + "\n"


def measure(cards: Sequence[int], names: Sequence[str]) -> list[Row]:
    """Measure every card and archetype, and print each row as soon as it is known."""
    rows = []
    for card, name in product(cards, names):
        rows.append(in_fresh_process(card, name))
        print(json.dumps(asdict(rows[-1])), flush=True)  # noqa: T201
    return rows


def main() -> None:
    """Measure, write the page, print the figures of merit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--card", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--archetype", help=argparse.SUPPRESS)
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=CARDS_GB, help="memory of the cards in GB"
    )
    parser.add_argument("--archetypes", nargs="+", choices=ARCHETYPES, default=ARCHETYPES)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "This measures a GPU, and PyTorch sees none; run it where torch.cuda.is_available()."
        )
    warnings.filterwarnings("ignore")
    if options.card:
        print(json.dumps(asdict(train_on(options.card, options.archetype))))  # noqa: T201
        return
    total = torch.cuda.get_device_properties(GPU).total_memory
    rows = measure([int(gb * 1e9) for gb in options.budgets if gb * 1e9 <= total], options.archetypes)
    merits = figures(rows)
    if options.write:
        options.write.write_text(report(rows, merits), encoding="utf-8")
    rounded = {name: value if value is None else round(value, 4) for name, value in merits.items()}
    print(json.dumps(rounded))  # noqa: T201


if __name__ == "__main__":
    main()
