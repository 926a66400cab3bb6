"""A folder of predictions, scores, or both: what it has of each case, as far as it is there."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from autospine.core.errors import AutospineError, EvaluationError, FormatError
from autospine.core.geometry import difference
from autospine.core.labels import LabelSpace
from autospine.core.types import ChannelArray
from autospine.dataset.description import load_labels
from autospine.dataset.raw import known_cases
from autospine.evaluation.evaluate_maps import label_files, read_pair
from autospine.evaluation.statistics_files import CaseStatistics, read_statistics
from autospine.io.formats import file_ending
from autospine.io.images import read_labels, read_volume
from autospine.prediction.case_log import RECORD, PredictedCase, read_record
from autospine.report.case_views import CaseMaps
from autospine.report.stored_shapes import StoredScores
from autospine.report.vertebra_names import read_names
from autospine.storage.file_names import same_name
from autospine.storage.part_folders import part_folders
from autospine.storage.serialization import read_json
from autospine.system.log import get_logger
from autospine.vertebrae.identities import SpineIdentities

logger = get_logger(__name__)

T = TypeVar("T")

SCORES = "evaluation.json"
"""File of scores, which `autospine evaluate` writes."""

LARGEST = 1e15
"""No number of a report is as large; a chart of such numbers could not be drawn."""

COPIED_SECONDS = 60.0
"""Time between two files of a folder that is copied, by which neither is newer."""

READABLE_SCORES = 2
"""Version of the scores that can be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultFolder:
    """The cases of a folder, with their scores, records and files as far as they are known."""

    folder: Path
    """The folder that the report is about."""

    scores: Mapping[str, Any]
    """Content of `evaluation.json`; empty if the folder has none."""

    record: Mapping[str, PredictedCase]
    """Entries of `predictions.json` by case."""

    labels: LabelSpace | None
    """Meaning of the label values; None if it is not known."""

    predictions: Mapping[str, Path]
    """Label map of each case by `same_name`."""

    references: Mapping[str, Path]
    """Reference of each case by `same_name`."""

    images: Mapping[str, tuple[Path, ...]]
    """Files of each case's image by `same_name`, one for each channel."""

    statistics: Mapping[str, CaseStatistics]
    """Numbers about each class of each label map."""

    names: Mapping[str, SpineIdentities] = field(default_factory=dict)
    """Names of the vertebrae of each case by `same_name`, where they were named."""

    unread: tuple[str, ...] = ()
    """Why files beside the scores were not read, in sentences."""

    outdated: bool = False
    """Whether label maps were predicted after they were scored."""

    @property
    def case_names(self) -> tuple[str, ...]:
        """Cases with an entry in the record, scores, or a reason for having none, in order."""
        scored = (each for key in ("cases", "missing", "failed") for each in self.scores.get(key, ()))
        return tuple(sorted({*scored, *self.record}))

    def of_case(self, case: str) -> "ResultFolder":
        """Return what `read_maps` and the pictures of one case need, which goes to another process."""
        name = same_name(case)
        scored = self.scores.get("cases", {})
        return replace(
            self,
            scores={
                "compared": self.scores.get("compared"),
                "cases": {case: scored[case]} if case in scored else {},
            },
            record={case: self.record[case]} if case in self.record else {},
            predictions=_entry(self.predictions, name),
            references=_entry(self.references, name),
            images=_entry(self.images, name),
            statistics={},
            names=_entry(self.names, name),
        )

    def read_maps(self, case: str) -> tuple[CaseMaps | None, str]:
        """Read the label maps and the image of a case.

        Returns:
            The maps, None if there is no prediction that can be read; and why something is missing, in words.
        """
        name = same_name(case)
        prediction, reference = self.predictions.get(name), self.references.get(name)
        if prediction is None:
            return None, "no pictures: its label map has gone, or is in a format that is not drawn"
        if self.labels is None:
            return None, "no pictures: neither `dataset.json` nor `statistics.json` says what its labels mean"
        try:
            if reference is None:
                read = read_labels(prediction, self.labels)
                found, true, grid = self.labels.encode(read.array[0]), None, read.grid
            else:
                resampled = bool((self.scores.get("compared") or {}).get("resampled"))
                found, true, grid = read_pair(case, prediction, reference, self.labels, resampled)
        except (AutospineError, OSError) as error:
            return None, f"no pictures: {error}"
        image, missing = self._image(name, grid)
        lacking = [missing] if missing else []
        if reference is None and case in self.scores.get("cases", {}):
            lacking.append("pictures without the reference: its label map has gone since it was compared")
        return CaseMaps(image=image, prediction=found, reference=true, grid=grid), "; ".join(lacking)

    def _image(self, name: str, grid: Any) -> tuple[ChannelArray | None, str]:
        files = self.images.get(name, ())
        if not files:
            return None, "pictures without the image: it is not known where it lies"
        try:
            volume = read_volume(files)
        except (AutospineError, OSError) as error:
            logger.debug("%s is drawn without its image: %s", name, error)
            return None, f"pictures without the image: {files[0]} cannot be read"
        if difference(volume.grid, grid):
            return None, "pictures without the image: it lies on another grid"
        return volume.turned_to(grid)[0], ""


