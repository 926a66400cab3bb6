"""Intensities of tissues in CT and MR, and the effects of the scanner: point spread, noise, bias field.

CT in HU, from medians measured on public scans. MR in units of the cerebrospinal fluid of a T2w image.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int16
from scipy import ndimage

from autospine.core.types import Shape3, Vector3
from autospine.phantom.shapes import Field, Number

Contrast = Literal["CT", "T1w", "T2w"]

# Mean and standard deviation of the texture of each tissue.
_CT: dict[str, tuple[Number, Number]] = {
    "air": (-1000, 0),
    "gas": (-900, 30),
    "lung": (-800, 60),
    "skin": (20, 15),
    "fat": (-100, 11),
    "muscle": (52, 14),
    "bowel": (28, 18),
    "fluid": (10, 5),
    "liver": (56, 8),
    "kidney": (34, 8),
    "blood": (42, 5),
    "wall": (40, 8),
    "brain": (36, 5),
    "ligament": (80, 12),
    "epidural": (-70, 12),
    "csf": (6, 4),
    "cord": (36, 4),
    "annulus": (92, 10),
    "nucleus": (72, 8),
    "cortical": (1050, 120),
    "calcium": (700, 150),
    "metal": (5000, 0),
}
_T2: dict[str, tuple[Number, Number]] = {
    "air": (0.0, 0),
    "gas": (0.02, 0),
    "lung": (0.05, 0.02),
    "skin": (0.25, 0.03),
    "fat": (0.66, 0.06),
    "muscle": (0.13, 0.025),
    "bowel": (0.34, 0.09),
    "fluid": (0.9, 0.03),
    "liver": (0.20, 0.02),
    "kidney": (0.42, 0.05),
    "blood": (0.04, 0.02),
    "wall": (0.2, 0.03),
    "brain": (0.4, 0.04),
    "ligament": (0.07, 0.02),
    "epidural": (0.58, 0.05),
    "csf": (1.0, 0.04),
    "cord": (0.37, 0.02),
    "annulus": (0.13, 0.02),
    "nucleus": (0.56, 0.05),
    "cortical": (0.05, 0.01),
    "calcium": (0.03, 0.0),
    "metal": (0.0, 0.0),
}
_T1: dict[str, tuple[Number, Number]] = {
    "air": (0.0, 0),
    "gas": (0.02, 0),
    "lung": (0.05, 0.02),
    "skin": (0.35, 0.03),
    "fat": (0.95, 0.06),
    "muscle": (0.32, 0.025),
    "bowel": (0.33, 0.06),
    "fluid": (0.16, 0.02),
    "liver": (0.45, 0.02),
    "kidney": (0.36, 0.04),
    "blood": (0.08, 0.03),
    "wall": (0.3, 0.03),
    "brain": (0.42, 0.03),
    "ligament": (0.10, 0.02),
    "epidural": (0.85, 0.05),
    "csf": (0.15, 0.02),
    "cord": (0.38, 0.02),
    "annulus": (0.24, 0.02),
    "nucleus": (0.31, 0.03),
    "cortical": (0.06, 0.01),
    "calcium": (0.05, 0.0),
    "metal": (0.0, 0.0),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TissueIntensities:
    """Intensities of the tissues in one image."""

    contrast: Contrast
    """Kind of picture."""
    tissues: dict[str, tuple[Number, Number]]
    """Mean and spread of the texture by tissue: HU in CT, relative to T2w CSF in MR."""
    trabecular: dict[str, tuple[Number, Number]]
    """Mean and spread of cancellous bone by region (C, T, L, S)."""
    noise: float
    """Standard deviation of the noise, same unit."""
    blur_mm: float
    """Standard deviation of the point spread in mm."""
    infiltration: float
    """Degree of fatty infiltration of the muscles, 0 to 1."""


def sample_intensities(rng: np.random.Generator, contrast: Contrast) -> TissueIntensities:
    """Draw the intensities of one image: age (marrow, fat in muscle), contrast agent, dose."""
    base = dict({"CT": _CT, "T2w": _T2, "T1w": _T1}[contrast])
    infiltration = float(rng.beta(1.5, 2.5))
    if contrast == "CT":
        return _ct_intensities(rng, base, infiltration)
    spread = np.exp(rng.normal(0, 0.10, len(base)))
    tissues = {
        name: (mean * float(f), sd) for (name, (mean, sd)), f in zip(base.items(), spread, strict=True)
    }
    marrow = float(rng.uniform(0.26, 0.46) if contrast == "T2w" else rng.uniform(0.42, 0.72))
    texture = 0.10 * marrow
    return TissueIntensities(
        contrast=contrast,
        tissues=tissues,
        trabecular={region: (marrow * float(rng.normal(1, 0.04)), texture) for region in "CTLS"},
        noise=float(rng.uniform(0.012, 0.05)),
        blur_mm=float(rng.uniform(0.25, 0.5)),
        infiltration=infiltration,
    )


def _ct_intensities(
    rng: np.random.Generator, base: dict[str, tuple[Number, Number]], infiltration: float
) -> TissueIntensities:
    """Draw a CT's intensities."""
    tissues = {
        name: (mean + float(rng.normal(0, 5 if mean > -500 else 0)), sd) for name, (mean, sd) in base.items()
    }
    if rng.random() < 0.35:  # intravenous contrast agent
        gain = float(rng.uniform(60, 230))
        tissues["blood"] = (42 + gain, 8)
        tissues["kidney"] = (34 + 0.7 * gain, 15)
        tissues["liver"] = (56 + 0.25 * gain, 8)
    if rng.random() < 0.05:  # contrast agent in the canal
        tissues["csf"] = (float(rng.uniform(250, 500)), 20)
    # Cancellous bone loses density from the neck down; lumbar values run from osteoporosis to young adults.
    lumbar = float(np.clip(rng.normal(108, 40), 30, 230))
    means = {"C": 2.4 * lumbar + 40, "T": 1.35 * lumbar + 15, "L": lumbar, "S": 0.72 * lumbar}
    cortical = float(rng.uniform(760, 1180))
    tissues["cortical"] = (cortical, 90)
    return TissueIntensities(
        contrast="CT",
        tissues=tissues,
        trabecular={region: (mean, 18 + 0.16 * mean) for region, mean in means.items()},
        noise=float(np.exp(rng.uniform(np.log(7), np.log(34)))),
        blur_mm=float(rng.uniform(0.45, 0.85)),
        infiltration=infiltration,
    )


