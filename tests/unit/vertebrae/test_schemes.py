from itertools import permutations

import pytest

from autospine.core.errors import DatasetError
from autospine.core.labels import VERTEBRAE
from autospine.vertebrae.scheme_segments import scheme_segments
from autospine.vertebrae.schemes import COMMON, SCHEMES, find_scheme, is_beside_body, wholes

OF_L6 = {"L6", "cut_L6", "disc_below_L6", "endplate_L6"}


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
        ("spider-from-top", "L6", 25),
        ("spider-from-top", "cut_L6", 125),
        ("spider-from-top", "disc_below_L6", 225),
        ("ctspine1k", "L6", 25),
    ],
)
def test_integers_are_those_of_the_tools(scheme: str, structure: str, integer: int) -> None:
    assert SCHEMES[scheme].integers[structure] == integer


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_every_structure_has_an_integer_and_a_colour_of_its_own(scheme) -> None:
    assert len(set(scheme.integers.values())) == len(scheme.integers)
    assert len(set(scheme.colours.values())) == len({*scheme.integers, *scheme.with_l6})
    assert not scheme.beside & set(scheme.integers.values())
    common = [n for name, n in scheme.integers.items() if name not in OF_L6]
    named = {n: name for name, n in scheme.integers.items() if name not in OF_L6}
    assert {n: scheme.structures(common)[n] for n in common} == named


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


def test_a_twenty_fifth_vertebra_moves_all_others_of_spider_counted_from_the_bottom() -> None:
    scheme = SCHEMES["spider-from-bottom"]
    assert scheme.structures({1, 24})[1] == "L5" and scheme.structures({1, 24})[24] == "C1"
    for telling in (25, 125):
        found = scheme.structures({1, 2, 24, 202, telling})
        assert [found[n] for n in (1, 2, 24, 202)] == ["L6", "L5", "C2", "disc_below_L5"]
    assert found[125] == "cut_C1"
    assert 225 not in found  # nothing lies between C1 and the skull


@pytest.mark.parametrize(
    ("structure", "whole"),
    [
        ("cord", ("canal",)),
        ("corpus_border", ("corpus", "vertebra")),
        ("dens", ("vertebra",)),
        ("transverse_left", ("vertebra",)),
        ("endplate", ("vertebra",)),
        ("endplate_L5", ("endplate", "L5", "vertebra")),
        ("cut_T13", ("T13", "vertebra")),
        ("disc_below_L6", ("disc",)),
        ("rib_right_12", ("rib_T12",)),
        ("S3", ("sacrum",)),
        ("sacrum", ()),
        ("hip_left", ()),
    ],
)
def test_parts_belong_to_what_they_are_parts_of(structure: str, whole: tuple[str, ...]) -> None:
    assert wholes(structure) == whole


def test_every_scheme_has_vertebrae_to_name() -> None:
    """By level, as one label, or by parts that become one."""
    for scheme in SCHEMES.values():
        parts = {"vertebra"} & {whole for name in scheme.integers for whole in (name, *wholes(name))}
        assert scheme.tells_levels or parts


def test_of_the_parts_of_a_vertebra_bodies_alone_are_taken_for_it() -> None:
    parts = SCHEMES["spineps-subregion"].integers
    beside = {name for name in parts if is_beside_body(name)}
    assert set(parts) - beside == {"sacrum", "corpus_border", "corpus", "cord", "canal", "disc"}
    assert not is_beside_body("vertebra")


def test_segments_of_a_spine_with_six_lumbar_vertebrae_have_their_names() -> None:
    scheme = SCHEMES["totalspineseg"]
    assert {each.integer: each.name for each in scheme_segments(scheme, {45, 100})}[100] == "disc_below_L5"
    six = {each.integer: each for each in scheme_segments(scheme, {45, 46, 96, 100})}
    assert [six[n].name for n in (46, 96, 100)] == ["L6", "disc_below_L5", "disc_below_L6"]
    assert len({each.colour for each in six.values()}) == len(six)


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
