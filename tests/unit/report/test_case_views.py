import makers
import numpy as np
import pytest

from autospine.report.case_views import CLOSE_UP_MM, CaseMaps, close_ups, middle_views

SPACING = (2.0, 1.0, 1.0)


def bent() -> CaseMaps:
    """A column that moves to the left as it rises, and is bright where it is labelled."""
    labels = np.zeros((60, 80, 120), dtype=np.uint8)
    for row in range(60):
        labels[row, 30:45, 20 + row : 35 + row] = 1
    return CaseMaps(
        image=100.0 * labels, prediction=labels, reference=labels, grid=makers.grid(labels.shape, SPACING)
    )


def test_a_bent_spine_stays_in_the_middle_slices():
    sagittal, coronal, axial = middle_views(bent())
    labelled = sagittal.prediction.any(axis=1)
    assert labelled.all()
    assert coronal.prediction.any(axis=1).all()
    assert axial.prediction.any()
    assert np.array_equal(sagittal.image > 0, sagittal.prediction > 0)
    height, width = sagittal.size_mm
    assert (height / sagittal.prediction.shape[0], width / sagittal.prediction.shape[1]) == SPACING[:2]


def test_the_coronal_slice_follows_the_bodies_where_all_of_a_vertebra_has_one_label():
    labels = np.zeros((60, 80, 60), dtype=np.uint8)
    for row in range(60):
        front = 10 + row // 4  # the spine leans back
        labels[row, front : front + 18, 15:45] = 1
        labels[row, front + 34 : front + 50, 28:32] = 1  # spinous processes, as long but thin
    maps = CaseMaps(image=None, prediction=labels, reference=None, grid=makers.grid(labels.shape, SPACING))
    _, coronal, _ = middle_views(maps)
    widths = (coronal.prediction > 0).sum(axis=1)
    assert (widths == 30).all()


def test_superior_is_up_and_left_is_on_the_right():
    _, coronal, _ = middle_views(bent())
    columns = [np.flatnonzero(row).mean() for row in coronal.prediction[[0, -1]]]
    assert columns[0] > columns[1]  # the top of the column lies farther to the left of the patient


def test_close_ups_have_the_place_under_their_cross():
    labels = np.zeros((60, 80, 120), dtype=np.uint8)
    labels[50, 20, 110] = 3
    maps = CaseMaps(image=None, prediction=labels, reference=labels, grid=makers.grid(labels.shape, SPACING))
    views = close_ups(maps, (50, 20, 110))
    assert [view.plane for view in views] == ["sagittal", "coronal", "axial"]
    for view in views:
        assert view.image is None
        assert view.marked is not None
        rows, columns = view.prediction.shape
        at = int(view.marked[0] * rows), int(view.marked[1] * columns)
        assert view.prediction[at] == 3
        assert max(view.size_mm) <= 2 * CLOSE_UP_MM + 2 * max(SPACING)


@pytest.mark.parametrize("labelled", [True, False])
def test_without_a_reference_all_of_the_image_is_shown(labelled):
    maps = bent()
    prediction = maps.prediction if labelled else np.zeros_like(maps.prediction)
    views = middle_views(CaseMaps(image=maps.image, prediction=prediction, reference=None, grid=maps.grid))
    assert [view.prediction.shape for view in views] == [(60, 80), (60, 120), (80, 120)]
    assert all(view.reference is None for view in views)


@pytest.mark.parametrize("view", [*middle_views(bent()), *close_ups(bent(), (30, 36, 55))])
def test_every_pixel_of_a_slice_knows_its_voxel(view):
    labels = bent().prediction
    edge, across = np.array(view.edge), np.array(view.across)
    height, width = view.prediction.shape
    for row, column in ((0, 0), (height // 2, width // 3), (height - 1, width - 1)):
        at = (row + 0.5) / height * (len(edge) - 1)
        left = [np.interp(at, np.arange(len(edge)), edge[:, axis]) for axis in range(3)]
        s, p, l = np.rint(left + (column + 0.5) / width * across).astype(int)  # noqa: E741
        assert view.prediction[row, column] == labels[s, p, l]
        assert view.image[row, column] == bent().image[s, p, l]
