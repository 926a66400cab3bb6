"""Slices as small pictures inside a page: the image, and over it transparent layers of labels."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from PIL import Image

from autospine.core.colours import Colour
from autospine.core.labels import IGNORE_INDEX
from autospine.core.types import Modality, Vector3
from autospine.report.case_views import CaseView
from autospine.report.views import windowed

LONGEST_SIDE = 440
"""Most pixels of a picture's longer side."""

FINEST_MM = 0.4
"""Least size of a pixel: a small slice is not blown up beyond what it holds."""

QUALITY = 60
"""Quality of the grey pictures, of 100: about 10 kB each, in which noise is smoothed and edges stay."""

FILLED = 97
"""Opacity of the inside of a class, of 255, as in previews; its outline is opaque."""

DISAGREEMENT: Colour = (1.0, 0.18, 0.62)
"""Colour of voxels that differ: a pink that no class has."""

DISAGREEMENT_FILLED = 190

Pixels = UInt8[np.ndarray, "H W"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureLayers:
    """The pictures of one slice, of the same size, as data URIs."""

    title: str
    """Which slice it is, in words."""

    plane: str
    """Plane of the slice."""

    width: int
    height: int
    image: str
    """The image in grey; empty if there is none."""

    prediction: str
    """Labels of the prediction, transparent elsewhere."""

    reference: str
    """Labels of the reference; empty if there is none."""

    difference: str
    """Where they differ; empty without a reference."""

    marked: tuple[float, float] | None
    """Place that a cross marks, as shares of height and width."""

    edge: tuple[Vector3, ...] = ()
    """Voxels (S, P, L) at the left edge, from the top to the bottom; empty if that is not known."""

    across: Vector3 = (0.0, 0.0, 0.0)
    """Voxels from the left edge to the right one."""


def draw_layers(view: CaseView, colours: Sequence[Colour], modality: Modality | None) -> PictureLayers:
    """Draw the pictures of a slice.

    Args:
        view: The slice.
        colours: Colour of each stored index from 1 on.
        modality: Modality, which decides the grey-value window; None is treated as MR.
    """
    width, height = _pixels(view.size_mm)
    prediction = _enlarged(view.prediction, width, height)
    reference = None if view.reference is None else _enlarged(view.reference, width, height)
    return PictureLayers(
        title=view.title,
        plane=view.plane,
        width=width,
        height=height,
        image="" if view.image is None else _grey(view.image, width, height, modality),
        prediction=_labels(prediction, colours),
        reference="" if reference is None else _labels(reference, colours),
        difference="" if reference is None else _difference(prediction, reference),
        marked=view.marked,
        edge=view.edge,
        across=view.across,
    )


def _pixels(size_mm: tuple[float, float]) -> tuple[int, int]:
    """Return width and height in square pixels."""
    pixel_mm = max(max(size_mm) / LONGEST_SIDE, FINEST_MM)
    return max(1, round(size_mm[1] / pixel_mm)), max(1, round(size_mm[0] / pixel_mm))


def _grey(image: np.ndarray, width: int, height: int, modality: Modality | None) -> str:
    picture = Image.fromarray(np.rint(255 * windowed(image, modality)).astype(np.uint8))
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return _data_uri(resized, "webp", quality=QUALITY, method=4)


def _enlarged(labels: Integer[np.ndarray, "rows columns"], width: int, height: int) -> Pixels:
    """Resample labels to the pixels of the picture, by nearest neighbours."""
    picture = Image.fromarray(np.ascontiguousarray(labels.astype(np.uint8)))
    enlarged: Pixels = np.asarray(picture.resize((width, height), Image.Resampling.NEAREST))
    return enlarged


def _labels(labels: Pixels, colours: Sequence[Colour]) -> str:
    """Draw each class filled and with an outline."""
    # Each class has two entries in the palette: its inside and, after all insides, its outline.
    n = len(colours)
    shown = np.where(labels == IGNORE_INDEX, 0, labels)
    indices = np.where(_outline(shown), shown + n, shown) if 2 * n < 256 else shown
    palette = [(0, 0, 0, 0)] + [(*_bytes(colour), FILLED) for colour in colours]
    palette += [(*_bytes(colour), 255) for colour in colours]
    return _painted(indices.astype(np.uint8), palette[:256])


def _difference(prediction: Pixels, reference: Pixels) -> str:
    wrong = (prediction != reference) & (reference != IGNORE_INDEX)
    return _painted(wrong.astype(np.uint8), [(0, 0, 0, 0), (*_bytes(DISAGREEMENT), DISAGREEMENT_FILLED)])


def _outline(labels: Pixels) -> Bool[np.ndarray, "H W"]:
    """Return the labelled pixels one of whose four neighbours has another label."""
    padded = np.pad(labels, 1, mode="edge")  # a class that the edge cuts off has no outline there
    inner = padded[1:-1, 1:-1]
    differs = np.zeros(labels.shape, dtype=bool)
    for neighbour in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        differs |= neighbour != inner
    outline: Bool[np.ndarray, "H W"] = differs & (labels != 0)
    return outline


def _painted(indices: Pixels, palette: Sequence[tuple[int, int, int, int]]) -> str:
    picture = Image.fromarray(indices)
    picture.putpalette(bytes(channel for entry in palette for channel in entry[:3]))
    return _data_uri(picture, "png", transparency=bytes(entry[3] for entry in palette), optimize=True)


def colour_code(colour: Colour) -> str:
    """Return a colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*_bytes(colour))


def _bytes(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def _data_uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
