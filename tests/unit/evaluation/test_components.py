import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.evaluation.components import count_shared_faces, main_neighbours


@settings(max_examples=50, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 5)] * 3), seed=st.integers(0, 10_000))
def test_shared_faces_are_those_of_every_pair_of_voxels(shape, seed):
    numbers = np.random.default_rng(seed).integers(0, 5, shape).astype(np.uint16)
    expected: dict[tuple[int, int], int] = {}
    for place, number in np.ndenumerate(numbers):
        for axis in range(3):
            beside = list(place)
            beside[axis] += 1
            if beside[axis] < shape[axis]:
                pair = sorted((int(number), int(numbers[tuple(beside)])))
                if pair[0] and pair[0] != pair[1]:
                    expected[pair[0], pair[1]] = expected.get((pair[0], pair[1]), 0) + 1
    found = count_shared_faces(numbers)
    pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
    assert dict(zip(pairs, found.faces.tolist(), strict=True)) == expected


def test_the_main_neighbour_is_the_label_of_most_faces_and_of_equal_ones_the_first():
    components = np.asarray([5, 5, 5, 2, 2])
    ranks = np.asarray([3, 1, 3, 4, 2])
    faces = np.asarray([2, 3, 2, 6, 6])
    found, rank = main_neighbours(components, ranks, faces)
    assert found.tolist() == [2, 5]
    assert rank.tolist() == [2, 3], "4 faces of label 3 in two places are more than 3 of label 1"


def test_nothing_has_no_neighbours():
    nothing = np.zeros(0, dtype=np.int64)
    assert [part.size for part in main_neighbours(nothing, nothing, nothing)] == [0, 0]
