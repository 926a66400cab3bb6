"""From a volume to its label map, or to its class scores, on the volume's own grid."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor, nn

from autospine.core.errors import ModelError
from autospine.core.geometry import Box
from autospine.core.modality import same_everywhere
from autospine.core.types import LabelArray, Modality, Shape3, Vector3
from autospine.inference.case_memory import CaseMemory, case_memory, slab_device, with_fallback_to_ram
from autospine.inference.ensemble import TileEnsemble, mean_probabilities
from autospine.inference.region_of_interest import (
    COLUMN_MARGIN_MM,
    MARGIN_MM,
    WIDE_MM,
    RegionOfInterest,
    SubsampledMask,
    TileSelection,
    body_mask,
    every_tile,
    spine_column,
    spine_mask,
    tiles_in_body,
    tiles_near_spine,
)
from autospine.inference.score_bands import ScoreBand, ScoreSink, hand_over, score_bands
from autospine.inference.slab import Piece, Slab, slab_bytes
from autospine.inference.sliding_window import ImageRows, TilesAhead, finished_pieces, tiles_in_order
from autospine.inference.tile_batch import TileBatch, measure_tile_batch
from autospine.inference.tiles import TILE_STEP_SIZE, TileGrid, count_tiles
from autospine.inference.to_native import NativeGrid, NativePiece
from autospine.io.images import Volume
from autospine.plan import Configuration, Plan
from autospine.preprocessing.prepare import Preparation, begin_preparation
from autospine.system.devices import inference_half
from autospine.system.log import get_logger, progress

logger = get_logger(__name__)

SURE = 0.9
"""Probability of background above which the networks find nothing in a tile of air."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileJob:
    """The work that predicting one volume takes: its prepared image, and the tiles to run."""

    preparation: Preparation
    tile_grid: TileGrid
    """Tile grid: of the whole image or, near the spine, as far as the tiles that are run reach."""

    run: frozenset[Shape3]
    """Starts of the tiles that are run."""

    tiles: int
    """Number of tiles that would cover the whole volume."""

    region: RegionOfInterest
    """Part of the image that tiles are run for."""

    memory: CaseMemory
    """Memory that the volume takes beside the networks."""

    shape: Shape3
    """Voxels of the volume."""


OnStart = Callable[["Predictor", TileJob], None]
"""Told which predictor is about to do which work, before the first tile."""


