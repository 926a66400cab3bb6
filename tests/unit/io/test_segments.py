"""What other programs are told of the classes."""

import re

import numpy as np
import pytest
import SimpleITK as sitk

from autospine.core.colours import class_colours
from autospine.core.errors import ImageError
from autospine.core.labels import LabelSpace, parse_labels
from autospine.io.images import read_labels
from autospine.io.segments import (
    present,
    rgb,
    segments_of,
    slicer_header,
    snap_descriptions,
    values_by_name,
)


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


def header_of(*segments, **more):
    """The keys of a segmentation of 3D Slicer: a name and a label value for each segment."""
    entries = {}
    for index, (name, value) in enumerate(segments):
        entries |= {f"Segment{index}_Name": name, f"Segment{index}_LabelValue": str(value)}
    return entries | more


PLAIN = parse_labels({"background": 0, "L1": 1, "L2_body": 2, "Wirbel ä": 3, "ignore": 9})
REGIONS = parse_labels({"background": 0, "spine": [1, 2, 3], "canal": [3]}, [1, 3])


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ((("L1", 1), ("L2_body", 2)), {}),
        ((("L1", 2), ("L2_body", 1)), {2: 1, 1: 2}),
        ((("l1", 5), ("L2 Body", 7)), {5: 1, 7: 2}),
        ((("Wirbel a\u0308", 4),), {4: 3}),
        ((("Ignore", 3), ("Background", 4)), {3: 9, 4: 0}),
        ((("Segment_1", 1), ("Segment 2", 2), ("3", 3), ("", 1)), {}),
        ((("L1", "x"), ("L1", "")), {}),
        ((), {}),
    ],
)
def test_values_go_by_the_names_of_segments(segments, expected, tmp_path):
    assert values_by_name(header_of(*segments), PLAIN, tmp_path / "a.seg.nrrd") == expected


@pytest.mark.parametrize(
    ("segments", "found"),
    [
        ((("L5", 1),), "'L5' \\(1\\), which is none of its labels"),
        ((("L1", 1), ("L2_body", 1)), "'L1' and 'L2_body' for the value 1"),
        ((("L1", 1), ("vertebra", 2)), "'vertebra'"),
    ],
)
def test_names_that_contradict_the_dataset_are_refused(segments, found, tmp_path):
    with pytest.raises(ImageError, match=rf"{found}.*rename the segments"):
        values_by_name(header_of(*segments), PLAIN, tmp_path / "a.seg.nrrd")


def test_parts_of_regions_need_no_name(tmp_path):
    path = tmp_path / "a.seg.nrrd"
    assert values_by_name(header_of(("L1", 1), ("Canal", 7), ("spine", 2)), REGIONS, path) == {7: 3}
    with pytest.raises(ImageError, match="values 1, 2, 3"):
        values_by_name(header_of(("spine", 5)), REGIONS, path)
    with pytest.raises(ImageError, match="none of its labels"):
        values_by_name(header_of(("sacrum", 5)), REGIONS, path)


def test_label_maps_are_read_by_the_names_of_their_segments(tmp_path):
    image = sitk.GetImageFromArray(np.array([[[0, 1], [2, 1]], [[2, 2], [0, 0]]], dtype=np.uint8))
    for key, text in header_of(("L1", 2), ("L2_body", 1)).items():
        image.SetMetaData(key, text)
    path = tmp_path / "a.seg.nrrd"
    sitk.WriteImage(image, str(path))
    as_written, by_name = read_labels(path), read_labels(path, PLAIN)
    exchanged = np.array([0, 2, 1])[as_written.array]
    assert np.array_equal(by_name.array, exchanged)
    assert any("1 is 2, 2 is 1" in note for note in by_name.notes)
