"""Cross-validation of a model by its held-out predictions: `cross_validation.json`, `postprocessing.json`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autospine.core.errors import ImageError
from autospine.core.geometry import Grid
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray
from autospine.dataset.raw import Dataset
from autospine.evaluation.cleanup_trials import CaseTrial, try_case
from autospine.evaluation.components import without_strays
from autospine.evaluation.evaluate_maps import evaluate_folder
from autospine.evaluation.naming import write_confusion
from autospine.evaluation.overlap import (
    Confusion,
    class_counts,
    count_overlap,
    foreground_counts,
    in_class_order,
)
from autospine.evaluation.postprocessing import POSTPROCESSING, NamingEffect, Postprocessing
from autospine.evaluation.postprocessing_choice import PostprocessingChoice, held_out_confusions
from autospine.evaluation.score_description import describe_evaluation, describe_mean
from autospine.evaluation.scores import CaseScores, Evaluation
from autospine.evaluation.stored_scores import CROSS_VALIDATION, FORMAT_VERSION
from autospine.io.images import Volume, read_labels
from autospine.storage.file_names import folder_to_write, path_below
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import fold_folder
from autospine.system.described_errors import describe_failure
from autospine.system.log import get_logger, track

logger = get_logger(__name__)

VALIDATION = "validation"
"""Folder of held-out predictions within the folder of a fold."""

SCORING_LOCK = "scoring.lock"
"""File that keeps a second process from scoring the folds of a model, or ensembles, at the same time: the one
that ends last would not always be the one that knows most folds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """The held-out cases of one fold and the folder of their predictions."""

    fold: str
    """Name of the fold."""

    cases: tuple[str, ...]
    """Names of the cases, each with a prediction."""

    folder: Path
    """Folder of the predictions, without post-processing."""

    weights: str | None = None
    """Digest of the network's weights; None if several networks predicted together."""


COUNTED_CASES = 20
"""Most held-out cases whose vertebrae are counted by a second model, which takes seconds for each."""

Namer = Callable[[str, LabelArray, Grid], LabelArray]
"""Gives the vertebrae of a case's label map (S, P, L) on a grid the labels of their levels."""


def score_held_out(
    folder: Path,
    held_out: Sequence[HeldOut],
    dataset: Dataset,
    labels: LabelSpace,
    namer: Namer | None = None,
    counting_namer: Namer | None = None,
) -> Evaluation:
    """Score the folds' predictions, choose a post-processing by them, and write both into the model folder.

    Args:
        folder: The model's folder.
        held_out: Predictions of at least one fold.
        dataset: The dataset with the references.
        labels: The dataset's label space.
        namer: Names vertebrae as a prediction does after its post-processing; None if classes are no levels.
        counting_namer: Names them and counts them by a second model; None if that is not tried. It is asked
            for `COUNTED_CASES` at most.

    Returns:
        The scores without post-processing.
    """
    weights = {fold.fold: fold.weights for fold in held_out}
    by_fold = {fold.fold: _evaluated(fold, dataset, labels) for fold in held_out}
    cases = sorted((case for part in by_fold.values() for case in part.cases), key=lambda case: case.case)
    total = Evaluation(classes=labels.names, cases=tuple(cases))
    for name, part in by_fold.items():
        _report_absent(name, part)
    postprocessed = None
    # Regions lie one within another: a component that is removed from one would be a hole in the next.
    if not labels.regions:
        namers = (namer, counting_namer)
        postprocessed = _choose_postprocessing(folder, held_out, dataset, labels, total, namers)
    described = {
        **describe_evaluation(total),
        "format_version": FORMAT_VERSION,
        "folds": {
            name: {
                **describe_mean(part.total),
                "cases": [case.case for case in part.cases],
                "weights": weights[name],
            }
            for name, part in by_fold.items()
        },
        "postprocessed": None if postprocessed is None else _describe_postprocessed(postprocessed),
    }
    write_confusion(total.namings, folder)
    write_json(folder / CROSS_VALIDATION, described)
    return total


def validation_folder(model: Path, fold: str) -> Path:
    """Return the folder of a fold's held-out predictions in a model folder; it need not exist.

    Raises:
        WorkspaceError: If a link in the model folder leads elsewhere.
    """
    return folder_to_write(model, fold_folder(model, fold).name, VALIDATION)


def read_prediction(path: Path) -> Volume | None:
    """Read a held-out prediction; None if it is absent or damaged and has to be made."""
    try:
        return read_labels(path)
    except ImageError:
        return None


def _evaluated(fold: HeldOut, dataset: Dataset, labels: LabelSpace) -> Evaluation:
    evaluation = evaluate_folder(fold.folder, dataset.folder / "labelsTr", labels, dataset.cases)
    # A case that was moved to another fold by hand may have left a prediction behind.
    own = tuple(case for case in evaluation.cases if case.case in fold.cases)
    return Evaluation(classes=labels.names, cases=own)


def _report_absent(fold: str, part: Evaluation) -> None:
    absent = [name for name, scores in part.total.by_class.items() if scores.n == 0]
    if absent:
        logger.info("fold %s: no held-out case has %s", fold, ", ".join(absent))


