"""Training of several folds, and the scores over their held-out cases."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from autospine.core.errors import FormatError, TrainingError, counted
from autospine.dataset.splits import Fold
from autospine.evaluation.held_out import COUNTED_CASES, SCORING_LOCK, HeldOut, score_held_out
from autospine.evaluation.scores import Evaluation
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.models.model_folder import weights_digest
from autospine.prediction.vertebra_counter import opened_namers
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.storage.atomic import keep_former, write_text
from autospine.storage.locks import waiting_lock
from autospine.storage.serialization import write_json
from autospine.storage.tensors import load_facts
from autospine.storage.trained_models import PLAN, WEIGHTS, fold_weights
from autospine.system.log import get_logger
from trainers import distributed
from trainers.checkpoints import Checkpoints
from trainers.epoch_validation import show_classes
from trainers.fold_run import train_and_validate
from trainers.run_identity import damaged, identity, other_start
from trainers.schedule import NoTimeLeftError, no_time_left
from trainers.settings import TrainingSettings
from trainers.side_by_side import train_side_by_side
from trainers.time_budget import FairTimes
from trainers.trained_on import describe_changes, planned_otherwise, trained_on
from trainers.training_run import TrainingRun
from trainers.validation_montage import draw_validation
from trainers.validation_record import remove_outdated

logger = get_logger(__name__)

SCORING_SECONDS_PER_CASE = 1.0
"""Time for scoring a held-out case, trying post-processing on it and drawing it."""

COUNTING_SECONDS_PER_CASE = 4.0
"""Time for counting the vertebrae of a held-out case by the starter: lumbar MR on two cores, rounded up."""

MOST_SCORING = 0.25
"""Largest share of a time limit that is set aside for scoring."""


def train_folds(
    task: TrainingRun, folds: Sequence[Fold], settings: TrainingSettings, *, deadline: float | None = None
) -> Evaluation | None:
    """Train and validate folds, `settings.parallel` at a time; finished folds are kept, others resumed.

    Args:
        task: The training run that the folds belong to.
        folds: Folds to train, in order.
        settings: The user's choices.
        deadline: Value of `time.monotonic()` by which everything should be done; the remaining time is shared
            evenly among the remaining folds, validation included.

    Returns:
        The evaluation over the validation cases of every fold trained so far; None if there is none, and for
        all but the first of several processes that train together.

    Raises:
        NoTimeLeftError: If folds stay incomplete for want of time; the others were validated.
        TrainingError: If the model folder holds folds of another plan, or of other initial weights.
    """
    for fold in folds:
        settings.check_held_out(fold.name, labelled=show_classes(task.held_out(fold)))
    every = tuple({fold.name: fold for fold in (*task.split, *folds)}.values())
    if distributed.leads():
        _report_initial_weights(task, folds)
        _claim(task, every)
        for fold in every:
            _tidy(task, fold, begins=fold in folds)
    distributed.meet()  # every process sees the folder as the first one leaves it
    extended = [] if settings.extend is None else _to_extend(task, folds)
    todo = [fold for fold in folds if fold not in extended and not task.complete(fold)]
    for fold in folds:
        if fold not in (*todo, *extended):
            logger.info("fold %s is complete already%s", fold.name, _training_of(task, fold, settings))
    ends = None if deadline is None else deadline - _scoring_seconds(task, every, deadline)
    late: list[Fold] = []
    for group, chosen in ((todo, replace(settings, extend=None)), (extended, settings)):
        if min(chosen.parallel, len(group)) > 1 and distributed.size() == 1:
            late += train_side_by_side(task, group, chosen, ends)
        else:
            late += _train_in_turn(task, group, chosen, ends)
    if late and len(late) == len(todo) + len(extended):
        raise no_time_left([fold.name for fold in late])
    evaluation = cross_validation(task, every, settings.device) if distributed.leads() else None
    if late:
        raise no_time_left([fold.name for fold in late])
    return evaluation


def _train_in_turn(
    task: TrainingRun, folds: Sequence[Fold], settings: TrainingSettings, deadline: float | None
) -> list[Fold]:
    """Train folds one after the other; return those for which no time was left."""
    late: list[Fold] = []
    times = FairTimes(deadline, [1 / len(folds) for _ in folds])
    for index, fold in enumerate(folds):
        try:
            limit = times.of(index, 1 / (len(folds) - index))
            times.note(train_and_validate(task, fold, settings, limit))
        except NoTimeLeftError:
            if distributed.size() > 1:  # the clocks of processes that train together may differ
                raise
            late.append(fold)
    return late


def _scoring_seconds(task: TrainingRun, folds: Sequence[Fold], deadline: float) -> float:
    """Estimate how long it takes to score and draw the held-out cases of all folds."""
    cases = sum(len(fold.validation) for fold in folds)
    needed = SCORING_SECONDS_PER_CASE * cases
    if VertebraNaming.of_labels(task.plan.labels) is not None:
        needed += COUNTING_SECONDS_PER_CASE * min(cases, COUNTED_CASES)
    return min(needed, MOST_SCORING * max(0.0, deadline - time.monotonic()))


def _training_of(task: TrainingRun, fold: Fold, settings: TrainingSettings) -> str:
    """Say how long a complete fold was trained, and how it is trained for the epochs that are asked for."""
    facts = load_facts(task.fold_folder(fold) / WEIGHTS)
    epochs, minutes = int(facts.get("epochs", 0)), facts.get("minutes")
    if epochs == 0:  # weights of earlier versions do not say
        return ""
    text = f": it was trained for {counted(epochs, 'epoch')}" + (
        f" in {minutes:.3g} minutes" if minutes else ""
    )
    if facts.get("stopped_early") is not None:
        text += f" and stopped early, by a plateau that was found after epoch {facts['stopped_early']}"
        if settings.stop_early is not None:
            return text  # as is asked for now
    more = (settings.epochs or 0) - epochs
    return text + (f"; --extend {more} instead of --epochs trains it for {more} more" if more > 0 else "")


def _tidy(task: TrainingRun, fold: Fold, *, begins: bool) -> None:
    """Remove checkpoints and predictions that are outdated, in a fold that is trained or is to be trained."""
    folder = task.fold_folder(fold)
    trained = (folder / WEIGHTS).is_file()
    if trained:
        Checkpoints(folder).remove_finished(int(load_facts(folder / WEIGHTS).get("extensions", 0)))
    if trained or begins:
        remove_outdated(task, fold)


def _to_extend(task: TrainingRun, folds: Sequence[Fold]) -> list[Fold]:
    """Return the folds that have been extended least often.

    If the command was interrupted and is given again, each fold is extended once; if it was not interrupted,
    all folds are extended once more.

    Raises:
        TrainingError: If a fold is not trained to the end.
    """
    untrained = [fold.name for fold in folds if not (task.fold_folder(fold) / WEIGHTS).is_file()]
    if untrained:
        raise TrainingError(
            f"expected complete folds in {task.folder} to extend, found {', '.join(untrained)} not trained "
            "to the end; give the command without --extend first"
        )
    times = [int(load_facts(task.fold_folder(fold) / WEIGHTS).get("extensions", 0)) for fold in folds]
    behind = [fold for fold, number in zip(folds, times, strict=True) if number == min(times)]
    only_validation_is_missing = min(times) > 0 and not all(
        task.complete(fold) and _scored(task, fold) for fold in folds
    )
    return [] if len(behind) == len(folds) and only_validation_is_missing else behind


def _scored(task: TrainingRun, fold: Fold) -> bool:
    """Tell whether the stored cross-validation scored the fold's present weights."""
    if not fold.validation:
        return True
    try:
        scored = read_cross_validation(task.folder).weights
    except FormatError:
        return False
    return scored.get(fold.name) == weights_digest(task.fold_folder(fold) / WEIGHTS)


