"""Levels that models of lumbar MR name right in their held-out cases: as predicted, named by the label map
alone, and named with the vertebrae that the starter counts.

    python tests/benchmarks/anatomy_lumbar.py MODEL [MODEL ...] [--data FOLDER] [--write PAGE]

Each MODEL is a folder of Dataset002_LumbarMR, trained by cross-validation. A level is right if most of what
is predicted in its body has its label. It also gives references wrong labels on purpose, to see which are
mended.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from result_page import measured_on, write_measured

from autospine.core.types import LabelArray
from autospine.dataset.raw import Case, load_dataset
from autospine.evaluation.held_out import Namer
from autospine.io.images import read_labels
from autospine.plan import Plan
from autospine.prediction.vertebra_counter import opened_namers
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.storage.serialization import read_json

WAYS = ("before", "alone", "right")


class Row(NamedTuple):
    """A case, and what is right in it before naming, after it, and with the starter's count."""

    case: str
    levels: int
    right: tuple[int, int, int]
    dice: tuple[float, float, float]


def lumbar_rows(model: Path, data: Path) -> list[Row]:
    """Name the held-out predictions of a cross-validated model.

    Args:
        model: Model folder whose classes are levels, with the predictions of its folds.
        data: Folder of the dataset.
    """
    plan = read_json(model / "plan.json", Plan)
    naming = VertebraNaming.of_labels(plan.labels)
    if naming is None:
        raise SystemExit(f"expected a model whose classes are levels in {model}, found others")
    cases = load_dataset(data).cases
    rows = []
    with opened_namers(naming, cases, len(plan.channels), torch.device("cpu")) as namers:
        for path in sorted(model.glob(f"fold_[0-9]/validation/*{plan.file_ending}")):
            predicted = read_labels(path)
            name = path.name.removesuffix(plan.file_ending)
            true = read_labels(data / "labelsTr" / path.name).turned_to(predicted.grid)[0]
            maps = [predicted.array[0]]
            maps += [namer(name, maps[0], predicted.grid) for namer in namers if namer is not None]
            values = [value for value in np.unique(true).tolist() if value]
            right = [sum(_is_right(found, true, value) for value in values) for found in maps]
            dice = [float(np.mean([_dice(found, true, value) for value in values])) for found in maps]
            rows.append(Row(name, len(values), (right[0], right[1], right[-1]), (dice[0], dice[1], dice[-1])))
    return rows


def lumbar_figures(rows: list[Row]) -> dict[str, float]:
    """Return the shares of levels that are right, and the means of Dice over the cases."""
    levels = sum(row.levels for row in rows)
    right = np.array([row.right for row in rows]).sum(axis=0) / levels
    dice = np.array([row.dice for row in rows]).mean(axis=0)
    return {
        **{f"lumbar_mr_levels_{way}": float(share) for way, share in zip(WAYS, right, strict=True)},
        **{f"lumbar_mr_dice_{way}": float(mean) for way, mean in zip(WAYS, dice, strict=True)},
    }


def case_table(title: str, rows: list[Row]) -> Iterator[str]:
    """Yield the lines of a table of cases."""
    yield f"| {title} | levels | right as predicted | alone | counted | Dice | alone | counted |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for row in rows:
        values = [row.levels, *row.right, *(f"{value:.3f}" for value in row.dice)]
        yield f"| {row.case} | {' | '.join(map(str, values))} |"


def faults(true: LabelArray) -> Iterator[tuple[str, LabelArray]]:
    """Yield a label map of five levels as it is, and with the faults of networks."""
    yield "none", true
    yield "called by the level above, without L1", np.where(true > 1, true - 1, 0).astype(true.dtype)
    yield (
        "called by the level below, without L5",
        np.where((true > 0) & (true < 5), true + 1, 0).astype(true.dtype),
    )
    yield "L3 called L2", np.where(true == 3, 2, true).astype(true.dtype)
    yield (
        "L1 and L2 called by the level below",
        np.where((true > 0) & (true < 3), true + 1, true).astype(true.dtype),
    )


def fault_shares(data: Path) -> dict[str, tuple[float, float]]:
    """Return the share of labelled voxels that are right after naming, alone and counted, by fault."""
    dataset = load_dataset(data)
    naming = VertebraNaming.of_labels(dataset.labels)
    shares: dict[str, list[tuple[float, float]]] = {}
    with opened_namers(naming, dataset.cases, 1, torch.device("cpu")) as (alone, counting):
        for case in dataset.cases:
            if alone is None or counting is None:
                raise SystemExit("expected levels and the starter, found one of them missing")
            for fault, row in _case_shares(case, alone, counting):
                shares.setdefault(fault, []).append(row)
    means = {fault: np.mean(rows, axis=0).tolist() for fault, rows in shares.items()}
    return {fault: (mean[0], mean[1]) for fault, mean in means.items()}


def _case_shares(case: Case, *namers: Namer) -> Iterator[tuple[str, tuple[float, float]]]:
    if case.labels is None:
        raise SystemExit(f"expected a label map of {case.name}, found none")
    read = read_labels(case.labels)
    for fault, labels in faults(read.array[0]):
        inside = labels > 0
        one, other = (
            float((namer(case.name, labels, read.grid)[inside] == read.array[0][inside]).mean())
            for namer in namers
        )
        yield fault, (one, other)


def _is_right(found: LabelArray, true: LabelArray, value: int) -> bool:
    inside = found[(true == value) & (found > 0)]
    return bool(inside.size) and int(np.bincount(inside.astype(np.int64)).argmax()) == value


def _dice(found: LabelArray, true: LabelArray, value: int) -> float:
    one, other = found == value, true == value
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def main() -> None:
    """Name, score and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, default=default, help="folder that holds Dataset002_LumbarMR")
    parser.add_argument("--write", type=Path, help="page that gets the tables")
    arguments = parser.parse_args()
    data = arguments.data / "Dataset002_LumbarMR"
    every = {model.parents[2].name: lumbar_rows(model, data) for model in arguments.models}
    figures = {name: lumbar_figures(rows) for name, rows in every.items()}
    lines = [measured_on(), "", "| training | | as predicted | named alone | counted by the starter |"]
    lines += ["|---|---|--:|--:|--:|"]
    for name, found in figures.items():
        for what, title in (("levels", "levels right"), ("dice", "mean Dice")):
            values = " | ".join(f"{found[f'lumbar_mr_{what}_{way}']:.3f}" for way in WAYS)
            lines.append(f"| {name} | {title} | {values} |")
    lines += [
        "",
        "| fault of a reference | voxels right, named alone | counted by the starter |",
        "|---|--:|--:|",
    ]
    lines += [f"| {fault} | {one:.3f} | {other:.3f} |" for fault, (one, other) in fault_shares(data).items()]
    for name, rows in every.items():
        lines += ["", *case_table(name, rows)]
    text = "\n".join(lines)
    if arguments.write:
        write_measured(arguments.write, text)
    print(text)  # noqa: T201 (a script's result)
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
