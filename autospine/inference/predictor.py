"""From a volume to labels on its own grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from autospine.errors import ModelError
from autospine.hardware import bfloat16_pays
from autospine.images import Volume
from autospine.inference.sliding_window import class_probabilities, count_tiles
from autospine.log import progress
from autospine.plan import Configuration, Plan
from autospine.preprocessing import Prepared, prepare_image, winning_channels
from autospine.types import LabelArray, Modality, Shape3


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
            ModelError: if the channels are not those of the plan.
        """
        expected = self.plan.channels
        if volume.array.shape[0] != len(expected):
            raise ModelError(
                f"expected {len(expected)} channels ({', '.join(expected)}), found {volume.array.shape[0]}; "
                "give one file per channel, named CASE_0000, CASE_0001, ..."
            )
        prepared = prepare_image(
            volume, modality, self.configuration.spacing_mm, self.plan.normalisation[modality]
        )
        image = torch.from_numpy(prepared.normalised()).to(self.device)
        tiles = count_tiles(cast(Shape3, tuple(image.shape[1:])), self.configuration.patch_size)
        with progress(description, tiles) as meter:
            scores = self._probabilities(image, meter.advance)
        return self._to_labels(scores, prepared, volume.grid.shape)

    def _probabilities(self, image: torch.Tensor, advance: Callable[[], None]) -> torch.Tensor:
        planned = self.configuration.training.precision == "bfloat16"
        bfloat16 = planned and bfloat16_pays(self.device)
        with (
            torch.no_grad(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16),
        ):
            return class_probabilities(
                image,
                self.networks,
                self.configuration.patch_size,
                regions=self.plan.labels.regions,
                advance=advance,
            )

    def _to_labels(self, scores: torch.Tensor, prepared: Prepared, shape: Shape3) -> LabelArray:
        labels = self.plan.labels
        channels = winning_channels(scores.cpu(), prepared.crop.shape, regions=labels.regions)
        whole = np.zeros(shape, dtype=labels.dtype)
        whole[prepared.crop.slices] = labels.decode(channels)
        return whole
