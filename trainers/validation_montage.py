"""A montage of each validated fold: its held-out cases with reference and prediction, the worst first."""

from collections.abc import Sequence
from math import isnan

from autospine.core.errors import counted
from autospine.dataset.raw import Case
from autospine.dataset.splits import Fold
from autospine.evaluation.scores import Evaluation
from autospine.io.images import read_labels, read_volume
from autospine.report.montage import Panel, write_montage
from autospine.system.log import get_logger
from trainers.training_run import TrainingRun

logger = get_logger(__name__)

MONTAGE = "validation.png"
"""File in the folder of a fold."""

SHOWN = 6
"""Most cases of a montage."""


def draw_validation(task: TrainingRun, folds: Sequence[Fold], evaluation: Evaluation) -> None:
    """Draw the held-out cases of validated folds into the folders of the folds, unless they are there.

    A picture that cannot be drawn is a warning: the training is whole without it.

    Args:
        task: The training run.
        folds: Folds whose held-out cases are predicted.
        evaluation: Scores of these cases.
    """
    drawn: dict[str, int] = {}
    for fold in folds:
        if _is_drawn(task, fold):
            continue
        path = task.fold_folder(fold) / MONTAGE
        try:
            dice = {name: evaluation.by_case[name].dice for name in fold.validation}
            # A case without any class that occurs has no Dice, and tells least.
            worst = sorted(fold.validation, key=lambda name: (isnan(dice[name]), dice[name]))[:SHOWN]
            cases = {case.name: case for case in task.dataset.cases}
            panels = [_panel(task, fold, cases[name], dice[name]) for name in worst]
            title = f"{task.configuration.name}, fold {fold.name}: held-out cases, the worst first"
            write_montage(path, panels, task.plan.labels, title=title)
        except Exception as error:
            logger.warning("%s cannot be drawn: %s", path, error or type(error).__name__)
            continue
        drawn[fold.name] = len(panels)
    if len(drawn) == 1:
        (name,) = drawn
        path = task.fold_folder(next(fold for fold in folds if fold.name == name)) / MONTAGE
        logger.info("%s shows %s, the worst first", path, counted(drawn[name], "held-out case"))
    elif drawn:
        logger.info(
            "%s of folds %s in %s shows held-out cases, the worst first",
            *(MONTAGE, ", ".join(drawn), task.folder),
        )


def _is_drawn(task: TrainingRun, fold: Fold) -> bool:
    path = task.fold_folder(fold) / MONTAGE
    predictions = [task.prediction(fold, name) for name in fold.validation]
    return path.is_file() and path.stat().st_mtime >= max(file.stat().st_mtime for file in predictions)


def _panel(task: TrainingRun, fold: Fold, case: Case, dice: float) -> Panel:
    assert case.labels is not None  # it is a training case
    volume, labels = read_volume(case.images), task.plan.labels
    predicted, reference = read_labels(task.prediction(fold, case.name)), read_labels(case.labels, labels)
    return Panel(
        title=case.name,
        image=volume.array[0],
        prediction=labels.encode(predicted.turned_to(volume.grid)[0]),
        reference=labels.encode(reference.turned_to(volume.grid)[0]),
        spacing_mm=volume.grid.spacing_mm,
        modality=task.stored[case.name].record.modality,
        score="" if isnan(dice) else f"Dice {dice:.2f}",
    )
