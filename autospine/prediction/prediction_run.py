"""Prediction of many cases: reading, networks and writing side by side, and the record of it."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from autospine.core.errors import AutospineError, FormatError, WorkspaceError
from autospine.core.geometry import check_spacing
from autospine.core.modality import few_values, offset_note
from autospine.core.types import Modality, Vector3
from autospine.dataset.raw import Case, case_modality
from autospine.evaluation.postprocessing import Postprocessing
from autospine.inference.multi_model import JointPredictor
from autospine.inference.predictor import Predictor, TileJob
from autospine.io.images import Volume, read_volume
from autospine.prediction.announcement import Estimates
from autospine.prediction.case_log import PredictedCase, add_to_record, read_record
from autospine.prediction.label_maps import LabelMaps
from autospine.prediction.probabilities import ENDING as PROBABILITIES
from autospine.prediction.probabilities import ProbabilityWriter, check_room, held_bytes
from autospine.storage.atomic import printable, replacing
from autospine.system.hardware import free_memory, peak_memory
from autospine.system.log import get_logger

logger = get_logger(__name__)

ROOM_FOR_NEXT = 2.0
"""The next image is read in advance if this many times the present case's memory is free."""


NOTHING_FOUND = "nothing was found: its label map is all background"


TELLING = (AutospineError, RuntimeError, MemoryError, OSError)
"""Errors whose text says what happened; of others, such as a KeyError, it may be no more than a number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What became of the cases to predict."""

    cases: tuple[PredictedCase, ...]
    """In the order of their names."""

    written: tuple[Path, ...]
    """Label maps, those that were kept included."""

    kept: frozenset[str]
    """Cases whose label map was there already."""

    @property
    def failed(self) -> dict[str, str]:
        """Case -> what went wrong."""
        return {case.case: case.error or "" for case in self.cases if case.status == "failed"}


