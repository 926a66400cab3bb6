"""Named shifts: differences that scanners and patients of another hospital make in a phantom."""

from dataclasses import replace
from typing import Literal

from autospine.core.types import Modality, Vector3
from autospine.phantom.anatomy import Posture
from autospine.synthesis.appearance import Appearance

Shift = Literal["sharp_kernel", "low_dose", "thick_slices", "low_field", "metal", "scoliosis"]

SHIFTS: dict[Modality, tuple[Shift, ...]] = {
    "CT": ("sharp_kernel", "low_dose", "thick_slices", "metal", "scoliosis"),
    "MR": ("low_field", "thick_slices", "metal", "scoliosis"),
}
"""The shifts of each modality."""

_NOISE: dict[Shift, float] = {"sharp_kernel": 3.0, "low_dose": 2.0, "low_field": 2.7}
"""Factor of the noise: kernels for bone have about three times that of kernels for soft tissue; noise is
inverse to the root of the dose, here a quarter; and about inverse to the field, here 0.55 for 1.5 tesla."""

_BLUR: dict[Shift, float] = {"sharp_kernel": 0.5}
"""Factor of the point spread."""

_THICK_SPACING_MM: dict[Modality, Vector3] = {"CT": (5.0, 0.9, 0.9), "MR": (0.9, 0.9, 5.0)}
"""Distance between voxels along S, P, L of axial CT and sagittal MR with thick slices."""

_LEAST_CURVE_MM = 35.0
"""Amplitude of the sideways curve to which a shift to scoliosis adds that of the posture."""


def shifted_posture(posture: Posture, shift: Shift | None) -> Posture:
    """Return the posture of a patient at the hospital."""
    if shift != "scoliosis":
        return posture
    return replace(posture, scoliosis_mm=_LEAST_CURVE_MM + posture.scoliosis_mm)


def shifted_spacing(modality: Modality, shift: Shift | None) -> Vector3 | None:
    """Return the distance between voxels along S, P, L in mm; None where the shift leaves it."""
    return _THICK_SPACING_MM[modality] if shift == "thick_slices" else None


def shifted_appearance(appearance: Appearance, shift: Shift | None) -> Appearance:
    """Return an image's noise and point spread as of the hospital's scanner."""
    if shift is None:
        return appearance
    return replace(
        appearance,
        noise=appearance.noise * _NOISE.get(shift, 1.0),
        blur_mm=appearance.blur_mm * _BLUR.get(shift, 1.0),
    )
