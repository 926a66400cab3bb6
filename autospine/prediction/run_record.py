"""The record of one run: the status of each case, written as soon as it is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from autospine.core.errors import FormatError, WorkspaceError
from autospine.dataset.raw import Case
from autospine.evaluation.statistics_files import CaseStatistics, add_statistics, read_statistics
from autospine.prediction.case_log import PredictedCase, add_to_record, read_record
from autospine.storage.file_names import escape_non_utf8
from autospine.system.log import get_logger

logger = get_logger(__name__)


class RunRecord:
    """The cases of one run, and what the folder's record knows of earlier runs.

    Args:
        folder: Folder whose record is written: that of the label maps, or of the part that is predicted.
        earlier: Entries of the label maps' record before the run, by case.
        template: Facts that are the same for every case of the run.
    """

    def __init__(self, folder: Path, earlier: Mapping[str, PredictedCase], template: PredictedCase) -> None:
        self._folder, self._earlier, self.template = folder, earlier, template
        self._new: dict[str, PredictedCase] = {}
        self._kept: dict[str, PredictedCase] = {}
        self._statistics: dict[str, CaseStatistics] = {}
        self._error: WorkspaceError | FormatError | None = None

    @classmethod
    def open(cls, folder: Path, template: PredictedCase, own: Path | None = None) -> "RunRecord":
        """Begin the record of a run.

        Args:
            folder: Folder of the label maps.
            template: Facts that are the same for every case of the run.
            own: Folder of the part that is predicted; None if all cases are.

        Raises:
            FormatError: If the folder's record, or its statistics, are damaged or of another version.
        """
        read_statistics(folder)
        return cls(own or folder, read_record(folder), template)

    @property
    def cases(self) -> dict[str, PredictedCase]:
        """Entries of the run by case, in the order of their names."""
        entries = self._kept | self._new
        return {name: entries[name] for name in sorted(entries)}

    def may_keep(self, case: Case) -> bool:
        """Return whether a label map that is there belongs to this case's last prediction.

        Beside a prediction that has failed, a label map may be left of another model.
        """
        earlier = self._earlier.get(case.name)
        return earlier is None or earlier.status != "failed"

    def keep(self, case: Case) -> None:
        """Take over the earlier entry of a case, and warn if it was predicted otherwise."""
        entry = self._earlier.get(case.name, PredictedCase(case=case.name, status="kept"))
        self._kept[case.name] = entry
        digests = [model.digest for model in entry.models]
        if digests and digests != [model.digest for model in self.template.models]:
            others = " and ".join(f"{used.folder}, folds {', '.join(used.folds)}" for used in entry.models)
            logger.warning("%s was predicted by another model or by other folds: %s", case.name, others)
        elif digests and _choices(entry) != _choices(self.template):
            logger.warning(
                "%s was predicted with other --mirror, --postprocessing or --count-with", case.name
            )

    def failed(self, name: str, reason: str) -> PredictedCase:
        """Report that a case has failed, and return its entry."""
        logger.error("%s: %s", name, reason)
        # The record is UTF-8, which names of files in a message need not be.
        return replace(self.template, case=name, status="failed", error=escape_non_utf8(reason))

    def add(self, entry: PredictedCase, statistics: CaseStatistics = ()) -> None:
        """Take a case into the record, and write it; what cannot be written now is written with the next.

        Args:
            entry: The case's entry.
            statistics: Numbers about each class in its label map; none if it has failed.
        """
        self._new[entry.case] = entry
        if statistics:
            self._statistics[entry.case] = statistics
        try:
            add_to_record(self._folder, self._new.values())
            add_statistics(self._folder, self._statistics)
            self._statistics.clear()
            self._error = None
        except (WorkspaceError, FormatError) as error:  # A full disk may have room again for a smaller case.
            self._error = error

    def finish(self) -> None:
        """Make sure that every case has been written.

        Raises:
            WorkspaceError: If the record could not be written in the end.
            FormatError: If it has been damaged since the run began.
        """
        if self._error is not None:
            raise self._error


def _choices(entry: PredictedCase) -> tuple[bool, Sequence[str], str | None]:
    return entry.mirrored, entry.cleaned, entry.counted_with
