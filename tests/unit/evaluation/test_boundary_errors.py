import numpy as np
import pytest

from autospine.evaluation.boundary_errors import boundary_errors, boundary_of

SPACING = (1.0, 1.0, 1.0)


def slab(first: int, last: int, shape=(40, 30, 30)) -> np.ndarray:
    """Class 1 in the rows from `first` to `last`."""
    classes = np.zeros(shape, dtype=np.uint8)
    classes[first : last + 1] = 1
    return classes


def test_the_boundary_has_a_voxel_on_either_side():
    rows = boundary_of(slab(15, 24)).all(axis=(1, 2))
    assert np.flatnonzero(rows).tolist() == [14, 15, 24, 25]
    assert not boundary_of(slab(0, 39)).any()


def test_errors_are_counted_by_distance():
    """One row too much at each end lies on the boundary; a speck lies nine voxels outside."""
    prediction, true = slab(14, 25), slab(15, 24)
    prediction[5, 4, 4] = 1
    found = boundary_errors(np.zeros(true.shape), prediction, true, SPACING)
    plane = 30 * 30
    assert found.wrong == (2 * plane, 0, 0, 0, 1)
    assert found.voxels[0] == 4 * plane  # rows at a distance of 0
    assert found.voxels[1] == 4 * plane  # of 1
    assert found.rates[0] == pytest.approx(0.5)


def test_distances_are_in_millimetres():
    prediction, true = slab(13, 24), slab(15, 24)
    found = boundary_errors(np.zeros(true.shape), prediction, true, (3.0, 1.0, 1.0))
    assert found.wrong == (900, 0, 900, 0, 0)  # the second wrong row is 3 mm from the first


def test_the_quarter_with_the_least_contrast_is_blurred():
    """The image shows the slab but in a quarter of its area, where the errors are."""
    true = slab(15, 24, (40, 40, 40))
    image = 100.0 * true
    image[:, :10] = 100.0
    prediction = true.copy()
    prediction[14, :8] = 1
    found = boundary_errors(image, prediction, true, SPACING)
    assert found.blurred_rate > 20 * found.sharp_rate
    assert found.blurred[0] + found.sharp[0] == 8 * 40
    near = 2 * 6 * 40 * 40  # rows up to 2 mm from the two boundaries
    assert found.blurred[1] + found.sharp[1] == near
    assert 0.2 < found.blurred[1] / near < 0.35


def test_a_reference_without_boundary_has_no_errors_at_one():
    empty = np.zeros((8, 8, 8), dtype=np.uint8)
    assert boundary_errors(np.zeros(empty.shape), empty, empty, SPACING) is None
    assert boundary_errors(np.zeros(empty.shape), slab(2, 3, (8, 8, 8)), empty, SPACING) is None