def cross_validation(task: TrainingRun, folds: Sequence[Fold], device: torch.device) -> Evaluation | None:
    """Score the validation predictions of the complete folds, and choose the post-processing by them.

    Another process that has finished other folds may be scoring at the same time, so a lock is waited for.

    Args:
        task: The training run that the folds belong to.
        folds: All of its folds.
        device: Device for the starter, which counts vertebrae where classes are levels.
    """
    with waiting_lock(task.folder / SCORING_LOCK, f"scores the folds of {task.folder}"):
        return _scores(task, folds, device)


def _scores(task: TrainingRun, folds: Sequence[Fold], device: torch.device) -> Evaluation | None:
    done = [fold for fold in folds if fold.validation and task.complete(fold)]
    if not done:
        return None
    held_out = [
        HeldOut(
            fold=fold.name,
            cases=fold.validation,
            folder=task.validation_folder(fold),
            weights=weights_digest(task.fold_folder(fold) / WEIGHTS),
        )
        for fold in done
    ]
    known = tuple(
        replace(case, modality=task.stored[case.name].record.modality) if case.name in task.stored else case
        for case in task.dataset.cases
    )
    labels, channels = task.plan.labels, len(task.plan.channels)
    with opened_namers(VertebraNaming.of_labels(labels), known, channels, device) as namers:
        dataset = replace(task.dataset, cases=known)
        evaluation = score_held_out(task.folder, held_out, dataset, labels, *namers)
    draw_validation(task, done, evaluation)
    return evaluation


