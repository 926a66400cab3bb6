"""From a volume to labels, or to class scores, on its own grid."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from autospine.core.errors import ModelError
from autospine.core.geometry import Box
from autospine.core.types import LabelArray, Modality, ScoreArray, Shape3, Vector3
from autospine.inference.case_memory import CaseMemory, case_memory
from autospine.inference.ensemble import mean_probabilities
from autospine.inference.image_rows import ImageWindow
from autospine.inference.region_of_interest import MARGIN_MM, Thinned, body, region_around, spine, tiles_near
from autospine.inference.slab import Piece, Slab, slab_bytes
from autospine.inference.sliding_window import TileScores, finished_pieces
from autospine.inference.tile_batch import Pace, find_pace
from autospine.inference.tiles import STEP, Layout, lay_tiles
from autospine.inference.to_native import NativeGrid, NativePiece
from autospine.io.images import Volume
from autospine.plan import Configuration, Plan
from autospine.preprocessing import Preparation, begin_preparation
from autospine.system.devices import inference_half
from autospine.system.log import get_logger, progress

logger = get_logger(__name__)

Near = Literal["everything", "body", "spine"]

AnyPiece = TypeVar("AnyPiece", Piece, NativePiece)
Made = TypeVar("Made")

BAND_BYTES = 256 << 20
"""Scores that `score_bands` hands out at a time, but at least one row."""

SLOW_PASS = 5.0
"""Seconds; a pass that takes longer is not measured a second time."""

GPU_SHARE = 0.5
"""Share of a GPU's free memory that the slab may take; else it is kept in RAM. Tiles that are run at once
share the rest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What there is to do for one volume."""

    preparation: Preparation
    layout: Layout
    """As far as the tiles that are run reach."""

    run: frozenset[Shape3]
    """Starts of the tiles that are run."""

    tiles: int
    """Tiles that would cover the whole volume."""

    near: Near
    """What tiles are run for."""

    memory: CaseMemory
    """What it takes beside the networks."""

    shape: Shape3
    """Voxels of the volume."""


Started = Callable[["Predictor", Work], None]


Keep = Callable[[Box, int, Tensor], None]
"""Takes the scores (s, p, l) of a channel in a box of the volume's canonical grid; boxes come in order along
S, and what none covers is background."""


def ignore(predictor: "Predictor", work: Work) -> None:
    """For those who do not want to be told."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Networks of one configuration, ready to predict."""

    plan: Plan
    configuration: Configuration
    networks: Sequence[nn.Module]
    """Ensembled by mean probability; moved to `device`."""

    device: torch.device
    confined: bool = True
    """Whether tiles without body, or far from the spine, are left out."""

    step: float = STEP
    """Largest distance between neighbouring tiles in tiles, in (0, 1]."""

    finder: "Predictor | None" = None
    """A coarser model that says where the spine is; without one, the body is all that is looked for."""

    def __post_init__(self) -> None:
        for network in self.networks:
            network.to(self.device).eval()

    def predict(
        self,
        volume: Volume,
        modality: Modality,
        description: str = "predict",
        started: Started = ignore,
        keep: Keep | None = None,
    ) -> LabelArray:
        """Segment one volume.

        Args:
            volume: every channel, in canonical axes.
            modality: decides the normalisation.
            description: shown beside the progress.
            started: told who is going to do what, before the first tile.
            keep: handed the mean probabilities that the labels are made of.

        Returns:
            The dataset's integers on the volume's canonical grid, (S, P, L).

        Raises:
            ModelError: if the channels are not those of the plan, or scores are not finite.
        """
        work, labels = self.prepare(volume, modality), self.plan.labels
        started(self, work)
        whole = np.zeros(work.shape, dtype=labels.dtype)
        cropped = whole[work.preparation.crop.slices]
        for piece in self._pieces(work, description, wide=False):
            if keep is not None:
                _with_room(partial(_hand_over, crop=work.preparation.crop, keep=keep), piece)
            channels = _with_room(NativePiece.inside if labels.regions else NativePiece.winners, piece)
            cropped[piece.box.slices] = labels.decode(channels.cpu().numpy())
            del piece  # or its scores would be held while the next tiles are run
        return whole

    def score_bands(
        self,
        volume: Volume,
        modality: Modality,
        description: str = "predict",
        started: Started = ignore,
    ) -> Iterator[tuple[slice, ScoreArray]]:
        """The mean probabilities of one volume, a band of rows at a time.

        The arguments and errors are those of `predict`; the volume is looked through at once. What was
        cropped away, and what no tile covers, is background.

        Returns:
            Rows along S of the volume's canonical grid, and their scores (K, rows, P, L) in [0, 1]. The bands
            cover the volume in order; each is a new array of at most `BAND_BYTES` or one row.
        """
        work = self.prepare(volume, modality, wide=True)
        started(self, work)
        return self._bands(work, volume, description)

    def _bands(self, work: Work, volume: Volume, description: str) -> Iterator[tuple[slice, ScoreArray]]:
        crop, done = work.preparation.crop, 0
        for piece in self._pieces(work, description, wide=True):
            box = piece.box.moved(crop.start)
            yield from self._background(slice(done, box.start[0]), volume)
            for rows in piece.bands(self._band_rows(volume)):
                band = self._background_band(rows.stop - rows.start, volume)
                _with_room(partial(_fill, band=band, box=box, rows=rows), piece)
                yield slice(rows.start + crop.start[0], rows.stop + crop.start[0]), band
                del band
            done = max(done, box.stop[0])
            del piece  # or it would be held while the next tiles are run
        yield from self._background(slice(done, volume.grid.shape[0]), volume)

    def prepare(self, volume: Volume, modality: Modality, *, wide: bool = False) -> Work:
        """Look through a volume and decide which tiles to run; the arguments and errors of `predict`.

        Args:
            volume: every channel, in canonical axes.
            modality: decides the normalisation.
            wide: whether the slab is to finish whole rows, as for `score_bands`.
        """
        preparation = self._preparation(volume, modality)
        layout, run, near = self._worth_running(preparation, volume, modality)
        reached, native = layout.around(run) if run else layout, volume.grid.shape
        channels, voxel_bytes = len(self.plan.channels), volume.array.itemsize
        resampled = preparation.shape[:2] != preparation.crop.shape[:2]
        return Work(
            preparation=preparation,
            layout=reached,
            run=frozenset(run),
            tiles=self._layout(preparation.shape).count,
            near=near,
            memory=case_memory(
                reached, native, channels, self.plan.labels, voxel_bytes, wide=wide, resampled=resampled
            ),
            shape=native,
        )

    @property
    def seconds_per_tile(self) -> float:
        """Time that all networks take for a tile, measured once."""
        return self.pace.seconds_per_tile * len(self.networks)

    @cached_property
    def pace(self) -> Pace:
        """How many tiles are run at once, and the time that one network takes for each; measured once."""
        if self.device.type != "cuda":
            return find_pace(self._seconds, 1)
        pace = find_pace(self._seconds, self._room_for_tiles())
        torch.cuda.empty_cache()
        return pace

    def _preparation(self, volume: Volume, modality: Modality) -> Preparation:
        expected = self.plan.channels
        if volume.array.shape[0] != len(expected):
            raise ModelError(
                f"expected {len(expected)} channel{'s' if len(expected) > 1 else ''} "
                f"({', '.join(expected)}), found {volume.array.shape[0]}; give each channel once: as files "
                "CASE_0000, CASE_0001, ..., or as a list"
            )
        return begin_preparation(
            volume, modality, self.configuration.spacing_mm, self.plan.normalisation[modality]
        )

    def _worth_running(
        self, preparation: Preparation, volume: Volume, modality: Modality
    ) -> tuple[Layout, set[Shape3], Near]:
        if not self.confined:
            layout = self._layout(preparation.shape)
            return layout, {box.start for box in layout.boxes}, "everything"
        mask = body(preparation.array, modality, preparation.transform)
        if self.finder is not None:
            labels = self.finder.predict(volume, modality, "looking for the spine")
            found = spine(labels[preparation.crop.slices])
            s, p, left = (mm / d for mm, d in zip(MARGIN_MM, volume.grid.spacing_mm, strict=True))
            layout, run = self._near(found, preparation, (s, p, left))
            if close := run & tiles_near(layout, mask, preparation.crop.shape):
                return layout, close, "spine"
        return *self._near(mask, preparation, (0, 0, 0)), "body"

    def _near(self, mask: Thinned, preparation: Preparation, margin: Vector3) -> tuple[Layout, set[Shape3]]:
        """Tiles over the region around a mask, and those of them that come near it."""
        native, prepared = preparation.crop.shape, preparation.shape
        region = region_around(mask, native, prepared, margin)
        layout = self._layout(prepared, region)
        return layout, tiles_near(layout, mask, native, margin)

    def _layout(self, shape: Shape3, region: Box | None = None) -> Layout:
        return lay_tiles(shape, self.configuration.patch_size, self.step, region)

    def _pieces(self, work: Work, description: str, *, wide: bool) -> Iterator[NativePiece]:
        if not work.run:
            return
        prepared = work.preparation
        native = NativeGrid(prepared.shape, prepared.crop.shape, work.layout.extent)
        with progress(description, len(work.run)) as meter:
            # A CPU runs one tile at a time, for which nothing has to be measured.
            at_once = self.pace.at_once if self.device.type == "cuda" else 1
            slab, tile_scores = self._slab(work.layout, wide), self._tile_scores(work, meter.advance)
            for piece in finished_pieces(work.layout, slab, tile_scores, run=work.run, at_once=at_once):
                _check_finite(piece)
                yield _with_room(native.refine, piece)

    def _tile_scores(self, work: Work, advance: Callable[[int], None]) -> TileScores:
        image, counted = ImageWindow(work.preparation), work.layout.counted

        def tile_scores(boxes: Sequence[Box]) -> list[Tensor]:
            inside = [counted(box.start).counted_from(box.start).slices for box in boxes]
            tiles = torch.cat([image.tile(box) for box in boxes]).to(self.device)
            alone = len(boxes) == 1
            means = mean_probabilities(
                tiles, self.networks, **self._how, counted=inside[0] if alone else None
            )
            advance(len(boxes))
            return [means[0]] if alone else [mean[:, *part] for mean, part in zip(means, inside, strict=True)]

        return tile_scores

    @property
    def _how(self) -> "_How":
        half = inference_half(self.configuration.training.precision, self.device)
        return {"regions": self.plan.labels.regions, "half": half}

    def _seconds(self, at_once: int) -> float:
        """Time that one network takes for so many tiles together."""
        shape = (at_once, len(self.plan.channels), *self.configuration.patch_size)
        tiles = torch.zeros(shape, device=self.device)
        seconds = self._pass(tiles)
        if seconds < SLOW_PASS:  # The first pass is slower by a second or so.
            seconds = self._pass(tiles)
        return seconds

    def _pass(self, tiles: Tensor) -> float:
        began = time.monotonic()
        mean_probabilities(tiles, self.networks[-1:], **self._how)  # mirrored ones are last
        if self.device.type == "cuda":  # Nothing has waited for it so far.
            torch.cuda.synchronize(self.device)
        return time.monotonic() - began

    def _room_for_tiles(self) -> int:
        """Tiles that a GPU's free memory has room for beside the slab, by what one takes."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        self._seconds(1)
        needed = torch.cuda.max_memory_allocated(self.device) - before
        torch.cuda.empty_cache()
        return int((1 - GPU_SHARE) * torch.cuda.mem_get_info(self.device)[0] / needed)

    def _slab(self, layout: Layout, wide: bool) -> Slab:
        labels = self.plan.labels
        needed, place = slab_bytes(layout, labels.n_channels, wide=wide), torch.device("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what earlier cases have left is free, too
            if needed < GPU_SHARE * torch.cuda.mem_get_info(self.device)[0]:
                place = self.device
        return Slab(layout, labels.n_channels, regions=labels.regions, device=place, wide=wide)

    def _background(self, rows: slice, volume: Volume) -> Iterator[tuple[slice, ScoreArray]]:
        step = self._band_rows(volume)
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            yield slice(start, stop), self._background_band(stop - start, volume)

    def _band_rows(self, volume: Volume) -> int:
        row = 4 * self.plan.labels.n_channels * volume.grid.shape[1] * volume.grid.shape[2]
        return max(1, BAND_BYTES // row)

    def _background_band(self, rows: int, volume: Volume) -> ScoreArray:
        labels = self.plan.labels
        band = np.zeros((labels.n_channels, rows, *volume.grid.shape[1:]), dtype=np.float32)
        if not labels.regions:
            band[0] = 1
        return band


class _How(TypedDict):
    """How networks predict."""

    regions: bool
    half: torch.dtype | None


def _check_finite(piece: Piece) -> None:
    # A sum of finite numbers is finite, and one NaN makes it NaN.
    if not torch.isfinite(piece.scores.sum()):
        raise ModelError("expected finite scores, found NaN or infinity; predict with float32 or train again")


def _with_room(make: Callable[[AnyPiece], Made], piece: AnyPiece) -> Made:
    """What is made of a piece; where its device is out of memory, in RAM."""
    try:
        return make(piece)
    except torch.OutOfMemoryError:
        logger.info("some scores are brought to the image in RAM, as the device has no memory left")
    torch.cuda.empty_cache()
    return make(piece.to(torch.device("cpu")))


def _fill(piece: NativePiece, band: ScoreArray, box: Box, rows: slice) -> None:
    for channel in range(piece.channels):
        band[channel][:, *box.slices[1:]] = piece.scores(channel, rows).cpu().numpy()


def _hand_over(piece: NativePiece, crop: Box, keep: Keep) -> None:
    box = piece.box.moved(crop.start)
    if 0 in box.shape:
        return
    for channel in range(piece.channels):
        keep(box, channel, piece.scores(channel, piece.box.slices[0]))
