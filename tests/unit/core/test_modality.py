from pathlib import Path

import numpy as np
import pytest

from autospine.core.modality import few_values, guess_modality, modality_of_channels, offset_in_hu
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
