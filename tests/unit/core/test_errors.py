"""The words of messages."""

import pytest

from autospine.core.errors import (
    FAULTS_MENTIONED,
    LONGEST_FAULT,
    MENTIONED,
    counted,
    listed,
    listed_faults,
    share,
)


@pytest.mark.parametrize(("number", "said"), [(0, "0 voxels"), (1, "1 voxel"), (2, "2 voxels")])
def test_a_noun_is_that_of_its_number(number, said):
    assert counted(number, "voxel") == said


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(1, 1, "this image"), (1, 2, "1 of these 2 images"), (3, 3, "3 of these 3 images")],
)
def test_a_part_of_one_thing_is_named_without_numbers(part, whole, said):
    assert share(part, whole, "image") == said


def test_the_first_names_are_listed_and_the_others_counted():
    names = [f"case_{i}" for i in range(MENTIONED + 2)]
    assert listed(names[:MENTIONED]) == "case_0, case_1, case_2"
    assert listed(names) == "case_0, case_1, case_2 and 2 more"
    assert listed(names, 1, "; ") == f"case_0 and {len(names) - 1} more"
    assert listed([]) == ""


def test_long_names_are_cut_unless_all_of_them_matters():
    long = "x" * (LONGEST_FAULT + 1)
    assert listed([long]) == long[:-1] + "..."
    assert listed([long], longest=2) == "xx..."
    assert listed([long], longest=None) == long


def test_faults_are_apart_by_semicolons():
    assert listed_faults(["a, b", "c"]) == "a, b; c"
    assert listed_faults(["a"] * (FAULTS_MENTIONED + 1)).endswith("; a and 1 more")
