"""Plan for budgets from 4 to 80 GB on a GPU, train two steps under each as a cap, and compare the memory.

Run by `make bench-gpu`. Needs a CUDA device that nothing else uses; budgets larger than it are left out.
Prints one JSON object last, and with `--write FILE` writes the table to that file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import warnings
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from unit.planners import facts

from autospine.core.errors import PlanError
from autospine.dataset.raw import Dataset
from autospine.fingerprint import Fingerprint
from planners.calibration_factor import predict
from planners.planner import make_plan
from planners.sizing import Budget
from trainers.learner import Learner

GIB = 1024**3
RATE = 1e-3
GPU = torch.device("cuda:0")
BUDGETS_GB = (4, 6, 8, 11, 16, 24, 40, 80)
LUMBAR, WHOLE, SAGITTAL = "lumbar CT", "whole-spine CT", "sagittal MR"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One archetype under one budget, in bytes."""

    archetype: str
    budget: int
    outcome: str
    """The patch and width that were planned, or why nothing was trained."""

    predicted: int = 0
    measured: int = 0
    """0 where nothing was trained, or memory ran out."""

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


def context_bytes() -> int:
    """What CUDA itself takes on the device, once it runs."""
    torch.ones(1, device=GPU)
    free, total = torch.cuda.mem_get_info(GPU)
    return total - free - torch.cuda.memory_reserved(GPU)


def train_under(budget: int, name: str) -> Row:
    """Plan for the budget and train two steps of configuration 0 with no more than it.

    The context is part of the budget, but not of what the allocator may be held to.
    """
    context, total = context_bytes(), torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (budget - context) / total), GPU)
    dataset, fingerprint = archetype(name)
    given = Budget(memory_bytes=budget, gpu=True, precision="bfloat16", reason="the benchmark's")
    try:
        plan = make_plan(dataset, fingerprint, given)
    except PlanError as error:
        return Row(archetype=name, budget=budget, outcome=str(error))
    configuration = plan.configurations[0]
    batch, classes = configuration.training.batch_size, plan.labels.n_channels
    patch = "×".join(map(str, configuration.patch_size))
    outcome = f"{configuration.name}, {patch}, batch {batch}"
    predicted = predict(plan, configuration, gpu=True).total
    images = torch.randn(batch, len(plan.channels), *configuration.patch_size)
    labels = torch.randint(0, classes, (batch, *configuration.patch_size), dtype=torch.uint8)
    try:
        learner = Learner(plan, configuration, seed=0, device=GPU)
        learner.step(images, labels, RATE)
        learner.step(images, labels, RATE)
    except torch.cuda.OutOfMemoryError:
        outcome += ": out of memory"
        return Row(archetype=name, budget=budget, outcome=outcome, predicted=predicted)
    torch.cuda.synchronize(GPU)
    measured = torch.cuda.max_memory_reserved(GPU) + context
    return Row(archetype=name, budget=budget, outcome=outcome, predicted=predicted, measured=measured)


def in_fresh_process(budget: int, name: str) -> Row:
    """The same where no other budget's memory is left."""
    command = [sys.executable, __file__, "--budget", str(budget), "--archetype", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row = Row(**json.loads(done.stdout.splitlines()[-1]))
    print(f"{name}, {budget / 1e9:.0f} GB: {row.outcome}", file=sys.stderr)  # noqa: T201
    return row


def figures(rows: list[Row]) -> dict[str, float | None]:
    """The figures of merit; a step that ran out of memory counts as one that used nothing."""
    trained = [row for row in rows if row.measured]
    used = [row.measured / row.budget for row in rows if row.predicted]
    return {
        "gpu_mean_abs_error": statistics.mean(abs(row.error) for row in trained) if trained else None,
        "gpu_worst_under": max(0.0, *(-row.error for row in trained)) if trained else None,
        "budget_used_min": min(used, default=None),
        "out_of_memory": float(sum(1 for row in rows if row.predicted and not row.measured)),
    }


def report(rows: list[Row], merits: dict[str, float | None]) -> str:
    """The Markdown page of all that was measured."""
    lines = ["# Predicted and measured memory on a GPU", "", "```sh", "make bench-gpu", "```", ""]
    lines += [
        f"{date.today()}, {torch.cuda.get_device_name()}, torch {version('torch')}; two training steps of "
        "configuration 0, planned for the budget and held to it. CUDA's context counts.",
        "",
        "| dataset | budget (GB) | planned | predicted (GB) | measured (GB) | error | budget used |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        numbers = [f"{row.predicted / 1e9:.2f}", "", "", ""]
        if row.measured:
            numbers[1:] = [
                f"{row.measured / 1e9:.2f}",
                f"{row.error:+.0%}",
                f"{row.measured / row.budget:.0%}",
            ]
        cells = (row.archetype, f"{row.budget / 1e9:.0f}", row.outcome, *numbers)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| | |", "|---|--:|"]
    lines += [f"| `{name}` | {value:.3g} |" for name, value in merits.items() if value is not None]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write the page, print the figures of merit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--archetype", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "This measures a GPU, and PyTorch sees none; run it where torch.cuda.is_available()."
        )
    warnings.filterwarnings("ignore")
    if options.budget:
        row = train_under(options.budget, options.archetype)
        fields = ("archetype", "budget", "outcome", "predicted", "measured")
        print(json.dumps({field: getattr(row, field) for field in fields}))  # noqa: T201
        return
    total = torch.cuda.get_device_properties(GPU).total_memory
    budgets = [gb * 10**9 for gb in BUDGETS_GB if gb * 10**9 <= total]
    rows = [in_fresh_process(budget, name) for budget in budgets for name in (LUMBAR, WHOLE, SAGITTAL)]
    merits = figures(rows)
    if options.write:
        options.write.write_text(report(rows, merits), encoding="utf-8")
    rounded = {name: value if value is None else round(value, 4) for name, value in merits.items()}
    print(json.dumps(rounded))  # noqa: T201


if __name__ == "__main__":
    main()
