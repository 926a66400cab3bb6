"""Named shifts: what another hospital changes, and that it changes nothing else."""

import numpy as np
import pytest
from scipy import ndimage

from autospine.core.errors import DatasetError
from autospine.phantom.anatomy import sample_posture, sample_spine
from autospine.phantom.generate import Phantom, PhantomSettings, generate
from autospine.phantom.shifts import SHIFTS, Shift, shifted_appearance, shifted_posture
from autospine.synthesis.appearance import sample_appearance
from autospine.synthesis.tissues import CODES

SMALL = {"size_mm": (80.0, 60.0, 50.0), "orientation": "LPS", "oblique_deg": 0.0, "metal": False}
EVEN = (2.0, 2.0, 2.0)
CODES_BY_NAME = {code: name for name, code in CODES.items()}


def phantom(*, seed: int = 3, **changes: object) -> Phantom:
    return generate(PhantomSettings(**{**SMALL, "spacing_mm": EVEN, "contrast": "T2w", **changes}), seed)


def roughness(image: np.ndarray) -> float:
    """Standard deviation of what a median filter takes away, within tissue of one kind."""
    fine = image - ndimage.median_filter(image.astype(np.float32), 3)
    return float(1.4826 * np.median(np.abs(fine)))


@pytest.mark.parametrize(
    ("modality", "shift", "least"),
    [("CT", "sharp_kernel", 1.6), ("CT", "low_dose", 1.15), ("MR", "low_field", 1.3)],
)
def test_a_noisier_scanner_shows_the_same_anatomy(modality, shift, least):
    usual, shifted = phantom(modality=modality), phantom(modality=modality, shift=shift)
    np.testing.assert_array_equal(shifted.labels, usual.labels)
    assert roughness(shifted.image) > least * roughness(usual.image)


def test_a_sharp_kernel_blurs_half_as_much():
    usual = sample_appearance(np.random.default_rng(0), "CT", CODES_BY_NAME)
    sharp = shifted_appearance(usual, "sharp_kernel")
    assert (sharp.blur_mm, sharp.noise) == (usual.blur_mm / 2, usual.noise * 3)
    np.testing.assert_array_equal(sharp.mean, usual.mean)
    assert shifted_appearance(usual, None) is usual


@pytest.mark.parametrize(("modality", "axis"), [("CT", 0), ("MR", 2)])
def test_thick_slices_are_axial_in_ct_and_sagittal_in_mr(modality, axis):
    spacing = phantom(modality=modality, shift="thick_slices", spacing_mm=None).grid.spacing_mm
    assert spacing[axis] == pytest.approx(5.0)
    assert max(np.delete(spacing, axis)) < 1


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_metal_shows_and_covers_no_label(modality):
    tall = {"modality": modality, "size_mm": (150.0, 80.0, 70.0), "spacing_mm": (3.0, 3.0, 3.0), "seed": 5}
    usual, shifted = phantom(**tall), phantom(**tall, shift="metal")
    np.testing.assert_array_equal(shifted.labels, usual.labels)
    assert (shifted.image != usual.image).mean() > 0.001
    if modality == "CT":
        assert shifted.image.max() > 2500 > usual.image.max()


def test_scoliosis_bends_the_spine_sideways():
    def sideways(shift: Shift | None) -> float:
        rng = np.random.default_rng(3)
        found = sample_spine(rng, shifted_posture(sample_posture(rng), shift)).vertebrae
        return float(np.ptp([vertebra.frame.origin_mm[0] for vertebra in found]))

    assert sideways("scoliosis") > 50 > sideways("metal") == sideways(None)


def test_a_shift_of_the_other_modality_is_refused():
    with pytest.raises(DatasetError, match=r"shift of CT \(sharp_kernel.*'low_field'"):
        PhantomSettings(modality="CT", shift="low_field")
    assert not {"sharp_kernel", "low_dose"} & set(SHIFTS["MR"])