class PredictionRun:
    """One thread reads ahead, this one runs the networks, one cleans and writes.

    Only the thread that writes touches the record.

    Args:
        predictor: of one or of several models.
        cleanup: what label maps go through before they are written.
        maps: the folder and format that they are written in.
        facts: what is the same for every case's entry in the record.
        device: where the networks run.
        unseen: a warning where the models do not know a case's modality.
        save_probabilities: whether they are written beside the label maps.
    """

    def __init__(
        self,
        predictor: Predictor | JointPredictor,
        cleanup: Postprocessing | None,
        maps: LabelMaps,
        facts: PredictedCase,
        device: torch.device,
        *,
        unseen: Callable[[Modality], str | None] = lambda _: None,
        save_probabilities: bool = False,
    ) -> None:
        self._predictor, self._cleanup, self._maps, self._facts = predictor, cleanup, maps, facts
        self._output, self._device, self._save_probabilities = maps.folder, device, save_probabilities
        self._unseen = unseen
        self._record = read_record(self._output)
        self._noted: dict[str, PredictedCase] = {}
        self._estimates = Estimates()
        self._done: dict[str, PredictedCase] = {}
        self._unwritten: WorkspaceError | FormatError | None = None

    def over(self, cases: Sequence[Case], faults: Mapping[str, str], *, overwrite: bool) -> Predicted:
        """Predict the cases one after the other.

        Args:
            cases: complete ones.
            faults: cases that are not, and why.
            overwrite: whether cases that are there already are predicted again.

        Raises:
            WorkspaceError: if the record cannot be written in the end.
            FormatError: if it has been damaged since the run began.
        """
        for name, fault in faults.items():
            self._note(self._failed(name, fault))
        kept = [] if overwrite else [case for case in cases if self._is_there(case)]
        names = frozenset(case.name for case in kept)
        self._keep(kept)
        todo = [case for case in cases if case.name not in names]
        with _Images(todo, self._read) as images, ThreadPoolExecutor(1) as writer:
            pending: Future[None] | None = None
            for index, case in enumerate(todo, start=1):
                finish = self._begin(case, f"{case.name} ({index}/{len(todo)})", images)
                if pending is not None:
                    pending.result()
                pending = writer.submit(self._end, case, finish)
            if pending is not None:
                pending.result()
        if self._unwritten is not None:
            raise self._unwritten
        return Predicted(
            cases=tuple(self._done[name] for name in sorted(self._done)),
            written=tuple(self._target(case) for case in cases if self._done[case.name].status != "failed"),
            kept=names,
        )

    def _target(self, case: Case) -> Path:
        return self._maps.path(case)

    def _probabilities(self, case: Case) -> Path:
        return self._output / f"{case.name}{PROBABILITIES}"

    def _is_there(self, case: Case) -> bool:
        known = self._record.get(case.name)
        if known is not None and known.status == "failed":  # What lies there may be of another model.
            return False
        whole = not self._save_probabilities or self._probabilities(case).is_file()
        return whole and self._target(case).is_file()

    def _read(self, case: Case) -> Volume:
        volume = read_volume(case.images)
        check_spacing(volume.grid.spacing_mm, str(case.images[0]))
        self._maps.check_slices(case, volume.stored)  # before the networks have run
        return volume

    def _keep(self, cases: Sequence[Case]) -> None:
        for case in cases:
            logger.info("%s is there already", self._target(case))
            known = self._record.get(case.name, PredictedCase(case=case.name, status="kept"))
            self._done[case.name] = known
            made = [model.digest for model in known.models]
            if made and made != [model.digest for model in self._facts.models]:
                others = " and ".join(
                    f"{used.folder}, folds {', '.join(used.folds)}" for used in known.models
                )
                logger.warning("%s was predicted by another model or by other folds: %s", case.name, others)
            elif made and (known.mirrored, known.cleaned) != (self._facts.mirrored, self._facts.cleaned):
                logger.warning("%s was predicted with other --mirror or --postprocessing", case.name)

    def _begin(self, case: Case, description: str, images: "_Images") -> Callable[[], PredictedCase]:
        """Run the networks; what is left to be done is returned."""
        try:
            return self._predict(case, description, images)
        except Exception as error:  # A GPU out of memory, for instance; the next case may be smaller.
            return partial(self._failed, case.name, _reason(error))

    def _end(self, case: Case, finish: Callable[[], PredictedCase]) -> None:
        """Clean and write the labels, then the record."""
        try:
            entry = finish()
        except Exception as error:
            entry = self._failed(case.name, _reason(error))
        self._note(entry)

    def _note(self, entry: PredictedCase) -> None:
        """Take a case into the record, which is written as soon as it can be."""
        self._done[entry.case] = self._noted[entry.case] = entry
        try:
            add_to_record(self._output, self._noted.values())
            self._unwritten = None
        except (WorkspaceError, FormatError) as error:  # A full disk may have room again for a smaller case.
            self._unwritten = error

    def _failed(self, name: str, reason: str) -> PredictedCase:
        logger.error("%s: %s", name, reason)
        # The record is UTF-8, which names of files in a message need not be.
        return replace(self._facts, case=name, status="failed", error=printable(reason))

    def _predict(self, case: Case, description: str, images: "_Images") -> Callable[[], PredictedCase]:
        volume = images.take()
        began, modality = time.monotonic(), case_modality(case, volume)
        entry = self._seen(case, volume, modality)
        beginning = _Beginning(entry, description, self._estimates, images, saving=self._save_probabilities)
        # The probabilities take their name once the label map is there.
        with ExitStack() as stack:
            writer = self._writer(case, volume, stack) if self._save_probabilities else None
            keep = None if writer is None else writer.take
            labels = self._predictor.predict(volume, modality, description, beginning, keep)
            if writer is not None:
                writer.finish()
            written = stack.pop_all()
        stored, spacing_mm = volume.stored, volume.grid.spacing_mm
        seconds = round(time.monotonic() - began, 2)
        entry = replace(_with_peaks(beginning.entry, self._device), seconds=seconds)

        def finish() -> PredictedCase:
            with written:
                cleaned = labels if self._cleanup is None else self._cleanup.apply(labels, spacing_mm)
                self._maps.write(case, cleaned, stored)
                if not self._save_probabilities:  # Earlier ones are not those of this label map.
                    self._probabilities(case).unlink(missing_ok=True)
            if cleaned.any():
                return entry
            logger.warning("%s: %s", case.name, NOTHING_FOUND)
            return replace(entry, warnings=(*entry.warnings, NOTHING_FOUND))

        return finish

    def _seen(self, case: Case, volume: Volume, modality: Modality) -> PredictedCase:
        """What the record says of a case before it is predicted; what is odd about it is said."""
        odd = list(volume.notes)
        if case.modality is None:
            odd.append(f"taken for {modality} by its intensities")
        if modality == "CT" and (note := offset_note(volume.array[0])):
            odd.append(note)
        if count := few_values(volume.array[0]):
            odd.append(f"has {count} different value{'s' if count > 1 else ''}; is it a label map?")
        for text in odd:
            logger.info("%s: %s", case.name, text)
        if unseen := self._unseen(modality):
            logger.warning("%s: %s", case.name, unseen)
            odd.append(unseen)
        return replace(
            self._facts,
            case=case.name,
            status="written",
            modality=modality,
            shape=volume.grid.shape,
            spacing_mm=_rounded(volume.grid.spacing_mm),
            warnings=tuple(odd),
            probabilities=self._probabilities(case).name if self._save_probabilities else None,
        )

    def _writer(self, case: Case, volume: Volume, stack: ExitStack) -> ProbabilityWriter:
        target, labels = self._probabilities(case), self._predictor.plan.labels
        check_room(target, labels, volume.grid.shape)
        return ProbabilityWriter(stack.enter_context(replacing(target)), labels, volume.stored)


