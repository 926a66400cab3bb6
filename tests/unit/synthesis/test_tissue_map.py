import numpy as np
import pytest

from autospine.synthesis.tissue_map import new_mixture, unpacked
from autospine.synthesis.tissues import CODES, TISSUES

BOX = (slice(0, 1), slice(0, 1), slice(0, 1))


def painted(*layers: tuple[str, float]) -> dict[str, float]:
    """Shares of the tissues of one voxel after painting layers over air."""
    mixture = new_mixture((1, 1, 1))
    for tissue, share in layers:
        mixture.paint(tissue, np.full((1, 1, 1), share, dtype=np.float32), BOX)
    first, second, share = (part.item() for part in unpacked(mixture.codes()))
    names = {code: name for name, code in CODES.items()}
    return {names[first]: 1 - share, names[second]: share} if share else {names[first]: 1.0}


def test_a_tissue_that_covers_a_voxel_is_all_that_is_in_it() -> None:
    assert painted(("fat", 0.4), ("muscle", 1.0)) == {"muscle": 1.0}


def test_two_tissues_keep_their_shares() -> None:
    found = painted(("fat", 1.0), ("muscle", 0.3))
    assert found["fat"] == pytest.approx(0.7, abs=0.003)
    assert found["muscle"] == pytest.approx(0.3, abs=0.003)


def test_the_tissue_with_the_larger_share_comes_first() -> None:
    mixture = new_mixture((1, 1, 1), "fat")
    mixture.paint("muscle", np.full((1, 1, 1), 0.8, dtype=np.float32), BOX)
    first, second, share = unpacked(mixture.codes())
    assert (first.item(), second.item()) == (CODES["muscle"], CODES["fat"])
    assert share.item() == pytest.approx(0.2, abs=0.003)


def test_the_same_tissue_twice_adds_up() -> None:
    found = painted(("fat", 1.0), ("muscle", 0.5), ("muscle", 0.5))
    assert found["muscle"] == pytest.approx(0.75, abs=0.003)


def test_of_three_tissues_two_stay_and_keep_the_mean_in_hu() -> None:
    layers = (("muscle", 1.0), ("cortical", 0.67), ("marrow_L", 0.32))
    expected = TISSUES["muscle"].hu
    for tissue, share in layers[1:]:
        expected += share * (TISSUES[tissue].hu - expected)
    found = painted(*layers)
    assert len(found) == 2
    mean = sum(share * TISSUES[tissue].hu for tissue, share in found.items())
    assert mean == pytest.approx(expected, abs=5)


def test_a_label_map_is_a_tissue_map_of_one_tissue_per_voxel() -> None:
    labels = np.array([[[0, 7, 255]]], dtype=np.int32)
    first, _, share = unpacked(labels)
    assert first.tolist() == [[[0, 7, 255]]]
    assert not share.any()
