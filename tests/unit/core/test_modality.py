from pathlib import Path

import numpy as np
import pytest

from autospine.core.modality import (
    check_values,
    few_values,
    fits_hu,
    guess_modality,
    modality_of_channels,
    offset_in_hu,
    same_everywhere,
)
from autospine.io.images import read_volume

CASES = {
    "ct_cervical": "CT",
    "ct_hip_metal": "CT",
    "ct_lumbar_crop": "CT",
    "ct_lumbosacral": "CT",
    "mr_abdomen": "MR",
    "mr_t2w_crop": "MR",
}


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("CT", "CT"),
        ("ct_bone", "CT"),
        ("MRI", "MR"),
        ("mr_sag", "MR"),
        ("T1", "MR"),
        ("t2w", "MR"),
        ("T1ce", "MR"),
        ("FLAIR", "MR"),
        ("image", None),
        ("contrast", None),
        ("other", None),
    ],
)
def test_channel_names(name: str, modality: str | None):
    assert modality_of_channels([name]) == modality


def test_ringing_does_not_make_mr_a_ct():
    array = np.random.default_rng(0).gamma(2, 3000, (20, 20, 20))
    array[::7, ::3, ::3] = -300
    assert guess_modality(array) == "MR"


def test_constant_images_are_decided_too():
    assert guess_modality(np.zeros((3, 4, 5), np.uint8)) == "MR"


@pytest.mark.real_data
@pytest.mark.parametrize("name", CASES)
def test_real_images(name: str, real_data: Path):
    path = real_data / "Dataset001_SpineReal" / "imagesTr" / f"{name}_0000.nii.gz"
    array = read_volume(path).array[0].astype(np.int32)
    assert guess_modality(array) == CASES[name]
    assert offset_in_hu(array) == 0
    if CASES[name] == "CT":
        shifted = (np.maximum(array, -1024) + 1024).astype(np.uint16)
        assert guess_modality(shifted) == "CT"
        assert offset_in_hu(shifted) == 1024


def test_label_maps_are_known_by_their_few_values():
    rng = np.random.default_rng(0)
    assert few_values(rng.integers(0, 26, (30, 30, 30))) == 26
    assert few_values(np.zeros((30, 30, 30))) == 1
    assert few_values(rng.normal(40, 300, (30, 30, 30)).astype(np.int16)) is None
    assert few_values(rng.integers(0, 1000, (4, 4, 4))) is None  # as many as it can have


def body() -> np.ndarray:
    """A CT in HU: air, fat, muscle and bone with noise."""
    rng = np.random.default_rng(0)
    image = rng.normal(-1000, 10, (1, 30, 40, 40))
    image[:, :, 5:35, 5:35] = rng.normal(-90, 15, (1, 30, 30, 30))
    image[:, :, 10:30, 10:30] = rng.normal(50, 15, (1, 30, 20, 20))
    image[:, :, 18:24, 18:24] = rng.normal(700, 150, (1, 30, 6, 6))
    return image


def with_wrong_voxels(image: np.ndarray) -> np.ndarray:
    image[0, 3, 4, 5:8] = 3000
    return image


AROUND = ((0, 0), (6, 6), (6, 6), (6, 6))

