"""From a volume to labels, or to class scores, on its own grid."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autospine.errors import ModelError
from autospine.geometry import Box
from autospine.hardware import bfloat16_pays
from autospine.images import Volume
from autospine.inference.ensemble import mean_probabilities
from autospine.inference.native import NativeGrid, NativePiece
from autospine.inference.slab import Slab, slab_bytes
from autospine.inference.sliding_window import finished_pieces
from autospine.inference.tiles import Layout, lay_tiles
from autospine.inference.window import ImageWindow
from autospine.log import progress
from autospine.plan import Configuration, Plan
from autospine.preprocessing import Preparation, begin_preparation
from autospine.types import LabelArray, Modality, ScoreArray

BAND_BYTES = 256 << 20
"""Scores that `score_bands` hands out at a time, but at least one row."""

GPU_SHARE = 0.5
"""Share of a GPU's free memory that the slab may take; else it is kept in RAM."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Networks of one configuration, ready to predict."""

    plan: Plan
    configuration: Configuration
    networks: Sequence[nn.Module]
    """Ensembled by mean probability; moved to `device`."""

    device: torch.device

    def __post_init__(self) -> None:
        for network in self.networks:
            network.to(self.device).eval()

    def predict(self, volume: Volume, modality: Modality, description: str = "predict") -> LabelArray:
        """Segment one volume.

        Args:
            volume: every channel, in canonical axes.
            modality: decides the normalisation.
            description: shown beside the progress.

        Returns:
            The dataset's integers on the volume's canonical grid, (S, P, L).

        Raises:
            ModelError: if the channels are not those of the plan, or scores are not finite.
        """
        labels = self.plan.labels
        preparation = self._preparation(volume, modality)
        whole = np.zeros(volume.grid.shape, dtype=labels.dtype)
        cropped = whole[preparation.crop.slices]
        for piece in self._pieces(preparation, description, wide=False):
            channels = piece.inside() if labels.regions else piece.winners()
            cropped[piece.rows, piece.columns] = labels.decode(channels.cpu().numpy())
        return whole

    def score_bands(
        self, volume: Volume, modality: Modality, description: str = "predict"
    ) -> Iterator[tuple[slice, ScoreArray]]:
        """The mean probabilities of one volume, a band of rows at a time.

        The arguments and errors are those of `predict`. What was cropped away is background.

        Yields:
            Rows along S of the volume's canonical grid, and their scores (K, rows, P, L) in [0, 1]. The bands
            cover the volume in order; each is a new array of at most `BAND_BYTES` or one row.
        """
        preparation = self._preparation(volume, modality)
        crop = preparation.crop
        above, below = slice(0, crop.start[0]), slice(crop.stop[0], volume.grid.shape[0])
        yield from self._background(above, volume)
        for piece in self._pieces(preparation, description, wide=True):
            for rows in piece.bands(self._band_rows(volume)):
                band = self._background_band(rows.stop - rows.start, volume)
                for channel in range(piece.channels):
                    band[channel][:, *crop.slices[1:]] = piece.scores(channel, rows).cpu().numpy()
                yield slice(rows.start + crop.start[0], rows.stop + crop.start[0]), band
        yield from self._background(below, volume)

    def _preparation(self, volume: Volume, modality: Modality) -> Preparation:
        expected = self.plan.channels
        if volume.array.shape[0] != len(expected):
            raise ModelError(
                f"expected {len(expected)} channels ({', '.join(expected)}), found {volume.array.shape[0]}; "
                "give one file per channel, named CASE_0000, CASE_0001, ..."
            )
        return begin_preparation(
            volume, modality, self.configuration.spacing_mm, self.plan.normalisation[modality]
        )

    def _pieces(self, preparation: Preparation, description: str, *, wide: bool) -> Iterator[NativePiece]:
        layout = lay_tiles(preparation.shape, self.configuration.patch_size)
        native = NativeGrid(preparation.shape, preparation.crop.shape)
        with progress(description, layout.count) as meter:
            tile_scores = self._tile_scores(ImageWindow(preparation), meter.advance)
            for piece in finished_pieces(layout, self._slab(layout, wide), tile_scores):
                yield native.refine(piece)

    def _tile_scores(self, image: ImageWindow, advance: Callable[[], None]) -> Callable[[Box], Tensor]:
        planned = self.configuration.training.precision == "bfloat16"
        bfloat16 = planned and bfloat16_pays(self.device)

        def tile_scores(box: Box) -> Tensor:
            tile = image.tile(box).to(self.device)
            scores = mean_probabilities(
                tile, self.networks, regions=self.plan.labels.regions, bfloat16=bfloat16
            )
            advance()
            return scores

        return tile_scores

    def _slab(self, layout: Layout, wide: bool) -> Slab:
        labels = self.plan.labels
        needed = slab_bytes(layout, labels.n_channels, wide=wide)
        on_gpu = self.device.type == "cuda" and needed < GPU_SHARE * torch.cuda.mem_get_info(self.device)[0]
        return Slab(
            layout,
            labels.n_channels,
            regions=labels.regions,
            device=self.device if on_gpu else torch.device("cpu"),
            wide=wide,
        )

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
