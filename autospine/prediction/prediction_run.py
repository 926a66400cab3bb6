"""Prediction of many cases: reading, networks and writing side by side."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autospine.core.errors import AutospineError, listed, share
from autospine.core.geometry import check_spacing, triple
from autospine.core.types import Modality
from autospine.dataset.raw import Case, case_modality
from autospine.evaluation.label_statistics import names_found
from autospine.evaluation.postprocessing import describe_changes
from autospine.evaluation.statistics_files import CaseStatistics
from autospine.inference.multi_model import JointPredictor
from autospine.inference.predictor import Predictor, TileJob
from autospine.io.images import Volume, read_volume
from autospine.models.model_folder import TrainingImage, training_case_of
from autospine.prediction.announcement import Estimates
from autospine.prediction.build_predictor import NOTHING_FOUND
from autospine.prediction.case_inspection import find_oddities
from autospine.prediction.case_log import PredictedCase
from autospine.prediction.case_outputs import CaseOutputs, PredictedMap
from autospine.prediction.probabilities import held_bytes
from autospine.prediction.read_ahead import ReadAhead
from autospine.prediction.run_record import RunRecord
from autospine.prediction.vertebra_counter import VertebraCounter
from autospine.storage.file_names import escape_non_utf8
from autospine.system.described_errors import describe_failure
from autospine.system.devices import computing
from autospine.system.hardware import peak_memory
from autospine.system.log import get_logger

logger = get_logger(__name__)


class PredictionUnwantedError(AutospineError):
    """Nobody waits for the cases that are left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """Status of the cases that were to be predicted."""

    cases: tuple[PredictedCase, ...]
    """Entries of the record, in the order of the cases' names."""

    written: tuple[Path, ...]
    """Label maps, including those that were kept."""

    kept: frozenset[str]
    """Cases whose label map was there already."""

    whole: bool = True
    """Whether the record of the folder is whole; False where other parts of the cases are to be done."""

    @property
    def failed(self) -> dict[str, str]:
        """Case -> reason for its failure."""
        return {case.case: case.error or "" for case in self.cases if case.status == "failed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Unwritten:
    """A label map in memory that is to be written."""

    entry: PredictedCase
    predicted: PredictedMap
    probabilities: ExitStack
    """Gives the probabilities their name when it is closed."""


class PredictionRun:
    """One thread reads ahead, this one runs the networks, and one post-processes and writes.

    Only the thread that writes touches the record while the networks run.

    Args:
        predictor: Predictor of one or of several models.
        outputs: Writes the files of each case.
        record: Record of the run.
        device: Device that the networks run on.
        unseen: Warnings of modalities that a model was not trained on.
        estimates: Estimates memory and time of each case.
        training_images: Case and image of all that the networks were trained on, as far as it is known.
        counter: Counts the vertebrae of each case; None if they are named by the predictor alone.
    """

    def __init__(
        self,
        predictor: Predictor | JointPredictor,
        outputs: CaseOutputs,
        record: RunRecord,
        device: torch.device,
        *,
        unseen: Mapping[Modality, str],
        estimates: Estimates,
        training_images: Sequence[tuple[str, TrainingImage]],
        counter: VertebraCounter | None = None,
    ) -> None:
        self._predictor, self._outputs, self._record = predictor, outputs, record
        self._training_images, self._counter = training_images, counter
        self._device, self._unseen, self._estimates = device, unseen, estimates

    @computing()
    def predict(
        self,
        cases: Sequence[Case],
        faults: Mapping[str, str],
        *,
        overwrite: bool,
        unwanted: Callable[[], bool],
    ) -> Predicted:
        """Predict cases one after the other.

        Args:
            cases: Complete cases.
            faults: Incomplete cases, and what is wrong with each.
            overwrite: Whether cases that are there already are predicted again.
            unwanted: Tells, before each case, whether nobody waits for it any more.

        Raises:
            PredictionUnwantedError: If nobody waits for the other cases; those that were begun are written.
            WorkspaceError: If the record cannot be written in the end.
            FormatError: If it has been damaged since the run began.
        """
        for name, fault in faults.items():
            self._record.add(self._record.failed(name, fault))
        kept = frozenset(case.name for case in cases if not overwrite and self._is_there(case))
        todo = [case for case in cases if case.name not in kept]
        for case in cases:
            if case.name in kept:
                logger.info("%s is there already", self._outputs.label_map(case))
                self._record.keep(case)
        with ReadAhead(todo, self._read) as images, ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            for index, case in enumerate(todo, start=1):
                if unwanted():
                    raise PredictionUnwantedError(
                        f"expected a command that waits for {case.name}, found none; run it with --continue"
                    )
                result = self._predict_case(case, f"{case.name} ({index}/{len(todo)})", images)
                # Only one label map waits to be written at a time.
                if writing is not None:
                    writing.result()
                writing = writer.submit(self._finish_case, case, result)
                del result  # else its labels would be held while the next case is predicted
            if writing is not None:
                writing.result()
        self._record.finish()
        entries = self._record.cases
        warn_of_training_images(entries)
        return Predicted(
            cases=tuple(entries.values()),
            written=tuple(
                self._outputs.label_map(case) for case in cases if entries[case.name].status != "failed"
            ),
            kept=kept,
        )

    def _is_there(self, case: Case) -> bool:
        return self._record.may_keep(case) and self._outputs.are_there(case)

    def _read(self, case: Case) -> Volume:
        volume = read_volume(case.images)
        check_spacing(volume.grid.spacing_mm, str(case.images[0]))
        self._outputs.maps.check_slices(case, volume.stored)  # before the networks have run
        return volume

    def _predict_case(self, case: Case, description: str, images: ReadAhead) -> _Unwritten | PredictedCase:
        """Run the networks on a case; return its labels, or the entry of a case that has failed."""
        try:
            volume = images.take()
            began, modality = time.monotonic(), case_modality(case, volume)
            start = _CaseStart(
                self._entry(case, volume, modality),
                description,
                self._estimates,
                images,
                saving=self._outputs.save_probabilities,
            )
            with ExitStack() as stack:
                writer = stack.enter_context(self._outputs.open_probabilities(case, volume))
                sink = None if writer is None else writer.take
                labels = self._predictor.predict(volume, modality, description, start, sink)
                if writer is not None:
                    writer.finish()
                # They take their name once the label map is there.
                probabilities = stack.pop_all()
            nameless = None if self._counter is None else self._counter.count(volume, modality)
            seconds = round(time.monotonic() - began, 2)
            return _Unwritten(
                entry=replace(_with_peaks(start.entry, self._device), seconds=seconds),
                predicted=PredictedMap.of(
                    labels, volume, modality, nameless, previewed=self._outputs.draw_preview is not None
                ),
                probabilities=probabilities,
            )
        except Exception as error:  # A GPU out of memory, for instance; the next case may be smaller.
            return self._record.failed(case.name, describe_failure(error))

    def _finish_case(self, case: Case, result: _Unwritten | PredictedCase) -> None:
        """Write a case's label map, then the record."""
        if isinstance(result, PredictedCase):
            self._record.add(result)
        else:
            self._record.add(*self._write(case, result))

    def _write(self, case: Case, result: _Unwritten) -> tuple[PredictedCase, CaseStatistics]:
        """Write a case's label map; return its entry in the record, and what the map shows."""
        try:
            written = self._outputs.write(case, result.predicted, result.probabilities)
        except Exception as error:
            return self._record.failed(case.name, describe_failure(error)), ()
        entry = replace(
            result.entry, changes=written.changes, renamed=written.renamed, naming_error=written.naming_error
        )
        if written.changes:
            logger.info("%s: post-processing changed %s", case.name, describe_changes(written.changes))
        if written.renamed:
            logger.info("%s: vertebrae were renamed: %s", case.name, describe_changes(written.renamed))
        if written.labelled:
            logger.info("%s: found %s", case.name, names_found(written.statistics))
        else:
            logger.warning("%s: %s", case.name, NOTHING_FOUND)
            entry = replace(entry, warnings=(*entry.warnings, NOTHING_FOUND))
        return entry, written.statistics

    def _entry(self, case: Case, volume: Volume, modality: Modality) -> PredictedCase:
        """Log what is unusual about an image, and begin the case's entry in the record."""
        warnings = find_oddities(case, volume, modality)
        for text in warnings:
            logger.info("%s: %s", case.name, text)
        if unseen := self._unseen.get(modality):
            logger.warning("%s: %s", case.name, unseen)
            warnings.append(unseen)
        saved = self._outputs.probabilities(case).name if self._outputs.save_probabilities else None
        return replace(
            self._record.template,
            case=case.name,
            status="written",
            images=tuple(escape_non_utf8(str(path.resolve())) for path in case.images),
            modality=modality,
            shape=volume.grid.shape,
            # A header of 32 bits adds digits that nobody has typed.
            spacing_mm=triple(round(mm, 6) for mm in volume.grid.spacing_mm),
            warnings=tuple(warnings),
            training_case=training_case_of(case.name, volume, self._training_images),
            probabilities=saved,
        )


class _CaseStart:
    """Announces the work of each model before its first tile, and has the next image read.

    Args:
        entry: The case's entry in the record, with what is known so far.
        description: Names the case in messages.
        estimates: Estimates memory and time.
        images: Reads the next image.
        saving: Whether probabilities are saved.
    """

    def __init__(
        self, entry: PredictedCase, description: str, estimates: Estimates, images: ReadAhead, *, saving: bool
    ) -> None:
        self.entry = entry
        self._description, self._estimates, self._images = description, estimates, images
        self._saving, self._slabs = saving, 0

    def __call__(self, predictor: Predictor, job: TileJob) -> None:
        """Announce a model's work, and add it to the entry."""
        self._add_to_entry(predictor, job)
        # Models that predict together hold their slabs at the same time.
        held = self._slabs + (held_bytes(predictor.plan.labels, job) if self._saving else 0)
        line = self._estimates.announcement(predictor, job, held, save_probabilities=self._saving)
        logger.info("%s: %s", self._description, line)
        if shortage := self._estimates.shortage(predictor, job, held):
            logger.warning("%s: %s", self._description, shortage)
        self._images.read_next(job.memory.total + held)
        self._slabs += job.memory.scores

    def _add_to_entry(self, predictor: Predictor, job: TileJob) -> None:
        entry = self.entry
        tiles, run = (entry.tiles or 0) + job.tiles, (entry.tiles_run or 0) + len(job.run)
        entry = replace(entry, tiles=tiles, tiles_run=run, near=job.region)
        if job.region == "spine" and predictor.localizer is not None:
            names = (*entry.finders, predictor.localizer.configuration.name)
            entry = replace(entry, finders=tuple(dict.fromkeys(names)))
        self.entry = entry


def warn_of_training_images(entries: Mapping[str, PredictedCase]) -> None:
    """Warn of images that a model has learnt from, where there are any."""
    if learnt := [name for name, entry in entries.items() if entry.training_case is not None]:
        logger.warning(
            "the model has learnt from %s (%s): how well it does there says nothing about others",
            share(len(learnt), len(entries), "image"),
            listed(learnt),
        )


def _with_peaks(entry: PredictedCase, device: torch.device) -> PredictedCase:
    entry = replace(entry, peak_gb=round(peak_memory() / 1e9, 3))
    if device.type != "cuda":
        return entry
    gpu = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return replace(entry, gpu_peak_gb=round(gpu / 1e9, 3))
