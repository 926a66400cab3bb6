"""The split of a dataset into folds: deterministic, grouped by subject, stratified, editable.

`folds.json` lists the validation cases of each fold; all other cases train it. With a single fold, as where a
release has its own validation cases, the others are in none.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autospine.core.errors import DatasetError, FormatError, listed_faults
from autospine.dataset.case_table import meant_cases, visibly
from autospine.storage.file_names import read_text, same_name
from autospine.storage.serialization import (
    FileName,
    from_plain,
    many,
    parse_json,
    read_json,
    stored_as,
    write_json,
)
from autospine.storage.trained_models import FOLDS, FULL

if TYPE_CHECKING:  # it reads images, which takes long to import
    from autospine.dataset.raw import Dataset

FORMAT_VERSION = 1

PICKLES = (".pkl", ".pickle")
"""Endings of the splits of nnU-Net v1, which are not opened."""

ALL = "all"
"""Word for every fold of the cross-validation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """One fold: the cases of its training and of its validation."""

    name: str
    """Name: `0` ... `4`, or `full`."""

    training: tuple[str, ...]
    """Names of the training cases."""

    validation: tuple[str, ...]
    """Names of the validation cases, none of a subject that is in `training`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldCase:
    """The facts about a case that decide its fold."""

    name: str
    """Name, unique in the dataset."""

    subject: str
    """Person or specimen, whose cases all go to one fold."""

    stratum: tuple[str, ...]
    """Modality and site; every fold gets its share of each stratum."""

    classes: frozenset[int]
    """Foreground classes that occur in the case."""


@stored_as("the folds of a dataset")
@dataclass(frozen=True, kw_only=True, slots=True)
class FoldsFile:
    """Content of `folds.json`, which may have been edited by hand."""

    format_version: int
    dataset: str
    """Name of the dataset folder."""

    validation: Annotated[tuple[Annotated[tuple[FileName, ...], many()], ...], many()]
    """Names of the validation cases of each fold."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the folds: `0`, `1`, ..."""
        return tuple(str(index) for index in range(len(self.validation)))


@dataclass(frozen=True, kw_only=True, slots=True)
class NnunetFold:
    """One fold of nnU-Net's `splits_final.json`."""

    train: Annotated[tuple[FileName, ...], many()]
    """Names of the training cases."""

    val: Annotated[tuple[FileName, ...], many()]
    """Names of the validation cases."""


@stored_as("the splits of nnU-Net")
@dataclass(frozen=True, kw_only=True, slots=True)
class NnunetSplits:
    """Content of nnU-Net's `splits_final.json`, which is the list alone."""

    folds: tuple[NnunetFold, ...]


def make_folds(cases: Sequence[FoldCase], n: int = FOLDS) -> tuple[Fold, ...]:
    """Distribute subjects over `n` folds.

    Subjects with the rarest strata come first, then those with most cases. Each goes to the fold where
    it takes no class away from the training part, then where fewest cases of its strata are, then of its
    modality or site alone, then where its classes are rarest (so that they are spread out), then where
    fewest cases are.

    Raises:
        DatasetError: If there are fewer subjects than folds.
    """
    subjects: dict[str, list[FoldCase]] = {}
    for case in sorted(cases, key=lambda c: c.name):
        subjects.setdefault(case.subject, []).append(case)
    if len(subjects) < n:
        raise DatasetError(
            f"expected at least {n} subjects for {n} folds, found {len(subjects)} with {len(cases)} cases; "
            "add cases, or train one model on all of them with --fold full"
        )
    strata = Counter(case.stratum for case in cases)
    held = Counter(index for case in cases for index in case.classes)
    folds: list[list[FoldCase]] = [[] for _ in range(n)]
    order = sorted(
        subjects.values(), key=lambda own: (min(strata[c.stratum] for c in own), -len(own), own[0].name)
    )
    for own in order:
        min(folds, key=lambda fold: _cost(fold, own, held)).extend(own)
    return _folds([[case.name for case in fold] for fold in folds], [case.name for case in cases])


