"""Appearances: the intensities that one image gives to the tissues of a map, drawn at random.

Three kinds: CT, as scanners show patients; MR of many sequences; and free, where any tissue may have any
intensity, so that a network learns shapes rather than contrasts (Billot et al., SynthSeg, Medical Image
Analysis 2023).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from autospine.core.types import Modality
from autospine.synthesis.tissues import MARROW, TISSUES, Tissue, tissue_of

Contrast = Literal["CT", "T1w", "T2w", "PDw", "STIR", "water", "opposed", "GRE"]
"""Kinds of pictures: CT, and MR by weighting. `water` and `opposed` are Dixon images."""

Kind = Literal["CT", "MR", "free"]
"""Any of the kinds of appearances."""

N_CODES = 256
"""Number of entries in a table by code."""

# Weighting of each MR sequence: from T1w (0) to T2w (1), and how much of the fat's signal is taken away;
# where it is taken away twice, fat and water have opposite phases.
_SEQUENCES: dict[Contrast, tuple[tuple[float, float], tuple[float, float]]] = {
    "T1w": ((0.0, 0.15), (0.0, 0.0)),
    "T2w": ((0.85, 1.1), (0.0, 0.1)),
    "PDw": ((0.35, 0.65), (0.0, 0.2)),
    "STIR": ((0.7, 1.0), (0.9, 1.0)),
    "water": ((0.0, 1.0), (0.9, 1.0)),
    "opposed": ((0.0, 0.5), (1.5, 2.0)),
    "GRE": ((0.1, 0.8), (0.0, 0.3)),
}

# Share of each sequence among MR images.
_SHARES: dict[Contrast, float] = {
    "T2w": 0.42,
    "T1w": 0.22,
    "STIR": 0.1,
    "water": 0.1,
    "PDw": 0.06,
    "GRE": 0.06,
    "opposed": 0.04,
}

_LEAST_SIGNAL = 0.02
"""MR signals are at least this before weightings are mixed, since the mixture is geometric."""

_UNKNOWN = Tissue(hu=40, hu_spread=14, t1=0.32, t1_spread=0.03, t2=0.2, t2_spread=0.03)
"""Soft tissue: what a structure is drawn as whose name says nothing."""

_CONTRAST_FREE = frozenset({"air", "gas", "metal", "table_shell", "table_foam"})
"""Tissues that are no brighter or darker in one patient than in another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Appearance:
    """Intensities of the tissues in one image: HU in CT, else relative to CSF on T2w images."""

    modality: Modality
    """How the image is to be finished and normalised; free appearances are MR."""
    contrast: Contrast | Literal["free"]
    """Kind of picture."""
    mean: Float32[np.ndarray, "256"]
    """Mean by code of the tissue."""
    spread: Float32[np.ndarray, "256"]
    """Standard deviation of the texture by code."""
    patches: Float32[np.ndarray, "256"]
    """Difference by code between the lighter and darker patches of a tissue, such as lobes and lesions."""
    noise: float
    """Standard deviation of the noise, same unit."""
    blur_mm: float
    """Standard deviation of the point spread, mm."""


def draw_sequence(rng: np.random.Generator) -> Contrast:
    """Draw the sequence of an MR image, the usual ones more often."""
    names = tuple(_SHARES)
    return names[int(rng.choice(len(names), p=np.array(list(_SHARES.values()))))]


def sample_appearance(
    rng: np.random.Generator, contrast: Contrast | Literal["free"], names: Mapping[int, str]
) -> Appearance:
    """Draw the intensities of one image.

    Args:
        rng: Random generator.
        contrast: Kind of picture.
        names: Name of the tissue or structure of each code of the map.

    Returns:
        The intensities, zero for codes without a name.
    """
    if contrast == "CT":
        return _ct(rng, names)
    if contrast == "free":
        return _free(rng, names)
    return _mr(rng, contrast, names)


