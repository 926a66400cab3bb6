import base64
import io

import numpy as np
import pytest
from PIL import Image

from autospine.core.colours import class_colours
from autospine.core.labels import IGNORE_INDEX
from autospine.report.case_views import CaseView
from autospine.report.picture_layers import DISAGREEMENT, FINEST_MM, LONGEST_SIDE, PictureLayers, draw_layers

NAMES = ("vertebra", "disc")
COLOURS = tuple(class_colours(NAMES)[name] for name in NAMES)


def view(
    prediction: np.ndarray, reference: np.ndarray | None, size_mm=(200.0, 100.0), image=True
) -> CaseView:
    ramp = np.broadcast_to(np.linspace(-300, 900, prediction.shape[1]), prediction.shape)
    return CaseView(
        title="sagittal",
        plane="sagittal",
        image=ramp if image else None,
        prediction=prediction,
        reference=reference,
        size_mm=size_mm,
    )


def pixels(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(";base64,")
    assert kind.startswith("data:image/")
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        return np.asarray(picture.convert("RGBA"))


def drawn(prediction: np.ndarray, reference: np.ndarray | None, **changes: object) -> PictureLayers:
    return draw_layers(view(prediction, reference, **changes), COLOURS, "CT")  # type: ignore[arg-type]


def maps() -> tuple[np.ndarray, np.ndarray]:
    reference = np.zeros((100, 50), dtype=np.uint8)
    reference[20:60, 10:40] = 1
    prediction = reference.copy()
    prediction[50:60, 10:40] = 2
    return prediction, reference


def test_all_layers_have_the_size_of_the_slice_in_square_pixels():
    layers = drawn(*maps())
    assert (layers.height, layers.width) == (LONGEST_SIDE, LONGEST_SIDE // 2)
    for uri in (layers.image, layers.prediction, layers.reference, layers.difference):
        assert pixels(uri).shape == (layers.height, layers.width, 4)
    small = drawn(*maps(), size_mm=(20.0, 10.0))
    assert small.height == round(20 / FINEST_MM)


def test_labels_have_their_colours_and_are_clear_elsewhere():
    prediction, reference = maps()
    layer = pixels(drawn(prediction, reference).prediction)
    inside, disc, outside = layer[150, 110], layer[240, 110], layer[10, 10]
    assert inside[:3].tolist() == [round(255 * part) for part in COLOURS[0]]
    assert disc[:3].tolist() == [round(255 * part) for part in COLOURS[1]]
    assert 0 < inside[3] < 255
    assert outside[3] == 0
    assert (layer[..., 3] == 255).any()  # outlines


def test_disagreement_has_its_own_colour_where_the_maps_differ():
    prediction, reference = maps()
    reference[90:] = IGNORE_INDEX
    layer = pixels(drawn(prediction, reference).difference)
    wrong = layer[..., 3] > 0
    assert wrong.mean() == pytest.approx((prediction != reference)[:90].mean() * 0.9, abs=0.01)
    assert layer[wrong][0, :3].tolist() == [round(255 * part) for part in DISAGREEMENT]


def test_the_image_gets_the_window_of_ct():
    grey = pixels(drawn(*maps()).image)[..., 0].astype(int)
    assert grey[:, 2].max() < 12
    assert grey[:, -3].min() > 243


def test_what_is_absent_has_no_picture():
    prediction, _ = maps()
    layers = drawn(prediction, None, image=False)
    assert (layers.image, layers.reference, layers.difference) == ("", "", "")
    assert pixels(layers.prediction).any()


def test_more_classes_than_half_the_palette_are_drawn():
    labels = np.arange(200, dtype=np.uint8).reshape(10, 20)
    colours = [((i % 16) / 15, (i // 16) / 15, 0.5) for i in range(220)]
    layers = draw_layers(view(labels, None, image=False), colours, None)
    assert len(np.unique(pixels(layers.prediction).reshape(-1, 4), axis=0)) == 200