def fold_cases(
    dataset: "Dataset",
    modalities: Mapping[str, str],
    classes: Mapping[str, frozenset[int]],
    duplicates: Sequence[Sequence[str]] = (),
) -> list[FoldCase]:
    """Collect the facts that decide a dataset's split, from its fingerprint.

    Args:
        dataset: The dataset, for its cases with their subjects and sites.
        modalities: Modality of each case.
        classes: Foreground classes that occur in each case.
        duplicates: Groups of cases that show one image; they count as one subject.
    """
    subjects = _joined({case.name: case.subject for case in dataset.cases}, duplicates)
    return [
        FoldCase(
            name=case.name,
            subject=subjects[case.name],
            stratum=(modalities[case.name], case.site or ""),
            classes=classes[case.name],
        )
        for case in dataset.cases
    ]


def write_folds(path: Path, dataset: str, folds: Sequence[Fold]) -> None:
    """Write `folds.json`."""
    validation = tuple(fold.validation for fold in folds)
    write_json(path, FoldsFile(format_version=FORMAT_VERSION, dataset=dataset, validation=validation))


def read_folds(path: Path, dataset: "Dataset") -> tuple[Fold, ...]:
    """Read `folds.json`, as `folds_of` does.

    Raises:
        FormatError: If it does not fit the dataset.
    """
    return folds_of(read_folds_file(path), path, dataset)


def read_folds_file(path: Path) -> FoldsFile:
    """Read `folds.json` without the dataset.

    Raises:
        FormatError: If it is damaged, or holds the splits of nnU-Net.
    """
    try:
        return read_json(path, FoldsFile)
    except FormatError as error:
        try:
            _nnunet_splits(path)
        except FormatError:
            raise error from None
        raise FormatError(
            f"expected the folds of a dataset in {path}, found those of nnU-Net; move the file elsewhere and "
            "take it with `autospine plan --splits FILE`"
        ) from None


def read_splits(path: Path, dataset: "Dataset") -> tuple[Fold, ...]:
    """Read the folds from nnU-Net's `splits_final.json`.

    Raises:
        FormatError: If it does not fit the dataset (see `folds_of`), or a fold trains on other cases than
            those that it does not validate.
    """
    given = _nnunet_splits(path).folds
    file = FoldsFile(
        format_version=FORMAT_VERSION, dataset=dataset.name, validation=tuple(fold.val for fold in given)
    )
    folds = folds_of(file, path, dataset, "mend the file, or name another with --splits")
    for fold, stated in zip(folds, given, strict=True):
        if other := set(map(same_name, fold.training)) ^ set(map(same_name, stated.train)):
            raise FormatError(
                f"expected fold {fold.name} of {path} to train on every case that it does not validate, "
                f"found another choice ({listed_faults(sorted(other))}); mend the file, or leave these "
                "cases out of the dataset"
            )
    return folds


def _nnunet_splits(path: Path) -> NnunetSplits:
    if path.suffix.lower() in PICKLES:
        raise FormatError(
            f"expected the splits of nnU-Net as JSON, found a pickle at {path}, which can run code; "
            "save its list of folds as splits_final.json"
        )
    try:
        content = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise FormatError(
            f"expected the splits of nnU-Net in {path}, found {error}; copy the file again"
        ) from None
    entries = content if isinstance(content, list) else []
    parts = [part for entry in entries if isinstance(entry, dict) for part in entry.values()]
    cases = (case for part in parts if isinstance(part, list) for case in part)
    if (number := next((case for case in cases if isinstance(case, int)), None)) is not None:
        raise FormatError(
            f"expected case names as texts in {path}, found numbers such as {number}; write the names of the "
            "cases in quotes, with their leading zeros"
        )
    return from_plain({"folds": content}, NnunetSplits, str(path))