def _ct(rng: np.random.Generator, names: Mapping[int, str]) -> Appearance:
    """Draw a CT: age, contrast agent, dose, reconstruction kernel."""
    # Cancellous bone loses density from the neck down; lumbar values run from osteoporosis to young adults.
    lumbar = float(np.clip(rng.normal(108, 40), 20, 240))
    given = {
        MARROW["C"]: 2.4 * lumbar + 40,
        MARROW["T"]: 1.35 * lumbar + 15,
        MARROW["L"]: lumbar,
        MARROW["S"]: 0.72 * lumbar,
        "cortical": float(rng.uniform(700, 1200)),
    }
    if rng.random() < 0.4:  # intravenous contrast agent
        gain = float(rng.uniform(60, 260))
        given |= {"blood": 42 + gain, "kidney": 34 + 0.7 * gain, "liver": 56 + 0.25 * gain}
    if rng.random() < 0.07:  # contrast agent in the canal
        given["csf"] = float(rng.uniform(150, 500))
    if rng.random() < 0.15:  # contrast agent in the bowel
        given["bowel"] = float(rng.uniform(100, 500))
    tables = np.zeros((3, N_CODES), dtype=np.float32)
    for code, name in names.items():
        kind = tissue_of(name)
        tissue = TISSUES[kind] if kind else _UNKNOWN
        fixed = kind in _CONTRAST_FREE
        # Structures of the same tissue differ somewhat, such as the muscles of the back and of the neck.
        mean = given.get(kind or "", tissue.hu) + (0.0 if fixed else float(rng.normal(0, 6)))
        spread = tissue.hu_spread if kind not in MARROW.values() else 18 + 0.16 * mean
        patches = 0.0 if fixed or rng.random() < 0.6 else float(rng.normal(0, 10))
        tables[:, code] = mean, spread * float(rng.uniform(0.7, 1.4)), patches
    mean_hu, spread_hu, patches_hu = tables
    return Appearance(
        modality="CT",
        contrast="CT",
        mean=mean_hu,
        spread=spread_hu,
        patches=patches_hu,
        noise=float(np.exp(rng.uniform(np.log(6), np.log(40)))),
        blur_mm=float(rng.uniform(0.4, 1.0)),
    )


def _mr(rng: np.random.Generator, contrast: Contrast, names: Mapping[int, str]) -> Appearance:
    """Draw an MR image of a sequence."""
    weights, suppressed = _SEQUENCES[contrast]
    weight, less_fat = float(rng.uniform(*weights)), float(rng.uniform(*suppressed))
    marrow, vessels = float(rng.uniform(0.7, 1.3)), float(rng.uniform(0.5, 1.1))
    bright = contrast == "GRE" and rng.random() < 0.6
    tables = np.zeros((3, N_CODES), dtype=np.float32)
    for code, name in names.items():
        kind = tissue_of(name)
        tissue = TISSUES[kind] if kind else _UNKNOWN
        t1, t2 = max(tissue.t1, _LEAST_SIGNAL), max(tissue.t2, _LEAST_SIGNAL)
        mean = float(t1 ** (1 - weight) * t2**weight * abs(1 - less_fat * tissue.fat))
        spread = (1 - weight) * tissue.t1_spread + weight * tissue.t2_spread
        if kind in _CONTRAST_FREE:
            mean = min(mean, _LEAST_SIGNAL) if tissue.t2 else 0.0
        elif kind == "blood" and bright:
            mean = vessels
        elif kind in MARROW.values():
            mean *= marrow
        factor = float(np.exp(rng.normal(0, 0.12)))
        patches = 0.0 if rng.random() < 0.6 else mean * float(rng.normal(0, 0.12))
        tables[:, code] = mean * factor, spread * factor, patches
    mean_s, spread_s, patches_s = tables
    return Appearance(
        modality="MR",
        contrast=contrast,
        mean=mean_s,
        spread=spread_s,
        patches=patches_s,
        noise=float(rng.uniform(0.008, 0.05)),
        blur_mm=float(rng.uniform(0.25, 0.6)),
    )


def _free(rng: np.random.Generator, names: Mapping[int, str]) -> Appearance:
    """Draw an image in which any tissue may have any intensity from 0 to 1; air is dark in most."""
    tables = np.zeros((3, N_CODES), dtype=np.float32)
    codes = np.array(sorted(names))
    tables[0, codes] = rng.uniform(0, 1, len(codes))
    tables[1, codes] = rng.uniform(0.005, 0.12, len(codes))
    tables[2, codes] = rng.normal(0, 0.1, len(codes)) * (rng.random(len(codes)) < 0.4)
    # Bones are bones: what marrow looks like in one region it looks like in the others, more or less.
    marrow = [code for code in codes if tissue_of(names[int(code)]) in MARROW.values()]
    if marrow:
        tables[0, marrow] = rng.uniform(0, 1) + rng.normal(0, 0.04, len(marrow))
        tables[1, marrow] = rng.uniform(0.005, 0.12)
    dark = [code for code in codes if tissue_of(names[int(code)]) in ("air", "gas", "table_foam", "lung")]
    if dark and rng.random() < 0.85:
        tables[0, dark] = rng.uniform(0, 0.06, len(dark))
        tables[1:, dark] *= 0.1
    mean, spread, patches = tables
    return Appearance(
        modality="MR",
        contrast="free",
        mean=mean,
        spread=spread,
        patches=patches,
        noise=float(rng.uniform(0.0, 0.06)),
        blur_mm=float(rng.uniform(0.2, 1.2)),
    )
