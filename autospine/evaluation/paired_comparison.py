"""Comparison of two evaluations of the same references, case by case, and its files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from autospine.core.errors import EvaluationError, listed
from autospine.evaluation.export import CSV
from autospine.evaluation.intervals import Interval, mean_interval
from autospine.evaluation.metrics import Metric
from autospine.evaluation.paired_tests import corrected, wilcoxon_p
from autospine.evaluation.scores import Evaluation
from autospine.storage.serialization import write_json
from autospine.storage.spreadsheet import as_text, write_table

COMPARISON_CSV = "comparison.csv"
COMPARISON_JSON = "comparison.json"

_WORDS = ("case", "modality", "site", "class")
"""Columns of `evaluation.csv` that are no numbers."""

_NEEDED = ("case", "class", "tp", "fn")
"""Columns that it must have."""

ScoreMatrix = Float[np.ndarray, "cases classes"]
"""Value of a metric in each case and class; NaN where it is undefined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """Difference of two evaluations in one metric, over the cases in which both have a value."""

    metric: str
    """Name of the metric."""

    of: Literal["class", "mean"]
    """Whether it is that of a class, or that of the mean over the classes."""

    class_name: str | None
    """Name of the class; None for the mean."""

    n_subjects: int
    """Number of subjects with a value in both; cases of one subject count as one."""

    value: float
    """Mean of the evaluation; NaN where no case has a value in both."""

    other: float
    """Mean of the other one."""

    difference: float
    """Mean of the differences, the other one subtracted."""

    low: float
    """Lower end of the confidence interval of the difference; NaN where there is none."""

    high: float
    """Upper end of it."""

    p: float
    """Two-sided p value of Wilcoxon's signed-rank test over the subjects; NaN where there is none."""

    p_corrected: float
    """The same after Holm's correction for the number of classes."""


def compare_with(evaluation: Evaluation, other: Path) -> tuple[PairedDifference, ...]:
    """Compare an evaluation with the stored one of another model on the same references.

    Args:
        evaluation: The evaluation.
        other: Folder that has the other one's `evaluation.csv`.

    Returns:
        For each metric of both the difference of each class, and of the mean over the classes.

    Raises:
        EvaluationError: If there is no such file, or it has no case, class or metric in common with the
            evaluation, or other references.
    """
    table = _read(other)
    names = {as_text(case.case): case for case in evaluation.cases}
    common = [name for name in names if name in set(table["case"])]
    metrics = [metric for metric in evaluation.metrics if metric.name in table.columns]
    if not common or not metrics:
        raise EvaluationError(
            f"expected cases and metrics in {other / CSV} that were evaluated here as well, found the cases "
            f"{listed(sorted(set(table['case'])))} and the columns {listed(list(table.columns))}; run "
            "`autospine evaluate` for both with the same references and metrics"
        )
    shared = replace(evaluation, cases=tuple(names[name] for name in common))
    theirs = table.set_index(["case", "class"])
    _check_references(shared, common, theirs, other)
    subjects = [case.subject or case.case for case in shared.cases]
    found: list[PairedDifference] = []
    for metric in metrics:
        ours = np.asarray([case.values(metric) for case in shared.cases], dtype=np.float64)
        found += paired_differences(
            shared.classes, metric, ours, _values(theirs, metric.name, common, shared), subjects
        )
    return tuple(found)


def write_comparison(differences: Sequence[PairedDifference], other: Path, folder: Path) -> None:
    """Write `comparison.csv` and `comparison.json`; undefined values are empty cells and null."""
    columns = [field.name for field in fields(PairedDifference)]
    rows = [[_defined(value) for value in astuple(each)] for each in differences]
    write_table(folder / COMPARISON_CSV, columns, rows)
    described = [dict(zip(columns, row, strict=True)) for row in rows]
    write_json(folder / COMPARISON_JSON, {"format_version": 1, "other": str(other), "differences": described})


