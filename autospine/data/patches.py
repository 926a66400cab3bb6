"""Batches of augmented patches as a pure function of the step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from autospine.core.tensor_types import ImageBatch, LabelBatch
from autospine.core.types import ImageArray, LabelArray, Modality
from autospine.data.artefacts import add_artefacts, windowed
from autospine.data.augmentation import Intensities, Mirror
from autospine.data.sampling import Sampler, patch_rng
from autospine.data.spatial import cut, cut_maps, draw_deformation, warp
from autospine.data.synthetic import Synthesis
from autospine.plan import Configuration, Normalisation
from autospine.preprocessing.store import StoredCase


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Patches of one optimiser step."""

    images: ImageBatch
    """Normalised images (B, C, S, P, L), float32."""

    labels: LabelBatch
    """Stored indices (B, S, P, L), uint8."""

    cases: tuple[str, ...]
    """Name of the case of each patch."""


class PatchSource:
    """Source of the batch of any step; it can be sent to other processes.

    Args:
        cases: Stored cases to cut patches from.
        configuration: Configuration with patch size, spacing, batch size, oversampling and augmentation.
        seed: Seed of everything random.
        cache_bytes: Memory for decompressed cases.
        augment: Whether patches are augmented.
        part: Number of this process among those that train together, each with batches of its own.
        normalisation: The plan's rules, by which images that are made from tissue maps are normalised; None
            if none are made.
    """

    def __init__(
        self,
        cases: Sequence[StoredCase],
        configuration: Configuration,
        *,
        seed: int,
        cache_bytes: int,
        augment: bool = True,
        part: int = 0,
        normalisation: Mapping[Modality, Normalisation] | None = None,
    ) -> None:
        # Own objects, so that the arrays that they cache are freed with this source.
        self._cases = tuple(StoredCase(folder=case.folder, record=case.record) for case in cases)
        self._configuration = configuration
        self._seed = seed
        size = configuration.training.batch_size
        self._indices = range(part * size, (part + 1) * size)
        self._sampler = Sampler(
            self._cases,
            configuration.patch_size,
            configuration.training.oversample_foreground_fraction,
        )
        self._mirror = Mirror(configuration.augmentation) if augment else None
        self._intensities = Intensities(configuration.augmentation.intensity_probability)
        self._synthesis = Synthesis(normalisation) if normalisation else None
        self._uncached = _fitting(self._cases, cache_bytes)

    def batch(self, step: int) -> Batch:
        """Make the batch of an optimiser step, which is a pure function of the step."""
        patches = [self.patch(step, index) for index in self._indices]
        return Batch(
            images=torch.stack([torch.from_numpy(np.ascontiguousarray(image)) for image, _, _ in patches]),
            labels=torch.stack([torch.from_numpy(np.ascontiguousarray(labels)) for _, labels, _ in patches]),
            cases=tuple(name for _, _, name in patches),
        )

    def patch(self, step: int, index: int) -> tuple[ImageArray, LabelArray, str]:
        """Make one patch of a batch.

        Args:
            step: Optimiser step, from 0.
            index: Position in the batch of all processes that train together.

        Returns:
            Image (C, S, P, L), labels (S, P, L) and the name of the case.
        """
        rng = patch_rng(self._seed, step, index)
        site = self._sampler.draw(rng)
        case = self._cases[site.case]
        try:
            if site.case in self._uncached:
                case.load()
                self._uncached.discard(site.case)
            image, labels = self._augmented(case, site.start, rng)
        except Exception as error:
            error.add_note(f"while a patch was cut from case {case.name}")
            raise
        return image, labels, case.name

    def _augmented(
        self, case: StoredCase, start: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[ImageArray, LabelArray]:
        size, spacing = self._configuration.patch_size, self._configuration.spacing_mm
        strength = self._configuration.augmentation
        if self._mirror is None:
            return cut(case, start, size)
        if self._is_made(case, rng):
            return self._made(case, start, rng)
        transform = windowed(case.record.transform, case.record.modality, strength, rng)
        if rng.random() < strength.spatial_probability:
            deformation = draw_deformation(rng, strength, size, spacing)
            image, labels = warp(case, start, size, deformation, spacing, transform)
        else:
            image, labels = cut(case, start, size, transform)
        image = add_artefacts(image, labels, case.record.modality, transform, spacing, strength, rng)
        return self._mirror(self._intensities(image, rng), labels, rng)

    def _is_made(self, case: StoredCase, rng: np.random.Generator) -> bool:
        """Decide whether a patch's image, of one channel then, is made from the case's tissue map."""
        share = self._configuration.augmentation.synthesis_probability
        if not share or self._synthesis is None or not case.record.tissues or case.record.channels != 1:
            return False
        return bool(rng.random() < share)

    def _made(
        self, case: StoredCase, start: tuple[int, int, int], rng: np.random.Generator
    ) -> tuple[ImageArray, LabelArray]:
        """Make a patch from the case's tissue map."""
        assert self._mirror is not None and self._synthesis is not None
        size, spacing = self._configuration.patch_size, self._configuration.spacing_mm
        strength = self._configuration.augmentation
        deformed = rng.random() < strength.spatial_probability
        deformation = draw_deformation(rng, strength, size, spacing) if deformed else None
        labels, codes = cut_maps(case, start, size, deformation, spacing)
        image, transform, modality = self._synthesis(case, codes, rng)
        if modality == "CT":
            image = add_artefacts(image, labels, modality, transform, spacing, strength, rng)
        return self._mirror(self._intensities(image, rng), labels, rng)


def _fitting(cases: Sequence[StoredCase], limit: int) -> set[int]:
    """Choose the cases to cache once they are read: as many as fit, smallest first.

    Args:
        cases: Stored cases.
        limit: Memory in bytes.

    Returns:
        Indices into `cases`.
    """
    chosen: set[int] = set()
    for number in sorted(range(len(cases)), key=lambda n: cases[n].nbytes):
        limit -= cases[number].nbytes
        if limit < 0:
            break
        chosen.add(number)
    return chosen