def ignore_start(predictor: "Predictor", job: TileJob) -> None:
    """Do nothing when a prediction starts."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Networks of one configuration, which predict together."""

    plan: Plan
    configuration: Configuration
    networks: Sequence[nn.Module]
    """Networks on `device` and in evaluation mode (see `ready_networks`); their probabilities are averaged.
    Mirrored ones come last."""

    device: torch.device
    region_of_interest: bool = True
    """Whether tiles are skipped that hold nothing but air or, with a localizer, lie away from the spine."""

    step_size: float = TILE_STEP_SIZE
    """Tile step size: largest distance between neighbouring tiles, in tiles, in (0, 1]."""

    localizer: "Predictor | None" = None
    """A coarser model that locates the spine; without one, the region of interest is the body."""

    found_together: tuple[int, ...] = ()
    """Label values that a localizer of another dataset finds at every height of a spine. It is only trusted
    to leave out what lies beside the spine in wide images, and where it finds these nearly from top to
    bottom. None of a localizer that has learnt from the model's dataset."""

    tile_batch_size: int | None = None
    """Number of tiles that are run at once; None for 1 on a CPU, and for the fastest on a GPU."""

    _pace: deque[float] = field(
        default_factory=lambda: deque(maxlen=1), init=False, repr=False, compare=False
    )
    """Seconds per tile of the last case."""

    def predict(
        self,
        volume: Volume,
        modality: Modality,
        description: str = "predict",
        on_start: OnStart = ignore_start,
        score_sink: ScoreSink | None = None,
    ) -> LabelArray:
        """Segment one volume.

        Args:
            volume: Every channel, in canonical axes.
            modality: Decides the normalisation.
            description: Shown beside the progress.
            on_start: Told what is going to be done, before the first tile.
            score_sink: Takes the mean probabilities that the labels are made of.

        Returns:
            The dataset's label values on the volume's canonical grid, (S, P, L).

        Raises:
            ModelError: If the channels are not those of the plan, or scores are not finite.
        """
        job, labels = self.prepare(volume, modality), self.plan.labels
        on_start(self, job)
        whole = np.zeros(job.shape, dtype=labels.dtype)
        crop = job.preparation.crop
        cropped = whole[crop.slices]
        decide = NativePiece.above_threshold if labels.regions else NativePiece.argmax
        for piece in self._pieces(job, description):
            if score_sink is not None:
                with_fallback_to_ram(partial(hand_over, crop=crop, score_sink=score_sink), piece)
            channels = with_fallback_to_ram(decide, piece)
            cropped[piece.box.slices] = labels.decode(channels.cpu().numpy())
            del piece  # else its scores would be held while the next tiles are run
        return whole

    def score_bands(
        self,
        volume: Volume,
        modality: Modality,
        description: str = "predict",
        on_start: OnStart = ignore_start,
    ) -> Iterator[ScoreBand]:
        """Predict the mean probabilities of one volume, a band of rows at a time.

        The arguments and errors are those of `predict`; tiles are selected at once. What was cropped away,
        and what no tile covers, is background.

        Returns:
            Rows along S of the volume's canonical grid, and their scores (K, rows, P, L) in [0, 1]. The bands
            cover the volume in order; each is a new array of at most `BAND_BYTES` or one row.
        """
        job = self.prepare(volume, modality, wide=True)
        on_start(self, job)
        pieces = self._pieces(job, description, wide=True)
        return score_bands(pieces, job.preparation.crop, job.shape, self.plan.labels)

    def prepare(self, volume: Volume, modality: Modality, *, wide: bool = False) -> TileJob:
        """Prepare a volume and select the tiles to run; the arguments and errors are those of `predict`.

        Args:
            volume: Every channel, in canonical axes.
            modality: Decides the normalisation.
            wide: Whether the slab is to finish whole rows, as for `score_bands`.
        """
        self._check_channels(volume)
        preparation = begin_preparation(
            volume, modality, self.configuration.spacing_mm, self.plan.normalisation[modality]
        )
        selected = self._select_tiles(preparation, volume, modality)
        tile_grid = selected.tile_grid
        return TileJob(
            preparation=preparation,
            tile_grid=tile_grid,
            run=selected.run,
            tiles=count_tiles(preparation.shape, self.configuration.patch_size, self.step_size),
            region=selected.region,
            memory=case_memory(
                tile_grid,
                volume.grid.shape,
                len(self.plan.channels),
                self.plan.labels,
                volume.array.itemsize,
                wide=wide,
                resampled=preparation.shape[:2] != preparation.crop.shape[:2],
            ),
            shape=volume.grid.shape,
        )

    @property
    def seconds_per_tile(self) -> float:
        """Time that all networks take for a tile: in the last case, else measured now."""
        return self._pace[-1] if self._pace else self.tile_batch.seconds_per_tile * len(self.networks)

    @property
    def known_seconds_per_tile(self) -> float | None:
        """`seconds_per_tile`, or None before the first case on a CPU.

        There a tile would have to be run for nothing but its time, which on a busy machine is not that of
        later tiles: the progress tells it as soon.
        """
        measured = self.tile_batch_size is None and self.device.type == "cuda"
        return self.seconds_per_tile if self._pace or measured else None

    @cached_property
    def tile_batch(self) -> TileBatch:
        """Fastest tile batch size, and the time that one network takes for a tile; measured once."""
        shape = (len(self.plan.channels), *self.configuration.patch_size)
        # A mirrored network, which comes last, takes a little longer than a plain one.
        return measure_tile_batch(partial(self._forward, networks=self.networks[-1:]), shape, self.device)

    def _check_channels(self, volume: Volume) -> None:
        expected = self.plan.channels
        if volume.array.shape[0] != len(expected):
            raise ModelError(
                f"expected {len(expected)} channel{'s' if len(expected) > 1 else ''} "
                f"({', '.join(expected)}), found {volume.array.shape[0]}; give each channel once: as files "
                "CASE_0000, CASE_0001, ..., or as a list"
            )

    def _select_tiles(self, preparation: Preparation, volume: Volume, modality: Modality) -> TileSelection:
        tile = self.configuration.patch_size
        every = every_tile(preparation.shape, tile, self.step_size)
        if all(same_everywhere(channel[None]) for channel in preparation.array):
            # What networks make of an image that shows nothing is noise.
            return replace(every, run=frozenset(), region="body")
        if not self.region_of_interest:
            return every
        body = body_mask(preparation.array, modality, preparation.transform)
        located = self._locate(preparation, volume, modality, body)
        if located is not None:
            near = tiles_near_spine(preparation, *located, body, volume.grid.spacing_mm, tile, self.step_size)
            if near is not None:
                return near
        selected = tiles_in_body(preparation, body, every.tile_grid)
        if selected.doubtful is None or self._finds_nothing(preparation, selected.doubtful):
            return selected
        logger.info("no tile is left out, as the networks find something in one that is all air")
        return replace(every, region="body")

    def _locate(
        self, preparation: Preparation, volume: Volume, modality: Modality, body: SubsampledMask
    ) -> tuple[SubsampledMask, Vector3] | None:
        """Locate the spine; return its mask, or that of its column, and the margin around it."""
        if self.localizer is None:
            return None
        extent_mm = [n * mm for n, mm in zip(preparation.crop.shape, volume.grid.spacing_mm, strict=True)]
        if self.found_together and max(extent_mm[1:]) < WIDE_MM:
            return None
        labels = self.localizer.predict(volume, modality, "locating the spine")[preparation.crop.slices]
        if not self.found_together:
            return spine_mask(labels), MARGIN_MM
        column = spine_column(labels, self.found_together, body)
        return None if column is None else (column, COLUMN_MARGIN_MM)

    def _finds_nothing(self, preparation: Preparation, box: Box) -> bool:
        """Return whether the networks take a whole tile for background, without any doubt."""
        tile = ImageRows(preparation).tile(box).to(self.device)
        (probabilities,) = self._forward(tile)
        if self.plan.labels.regions:
            return bool((probabilities < 1 - SURE).all())
        return bool((probabilities[0] > SURE).all())

    @property
    def _forward(self) -> Callable[..., Tensor]:
        """`mean_probabilities` with this predictor's networks and forward options."""
        return partial(
            mean_probabilities,
            networks=self.networks,
            regions=self.plan.labels.regions,
            amp_dtype=inference_half(self.configuration.training.precision, self.device),
        )

    def _pieces(self, job: TileJob, description: str, *, wide: bool = False) -> Iterator[NativePiece]:
        """Run the tiles, and yield their blended scores on the volume's grid as soon as they are final."""
        if not job.run:
            return
        prepared = job.preparation
        native = NativeGrid(prepared.shape, prepared.crop.shape, job.tile_grid.extent)
        with ExitStack() as until_done:
            meter = until_done.enter_context(progress(description, len(job.run)))
            batch_size = self._batch_size()
            slab = self._slab(job.tile_grid, wide=wide)
            rows = ImageRows(prepared)
            tiles: Callable[[Sequence[Box]], Tensor] = rows.tiles
            if self.device.type != "cpu":
                order = tiles_in_order(job.tile_grid, slab, job.run)
                tiles = until_done.enter_context(TilesAhead(rows, order, self.device)).tiles
            ensemble = TileEnsemble(tiles, job.tile_grid, self._forward, meter.advance)
            spent, began = 0.0, time.monotonic()
            for piece in finished_pieces(
                job.tile_grid,
                slab,
                ensemble.scores,
                run=job.run,
                rest_is_background=job.region == "body",
                batch_size=batch_size,
            ):
                _check_finite(piece)
                native_piece = with_fallback_to_ram(native.resample, piece)
                spent += time.monotonic() - began
                yield native_piece
                del piece, native_piece  # else their scores would be held while the next tiles are run
                began = time.monotonic()
            self._pace.append(spent / len(job.run))

    def _batch_size(self) -> int:
        if self.tile_batch_size is not None:
            return self.tile_batch_size
        # A CPU runs one tile at a time, for which nothing has to be measured.
        return self.tile_batch.size if self.device.type == "cuda" else 1

    def _slab(self, tile_grid: TileGrid, *, wide: bool) -> Slab:
        labels = self.plan.labels
        place = slab_device(self.device, slab_bytes(tile_grid, labels.n_channels, wide=wide))
        return Slab(tile_grid, labels.n_channels, regions=labels.regions, device=place, wide=wide)


def _check_finite(piece: Piece) -> None:
    # A sum of finite numbers is finite, and one NaN makes it NaN.
    if not torch.isfinite(piece.scores.sum()):
        raise ModelError("expected finite scores, found NaN or infinity; predict with float32 or train again")