def _read(folder: Path) -> pd.DataFrame:
    path = folder / CSV
    if not path.is_file():
        raise EvaluationError(
            f"expected {CSV} of the other predictions in {folder}, found none; run `autospine evaluate "
            f"{folder} REFERENCES` first, or name the folder that has it"
        )
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(_WORDS, str), keep_default_na=False, na_values=[""])
        if absent := [name for name in _NEEDED if name not in table.columns]:
            raise ValueError(f"it has no column {absent[0]}")
        twice = table.loc[table.duplicated(["case", "class"]), ["case", "class"]]
        if len(twice):
            raise ValueError(" has ".join(map(str, twice.iloc[0])) + " twice")
        numbers = [name for name in table.columns if name not in _WORDS]
        return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})
    except (ValueError, OSError) as error:
        raise EvaluationError(
            f"{path} is no table of scores: {error}; evaluate those predictions again"
        ) from None


def _check_references(
    evaluation: Evaluation, names: Sequence[object], theirs: pd.DataFrame, other: Path
) -> None:
    """Refuse an evaluation whose references have other classes or other numbers of voxels."""
    expected = {
        (name, as_text(label)): counts.tp + counts.fn
        for name, case in zip(names, evaluation.cases, strict=True)
        for label, counts in zip(case.classes, case.counts, strict=True)
    }
    found = (theirs["tp"] + theirs["fn"]).to_dict()
    if wrong := [
        f"{case!s}, {label!s}" for (case, label), n in expected.items() if found.get((case, label)) != n
    ]:
        raise EvaluationError(
            f"expected {other / CSV} to be of the same references, found other numbers of voxels for "
            f"{listed(wrong, separator='; ')}; evaluate both with the same references"
        )


def _values(
    theirs: pd.DataFrame, metric: str, names: Sequence[object], evaluation: Evaluation
) -> ScoreMatrix:
    rows = [[theirs.at[(name, as_text(label)), metric] for label in evaluation.classes] for name in names]
    return np.asarray(rows, dtype=np.float64)


def paired_differences(
    classes: Sequence[str], metric: Metric, ours: ScoreMatrix, theirs: ScoreMatrix, subjects: Sequence[str]
) -> Iterator[PairedDifference]:
    """Yield the difference of each class, then that of the mean over the classes.

    Args:
        classes: Names of the classes.
        metric: The metric.
        ours: Its value in each case and class; NaN where it is undefined.
        theirs: The same of the other models, row by row of the same cases.
        subjects: Subject of each row; rows of one subject, such as those of several seeds, count as one.
    """
    both = ~(np.isnan(ours) | np.isnan(theirs))
    ours, theirs = np.where(both, ours, math.nan), np.where(both, theirs, math.nan)
    rows = [
        _difference(metric, name, ours[:, [column]], theirs[:, [column]], subjects)
        for column, name in enumerate(classes)
    ]
    levels = corrected([row.p for row in rows])
    yield from (replace(row, p_corrected=p) for row, p in zip(rows, levels, strict=True))
    yield _difference(metric, None, ours, theirs, subjects)


def _difference(
    metric: Metric, name: str | None, ours: ScoreMatrix, theirs: ScoreMatrix, subjects: Sequence[str]
) -> PairedDifference:
    differences = ours - theirs
    by_subject = _by_subject(differences, subjects)
    interval: Interval = mean_interval(differences, subjects)
    p = wilcoxon_p(by_subject)
    return PairedDifference(
        metric=metric.name,
        of="mean" if name is None else "class",
        class_name=name,
        n_subjects=by_subject.size,
        value=_nested_mean(ours),
        other=_nested_mean(theirs),
        difference=_nested_mean(differences),
        low=interval.low,
        high=interval.high,
        p=p,
        p_corrected=p,
    )


def _by_subject(differences: ScoreMatrix, subjects: Sequence[str]) -> Float[np.ndarray, " N"]:
    """Return the mean difference of each subject that has one: over its cases of the mean over classes."""
    of_subject: dict[str, list[float]] = {}
    for subject, row in zip(subjects, differences, strict=True):
        if not np.isnan(row).all():
            of_subject.setdefault(subject, []).append(float(np.nanmean(row)))
    return np.asarray([np.mean(each) for each in of_subject.values()], dtype=np.float64)


def _nested_mean(values: ScoreMatrix) -> float:
    """Return the mean over classes of the mean over cases; NaN if nothing is defined."""
    columns = [column[~np.isnan(column)] for column in values.T]
    means = [float(column.mean()) for column in columns if column.size]
    return float(np.mean(means)) if means else math.nan


def _defined(value: object) -> object:
    if not isinstance(value, float):
        return value
    return None if math.isnan(value) else round(value, 6)
