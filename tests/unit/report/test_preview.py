"""The preview of a case shows its labels, also of one slice, of thick slices and where nothing was found."""

import makers
import numpy as np
import pytest
from matplotlib.image import imread

from autospine.core.colours import class_colours
from autospine.core.labels import parse_labels
from autospine.report.case_views import CaseMaps, CaseView, middle_views
from autospine.report.preview import write_preview

LABELS = parse_labels({"background": 0, "L1": 1, "L2": 2})


def views_of(image: np.ndarray, labels: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[CaseView, ...]:
    grid = makers.grid(image.shape, spacing_mm)
    return middle_views(CaseMaps(image=image, prediction=labels, reference=None, grid=grid))


def case(shape) -> tuple[np.ndarray, np.ndarray]:
    """Two blocks above one another, or beside one another in a single axial slice."""
    image = np.random.default_rng(0).normal(50, 20, shape).astype(np.int16)
    labels = np.zeros(shape, dtype=np.uint8)
    s, p, left = (max(1, n // 4) for n in shape)
    labels[:, p : 2 * p + 1, left : 2 * left] = 1
    labels[2 * s :, p : 2 * p + 1, 2 * left : 3 * left] = 2
    if shape[0] == 1:
        labels[:, p : 2 * p, 2 * left : 3 * left] = 2
    return image, labels


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "planes"),
    [
        ((60, 40, 50), (1.0, 1.0, 1.0), ("sagittal", "coronal", "axial")),
        ((60, 40, 12), (0.9, 0.9, 6.0), ("sagittal", "coronal", "axial")),
        ((60, 40, 1), (1.0, 1.0, 4.0), ("sagittal",)),
        ((60, 1, 40), (1.0, 4.0, 1.0), ("coronal",)),
        ((1, 60, 40), (4.0, 1.0, 1.0), ("axial",)),
        ((1, 1, 40), (1.0, 1.0, 1.0), ("axial",)),
    ],
)
def test_the_planes_in_which_an_image_extends_are_shown(tmp_path, shape, spacing_mm, planes):
    image, labels = case(shape)
    views = views_of(image, labels, spacing_mm)
    assert tuple(view.plane for view in views) == planes
    write_preview(tmp_path / "a_preview.png", image, labels, LABELS, spacing_mm, "CT")
    picture = imread(tmp_path / "a_preview.png")[..., :3]
    for name in {LABELS.names[int(i) - 1] for view in views for i in np.unique(view.prediction) if i}:
        found = np.abs(picture - np.array(class_colours(LABELS.names)[name])).max(axis=-1) < 0.02
        assert found.sum() > 100, name


def test_an_axial_slice_has_its_front_at_the_top_and_right_at_the_left():
    image = np.arange(60 * 40, dtype=np.float32).reshape(1, 60, 40)
    (view,) = views_of(image, np.zeros(image.shape, np.uint8), (4.0, 1.0, 1.0))
    assert view.image is not None
    assert view.image[0, 0] == view.image.min(), "first along P, at the top"
    assert view.image[-1, -1] == view.image.max()
    assert view.size_mm == (60.0, 40.0)


def test_a_case_without_labels_is_shown(tmp_path):
    image, labels = case((60, 40, 50))
    write_preview(tmp_path / "a_preview.png", image, 0 * labels, LABELS, (1.0, 1.0, 1.0), None)
    assert imread(tmp_path / "a_preview.png").std() > 0.05
