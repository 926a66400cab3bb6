"""Ribs and the skull as evidence of levels."""

import makers
import numpy as np
import pytest

from autospine.core.geometry import Grid
from autospine.core.labels import VERSE, parse_labels
from autospine.core.types import LabelArray
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.vertebrae.bone_anchors import BoneAnchors
from autospine.vertebrae.dataset_levels import anchor_integers, anchor_named, naming_integers
from autospine.vertebrae.label_naming import name_labels
from autospine.vertebrae.proportions import STEPS_MM
from autospine.vertebrae.unnamed_vertebrae import name_unnamed

RIBS = {f"rib_{side}_{n}": first + n for side, first in (("left", 100), ("right", 120)) for n in range(1, 13)}
SKULL = 150
LEVELS = ("T9", "T10", "T11", "T12", "L1", "L2", "L3")
ABOVE, RADIUS = 15, 10


def column(levels: tuple[str, ...] = LEVELS, ribs: dict[str, int] | None = None) -> tuple[LabelArray, Grid]:
    """Balls of the levels from the head down, as far apart as bodies are, with a rod on either side of those
    that bear a rib."""
    depths = np.cumsum([ABOVE, *(round(STEPS_MM[level]) for level in levels)])
    labels = np.zeros((int(depths[-1]), 70, 110), dtype=np.int16)
    s, p, x = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    for depth, level in zip(depths.tolist(), levels, strict=False):
        centre = labels.shape[0] - depth
        labels[(s - centre) ** 2 + (p - 25) ** 2 + (x - 55) ** 2 < RADIUS**2] = VERSE[level]
        number = (ribs or {}).get(level)
        if number is None:
            continue
        rod = (s - centre) ** 2 + (p - 30) ** 2 < 3**2
        labels[rod & (x > 55 + RADIUS + 4) & (x < 105)] = RIBS[f"rib_left_{number}"]
        labels[rod & (x < 55 - RADIUS - 4) & (x > 5)] = RIBS[f"rib_right_{number}"]
    return labels, makers.grid(labels.shape)


def renamed(labels: LabelArray, by: int) -> LabelArray:
    """Every vertebra called by that many levels further down; ribs stay."""
    names = [*range(1, 25)]
    table = np.arange(labels.max() + 1)
    for value in names[: 24 - by]:
        table[value] = value + by
    return table[labels]


def levels_of(labels: LabelArray, grid: Grid, integers: dict[str, int]) -> list[str]:
    named = name_labels("case", labels, grid, integers)
    return [each.level for each in named.identities.vertebrae]


BORNE = {level: int(level[1:]) for level in LEVELS if level[0] == "T"}


def test_ribs_tell_of_a_shift_that_labels_alone_do_not_show() -> None:
    labels, grid = column(ribs=BORNE)
    shifted = renamed(labels, 1)
    assert levels_of(shifted, grid, dict(VERSE)) != list(LEVELS)
    assert levels_of(shifted, grid, {**VERSE, **RIBS}) == list(LEVELS)


def test_a_right_map_with_ribs_stays_as_it_is() -> None:
    labels, grid = column(ribs=BORNE)
    named = name_labels("case", labels, grid, {**VERSE, **RIBS})
    assert np.array_equal(named.labels, labels) and named.changes == ()


def test_ribs_that_are_all_miscounted_do_not_outweigh_where_they_end() -> None:
    labels, grid = column(ribs={level: number - 1 for level, number in BORNE.items()})
    assert levels_of(labels, grid, {**VERSE, **RIBS}) == list(LEVELS)


def test_a_rib_whose_head_lies_beyond_the_image_is_of_no_vertebra_in_it() -> None:
    labels, grid = column(("L1", "L2", "L3", "L4", "L5"))
    top = labels.shape[0] - 1
    s, p, x = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    # It falls from the upper end to the side of L1, as the twelfth rib does beside it.
    rod = (top - s - (np.abs(x - 55) - 20) / 3) ** 2 + (p - 30) ** 2 < 3**2
    labels[rod & (np.abs(x - 55) > 20) & (labels == 0)] = RIBS["rib_left_12"]
    assert levels_of(labels, grid, {**VERSE, **RIBS}) == ["L1", "L2", "L3", "L4", "L5"]


def test_ribs_name_vertebrae_that_a_map_does_not_tell_apart() -> None:
    labels, grid = column(ribs=BORNE)
    plain = np.isin(labels, [VERSE[level] for level in LEVELS]).astype(np.uint8)
    bones = BoneAnchors.of(labels, RIBS)
    _, without = name_unnamed("case", plain, grid, {"vertebra": 1})
    _, named = name_unnamed("case", plain, grid, {"vertebra": 1}, bones=bones)
    assert [each.level for each in named.vertebrae] == list(LEVELS)
    assert named.vertebrae[3].confidence > without.vertebrae[3].confidence


def test_one_label_for_all_ribs_tells_where_they_end() -> None:
    labels, grid = column(ribs=BORNE)
    joined = np.where(labels > 100, 99, labels)
    assert levels_of(renamed(joined, 1), grid, {**VERSE, "ribs": 99}) == list(LEVELS)


def test_faultless_names_without_an_anchor_are_kept_though_another_spine_is_likelier() -> None:
    labels, grid = column(("L1", "L2", "L3", "L4"))
    named = name_labels("case", labels, grid, VERSE)
    assert np.array_equal(named.labels, labels) and named.changes == ()
    assert [each.level for each in named.identities.vertebrae] == ["unknown"] * 4
    assert all(each.confidence < 0.8 for each in named.identities.vertebrae)


def test_the_vertebra_at_the_skull_is_the_first() -> None:
    names = ("C1", "C2", "C3", "C4", "C5")
    labels, grid = column(names)
    labels[-6:, :40, 30:80][labels[-6:, :40, 30:80] == 0] = SKULL
    shifted = renamed(labels, 1)
    assert levels_of(shifted, grid, {**VERSE, "skull": SKULL}) == list(names)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("rib_left_4", ("rib", 4)),
        ("Left Rib 12", ("rib", 12)),
        ("rib_T4", ("rib", 4)),
        ("ribs", ("rib", None)),
        ("skull", ("skull", None)),
        ("spare rib sauce", None),
        ("rib 1 2", None),
        ("L4", None),
        ("vertebra", None),
    ],
)
def test_classes_are_ribs_and_the_skull_by_their_names(name: str, found: object) -> None:
    assert anchor_named(name) == found


def test_the_classes_of_a_dataset_that_tell_of_levels_or_follow_them() -> None:
    space = parse_labels(
        {
            "background": 0,
            "T12": 1,
            "L1": 2,
            "L2": 3,
            "disc_L1-2": 4,
            "rib_left_12": 5,
            "skull": 6,
            "liver": 7,
        }
    )
    found = naming_integers(space)
    assert found == {"T12": 1, "L1": 2, "L2": 3, "disc_below_L1": 4, "rib_left_12": 5, "skull": 6}
    naming = VertebraNaming.of_labels(space)
    assert naming is not None and naming.names["disc_below_L1"] == "disc_L1-2"
    assert anchor_integers(space) == {"rib_left_12": 5, "skull": 6}
    assert naming_integers(parse_labels({"background": 0, "vertebra": 1, "rib": 2})) == {}
