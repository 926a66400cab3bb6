from typing import get_args

import numpy as np
import pytest

from autospine.synthesis.appearance import Contrast, draw_sequence, sample_appearance
from autospine.synthesis.tissues import CODES

NAMES = {code: name for name, code in CODES.items()}


def means(contrast: Contrast, tissue: str, seeds: int = 20) -> float:
    """Median over images of the mean of a tissue."""
    drawn = [sample_appearance(np.random.default_rng(seed), contrast, NAMES) for seed in range(seeds)]
    return float(np.median([each.mean[CODES[tissue]] for each in drawn]))


def test_ct_is_in_hu() -> None:
    assert means("CT", "air") == -1000
    assert means("CT", "fat") == pytest.approx(-100, abs=8)
    assert means("CT", "cortical") > 600 > means("CT", "marrow_C") > means("CT", "marrow_L")


@pytest.mark.parametrize(
    ("contrast", "brighter", "darker"),
    [
        ("T2w", "csf", "marrow_L"),
        ("T2w", "marrow_L", "cortical"),
        ("T1w", "fat", "muscle"),
        ("T1w", "marrow_L", "csf"),
        ("STIR", "csf", "fat"),
        ("water", "muscle", "fat"),
        ("PDw", "marrow_L", "cortical"),
        ("opposed", "muscle", "marrow_S"),
        ("GRE", "marrow_L", "air"),
    ],
)
def test_sequences_show_what_they_are_made_to_show(contrast: Contrast, brighter: str, darker: str) -> None:
    assert means(contrast, brighter) > means(contrast, darker)


def test_every_sequence_is_drawn() -> None:
    rng = np.random.default_rng(0)
    assert {draw_sequence(rng) for _ in range(400)} == set(get_args(Contrast)) - {"CT"}


def test_free_images_give_any_intensity_to_any_tissue() -> None:
    drawn = [sample_appearance(np.random.default_rng(seed), "free", NAMES) for seed in range(60)]
    fat, csf = (np.array([each.mean[CODES[name]] for each in drawn]) for name in ("fat", "csf"))
    assert fat.min() < 0.1 and fat.max() > 0.9
    assert 0.3 < (fat > csf).mean() < 0.7


@pytest.mark.parametrize("contrast", ["CT", "T2w", "free"])
def test_a_seed_decides_an_image_and_codes_without_a_name_stay_zero(contrast: Contrast) -> None:
    names = {1: "vertebrae_L3", 2: "gadget", 0: "background"}
    one, other = (sample_appearance(np.random.default_rng(5), contrast, names) for _ in range(2))
    assert np.array_equal(one.mean, other.mean)
    assert not one.mean[3:].any()
    assert one.mean[2] != 0
