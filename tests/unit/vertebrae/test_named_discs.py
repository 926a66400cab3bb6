"""Discs and endplates by level follow the names of the vertebrae."""

from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.core.geometry import Grid
from autospine.core.types import LabelArray
from autospine.io.images import read_labels
from autospine.vertebrae.identities import VertebraIdentity
from autospine.vertebrae.label_naming import NamedMap, name_labels
from autospine.vertebrae.named_discs import rename_discs
from autospine.vertebrae.schemes import find_scheme

SPINEPS = find_scheme("spineps-instance").integers
TRUE = {"T11": 2, "T12": 3, "L1": 4, "L2": 5, "L3": 6, "L4": 7, "L5": 8}
"""Number of each vertebra in the map of instances, which counts from the first in view."""


@pytest.fixture(scope="module")
def lumbar(real_data: Path) -> tuple[LabelArray, Grid]:
    """A lumbar MR with vertebrae, discs and endplates by level."""
    volume = read_labels(real_data / "real" / "metrics_pair_mr" / "matched_instance_ref.nii.gz")
    table = np.arange(256)
    for level, number in TRUE.items():
        table[number] = SPINEPS[level]
        table[100 + number] = SPINEPS[f"disc_below_{level}"]
        table[200 + number] = SPINEPS[f"endplate_{level}"]
    return table[volume.array[0]].astype(np.int16), volume.grid


def named(labels: LabelArray, grid: Grid) -> NamedMap:
    return name_labels("case", labels, grid, SPINEPS, whole=True)


def agreement(found: LabelArray, labels: LabelArray) -> float:
    return float(np.mean(found[labels > 0] == labels[labels > 0]))


def test_right_names_of_discs_stay(lumbar) -> None:
    labels, grid = lumbar
    result = named(labels, grid)
    assert agreement(result.labels, labels) > 0.9998
    assert not [each for each in result.changes if each.from_label.startswith(("disc", "endplate"))]


def test_a_disc_that_is_named_twice_gets_its_own_name(lumbar) -> None:
    labels, grid = lumbar
    twice = np.where(labels == SPINEPS["disc_below_L2"], SPINEPS["disc_below_L3"], labels)
    result = named(twice, grid)
    assert agreement(result.labels, labels) > 0.9998
    assert ("disc_below_L3", "disc_below_L2") in {(each.from_label, each.to_label) for each in result.changes}


def test_discs_and_endplates_of_a_shifted_map_follow_the_vertebrae(lumbar) -> None:
    labels, grid = lumbar
    numbered = (labels > 0) & (labels != SPINEPS["sacrum"])
    result = named(np.where(numbered, labels - 1, labels), grid)
    assert agreement(result.labels, labels) > 0.9998
    renamed = {(each.from_label, each.to_label): each.ml for each in result.changes}
    assert renamed["disc_below_L4", "disc_below_L5"] == pytest.approx(12.14, abs=0.01)
    assert renamed["endplate_L1", "endplate_L2"] == pytest.approx(2.88, abs=0.01)


def test_discs_of_maps_counted_from_another_level_are_named(lumbar, real_data: Path) -> None:
    labels, grid = lumbar
    volume = read_labels(real_data / "real" / "metrics_pair_mr" / "matched_instance_ref.nii.gz")
    result = named(volume.array[0].astype(np.int16), grid)
    known = np.isin(
        labels, [SPINEPS[f"disc_below_{level}"] for level in ("T12", "L1", "L2", "L3", "L4", "L5")]
    )
    assert np.array_equal(result.labels[known], labels[known])


def vertebra(order: int, level: str, height_mm: float) -> VertebraIdentity:
    return VertebraIdentity(
        order=order, level=level, likeliest="L1", confidence=0.9, position_mm=(10.0, 10.0, height_mm)
    )


@pytest.mark.parametrize(
    ("above", "place", "becomes"),
    [("L1", 45, "disc_below_L1"), ("unknown", 45, "disc_below_L4"), ("L1", 5, "disc_below_L4")],
)
def test_a_disc_keeps_its_name_where_none_is_known(above: str, place: int, becomes: str) -> None:
    """The vertebrae lie at 60 and 30 mm: a disc at 45 mm is between them, one at 5 mm is not."""
    labels = np.zeros((80, 20, 20), dtype=np.uint8)
    labels[place - 3 : place + 3, 6:15, 6:15] = SPINEPS["disc_below_L4"]
    found = [vertebra(1, above, 60.0), vertebra(2, "L2", 30.0)]
    changed = rename_discs(labels, makers.grid(labels.shape), SPINEPS, found)
    assert set(np.unique(labels)) == {0, SPINEPS[becomes]}
    assert changed == ({} if becomes == "disc_below_L4" else {("disc_below_L4", becomes): 0.486})
