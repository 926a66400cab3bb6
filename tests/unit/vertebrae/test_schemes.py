from itertools import permutations

import pytest

from autospine.core.errors import DatasetError
from autospine.core.labels import VERTEBRAE
from autospine.vertebrae.schemes import COMMON, SCHEMES, find_scheme


@pytest.mark.parametrize(
    ("scheme", "structure", "integer"),
    [
        ("verse", "C1", 1),
        ("verse", "T13", 28),
        ("verse", "L6", 25),
        ("spineps-instance", "disc_below_T12", 119),
        ("spineps-instance", "endplate_L5", 224),
        ("spineps-instance", "rib_T1", 40),
        ("spineps-instance", "rib_T12", 51),
        ("spineps-instance", "rib_T13", 53),
        ("spineps-instance", "S2", 29),
        ("spineps-instance", "S6", 33),
        ("spineps-subregion", "transverse_left", 43),
        ("spineps-subregion", "inferior_articular_right", 48),
        ("spineps-subregion", "disc", 100),
        ("totalsegmentator", "C1", 50),
        ("totalsegmentator", "T1", 43),
        ("totalsegmentator", "T12", 32),
        ("totalsegmentator", "L5", 27),
        ("totalsegmentator", "sacrum", 25),
        ("totalsegmentator", "S1", 26),
        ("totalsegmentator", "rib_left_1", 92),
        ("totalsegmentator", "rib_left_12", 103),
        ("totalsegmentator", "rib_right_1", 104),
        ("totalsegmentator", "rib_right_12", 115),
        ("totalsegmentator-vertebrae-mr", "L5", 2),
        ("totalsegmentator-vertebrae-mr", "C1", 25),
        ("totalsegmentator-vertebrae-body", "disc", 2),
        ("totalsegmentator-vertebrae-pp", "C1", 1),
        ("totalsegmentator-vertebrae-pp", "L5", 24),
        ("totalspineseg", "C7", 17),
        ("totalspineseg", "T12", 32),
        ("totalspineseg", "L6", 46),
        ("totalspineseg", "disc_below_C2", 63),
        ("totalspineseg", "disc_below_C6", 67),
        ("totalspineseg", "disc_below_C7", 71),
        ("totalspineseg", "disc_below_T1", 72),
        ("totalspineseg", "disc_below_T11", 82),
        ("totalspineseg", "disc_below_T12", 91),
        ("totalspineseg", "disc_below_L4", 95),
        ("totalspineseg", "disc_below_L5", 100),
        ("spider-from-bottom", "L5", 1),
        ("spider-from-bottom", "C1", 24),
        ("spider-from-bottom", "disc_below_L5", 201),
        ("spider-from-bottom", "cut_L5", 101),
        ("spider-from-top", "L5", 24),
        ("spider-from-top", "canal", 100),
        ("ctspine1k", "L6", 25),
    ],
)
def test_integers_are_those_of_the_tools(scheme: str, structure: str, integer: int) -> None:
    assert SCHEMES[scheme].integers[structure] == integer


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_every_structure_has_an_integer_and_a_colour_of_its_own(scheme) -> None:
    assert len(set(scheme.integers.values())) == len(scheme.integers)
    assert len(set(scheme.colours.values())) == len(scheme.integers)
    assert not scheme.beside & set(scheme.integers.values())
    assert scheme.structures(scheme.integers.values()) or not scheme.integers


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_vertebrae_stand_in_anatomical_order(scheme) -> None:
    levels = [structure for structure in scheme.ordered if structure in VERTEBRAE]
    assert levels == sorted(levels, key=VERTEBRAE.index)
    if "T13" in levels:
        assert levels.index("T13") == levels.index("T12") + 1 == levels.index("L1") - 1


def test_ribs_and_processes_of_both_sides_are_pairs() -> None:
    for name, pairs in (("totalsegmentator", 13), ("spineps-subregion", 3)):
        scheme = SCHEMES[name]
        assert len(scheme.sides.pairs) == pairs and not scheme.sides.single
        left, right = (scheme.ordered[place] for place in scheme.sides.pairs[0])
        assert left.replace("left", "right") == right


def test_a_sixth_lumbar_vertebra_moves_the_last_disc_of_totalspineseg() -> None:
    scheme = SCHEMES["totalspineseg"]
    assert scheme.structures({45, 100})[100] == "disc_below_L5"
    assert scheme.structures({45, 46, 100})[100] == "disc_below_L6"
    assert scheme.structures({45, 96, 100})[96] == "disc_below_L5"
    assert scheme.integer_of("disc_below_L5", {"L5"}) == 100
    assert scheme.integer_of("disc_below_L5", {"L5", "L6"}) == 96


def test_schemes_are_found_by_name() -> None:
    assert find_scheme(" VerSe ").name == "verse"
    assert find_scheme("totalsegmentator_vertebrae_mr").name == "totalsegmentator-vertebrae-mr"
    with pytest.raises(DatasetError, match=r"verse.*found 'nonsense'"):
        find_scheme("nonsense")
    with pytest.raises(DatasetError, match=r"spider-from-bottom.*spider-from-top"):
        find_scheme("SPIDER")


def test_all_but_spider_and_parts_have_the_common_vertebrae() -> None:
    without = {"spineps-subregion", "totalsegmentator-vertebrae-body", "structures"}
    for first, second in permutations([s for s in SCHEMES.values() if s.name not in without], 2):
        assert set(COMMON) <= set(first.integers) & set(second.integers)
