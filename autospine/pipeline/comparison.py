"""Comparison of a dataset's models, and of the ensembles of every two, by cross-validation."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from autospine.core.errors import FormatError, ModelError
from autospine.dataset.raw import Dataset, load_dataset
from autospine.evaluation.paired_tests import corrected, wilcoxon_p
from autospine.evaluation.stored_scores import CROSS_VALIDATION, CrossValidation, read_cross_validation
from autospine.models.best import BEST, FORMAT_VERSION, Best, Candidate
from autospine.models.model_folder import ModelFolder, open_model
from autospine.pipeline.ensembles import validate_ensemble
from autospine.pipeline.planned_dataset import held_out_cases
from autospine.plan import build_network
from autospine.prediction.model_postprocessing import warn_of_other_weights
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import fold_folder
from autospine.storage.workspace import DatasetLocation
from autospine.system.log import get_logger
from trainers.metrics_log import seconds_trained

logger = get_logger(__name__)


class _Finished(NamedTuple):
    model: ModelFolder
    scores: CrossValidation


class _Scored(NamedTuple):
    candidate: Candidate
    by_case: Mapping[str, float | None]
    """Dice of each held-out case."""


def compare(
    location: DatasetLocation, *, device: torch.device, names: Sequence[str] = (), ensembles: bool = True
) -> Best:
    """Compare a dataset's models, and the ensembles of every two, by their held-out cases.

    Args:
        location: Folders of the dataset.
        device: Device that the networks of ensembles run on.
        names: Names of configurations; by default every one whose cross-validation is complete.
        ensembles: Whether ensembles are compared; their networks predict every held-out case.

    Returns:
        The content of `best.json`: the models with the largest mean Dice, and fewer of them in a draw.

    Raises:
        ModelError: If no model is finished, or their labels or the cases of their validation differ.
    """
    dataset = load_dataset(location.raw)
    finished = _finished_models(location, dataset, names)
    _check_alike(finished)
    warn_of_other_weights([entry.model for entry in finished])
    scored = [_Scored(_single(entry), entry.scores.by_case) for entry in finished]
    if ensembles and len(finished) > 1:
        for pair in combinations(finished, 2):
            scored.append(_ensemble(pair, dataset, device))
    ranked = _ranked(scored, {case.name: case.subject for case in dataset.cases})
    folders = [location.results / name for name in ranked[0].members]
    best = Best(
        format_version=FORMAT_VERSION,
        dataset=location.name,
        n_cases=sum(len(cases) for cases in finished[0].scores.folds.values()),
        members=ranked[0].members,
        command=shlex.join(
            ["autospine", "predict", "-i", "IMAGES", "-o", "OUTPUT"]
            + [word for folder in folders for word in ("-m", str(folder))]
        ),
        candidates=ranked,
    )
    write_json(location.results / BEST, best)
    return best


def _finished_models(
    location: DatasetLocation, dataset: Dataset, names: Sequence[str]
) -> tuple[_Finished, ...]:
    wanted = held_out_cases(location, dataset)
    there = location.models.folders
    unknown = sorted(set(names) - {folder.name for folder in there})
    finished, unfinished = [], []
    for folder in there:
        if names and folder.name not in names:
            continue
        scores = _scores(folder)
        held_out = set() if scores is None else {case for fold in scores.folds.values() for case in fold}
        if scores is None or not wanted <= held_out:
            unfinished.append(folder.name)
        else:
            finished.append(_Finished(open_model(folder), scores))
    if unknown or not finished or (names and unfinished):
        found = ", ".join(entry.model.path.name for entry in finished) or "none"
        missing = ", ".join((*unknown, *unfinished))
        without = f", not {missing}" if missing else ""
        raise ModelError(
            f"expected models in {location.results} that were validated on all {len(wanted)} "
            f"held-out cases, found {found}{without}; run `autospine train CONFIGURATION "
            f"-d {location.name} --fold all` for them first"
        )
    if unfinished:
        logger.info("not validated on every held-out case, left out: %s", ", ".join(unfinished))
    return tuple(finished)


def _scores(folder: Path) -> CrossValidation | None:
    """Read a model's cross-validation; None if there is none, as for an imported model."""
    if not (folder / CROSS_VALIDATION).is_file():
        return None
    try:
        return read_cross_validation(folder)
    except FormatError as error:
        logger.warning("%s is left out: %s", folder.name, error)
        return None


def _check_alike(finished: Sequence[_Finished]) -> None:
    """Refuse models whose labels, channels or folds differ from those of the first."""
    first = finished[0]
    for other in finished[1:]:
        names = f"{first.model.path.name} and {other.model.path.name}"
        only = "compare those that belong together with -c"
        if (first.model.plan.labels, first.model.plan.channels) != (
            other.model.plan.labels,
            other.model.plan.channels,
        ):
            raise ModelError(
                f"expected models of the same labels and channels, found others in {names}; {only}"
            )
        if first.scores.folds != other.scores.folds:
            raise ModelError(f"expected models validated on the same folds, found others in {names}; {only}")


def _single(entry: _Finished) -> Candidate:
    model = entry.model
    with torch.device("meta"):
        network = build_network(model.plan, model.configuration)
    seconds = sum(seconds_trained(fold_folder(model.path, fold)) for fold in entry.scores.folds)
    return _candidate(
        (model.path.name,),
        entry.scores,
        minutes=round(seconds / 60, 2),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        memory_bytes=model.configuration.memory_bytes,
    )


def _ensemble(pair: Sequence[_Finished], dataset: Dataset, device: torch.device) -> _Scored:
    parts = [_single(entry) for entry in pair]
    folder, _ = validate_ensemble([entry.model for entry in pair], pair[0].scores.folds, dataset, device)
    scores = read_cross_validation(folder)
    candidate = _candidate(
        tuple(name for part in parts for name in part.members),
        scores,
        minutes=round(sum(part.minutes for part in parts), 2),
        parameters=sum(part.parameters for part in parts),
        memory_bytes=max(part.memory_bytes for part in parts),
    )
    return _Scored(candidate, scores.by_case)


def _ranked(scored: Sequence[_Scored], subjects: Mapping[str, str]) -> tuple[Candidate, ...]:
    """Return the candidates with the largest Dice first, the others tested against the first."""
    best, *others = sorted(
        scored,
        key=lambda each: (
            -(each.candidate.dice or 0.0),
            len(each.candidate.members),
            each.candidate.members,
        ),
    )
    p_values = corrected([_p_value(best.by_case, other.by_case, subjects) for other in others])
    return (
        best.candidate,
        *(
            replace(other.candidate, p_value=None if math.isnan(p) else round(p, 6))
            for other, p in zip(others, p_values, strict=True)
        ),
    )


def _p_value(
    one: Mapping[str, float | None], other: Mapping[str, float | None], subjects: Mapping[str, str]
) -> float:
    """Test the difference of two models over the subjects, whose cases count together."""
    differences: dict[str, list[float]] = {}
    for case, dice in one.items():
        against = other.get(case)
        if dice is not None and against is not None:
            differences.setdefault(subjects.get(case, case), []).append(dice - against)
    return wilcoxon_p(np.asarray([np.mean(each) for each in differences.values()], dtype=np.float64))


def _candidate(
    members: tuple[str, ...],
    scores: CrossValidation,
    *,
    minutes: float,
    parameters: int,
    memory_bytes: int,
) -> Candidate:
    return Candidate(
        members=members,
        dice=scores.dice,
        cleaned_dice=scores.cleaned_dice,
        modality_dice=dict(scores.by_modality),
        minutes=minutes,
        parameters=parameters,
        memory_bytes=memory_bytes,
    )
