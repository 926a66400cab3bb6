"""What a scanner makes of intensities: point spread, noise, uneven coils, an arbitrary scale."""

import numpy as np
from jaxtyping import Float32, Int16
from scipy import ndimage

from autospine.core.types import Shape3, Vector3
from autospine.synthesis.appearance import Appearance

Value = Float32[np.ndarray, "S P L"]
"""Intensities: HU in CT, relative to CSF on T2w images in MR."""


def blur(value: Value, spacing_mm: Vector3, sigma_mm: float) -> Value:
    """Blur by the scanner's point spread, a Gaussian."""
    sigma = [sigma_mm / step for step in spacing_mm]
    return np.asarray(ndimage.gaussian_filter(value, sigma, truncate=3.0, mode="nearest"), dtype=np.float32)


def add_ct_noise(value: Value, level: float, spacing_mm: Vector3, rng: np.random.Generator) -> Value:
    """Add noise in HU, correlated as a reconstruction kernel leaves it."""
    noise = rng.standard_normal(value.shape, dtype=np.float32)
    soft = ndimage.gaussian_filter(noise, [0.55 / step for step in spacing_mm], truncate=2.5)
    scale = level / max(float(soft.std()), 1e-6)
    # Less dose reaches the middle of the body than the air around it.
    inside = np.where(value > -400, np.float32(1.0), np.float32(0.55))
    return np.asarray(value + soft * np.float32(scale) * inside, dtype=np.float32)


def add_rician_noise(value: Value, level: float, rng: np.random.Generator) -> Value:
    """Add the noise of a magnitude image, whose real and imaginary parts have Gaussian noise."""
    real = value + rng.standard_normal(value.shape, dtype=np.float32) * np.float32(level)
    imaginary = rng.standard_normal(value.shape, dtype=np.float32) * np.float32(level)
    return np.asarray(np.sqrt(real * real + imaginary * imaginary), dtype=np.float32)


def finish_ct(
    value: Value, appearance: Appearance, spacing_mm: Vector3, rng: np.random.Generator
) -> Int16[np.ndarray, "S P L"]:
    """Add noise and clip to the scanner's range of HU."""
    noisy = add_ct_noise(value, appearance.noise, spacing_mm, rng)
    return np.asarray(np.rint(np.clip(noisy, -1024, 3071)), dtype=np.int16)


def finish_mr(value: Value, appearance: Appearance, rng: np.random.Generator) -> Int16[np.ndarray, "S P L"]:
    """Apply the coils' bias field, Rician noise and an arbitrary scale."""
    noisy = add_rician_noise(value * coil_field(value.shape, rng), appearance.noise, rng)
    scale = np.float32(np.exp(rng.uniform(np.log(160), np.log(1400))))
    return np.asarray(np.rint(noisy * scale), dtype=np.int16)


def coil_field(shape: Shape3, rng: np.random.Generator) -> Value:
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
