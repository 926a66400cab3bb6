import numpy as np
import pytest
from scipy import ndimage

from autospine.data.spatial import Deformation, cut, draw_deformation, warp

SPACING = (1.5, 1.5, 1.5)
IDENTITY = Deformation(matrix=np.eye(3), displacement=None)


@pytest.mark.parametrize("start", [(0, 0, 0), (12, 20, 30)])
def test_a_cut_is_a_part_of_the_case(cases, start):
    image, labels = cases[0].read_all()
    part = tuple(slice(a, a + 16) for a in start)
    found = cut(cases[0], start, (16, 16, 16))
    np.testing.assert_array_equal(found[0], image[(slice(None), *part)])
    np.testing.assert_array_equal(found[1], labels[part])


def test_outside_the_case_is_dark_background(cases):
    image, labels = cut(cases[1], (-3, 7, -2), (16, 16, 16))
    whole, whole_labels = cases[1].read_all()
    np.testing.assert_array_equal(image[:, 3:13, :, 2:14], whole[:, :, 7:23])
    np.testing.assert_array_equal(labels[3:13, :, 2:14], whole_labels[:, 7:23])
    outside = np.ones(labels.shape, dtype=bool)
    outside[3:13, :, 2:14] = False
    assert (image[0, outside] == -10).all()
    assert (labels[outside] == 0).all()


def test_a_patch_that_misses_the_case_is_background(cases):
    image, labels = cut(cases[1], (100, 0, 0), (4, 4, 4))
    assert (image == -10).all()
    assert not labels.any()
    image, labels = warp(cases[1], (100, 0, 0), (4, 4, 4), IDENTITY, SPACING)
    np.testing.assert_allclose(image, -10)
    assert not labels.any()


@pytest.mark.parametrize(("case", "start"), [(0, (5, 6, 7)), (1, (-3, 7, -2)), (0, (30, 35, 40))])
def test_the_identity_deformation_is_a_cut(cases, case, start):
    exact = cut(cases[case], start, (16, 16, 16))
    found = warp(cases[case], start, (16, 16, 16), IDENTITY, SPACING)
    np.testing.assert_allclose(found[0], exact[0], atol=1e-3)
    np.testing.assert_array_equal(found[1], exact[1])


def test_a_deformation_agrees_with_scipy(cases, configure):
    spacing = (3.0, 1.5, 1.0)
    deformation = draw_deformation(np.random.default_rng(1), configure().augmentation, (12, 14, 16), spacing)
    matrix = deformation.matrix * np.asarray(spacing)[None, :] / np.asarray(spacing)[:, None]
    start, size = np.asarray([12, 14, 15]), np.asarray([12, 14, 16])
    offsets = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size], indexing="ij"))
    control = deformation.displacement
    at = [np.linspace(0, points - 1, n) for points, n in zip(control.shape[1:], size, strict=True)]
    between = np.stack(np.meshgrid(*at, indexing="ij"))
    moved = np.stack([ndimage.map_coordinates(plane, between, order=1) for plane in control])
    position = (
        np.tensordot(matrix, offsets, 1)
        + moved / np.asarray(spacing).reshape(3, 1, 1, 1)
        + (start + (size - 1) / 2).reshape(3, 1, 1, 1)
    )
    image, labels = cases[0].read_all()
    found = warp(cases[0], tuple(start.tolist()), tuple(size.tolist()), deformation, spacing)
    np.testing.assert_allclose(found[0][0], ndimage.map_coordinates(image[0], position, order=1), atol=2e-3)
    expected = ndimage.map_coordinates(labels, position, order=0)
    assert np.mean(found[1] == expected) > 0.998


def test_zoom_above_one_makes_structures_larger(cases, configure):
    strength = configure(rotation_deg=(0.0, 0.0, 0.0), scale=(1.5, 1.5), elastic_mm=0.0).augmentation
    deformation = draw_deformation(np.random.default_rng(0), strength, (24, 24, 24), SPACING)
    assert deformation.displacement is None
    _, exact = cut(cases[0], (12, 3, 3), (24, 24, 24))
    _, zoomed = warp(cases[0], (12, 3, 3), (24, 24, 24), deformation, SPACING)
    assert np.sum(zoomed == 1) / np.sum(exact == 1) == pytest.approx(1.5**3, rel=0.15)


def test_angles_and_displacements_stay_within_the_plan(configure):
    strength = configure(rotation_deg=(0.0, 0.0, 15.0), scale=(1.0, 1.0), elastic_mm=3.0).augmentation
    for seed in range(30):
        drawn = draw_deformation(np.random.default_rng(seed), strength, (64, 64, 8), SPACING)
        angle = np.rad2deg(np.arctan2(drawn.matrix[1, 0], drawn.matrix[0, 0]))
        assert abs(angle) <= 15
        np.testing.assert_allclose(drawn.matrix[2], [0, 0, 1], atol=1e-12)
        assert np.abs(drawn.displacement).max() <= 7.5
        assert drawn.displacement.shape == (3, 4, 4, 2)


def test_a_deformed_patch_is_filled_from_the_case_up_to_its_faces(store, configure):
    labels = np.full((48, 48, 48), 1, dtype=np.uint8)
    case = store("solid", np.full(labels.shape, 300), labels)
    for seed in range(10):
        deformation = draw_deformation(
            np.random.default_rng(seed), configure().augmentation, (24, 24, 24), SPACING
        )
        image, found = warp(case, (12, 12, 12), (24, 24, 24), deformation, SPACING)
        np.testing.assert_allclose(image, 3, atol=1e-4)
        assert (found == 1).all()


def test_where_a_case_ends_image_and_labels_end_together(store, configure):
    labels = np.full((30, 30, 30), 1, dtype=np.uint8)
    case = store("solid", np.full(labels.shape, 300), labels)
    for seed in range(10):
        deformation = draw_deformation(
            np.random.default_rng(seed), configure().augmentation, (24, 24, 24), SPACING
        )
        image, found = warp(case, (18, 3, 3), (24, 24, 24), deformation, SPACING)
        # Half-way between the last voxel and the background the image is half as bright.
        clear = np.abs(image[0] + 3.5) > 2
        np.testing.assert_array_equal(found[clear] == 1, image[0][clear] > -3.5)
        assert 0 < np.mean(found == 1) < 1