def _report_initial_weights(task: TrainingRun, folds: Sequence[Fold]) -> None:
    """Log what the folds start from, and warn where held-out cases may have been seen."""
    initial = task.initial_weights
    if initial is None:
        return
    logger.info(initial.report)
    if initial.dataset == task.plan.dataset and any(fold.validation for fold in folds):
        logger.warning(
            "the model of --pretrained was trained on %s as well: held-out cases may be among those that it "
            "has seen, and then their scores say too much; a model of other cases is a fair start",
            initial.dataset,
        )


def _claim(task: TrainingRun, folds: Sequence[Fold]) -> None:
    """Write plan and description into the model folder; refuse one with folds of another plan or split.

    Weights that were trained on other cases would be validated on cases that they have seen, and those of
    other labels or normalisation would predict wrongly. Folds that started from different initial weights
    cannot be cross-validated together.

    Raises:
        TrainingError: If finished weights in the folder are damaged, or belong to another run identity.
    """
    start = None if task.initial_weights is None else task.initial_weights.digest
    plan = identity(task.plan, task.configuration, ())
    wanted = {
        task.fold_folder(fold).name: identity(task.plan, task.configuration, task.cases(fold))
        for fold in folds
    }
    others: dict[str, str] = {}
    replanned = False
    begun = []
    by_name = {task.fold_folder(fold).name: fold for fold in folds}
    for weights in fold_weights(task.folder):
        name = weights.parent.name
        try:
            facts = load_facts(weights)
        except FormatError:
            raise TrainingError(damaged(weights)) from None
        if facts.get("plan") != plan or facts.get("identity") != wanted.get(name, facts.get("identity")):
            cases = task.cases(by_name[name]) if name in by_name else ()
            now = trained_on(task.plan, task.configuration, cases)
            others[name] = describe_changes(weights.parent, now)
            replanned |= facts.get("plan") != plan
        elif facts.get("weights") != start:
            begun.append(name)
    if begun and not others:
        raise TrainingError(other_start(task.folder, begun))
    if others:
        found = ", ".join(name + (f" (changed: {what})" if what else "") for name, what in others.items())
        raise TrainingError(
            f"expected folds of the present plan and cases in {task.folder}, found others: {found}; move "
            "their folders away and run the same command again to train them anew, or restore what was there"
            + (f" (their plan is {task.folder / PLAN})" if replanned else "")
        )
    if planned_otherwise(task.folder, task.plan, task.configuration):
        keep_former(task.folder / PLAN)
    write_json(task.folder / PLAN, replace(task.plan, configurations=(task.configuration,)))
    description = (task.dataset.folder / "dataset.json").read_text(encoding="utf-8")
    write_text(task.folder / "dataset.json", description)
