from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autospine.core.errors import ImageError
from autospine.core.geometry import (
    SAME_GRID,
    Box,
    Grid,
    Orientation,
    as_direction,
    canonical_grid,
    difference,
    orientation,
    repaired_direction,
    tilt_note,
    triple,
    turned,
    turning,
)

SIGNED_PERMUTATIONS = [
    np.eye(3)[list(order)] * np.asarray(signs)
    for order in permutations(range(3))
    for signs in product((1.0, -1.0), repeat=3)
]

TURNS = [
    Orientation(order=triple(order), flipped=triple(flips))
    for order in permutations(range(3))
    for flips in product((False, True), repeat=3)
]


def rotations() -> st.SearchStrategy[np.ndarray]:
    """Rotations from unit quaternions."""

    def matrix(q: np.ndarray) -> np.ndarray:
        w, x, y, z = q / np.linalg.norm(q)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )

    quaternions = arrays(np.float64, 4, elements=st.floats(-1, 1))
    return quaternions.filter(lambda q: np.linalg.norm(q) > 0.1).map(matrix)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    matrix = draw(rotations()) @ draw(st.sampled_from(SIGNED_PERMUTATIONS))
    return Grid(
        shape=draw(st.tuples(*[st.integers(1, 5)] * 3)),
        spacing_mm=draw(st.tuples(*[st.floats(0.2, 8)] * 3)),
        origin_mm=draw(st.tuples(*[st.floats(-800, 800)] * 3)),
        direction=as_direction(matrix),
    )


def numbered(grid: Grid) -> np.ndarray:
    return np.arange(np.prod(grid.shape)).reshape(grid.shape)


def positions(grid: Grid) -> np.ndarray:
    return grid.physical(np.stack(np.indices(grid.shape), axis=-1))


@given(grids())
def test_canonical_and_back_is_the_same_array(grid: Grid):
    turned = orientation(grid)
    array = numbered(grid)
    canonical = turned.to_canonical(array)
    assert np.shares_memory(canonical, array)
    assert np.array_equal(turned.to_stored(canonical), array)
    assert canonical.shape == canonical_grid(grid).shape


@given(grids())
def test_canonical_voxels_keep_their_place(grid: Grid):
    """Every voxel lies where it lay before."""
    canonical = orientation(grid).to_canonical(numbered(grid))
    before = positions(grid).reshape(-1, 3)[canonical]
    assert np.allclose(positions(canonical_grid(grid)), before, atol=1e-9)


@given(grids())
def test_canonical_grid_needs_no_turning(grid: Grid):
    turned = orientation(canonical_grid(grid))
    assert turned.order == (0, 1, 2)
    assert turned.flipped == (False, False, False)


@pytest.mark.parametrize("matrix", SIGNED_PERMUTATIONS)
def test_axis_aligned_grids_become_superior_posterior_left(matrix: np.ndarray):
    stored = Grid(
        shape=(3, 4, 5), spacing_mm=(1.0, 2.0, 3.0), origin_mm=(9.0, 8.0, 7.0), direction=as_direction(matrix)
    )
    grid = canonical_grid(stored)
    assert grid.direction == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    # Array axes run along z, y, x.
    assert np.array_equal(grid.axes_mm, np.diag(grid.spacing_mm)[::-1])


def test_a_channel_axis_stays_in_front():
    stored = Grid(
        shape=(3, 4, 5),
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    )
    array = np.arange(120).reshape(2, 3, 4, 5)
    turned = orientation(stored)
    canonical = turned.to_canonical(array)
    assert np.array_equal(canonical[1], turned.to_canonical(array[1]))
    assert np.array_equal(turned.to_stored(canonical), array)


@given(grids(), arrays(np.float64, (4, 3), elements=st.floats(-100, 100)))
def test_index_is_the_inverse_of_physical(grid: Grid, index: np.ndarray):
    assert np.allclose(grid.index(grid.physical(index)), index, atol=1e-8)


@given(rotations(), arrays(np.float64, (3, 3), elements=st.floats(-5e-4, 5e-4)))
def test_rounded_directions_are_repaired(matrix: np.ndarray, noise: np.ndarray):
    direction, note = repaired_direction(matrix + noise, "a.nii")
    repaired = np.asarray(direction).reshape(3, 3)
    assert np.allclose(repaired @ repaired.T, np.eye(3), atol=1e-12)
    assert np.abs(repaired - matrix).max() < 2e-3
    assert (note is None) == (np.abs(matrix + noise - repaired).max() <= 1e-6)


@given(rotations())
def test_sheared_directions_are_refused(matrix: np.ndarray):
    shear = np.eye(3)
    shear[0, 1] = 0.01
    with pytest.raises(ImageError, match=r"perpendicular axes in a\.nii.*sheared.*resample"):
        repaired_direction(matrix @ shear, "a.nii")


def test_directions_that_are_not_finite_are_refused():
    with pytest.raises(ImageError, match=r"finite direction cosines in a\.nii"):
        repaired_direction(np.full((3, 3), np.nan), "a.nii")


@given(grids(), st.floats(-5, 5))
def test_difference_is_measured_in_mm(grid: Grid, shift: float):
    x, y, z = grid.origin_mm
    moved = Grid(
        shape=grid.shape,
        spacing_mm=grid.spacing_mm,
        origin_mm=(x + shift, y, z),
        direction=grid.direction,
    )
    assert difference(grid, grid) is None
    allowed = SAME_GRID * min(grid.spacing_mm)
    if abs(shift) < 0.999 * allowed:
        assert difference(grid, moved) is None
    elif abs(shift) > 1.001 * allowed and abs(shift) < min(grid.spacing_mm):
        assert (difference(grid, moved) or "").endswith(f"voxels but up to {abs(shift):.3g} mm apart")