class _Beginning:
    """Says what is to be done, before the first tile of each model, and has the next image read."""

    def __init__(
        self, entry: PredictedCase, description: str, estimates: Estimates, images: "_Images", *, saving: bool
    ) -> None:
        self.entry = entry
        """Of the record, with what is known so far."""
        self._description, self._estimates, self._images = description, estimates, images
        self._saving, self._slabs = saving, 0

    def __call__(self, predictor: Predictor, job: TileJob) -> None:
        entry = self.entry
        tiles, run = (entry.tiles or 0) + job.tiles, (entry.tiles_run or 0) + len(job.run)
        entry = replace(entry, tiles=tiles, tiles_run=run, near=job.region)
        if job.region == "spine" and predictor.localizer is not None:
            names = (*entry.finders, predictor.localizer.configuration.name)
            entry = replace(entry, finders=tuple(dict.fromkeys(names)))
        self.entry = entry
        # Models that predict together hold their slabs at the same time.
        held = self._slabs + (held_bytes(predictor.plan.labels, job) if self._saving else 0)
        said = self._estimates.announcement(predictor, job, held, save_probabilities=self._saving)
        logger.info("%s: %s", self._description, said)
        if shortage := self._estimates.shortage(predictor, job, held):
            logger.warning("%s: %s", self._description, shortage)
        self._images.read_next(job.memory.total + held)
        self._slabs += job.memory.scores


class _Images:
    """Reads the cases' images in order, the next one in advance where there is room for two."""

    def __init__(self, cases: Sequence[Case], read: Callable[[Case], Volume]) -> None:
        self._left, self._read = deque(cases), read
        self._pool = ThreadPoolExecutor(1)
        self._next: Future[Volume] | None = None

    def __enter__(self) -> "_Images":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self) -> Volume:
        """The image of the next case; raises what reading it raised."""
        future, self._next = self._next or self._submit(), None
        return future.result()

    def read_next(self, needed: int) -> None:
        """Read on, unless memory is short; the present case needs so many bytes."""
        if self._left and self._next is None and free_memory() > ROOM_FOR_NEXT * needed:
            self._next = self._submit()

    def _submit(self) -> "Future[Volume]":
        return self._pool.submit(self._read, self._left.popleft())


def _rounded(spacing_mm: Vector3) -> Vector3:
    """Voxel sizes without what the 32 bits of a header add to them."""
    s, p, left = (round(mm, 6) for mm in spacing_mm)
    return s, p, left


def _reason(error: Exception) -> str:
    """What went wrong, in words; where it did is for `--debug`."""
    logger.debug("where it went wrong:", exc_info=error)
    name, text = type(error).__name__, str(error)
    if not text:
        return name
    return text if isinstance(error, TELLING) else f"{name}: {text}"


def _with_peaks(entry: PredictedCase, device: torch.device) -> PredictedCase:
    entry = replace(entry, peak_gb=round(peak_memory() / 1e9, 3))
    if device.type != "cuda":
        return entry
    gpu = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return replace(entry, gpu_peak_gb=round(gpu / 1e9, 3))
