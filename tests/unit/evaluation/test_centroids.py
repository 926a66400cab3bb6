import math

import numpy as np
import pytest

from autospine.evaluation.centroids import CaseCentroids, is_vertebra

NOWHERE = (math.nan, math.nan, math.nan)


def centroids(predicted: list, true: list, vertebrae: list[bool] | None = None) -> CaseCentroids:
    return CaseCentroids(
        predicted=np.asarray(predicted, dtype=float),
        true=np.asarray(true, dtype=float),
        vertebrae=np.asarray(vertebrae or [True] * len(true)),
    )


def test_distances_are_in_three_dimensions():
    found = centroids([(3, 4, 12), (0, 0, 0), NOWHERE], [(0, 0, 0), NOWHERE, (0, 0, 0)])
    assert found.distance_mm(0) == 13
    assert math.isnan(found.distance_mm(1))
    assert math.isnan(found.distance_mm(2))


def test_a_vertebra_is_identified_where_no_other_is_nearer_and_its_own_is_near():
    """Vertebrae 30 mm apart: the last prediction is nearer to the one above than to its own."""
    true = [(90, 0, 0), (60, 0, 0), (30, 0, 0), (0, 0, 0)]
    found = centroids([(80, 0, 0), (60, 21, 0), NOWHERE, (16, 0, 0)], true)
    assert [found.identified(position) for position in range(4)] == [1, 0, 0, 0]


def test_twenty_millimetres_are_near():
    assert centroids([(0, 20, 0)], [(0, 0, 0)]).identified(0) == 1
    assert centroids([(0, 20.01, 0)], [(0, 0, 0)]).identified(0) == 0


def test_what_is_no_vertebra_or_absent_is_not_counted():
    """Neither as one to be identified, nor as one that lies nearer."""
    found = centroids([(5, 0, 0), (5, 0, 0), (0, 0, 0)], [(0, 0, 0), (5, 0, 0), NOWHERE], [True, False, True])
    assert found.identified(0) == 1
    assert math.isnan(found.identified(1))
    assert math.isnan(found.identified(2))


@pytest.mark.parametrize("name", ["L1", "T13", "vertebrae_C7", "vertebra L6", "C7_body"])
def test_names_of_vertebrae(name):
    assert is_vertebra(name)


@pytest.mark.parametrize("name", ["vertebra", "disc_L1", "canal", "sacrum", "T", "S1", "S2", "L7", "s41"])
def test_names_of_other_structures(name):
    assert not is_vertebra(name)
