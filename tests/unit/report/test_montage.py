from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from autospine.core.colours import Colour, class_colours
from autospine.core.labels import IGNORE_INDEX, LabelSpace, parse_labels
from autospine.report.case_views import middle_views
from autospine.report.montage import DPI, PAGE_INCHES, Panel, write_montage
from autospine.report.views import CT_WINDOW_HU, MARGIN_MM, index_names, windowed

LABELS = parse_labels({"background": 0, "vertebra": 1, "disc": 2, "canal": 3, "sacrum": 4})


def spine() -> tuple[np.ndarray, np.ndarray]:
    """A column of blocks with discs between them and a canal behind."""
    labels = np.zeros((60, 40, 50), dtype=np.uint8)
    for bottom in range(5, 55, 10):
        labels[bottom : bottom + 7, 12:22, 17:33] = 1
        labels[bottom + 7 : bottom + 10, 12:22, 17:33] = 2
    labels[5:55, 24:29, 21:29] = 3
    image = np.array([0.0, 300, 80, 20, 200], dtype=np.float32)[labels]
    return image, labels


def panel(**changes: object) -> Panel:
    image, labels = spine()
    given: dict[str, object] = {
        "title": "case_1",
        "image": image,
        "prediction": labels,
        "reference": labels,
        "spacing_mm": (3.0, 2.0, 2.0),
        "modality": "CT",
        "score": "Dice 0.91",
    }
    return Panel(**{**given, **changes})  # type: ignore[arg-type]


def drawn(path: Path, *panels: Panel, labels: LabelSpace = LABELS) -> np.ndarray:
    write_montage(path, panels, labels, title="Held-out cases")
    return imread(path)[..., :3]


def amount(picture: np.ndarray, colour: Colour) -> int:
    """Pixels of exactly a colour, as on edges and in the legend."""
    return int((np.abs(picture - np.array(colour)).max(axis=-1) < 0.02).sum())


def test_shows_every_class_that_occurs(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "montage.png", panel())
    colours = class_colours(LABELS.names)
    assert picture.shape[1] == round(PAGE_INCHES * DPI)
    assert picture.std() > 0.05
    for name in ("vertebra", "disc", "canal"):
        assert amount(picture, colours[name]) > 1000
    assert amount(picture, colours["sacrum"]) < 50
    assert [path.name for path in tmp_path.iterdir()] == ["montage.png"]


def test_an_empty_prediction_shows_the_reference_alone(tmp_path: Path) -> None:
    full = drawn(tmp_path / "full.png", panel())
    half = drawn(tmp_path / "half.png", panel(prediction=np.zeros_like(spine()[1])))
    vertebra = class_colours(LABELS.names)["vertebra"]
    legend = (round(0.15 * DPI)) ** 2
    assert amount(half, vertebra) - legend == pytest.approx((amount(full, vertebra) - legend) / 2, rel=0.1)


def test_cases_stand_below_one_another(tmp_path: Path) -> None:
    one = drawn(tmp_path / "one.png", panel())
    wide = panel(title="wide", spacing_mm=(0.5, 3.0, 3.0))
    three = drawn(tmp_path / "three.png", panel(), panel(reference=None, score="", modality=None), wide)
    assert three.shape[0] > 2 * one.shape[0]
    assert three.shape[1] == one.shape[1]


@pytest.mark.parametrize("reference", [True, False])
def test_nothing_labelled(tmp_path: Path, reference: bool) -> None:
    nothing = np.zeros((60, 40, 50), dtype=np.uint8)
    picture = drawn(
        tmp_path / "empty.png", panel(prediction=nothing, reference=nothing if reference else None)
    )
    assert picture.std() > 0.02


def test_slices_pass_the_bodies_and_face_the_right_way() -> None:
    _, labels = spine()
    reference = np.where(labels == 3, np.uint8(IGNORE_INDEX), labels)
    sagittal, coronal, axial = middle_views(panel(reference=reference).maps, behind=[3])
    left, back = round(MARGIN_MM / 2), min(12, round(MARGIN_MM / 2))
    assert sagittal.prediction[-1 - (5 + 2), back] == 1  # rows from the top, front at the left
    assert axial.plane == "axial"
    assert sagittal.image.shape == (60, 12 + (22 - 12) + min(18, left + 7))
    assert set(np.unique(coronal.prediction)) == {0, 1, 2}
    assert coronal.size_mm == (180.0, 2.0 * coronal.image.shape[1])
    low, high = CT_WINDOW_HU
    assert windowed(sagittal.image, "CT").max() == pytest.approx((300 - low) / (high - low))


def test_predictions_far_from_the_reference_are_in_the_picture() -> None:
    _, labels = spine()
    reference = np.where(np.arange(60)[:, None, None] < 12, labels, np.uint8(0))
    sagittal, *_ = middle_views(panel(reference=reference).maps)
    assert sagittal.prediction[:10].any()


def test_regions_show_the_innermost() -> None:
    nested = parse_labels({"background": 0, "spine": [1, 2, 5], "column": [1, 2], "disc": [2]}, [5, 1, 2])
    assert index_names(nested) == ("column", "disc", "spine")


def test_one_index_per_integer_in_any_order() -> None:
    assert index_names(parse_labels({"background": 0, "T13": 28, "T12": 19})) == ("T12", "T13")


@pytest.mark.real_data
def test_a_real_case(tmp_path: Path, real_data: Path) -> None:
    from autospine.io.images import read_labels, read_volume

    dataset = real_data / "Dataset001_SpineReal"
    volume = read_volume(dataset / "imagesTr" / "mr_t2w_crop_0000.nii.gz")
    labels = parse_labels({"background": 0, "vertebra": 1})
    reference = labels.encode(read_labels(dataset / "labelsTr" / "mr_t2w_crop.nii.gz").array[0])
    real = Panel(
        title="mr_t2w_crop",
        image=volume.array[0],
        prediction=reference,
        reference=reference,
        spacing_mm=volume.grid.spacing_mm,
        modality="MR",
    )
    assert (
        amount(drawn(tmp_path / "real.png", real, labels=labels), class_colours(["vertebra"])["vertebra"])
        > 1000
    )
