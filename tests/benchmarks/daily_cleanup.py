"""What post-processing changes in the held-out cases of trained models, chosen by the cases of other folds.

    python tests/benchmarks/daily_cleanup.py WORKSPACE

The label maps are really post-processed and counted, so that nothing depends on the tables that the choice
was made by. Prints one JSON object.
"""

import json
import sys
from pathlib import Path

import numpy as np

from autospine.core.types import LabelArray, Vector3
from autospine.dataset.raw import Dataset, load_dataset
from autospine.evaluation.cleanup_choice import measure
from autospine.evaluation.cleanup_trials import try_case
from autospine.evaluation.components import without_strays
from autospine.evaluation.held_out import VALIDATION
from autospine.evaluation.overlap import confusion_table
from autospine.evaluation.postprocessing_choice import PostprocessingChoice
from autospine.io.images import read_labels
from autospine.storage.workspace import Workspace

Maps = tuple[LabelArray, LabelArray, Vector3]
"""Prediction and reference of a case, on one grid, and its voxel spacing."""


def held_out_maps(model: Path, dataset: Dataset) -> dict[str, dict[str, Maps]]:
    """Prediction, reference and spacing of each held-out case of a model, by fold."""
    references = {case.name: case.labels for case in dataset.cases}
    found: dict[str, dict[str, Maps]] = {}
    for path in sorted(model.glob(f"fold_*/{VALIDATION}/*{dataset.file_ending}")):
        name = path.name.removesuffix(dataset.file_ending)
        true, predicted = read_labels(references[name], dataset.labels), read_labels(path)
        maps = predicted.turned_to(true.grid)[0], true.array[0], true.grid.spacing_mm
        found.setdefault(path.parts[-3], {})[name] = maps
    return found


def cleanup_changes(model: Path, dataset: Dataset) -> dict[str, np.ndarray]:
    """Change of the mean class Dice, and of Dice and recall of the foreground, of each held-out case."""
    labels, folds = dataset.labels, held_out_maps(model, dataset)
    maps = {name: each for fold in folds.values() for name, each in fold.items()}
    trials, cleared = (
        {
            name: try_case(clear(map_, spacing_mm), true, labels, spacing_mm)
            for name, (map_, true, spacing_mm) in maps.items()
        }
        for clear in (lambda map_, _: map_, without_strays)
    )
    choice = PostprocessingChoice(trials, cleared, labels)
    changes = {}
    for fold in folds.values():
        chosen = choice.choose(left_out=tuple(fold))
        for name, (map_, true, spacing_mm) in fold.items():
            cleaned = chosen.apply(map_, spacing_mm).labels
            before, after = (
                measure(confusion_table(labels.encode(each), labels.encode(true), labels))
                for each in (map_, cleaned)
            )
            after = np.where(np.isnan(after) & ~np.isnan(before), 1.0, after)  # gone where it should not be
            change = after - before
            changes[name] = np.asarray([np.nanmean(change[:-2]), *change[-2:]])
    return changes


def cleanup_figures(workspace: Path) -> dict[str, float]:
    """Mean and worst change over the held-out cases of every cross-validated model of a workspace.

    Args:
        workspace: Folder with `raw/` and `results/`.
    """
    models = sorted({path.parents[1] for path in workspace.glob(f"results/Dataset*/*/fold_*/{VALIDATION}")})
    place = Workspace(root=workspace)
    changes = [
        change
        for model in models
        for change in cleanup_changes(model, load_dataset(place.find_dataset(model.parent.name).raw)).values()
    ]
    if not changes:
        raise SystemExit(f"expected held-out predictions in {workspace}, found none; train folds")
    figures = {}
    for key, values in zip(("dice", "foreground", "recall"), np.transpose(changes), strict=True):
        figures[f"cleanup_{key}_change"] = round(float(values.mean()), 6)
        figures[f"cleanup_{key}_change_worst"] = round(float(values.min()), 6)
    return figures


if __name__ == "__main__":
    print(json.dumps(cleanup_figures(Path(sys.argv[1]))))  # noqa: T201 (a script's result)