def blur(value: Field, spacing_mm: Vector3, sigma_mm: float) -> Field:
    """Blur by the scanner's point spread, a Gaussian."""
    sigma = [sigma_mm / step for step in spacing_mm]
    return np.asarray(ndimage.gaussian_filter(value, sigma, truncate=3.0, mode="nearest"), dtype=np.float32)


def finish_ct(
    value: Field, intensities: TissueIntensities, spacing_mm: Vector3, rng: np.random.Generator
) -> Int16[np.ndarray, "S P L"]:
    """Add noise (correlated as a reconstruction kernel leaves it) and clip to the scanner's range of HU."""
    noise = rng.standard_normal(value.shape, dtype=np.float32)
    soft = ndimage.gaussian_filter(noise, [0.55 / step for step in spacing_mm], truncate=2.5)
    level = intensities.noise / max(float(soft.std()), 1e-6)
    # Less dose reaches the middle of the body than the air around it.
    inside = np.where(value > -400, np.float32(1.0), np.float32(0.55))
    result = np.clip(value + soft * level * inside, -1024, 3071)
    return np.asarray(np.rint(result), dtype=np.int16)


def finish_mr(
    value: Field, intensities: TissueIntensities, rng: np.random.Generator
) -> Int16[np.ndarray, "S P L"]:
    """Apply the coils' bias field, Rician noise and an arbitrary scale."""
    value = value * _bias(value.shape, rng)
    real = value + rng.standard_normal(value.shape, dtype=np.float32) * np.float32(intensities.noise)
    imaginary = rng.standard_normal(value.shape, dtype=np.float32) * np.float32(intensities.noise)
    scale = np.float32(np.exp(rng.uniform(np.log(160), np.log(1400))))
    return np.asarray(np.rint(np.sqrt(real * real + imaginary * imaginary) * scale), dtype=np.int16)


def _bias(shape: Shape3, rng: np.random.Generator) -> Field:
    """Return a smooth gain: the exponential of a quadratic, brighter towards the coil in the back."""
    s, p, q = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    c = rng.normal(0, 0.12, 6).astype(np.float32)
    coil = np.float32(rng.uniform(0.0, 0.45))
    field = (
        (c[0] * s - np.float32(0.25) * s * s * np.abs(c[1]))[:, None, None]
        + ((c[2] + coil) * p + c[3] * p * p)[None, :, None]
        + (c[4] * q + c[5] * q * q)[None, None, :]
    )
    return np.asarray(np.exp(field), dtype=np.float32)