def _entry(entries: Mapping[str, T], name: str) -> dict[str, T]:
    return {name: entries[name]} if name in entries else {}


def holds_results(folder: Path) -> bool:
    """Return whether a folder has predictions with their record, or scores."""
    return (
        any((place / RECORD).is_file() for place in (folder, *part_folders(folder)))
        or (folder / SCORES).is_file()
    )


def read_results(folder: Path) -> ResultFolder:
    """Read what a folder has of its cases; files that have gone since are passed over.

    Where there are scores, the page can do without the record and the statistics.

    Raises:
        FormatError: If the scores, or the record of a folder without scores, are damaged or of another
            version.
    """
    scores = _read_scores(folder)
    compared: Mapping[str, Any] = scores.get("compared") or {}
    predicted = Path(compared.get("predictions", folder))
    unread: list[str] = []
    record = _if_whole(read_record, predicted, unread) if scores else read_record(predicted)
    statistics, predictions = _if_whole(read_statistics, folder, unread), _maps_in(predicted)
    labels, images = _labels_of(statistics), {name: entry.images for name, entry in record.items()}
    files = {same_name(name): tuple(map(Path, paths)) for name, paths in images.items()}
    if compared:
        description = Path(compared["description"])
        try:
            labels = load_labels(description)
        except AutospineError as error:
            logger.debug("the labels are not those of %s: %s", description, error)
        # The images of the dataset, unless those that were predicted are known.
        files = {same_name(case.name): case.images for case in known_cases(description.parent)} | {
            name: paths for name, paths in files.items() if paths
        }
    return ResultFolder(
        folder=folder,
        scores=scores,
        record=record,
        labels=labels,
        predictions=predictions,
        references=_maps_in(Path(compared["references"])) if compared else {},
        images=files,
        statistics=statistics,
        names=_names_beside(predictions),
        unread=tuple(unread),
        outdated=bool(compared) and _is_newer(predicted / RECORD, folder / SCORES),
    )


def _is_newer(path: Path, other: Path) -> bool:
    """Return whether a file was written after another one, by more than a copy of both takes."""
    return path.is_file() and path.stat().st_mtime - other.stat().st_mtime > COPIED_SECONDS


def number(value: object) -> float:
    """Return a stored score; NaN where it is undefined, no number, or larger than any score can be."""
    if isinstance(value, int | float) and -LARGEST < value < LARGEST:
        return float(value)
    return math.nan


def _read_scores(folder: Path) -> Mapping[str, Any]:
    path = folder / SCORES
    if not path.is_file():
        return {}
    scores = read_json(path, StoredScores)
    if scores.get("format_version") != READABLE_SCORES:
        raise FormatError(
            f"expected scores of format_version {READABLE_SCORES} in {path}, found "
            f"{scores.get('format_version')}; run `autospine evaluate` again"
        )
    return scores


def _if_whole(read: Callable[[Path], dict[str, T]], folder: Path, unread: list[str]) -> dict[str, T]:
    """Return what a file of a folder says of each case; nothing, and a sentence, if it is damaged."""
    try:
        return read(folder)
    except FormatError as error:
        unread.append(f"left out: {error}")
        return {}


def _labels_of(statistics: Mapping[str, CaseStatistics]) -> LabelSpace | None:
    """Return the classes that the statistics of label maps name."""
    classes = {each.integer: each.label for entries in statistics.values() for each in entries}
    if not classes:
        return None
    values = tuple(classes)
    return LabelSpace(
        names=tuple(classes.values()), members=tuple((value,) for value in values), painted=values
    )


def _names_beside(maps: Mapping[str, Path]) -> dict[str, SpineIdentities]:
    """Return the names of the vertebrae that lie beside label maps."""
    found = {}
    for name, path in maps.items():
        names = read_names([path.parent], path.name.removesuffix(file_ending(path) or ""))
        if names is not None:
            found[name] = names
    return found


def _maps_in(folder: Path) -> dict[str, Path]:
    try:
        return label_files(folder, "label maps")
    except EvaluationError as error:
        logger.debug("no label maps: %s", error)
        return {}
