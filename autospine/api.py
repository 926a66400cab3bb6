"""Trained models from Python.

import autospine

model = autospine.load_model("spine.autospine")
labels = model.predict(image)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autospine.errors import ModelError
from autospine.hardware import choose_device
from autospine.held import Image, as_volume, like
from autospine.inference import JointPredictor, Predictor, Probabilities, read_probabilities
from autospine.inference.bundle import opened_model
from autospine.modality import guess_modality
from autospine.pipeline.ensembles import find_cleanup, joint_predictor
from autospine.postprocessing import Postprocessing
from autospine.types import Modality, Vector3

__all__ = ["Model", "Probabilities", "load_model", "read_probabilities"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model whose networks are in memory, ready to predict."""

    labels: dict[str, int]
    """Name of each class -> its integer in label maps."""

    channels: tuple[str, ...]
    """What the images of a case show, in order."""

    predictor: Predictor | JointPredictor
    cleanup: Postprocessing | None
    """What cross-validation has found to help; None for nothing."""

    def predict(
        self,
        image: Image | Sequence[Image],
        *,
        modality: Modality | None = None,
        spacing_mm: Vector3 | None = None,
        postprocess: bool = True,
    ) -> Any:
        """Segment one case.

        Args:
            image: of NumPy, (S, P, L) or (C, S, P, L) with S growing to the head, P to the back and L to the
                left; of SimpleITK or nibabel, in any orientation; or the name of a file or of a folder of
                DICOM slices. A list has one image per channel.
            modality: `CT` or `MR`; by default by the intensities.
            spacing_mm: of NumPy arrays, along S, P and L.
            postprocess: whether the label map is cleaned.

        Returns:
            Integers as in `labels`, 0 elsewhere, on the image's own grid and in its kind; of SimpleITK for
            files.

        Raises:
            ImageError: if the image cannot be used.
            ModelError: if the channels are not those of the model, or the modality is none.
        """
        if modality not in (None, "CT", "MR"):
            raise ModelError(
                f"expected the modality CT or MR, found {modality!r}; leave it out to have it guessed"
            )
        volume = as_volume(image, spacing_mm)
        labels = self.predictor.predict(volume, modality or guess_modality(volume.array[0]))
        if postprocess and self.cleanup is not None:
            labels = self.cleanup.apply(labels, volume.grid.spacing_mm)
        return like(image, labels, volume)


def load_model(path: str | Path, *, device: str = "auto", folds: Sequence[str] | None = None) -> Model:
    """Load a trained model.

    Args:
        path: a model folder or an `.autospine` file, of which every hash is checked.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        folds: names of the folds whose networks predict together; by default every complete one.

    Raises:
        ModelError: if there is no such model, or a fold is missing.
        FormatError: if a file is damaged.
    """
    where = choose_device(device)
    with opened_model(Path(path)) as opened:
        labels = opened.plan.labels
        return Model(
            labels=dict(zip(labels.names, labels.painted, strict=True)),
            channels=opened.plan.channels,
            predictor=joint_predictor([opened], where, folds),
            cleanup=find_cleanup([opened]),
        )
