from itertools import pairwise

import numpy as np
import pytest
from colour_difference import BLINDNESS, differences, seen_with

from autospine.core.colours import class_colours
from autospine.core.labels import VERTEBRAE

SPINE = [*VERTEBRAE, "sacrum", "coccyx"]
SUPERNUMERARY = ("T13", "L6")
DISCS = [f"disc_below_{name}" for name in VERTEBRAE]
EVERYTHING = [*SPINE, *DISCS, "canal", "cord", "disc"]
STRUCTURES = ["vertebra", "disc", "canal", "cord", "sacrum", "coccyx"]


def places(name: str) -> list[float]:
    """Levels of a label from the head down: with the supernumerary vertebrae and, if there, without them."""
    bone = name.removeprefix("disc_below_")
    half = 0.5 if bone != name else 0.0
    orders = [SPINE, [level for level in SPINE if level not in SUPERNUMERARY]]
    return [order.index(bone) + half for order in orders if bone in order]


def beside(one: str, other: str) -> bool:
    """Return whether one dataset has both: a disc of no level lies beside none that has a level."""
    return not ("disc" in (one, other) and {one, other} & set(DISCS))


def near(one: str, other: str) -> bool:
    """Return whether two labels lie within three levels of each other; those of no level lie at every one."""
    if {"canal", "cord", "vertebra", "disc"} & {one, other}:
        return True
    return any(abs(a - b) <= 3 for a, b in zip(places(one), places(other), strict=False))


@pytest.mark.parametrize(
    ("names", "blindness", "neighbours", "any_two"),
    [
        (EVERYTHING, None, 20, 8),
        (STRUCTURES, None, 20, 20),
        *((names, blindness, 10, 5) for names in (EVERYTHING, STRUCTURES) for blindness in BLINDNESS),
    ],
)
def test_labels_can_be_told_apart(names, blindness, neighbours, any_two):
    colours = np.array(list(class_colours(names).values()))
    found = differences(colours if blindness is None else seen_with(colours, blindness))
    pairs = [(i, j) for i in range(len(names)) for j in range(i) if beside(names[i], names[j])]
    assert min(found[i, j] for i, j in pairs if near(names[i], names[j])) >= neighbours
    assert min(found[i, j] for i, j in pairs) >= any_two


def test_names_of_levels_in_other_datasets():
    for name, same in (
        ("L3", "vertebrae_L3"),
        ("t12", "vertebra T12"),
        ("disc_L4_L5", "Disc below L4"),
        ("Sacrum", "sacrum"),
        ("spinal_canal", "canal"),
        ("Spinal Cord", "cord"),
        ("S1", "sacrum"),
        ("vertebrae_S1", "sacrum"),
        ("L1_vertebra", "L1"),
        ("vertebraTh04", "T4"),
        ("intervertebral_disc_L1", "disc_below_L1"),
        ("IVD_L1_L2", "disc_below_L1"),
        ("L4-5 disc", "disc_below_L4"),
        ("intervertebral discs", "disc"),
    ):
        beside = class_colours(["lesion", "T5", name])
        assert class_colours([name])[name] == beside[name] == class_colours([same])[same]


def test_two_names_of_one_structure_have_two_colours() -> None:
    assert len(set(class_colours(["sacrum", "S1", "canal", "spinal_canal", "disc", "discs"]).values())) == 6


def test_structures_keep_their_colour_in_any_dataset() -> None:
    alone, together = class_colours(["disc"]), class_colours(["lesion", "vertebra", "disc", "screw"])
    assert alone["disc"] == together["disc"]
    assert len(set(together.values())) == 4
    structures = np.array(list(class_colours(["vertebra", "disc", "canal", "cord", "sacrum"]).values()))
    assert differences(structures)[~np.eye(5, dtype=bool)].min() >= 20


@pytest.mark.parametrize(("known", "apart"), [([], 20), (["vertebra", "disc"], 20), (EVERYTHING, 8)])
def test_other_classes_get_colours_of_their_own(known, apart) -> None:
    names = [*known, *(f"structure {i}" for i in range(200))]
    colours = class_colours(names)
    assert list(colours) == names
    assert all(0 <= part <= 1 for colour in colours.values() for part in colour)
    assert len(set(colours.values())) == len(names)
    few = np.array([colours[name] for name in [*known, *names[len(known) : len(known) + 8]]])
    others = differences(few)[len(known) :]
    assert others[others > 0].min() >= apart
    for one, other in pairwise(names[len(known) :]):
        assert colours[one] != colours[other]