def folds_of(
    file: FoldsFile,
    path: Path,
    dataset: "Dataset",
    remedy: str = "mend the file, or delete it and plan again",
) -> tuple[Fold, ...]:
    """Return the folds that a `folds.json` describes.

    Args:
        file: Its content.
        path: Its path, for messages.
        dataset: The dataset that is split.
        remedy: What to do about a file that does not fit, for messages.

    Raises:
        FormatError: If a case is unknown, validated twice or, where there are several folds, in none of them,
            or if a subject is split.
    """
    subjects = {case.name: case.subject for case in dataset.cases}
    spelt = {same_name(name): name for name in subjects}
    validation = [[spelt.get(same_name(name), name) for name in fold] for fold in file.validation]
    listed = Counter(name for fold in validation for name in fold)
    unknown = sorted(set(listed) - set(subjects))
    meant = meant_cases(unknown, spelt)
    problems = [
        f"unknown case {visibly(name)}" + (f" ({meant[name]})" if name in meant else "") for name in unknown
    ]
    problems += [f"case {name} is validated {n} times" for name, n in sorted(listed.items()) if n > 1]
    beside = sorted(set(subjects) - set(listed))
    single = len(file.validation) == 1
    if not single:
        problems += [f"case {name} is in no fold" for name in beside]
    elif not beside:
        problems.append("no case is left to train on")
    where: dict[str, set[int]] = {}
    for index, fold in enumerate(validation):
        for name in fold:
            where.setdefault(subjects.get(name, name), set()).add(index)
    for name in beside if single else ():
        where.setdefault(subjects[name], set()).add(len(validation))
    problems += [f"fold {index} is empty" for index, fold in enumerate(file.validation) if not fold]
    if not file.validation:
        problems.append("no fold")
    problems += [f"subject {subject} is split" for subject, found in sorted(where.items()) if len(found) > 1]
    if file.format_version != FORMAT_VERSION:
        problems.append(f"format_version {file.format_version} instead of {FORMAT_VERSION}")
    if problems:
        raise FormatError(
            f"expected every case of {dataset.name} in one fold of {path}, found "
            f"{listed_faults(problems)}; {remedy}"
        )
    return _folds(validation, list(subjects))


def full_fold(dataset: "Dataset") -> Fold:
    """Every case in training."""
    return Fold(name=FULL, training=tuple(case.name for case in dataset.cases), validation=())


def classes_missing(folds: Sequence[Fold], cases: Sequence[FoldCase]) -> dict[str, frozenset[int]]:
    """Return for each fold the classes that its training cases lack, if any."""
    classes = {case.name: case.classes for case in cases}
    everything = frozenset().union(*classes.values())
    lacking = {
        fold.name: everything - frozenset().union(*(classes[name] for name in fold.training))
        for fold in folds
    }
    return {name: missing for name, missing in lacking.items() if missing}


def separated(folds: Sequence[Fold], duplicates: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of duplicates that are validated in more than one fold."""
    where = {name: fold.name for fold in folds for name in fold.validation}
    return tuple(tuple(group) for group in duplicates if len({where.get(name) for name in group}) > 1)


def _joined(subjects: Mapping[str, str], duplicates: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return the subject of each case, with subjects that share an image merged into one."""
    now = {subject: subject for subject in subjects.values()}
    for group in duplicates:
        linked = {now[subjects[name]] for name in group}
        now = {subject: min(linked) if name in linked else name for subject, name in now.items()}
    return {name: now[subject] for name, subject in subjects.items()}


def _cost(fold: Sequence[FoldCase], own: Sequence[FoldCase], held: Counter[int]) -> tuple[float, ...]:
    strata = {case.stratum for case in own}
    alike = sum(case.stratum in strata for case in fold)
    # Where each site has a case or two, modalities are still to be spread.
    partly = sum(
        part == other for case in fold for s in strata for part, other in zip(case.stratum, s, strict=True)
    )
    in_fold = Counter(index for case in fold for index in case.classes)
    added = Counter(index for case in own for index in case.classes)
    lost = sum(in_fold[index] + count == held[index] for index, count in added.items())
    rare = sum(in_fold[index] / held[index] for index in added)
    return lost, alike, partly, rare, len(fold)


def _folds(validation: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[Fold, ...]:
    return tuple(
        Fold(
            name=str(index),
            training=tuple(sorted(set(names) - set(own))),
            validation=tuple(sorted(own)),
        )
        for index, own in enumerate(validation)
    )