NOT_HU = {
    "0 to 1": (lambda hu: np.clip((hu + 1000) / 2000, 0, 1), "scaled values or attenuation"),
    "-1 to 1": (lambda hu: np.clip(hu / 1000, -1, 1), "scaled values or attenuation"),
    "attenuation in 1/cm": (lambda hu: np.maximum(0.2 * (1 + hu / 1000), 0), "scaled values or attenuation"),
    "attenuation in 1/mm": (lambda hu: np.maximum(0.02 * (1 + hu / 1000), 0), "scaled values or attenuation"),
    "attenuation in 1/m": (lambda hu: np.maximum(20 * (1 + hu / 1000), 0), "standardised values"),
    "standardised": (lambda hu: (hu - hu.mean()) / hu.std(), "standardised values"),
    "8 bits through a window": (
        lambda hu: np.clip((hu + 160) / 400 * 255, 0, 255).astype(np.uint8),
        "a window",
    ),
    "16 bits": (lambda hu: np.clip((hu + 1024) * 16, 0, 65535).astype(np.uint16), "another scale"),
    "tenfold": (lambda hu: hu * 10, "another scale"),
    "0 to 1000": (lambda hu: np.clip((hu + 1000) / 2, 0, 1000), "neither air nor fat"),
    "0 to 4095": (lambda hu: np.clip((hu + 1000) * 2, 0, 4095), "neither air nor fat"),
    "air alone": (lambda hu: hu / 8 - 890, "air alone"),
    "rescaled twice": (lambda hu: np.minimum(hu, 600) - 1024, "applied twice"),
    "0 to 1, three voxels wrong": (
        lambda hu: with_wrong_voxels(np.clip((hu + 1000) / 2000, 0, 1)),
        "scaled",
    ),
    "0 to 1, padded with -1024": (
        lambda hu: np.pad(np.clip((hu + 1000) / 2000, 0, 1), AROUND, constant_values=-1024),
        "scaled values or attenuation",
    ),
    "-1 to 1, padded with -2000": (
        lambda hu: np.pad(np.clip(hu / 1000, -1, 1), AROUND, constant_values=-2000),
        "scaled values or attenuation",
    ),
    "8 bits with sign": (
        lambda hu: np.clip((hu + 160) / 400 * 255 - 128, -128, 127).astype(np.int8),
        "a window",
    ),
    "negated": (lambda hu: -hu, "negated values"),
    "without rescaling": (lambda hu: (hu + 1024).astype(np.uint16), "CT with water at about 1024"),
    "1000 added": (lambda hu: hu + 1000, "CT with water at about 1024"),
    "1024 added, with overshoot": (lambda hu: hu + 1024 - 300 * (hu < -1020), "CT with water at about 1024"),
}


@pytest.mark.parametrize("name", NOT_HU)
def test_a_ct_that_is_not_in_hu_is_noted_with_the_likely_cause(name: str):
    change, cause = NOT_HU[name]
    (note,) = check_values(change(body()).astype(np.float32), "CT")
    assert cause in note
    assert ("water at" in cause) != ("cannot be the HU" in note)


def test_a_ct_of_another_scale_is_not_clipped_to_hu():
    assert not fits_hu((body()[0] * 10).astype(np.int16))


@pytest.mark.parametrize(
    "image",
    [
        body(),
        body().astype(np.int16),
        body()[:, :, 6:34, 6:34],  # no air
        body()[:, :, 18:24, 18:24],  # bone alone
        np.pad(body(), [(0, 0), (0, 0), (60, 60), (60, 60)], constant_values=-1000.0),  # much air
        np.where(body() < -900, -2000, body()).astype(np.int16),  # padding
        np.where(body() > 1000, 20_000, body()).astype(np.float32),  # metal
    ],
)
def test_a_ct_in_hu_gives_no_note(image: np.ndarray):
    assert check_values(image, "CT") == ()
    assert fits_hu(image[0])


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("value", [0, -1024, 3.5])
def test_an_image_of_one_value_is_noted(modality, value):
    image = np.full((2, 20, 20, 20), value, dtype=np.float32)
    image[0] = body()[0, :20, :20, :20]
    (note,) = check_values(image, modality)
    assert note == f"channel 1 has the value {value:g} in every voxel; export it again from its source"
    assert same_everywhere(image) == note
    image[1, 3, 4, 5] += 1
    assert same_everywhere(image) is None
    assert "channel 1 has" in check_values(image, modality)[-1]


@pytest.mark.real_data
def test_real_ct_and_mr_give_no_note(real_data: Path):
    folder = real_data / "Dataset001_SpineReal"
    for name, modality in CASES.items():
        volume = read_volume(folder / "imagesTr" / f"{name}_0000.nii.gz")
        assert check_values(volume.array, modality) == (), name
    for path in sorted((real_data / "Dataset002_LumbarMR" / "imagesTr").glob("*.nii.gz")):
        assert check_values(read_volume(path).array, "MR") == ()
