"""Patches whose images are made from tissue maps, anew for each patch.

A network that has seen one anatomy in many appearances learns its shape (Billot et al., SynthSeg, Medical
Image Analysis 2023). Images are made as CT, as MR of many sequences, or with any intensity for any tissue.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int32
from scipy import ndimage

from autospine.core.geometry import Box, triple
from autospine.core.types import ImageArray, Modality, Shape3, Vector3
from autospine.data.artefacts import bias_field
from autospine.plan import Normalisation
from autospine.preprocessing.normalise import IntensityTransform, intensity_transform
from autospine.preprocessing.resample import resample
from autospine.preprocessing.store import StoredCase
from autospine.synthesis.appearance import Appearance, Kind, draw_sequence, sample_appearance
from autospine.synthesis.render import draw_texture, render
from autospine.synthesis.scanner import add_ct_noise, add_rician_noise, blur

SHARES: dict[Kind, float] = {"CT": 0.4, "MR": 0.35, "free": 0.25}
"""Share of each kind of image among the patches that are made, where the dataset has CT and MR."""

SAMPLE = 20_000
"""Number of voxels, about, of a whole case by which an MR image of it is normalised."""

THICK_PROBABILITY = 0.5
"""Share of images with thick slices."""

THICK_MM = (2.5, 6.0)
"""Range of the thickness of slices, mm."""

THICK_AXES = (0.35, 0.15, 0.5)
"""Share of axial, coronal and sagittal slices among thick ones."""

BIAS_STD = (0.05, 0.35)
"""Range of the standard deviation of the bias field's logarithm."""

OFF_CENTRE = 0.15
"""Standard deviation by which the mean of a normalised MR image is off, in units of its spread: the field of
view of a scan is not that of the map."""

OFF_SCALE = 0.12
"""Standard deviation of the logarithm by which its spread is off."""


class Synthesis:
    """Source of images for the tissue maps of cases.

    Args:
        normalisation: The plan's rules; images are made as CT, or as MR and free, where there is a rule.
    """

    def __init__(self, normalisation: Mapping[Modality, Normalisation]) -> None:
        self._normalisation = normalisation
        kinds: list[Kind] = ["CT"] if "CT" in normalisation else []
        kinds += ["MR", "free"] if "MR" in normalisation else []
        self._kinds = kinds
        shares = np.array([SHARES[kind] for kind in kinds])
        self._shares = shares / shares.sum()
        self._samples: dict[str, Int32[np.ndarray, "n 1 1"]] = {}

    def __call__(
        self, case: StoredCase, codes: Int32[np.ndarray, "S P L"], rng: np.random.Generator
    ) -> tuple[ImageArray, IntensityTransform, Modality]:
        """Make an image of a patch.

        Args:
            case: Case that the patch is from.
            codes: Tissue map of the patch.
            rng: Random generator of the patch.

        Returns:
            The normalised image with one channel, the transform that normalised it, and its modality.
        """
        kind = self._kinds[int(rng.choice(len(self._kinds), p=self._shares))]
        spacing = case.record.spacing_mm
        value, appearance = draw_scene(codes, case.record.tissues, kind, spacing, rng)
        if kind == "CT":
            value = add_ct_noise(value, appearance.noise, spacing, rng)
        else:
            value *= bias_field(triple(codes.shape), rng.uniform(*BIAS_STD), spacing, rng)
            value = add_rician_noise(value, appearance.noise, rng)
        transform = self._transform(case, appearance, rng)
        return transform.apply(value[None]), transform, appearance.modality

    def _transform(
        self, case: StoredCase, appearance: Appearance, rng: np.random.Generator
    ) -> IntensityTransform:
        """Return the transform that preprocessing would give to an image of the whole case."""
        rule = self._normalisation[appearance.modality]
        sample = self._sample(case)
        grain = rng.standard_normal(sample.shape, dtype=np.float32)
        coded = np.asarray(sample & 255)
        value = appearance.mean[coded] + appearance.spread[coded] * grain
        transform = intensity_transform(add_rician_noise(value, appearance.noise, rng)[None], rule)
        if appearance.modality == "CT":
            return transform
        off, factor = rng.normal(0, OFF_CENTRE), float(np.exp(rng.normal(0, OFF_SCALE)))
        return replace(
            transform,
            mean=(transform.mean[0] + off * transform.std[0],),
            std=(transform.std[0] * factor,),
        )

    def _sample(self, case: StoredCase) -> Int32[np.ndarray, "n 1 1"]:
        """Return the tissues of some voxels of a whole case, which are read once."""
        if case.name not in self._samples:
            step = max(1, round((float(np.prod(case.shape)) / SAMPLE) ** (1 / 3)))
            codes = case.tissues(Box.whole(case.shape))[::step, ::step, ::step]
            self._samples[case.name] = codes.reshape(-1, 1, 1)
        return self._samples[case.name]


def draw_scene(
    codes: Int32[np.ndarray, "S P L"],
    names: Mapping[int, str],
    kind: Kind,
    spacing_mm: Vector3,
    rng: np.random.Generator,
) -> tuple[Float32[np.ndarray, "S P L"], Appearance]:
    """Draw what a scanner sees of a tissue map, before its noise and its coils.

    Args:
        codes: Tissue map.
        names: Name of the tissue or structure of each of its codes.
        kind: Kind of the image.
        spacing_mm: Voxel size along S, P, L.
        rng: Random generator.

    Returns:
        Intensities in the unit of the appearance, blurred and in thick slices, and the appearance.
    """
    contrast = draw_sequence(rng) if kind == "MR" else kind
    appearance = sample_appearance(rng, contrast, names)
    texture = draw_texture(triple(codes.shape), spacing_mm, rng)
    value = blur(render(codes, appearance, texture), spacing_mm, appearance.blur_mm)
    return thick_slices(value, spacing_mm, rng), appearance


def thick_slices(
    value: Float32[np.ndarray, "S P L"], spacing_mm: Vector3, rng: np.random.Generator
) -> Float32[np.ndarray, "S P L"]:
    """Make the slices along one axis thick in a share of images, and interpolate between them."""
    if rng.random() >= THICK_PROBABILITY:
        return value
    axis = int(rng.choice(3, p=THICK_AXES))
    thickness = float(rng.uniform(*THICK_MM)) / spacing_mm[axis]
    size: Shape3 = triple(value.shape)
    kept = max(1, round(size[axis] / thickness))
    if kept >= size[axis]:
        return value
    averaged = ndimage.uniform_filter1d(value, max(1, round(thickness)), axis=axis, mode="nearest")
    fewer = triple(kept if each == axis else n for each, n in enumerate(size))
    # Spline order 0 drops voxels, order 1 interpolates linearly.
    dropped = resample(np.asarray(averaged, np.float32)[None], fewer, (0, 0, 0))
    return np.asarray(resample(dropped, size, (1, 1, 1))[0], dtype=np.float32)
