"""What other programs are told of the classes."""

import re

import numpy as np
import pytest

from autospine.core.colours import class_colours
from autospine.core.labels import LabelSpace, parse_labels
from autospine.io.segments import present, rgb, segments_of, slicer_header, snap_descriptions


@pytest.fixture
def space() -> LabelSpace:
    return parse_labels({"background": 0, "T12": 19, "T13": 28, "L1": 20, "spinal canal": 61})


def test_every_class_has_its_integer_and_colour(space: LabelSpace):
    segments = segments_of(space)
    assert [(one.name, one.integer) for one in segments] == [
        ("T12", 19),
        ("T13", 28),
        ("L1", 20),
        ("spinal canal", 61),
    ]
    assert [one.colour for one in segments] == list(class_colours(space.names).values())


def test_names_are_in_one_line():
    space = parse_labels({"background": 0, " two\nlines ": 1})
    assert [one.name for one in segments_of(space)] == ["two lines"]


def test_classes_without_voxels_are_left_out(space: LabelSpace):
    labels = np.zeros((3, 4, 5), np.uint8)
    segments = segments_of(space)
    assert present(segments, labels) == segments
    labels[2, 1, 1], labels[0, 0, 0], labels[1, 1, 1] = 19, 20, 7
    assert [one.name for one in present(segments, labels)] == ["T12", "L1"]


def test_regions_are_known_by_what_they_paint():
    space = parse_labels({"background": 0, "spine": [1, 2], "vertebra": [2]}, [1, 2])
    assert [(one.name, one.integer) for one in segments_of(space)] == [("spine", 1), ("vertebra", 2)]


def test_slicer_keys(space: LabelSpace):
    header = slicer_header(segments_of(space), (7, 8, 9))
    assert header["Segmentation_SourceRepresentation"] == "Binary labelmap"
    assert header["Segment1_ID"] == header["Segment1_Name"] == "T13"
    assert header["Segment1_LabelValue"] == "28"
    assert {header[f"Segment{n}_Extent"] for n in range(4)} == {"0 8 0 7 0 6"}  # along i, j, k
    colour = [float(part) for part in header["Segment1_Color"].split()]
    assert np.allclose(colour, segments_of(space)[1].colour, atol=1e-3)


def test_descriptions_for_itk_snap(space: LabelSpace):
    lines = snap_descriptions(segments_of(space)).splitlines()
    assert lines[0] == "# ITK-SnAP Label Description File"
    rows = [
        re.fullmatch(r' *(\d+) +(\d+) +(\d+) +(\d+) +([01]) +([01]) +([01]) +"([^"]+)"', line)
        for line in lines
        if not line.startswith("#")
    ]
    assert [row and row[8] for row in rows] == ["Clear Label", *space.names]
    assert [row and int(row[1]) for row in rows] == [0, *space.painted]
    assert [tuple(map(int, row.groups()[1:4])) for row in rows[1:] if row] == [
        rgb(one.colour) for one in segments_of(space)
    ]