@given(grids(), st.sampled_from(TURNS))
def test_the_order_of_axes_makes_no_difference(grid: Grid, how: Orientation):
    other = turned(grid, how)
    assert difference(grid, other) is None
    assert difference(other, grid) is None
    back = turning(other, grid).to_canonical(how.to_canonical(numbered(grid)))
    assert np.array_equal(back, numbered(grid))


@pytest.mark.parametrize("degrees", [45.0, 45 - 1e-7, 45 + 1e-7, 135.0, -45.0])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("error", [1e-6, -1e-6])
def test_rounding_at_45_degrees_makes_no_difference(degrees: float, axis: int, error: float):
    """There it decides which stored axis becomes which canonical one."""

    def rotated(angle: float) -> Grid:
        a, b = [n for n in range(3) if n != axis]
        matrix = np.eye(3)
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
        return Grid(
            shape=(30, 31, 32),
            spacing_mm=(1.0, 1.1, 1.2),
            origin_mm=(1.0, 2.0, 3.0),
            direction=as_direction(matrix),
        )

    image, labels = rotated(np.deg2rad(degrees)), rotated(np.deg2rad(degrees) + error)
    of_image, of_labels = canonical_grid(image), canonical_grid(labels)
    assert difference(of_image, of_labels) is None
    marked = numbered(labels)
    canonical = turning(of_labels, of_image).to_canonical(orientation(labels).to_canonical(marked))
    assert np.array_equal(canonical, orientation(image).to_canonical(marked))


@pytest.mark.parametrize("entry", [(0, 0), (0, 1), (1, 2), (2, 0), (0, 3)])
def test_an_affine_off_by_rounding_is_the_same_grid(entry: tuple[int, int]):
    """An entry that is off by 1e-4 moves the far corner of 500 voxels by 0.05 mm."""
    affine = np.eye(4)
    grids = []
    for change in (0.0, 1e-4, 0.01):
        affine[entry] = np.eye(4)[entry] + change * (30 if entry[1] == 3 else 1)
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        u, _, vh = np.linalg.svd(affine[:3, :3] / lengths)
        grids.append(
            Grid(
                shape=(500, 500, 500),
                spacing_mm=triple(lengths[::-1]),
                origin_mm=triple(affine[:3, 3]),
                direction=as_direction(u @ vh),
            )
        )
    assert difference(grids[0], grids[1]) is None
    assert "mm apart" in (difference(grids[0], grids[2]) or "")


@pytest.mark.parametrize(("degrees", "noted"), [(0, None), (29, None), (35, "lie at 35 degrees"), (50, "40")])
@pytest.mark.parametrize("axis", range(3))
def test_axes_far_from_the_patients_are_noted(degrees, noted, axis):
    """At 50 degrees the axes change their names, and lie at 40 degrees to others."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.insert(np.insert(np.array([[c, -s], [s, c]]), axis, 0, axis=0), axis, 0, axis=1)
    matrix[axis, axis] = 1
    grid = Grid(shape=(3, 4, 5), spacing_mm=(3, 2, 1), origin_mm=(0, 0, 0), direction=as_direction(matrix))
    note = tilt_note(canonical_grid(grid))
    assert note is None if noted is None else noted in note


def test_difference_in_shape_is_named():
    grid = Grid(
        shape=(2, 3, 4),
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=as_direction(np.eye(3)),
    )
    other = Grid(
        shape=(2, 3, 5), spacing_mm=grid.spacing_mm, origin_mm=grid.origin_mm, direction=grid.direction
    )
    assert difference(grid, other) == "2x3x4 against 2x3x5 voxels"


def test_box_slices_cut_its_shape():
    box = Box(start=(1, 2, 0), stop=(3, 5, 4))
    assert np.zeros((9, 9, 9))[box.slices].shape == box.shape == (2, 3, 4)


def test_a_triple_holds_three_numbers_of_python():
    assert triple(n + 1 for n in range(3)) == (1, 2, 3)
    assert [type(value) for value in triple(np.arange(3, dtype=np.int16))] == [int, int, int]
    for wrong in ((1, 2), (1, 2, 3, 4)):
        with pytest.raises(ValueError, match="values to unpack"):
            triple(wrong)


@given(arrays(np.bool_, st.tuples(*[st.integers(1, 4)] * 3)))
def test_a_box_around_a_mask_is_the_smallest(mask: np.ndarray):
    box = Box.around(mask)
    assert Box.around(mask.astype(np.int16) * -3) == Box.around(plane for plane in mask) == box
    if box is None:
        assert not mask.any()
    else:
        assert mask[box.slices].sum() == mask.sum()
        for axis in range(3):
            planes = np.moveaxis(mask[box.slices], axis, 0)
            assert planes[0].any() and planes[-1].any()


def test_boxes_join():
    mask = np.zeros((5, 5, 5), dtype=np.uint8)
    assert Box.around(mask) is None
    mask[1, 2, 3] = mask[4, 2, 3] = 9
    box = Box.around(mask)
    assert box == Box(start=(1, 2, 3), stop=(5, 3, 4))
    other = Box(start=(2, 0, 0), stop=(3, 1, 1))
    assert Box.hull((other, box)) == Box.hull((box, other)) == Box(start=(1, 0, 0), stop=(5, 3, 4))
    assert Box.hull([box]) == box


def test_a_box_is_what_its_slices_are():
    box = Box(start=(1, 2, 0), stop=(3, 5, 4))
    assert Box.of(box.slices) == Box.of([range(1, 3), range(2, 5), range(4)]) == box
    assert Box.whole((3, 5, 4)) == Box(start=(0, 0, 0), stop=(3, 5, 4))