def _choose_postprocessing(
    folder: Path,
    held_out: Sequence[HeldOut],
    dataset: Dataset,
    labels: LabelSpace,
    total: Evaluation,
    namers: tuple[Namer | None, Namer | None],
) -> Evaluation | None:
    """Write the post-processing that all cases choose; return the scores after what other folds choose."""
    cases = _held_out_maps(held_out, dataset)
    trials: dict[str, CaseTrial] = {}
    cleared: dict[str, CaseTrial] = {}
    for name in track(cases, "trying post-processing"):
        predicted, true = _read_pair(*cases[name], labels)
        spacing_mm, reference = true.grid.spacing_mm, true.array[0]
        without = without_strays(predicted, spacing_mm)
        trials[name] = try_case(predicted, reference, labels, spacing_mm)
        cleared[name] = (
            trials[name] if without is predicted else try_case(without, reference, labels, spacing_mm)
        )
    choice = PostprocessingChoice(trials, cleared, labels)
    chosen = choice.choose()
    namer, counting_namer = namers
    if namer is not None and cases:
        chosen = replace(chosen, naming=_try_naming(cases, labels, chosen, namer, counting_namer))
    write_json(folder / POSTPROCESSING, chosen)
    after = None
    if len(held_out) > 1:
        confusions = held_out_confusions(choice, [fold.cases for fold in held_out])
        after = replace(
            total, cases=tuple(_with_confusion(case, confusions[case.case], labels) for case in total.cases)
        )
    _report_choice(chosen, total, after)
    return after


def _held_out_maps(held_out: Sequence[HeldOut], dataset: Dataset) -> dict[str, tuple[Path, Path]]:
    """Return prediction and reference of each held-out case that has a reference, by name."""
    references = {case.name: case.labels for case in dataset.cases}
    found = {
        name: (path_below(fold.folder, f"{name}{dataset.file_ending}"), reference)
        for fold in held_out
        for name in fold.cases
        if (reference := references[name]) is not None
    }
    return dict(sorted(found.items()))


def _read_pair(prediction: Path, reference: Path, labels: LabelSpace) -> tuple[LabelArray, Volume]:
    """Read a reference, and a prediction in its axes."""
    true = read_labels(reference, labels)
    return read_labels(prediction).turned_to(true.grid)[0], true


def _try_naming(
    cases: Mapping[str, tuple[Path, Path]],
    labels: LabelSpace,
    chosen: Postprocessing,
    namer: Namer,
    counting_namer: Namer | None,
) -> NamingEffect:
    """Return what naming changes in the held-out cases after a post-processing."""
    counted = [] if counting_namer is None else list(cases)[:: -(-len(cases) // COUNTED_CASES)]
    dice: list[tuple[float, float]] = []
    changes: list[float] = []
    for name in track(cases, "naming vertebrae"):
        predicted, true = _read_pair(*cases[name], labels)
        cleaned = chosen.apply(predicted, true.grid.spacing_mm).labels
        reference = labels.encode(true.array[0])

        def dice_of(found: LabelArray, reference: LabelArray = reference) -> float:
            return _class_dice(labels.encode(found), reference, labels)

        after = dice_of(_tried(namer, name, cleaned, true.grid))
        dice.append((dice_of(cleaned), after))
        if counting_namer is not None and name in counted:
            changes.append(dice_of(_tried(counting_namer, name, cleaned, true.grid)) - after)
    before, after = np.mean(dice, axis=0).tolist()
    return NamingEffect(
        dice_before=round(before, 6),
        dice_after=round(after, 6),
        dice_counted=round(after + float(np.mean(changes)), 6) if changes else None,
    )


def _tried(namer: Namer, name: str, labels: LabelArray, grid: Grid) -> LabelArray:
    """Name the vertebrae of a case; where they cannot be named it stays as it is, as in a prediction."""
    try:
        return namer(name, labels, grid)
    except Exception as error:  # names that cannot be found cost no score
        logger.warning("%s: its vertebrae cannot be named (%s)", name, describe_failure(error))
        return labels


def _class_dice(predicted: LabelArray, reference: LabelArray, labels: LabelSpace) -> float:
    """Return the mean Dice of the classes in either map; 1 where both are empty."""
    defined = [each.dice for each in count_overlap(predicted, reference, labels) if not math.isnan(each.dice)]
    return float(np.mean(defined)) if defined else 1.0


def _with_confusion(case: CaseScores, confusion: Confusion, labels: LabelSpace) -> CaseScores:
    return replace(
        case,
        counts=class_counts(confusion, labels),
        foreground=foreground_counts(confusion),
        confusion=in_class_order(confusion, labels),
    )


def _report_choice(chosen: Postprocessing, before: Evaluation, after: Evaluation | None) -> None:
    """Say which classes are post-processed, and what that changes in cases that did not choose it."""
    if chosen.naming is not None:
        effect = chosen.naming
        counted = "" if effect.dice_counted is None else f", {effect.dice_counted:.3f} if the starter counts"
        how = "named and counted" if effect.counts else "not named" if effect.harms else "named"
        logger.info(
            "naming the vertebrae of held-out cases changes their class Dice from %.3f to %.3f%s: "
            "predictions are %s",
            *(effect.dice_before, effect.dice_after, counted, how),
        )
    if not chosen.cleaned_classes:
        logger.info("cross-validation chose no post-processing, as none helps without harm")
        return
    strays = "; pieces apart from the spine become background" if chosen.stray_share is not None else ""
    logger.info(
        "cross-validation chose a post-processing for %s%s", ", ".join(chosen.cleaned_classes), strays
    )
    if after is None or before.foreground is None or after.foreground is None:
        return
    logger.info(
        "in held-out cases: class Dice %.3f to %.3f, foreground Dice %.3f to %.3f, foreground recall %.3f to "
        "%.3f",
        *(before.mean_dice, after.mean_dice),
        *(before.foreground.dice, after.foreground.dice),
        *(before.foreground.recall, after.foreground.recall),
    )


_OF_LABEL_MAPS = ("format_version", "missing", "extra", "failed", "training_images")
"""Keys that say something of the file or of the folders that were compared."""


def _describe_postprocessed(evaluation: Evaluation) -> dict[str, object]:
    described = describe_evaluation(evaluation)
    return {key: described[key] for key in described if key not in _OF_LABEL_MAPS}
