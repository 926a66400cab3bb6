"""What other programs are told of the classes, and say of theirs."""

import gzip
import re

import numpy as np
import pytest
import SimpleITK as sitk

from autospine.core.colours import class_colours
from autospine.core.errors import ImageError
from autospine.core.geometry import Grid
from autospine.core.labels import LabelSpace, parse_labels
from autospine.io.images import read_labels, read_volume, write_labels
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


def test_labels_that_differ_by_capitals_alone_are_refused_where_names_count(tmp_path):
    alike = parse_labels({"background": 0, "L1 body": 1, "l1_body": 2})
    with pytest.raises(ImageError, match=r"differ by more than .*'L1 body', 'l1_body'; rename one"):
        values_by_name(header_of(("L1 body", 1)), alike, tmp_path / "a.seg.nrrd")
    assert values_by_name({}, alike, tmp_path / "a.nrrd") == {}


def test_parts_of_regions_need_no_name(tmp_path):
    path = tmp_path / "a.seg.nrrd"
    assert values_by_name(header_of(("L1", 1), ("Canal", 7), ("spine", 2)), REGIONS, path) == {7: 3}
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


def test_a_value_without_segment_is_not_taken_for_the_class_of_another(tmp_path):
    """L1 is drawn as 2; were the nameless 1 read as it is, it would be L1, too."""
    image = sitk.GetImageFromArray(np.array([[[0, 1], [2, 2]], [[2, 2], [0, 0]]], dtype=np.uint8))
    path = tmp_path / "a.seg.nrrd"
    for segments in ([("L1", 2)], [("L1", 2), ("Segment_2", 1)]):
        for key, text in header_of(*segments).items():
            image.SetMetaData(key, text)
        sitk.WriteImage(image, str(path))
        with pytest.raises(ImageError, match=r"a\.seg\.nrrd .* the value 1 in none, .*; name its segment"):
            read_labels(path, PLAIN)


def test_a_segment_of_one_layer_is_in_its_region_alone(tmp_path):
    """As no segment of one layer overlaps another; output labels, which predictions have, stay."""
    path = tmp_path / "a.seg.nrrd"
    partly = parse_labels({"background": 0, "spine": [1, 2], "canal": [2, 3]}, [1, 3])
    assert values_by_name(header_of(("spine", 1), ("canal", 2)), partly, path) == {2: 3}
    assert values_by_name(header_of(("spine", 5), ("canal", 3)), partly, path) == {5: 1}
    nested = parse_labels({"background": 0, "spine": [1, 2, 3], "canal": [2, 3], "cord": [3]}, [1, 2, 3])
    assert values_by_name(header_of(("spine", 1), ("canal", 2), ("cord", 3)), nested, path) == {}
    with pytest.raises(ImageError, match="'canal' \\(5\\), which has the values 2, 3"):
        values_by_name(header_of(("canal", 5)), nested, path)
    with pytest.raises(ImageError, match="'canal' \\(1\\)"):
        values_by_name(header_of(("canal", 1)), nested, path)


OVERLAPPING = parse_labels(
    {"background": 0, "spine": [1, 2, 3, 6], "canal": [3, 4, 6], "disc": [2], "ignore": 9}, [1, 4, 2]
)
"""3 and 6 are in the same regions; no integer is in canal and disc."""


@pytest.fixture
def layered(tmp_path):
    """Writes layers (k, j, i) as 3D Slicer does, with segments (name, layer, value)."""

    def write(layers, segments, name="a.seg.nrrd", encoding="gzip", more=None, **changes):
        stacked = np.stack(layers, axis=-1)
        n, (k, j, i) = len(layers), layers[0].shape
        entries = dict(more or {})
        for index, (segment, layer, value) in enumerate(segments):
            entries |= {f"Segment{index}_ID": f"Segment_{index + 1}", f"Segment{index}_Name": segment}
            entries |= {} if layer is None else {f"Segment{index}_Layer": str(layer)}
            entries |= {} if value is None else {f"Segment{index}_LabelValue": str(value)}
        header = {
            "type": {"u1": "unsigned char", "i2": "short", "f4": "float"}[stacked.dtype.str[1:]],
            "dimension": "4",
            "space": "left-posterior-superior",
            "sizes": f"{n} {i} {j} {k}",
            "space directions": "none (1.5,0,0) (0,1.25,0) (0,0,2)",
            "kinds": "list domain domain domain",
            "endian": "little",
            "encoding": encoding,
            "space origin": "(10,20,30)",
        } | {key.replace("_", " "): value for key, value in changes.items()}
        pack = {"gzip": gzip.compress, "raw": bytes, "ascii": lambda b: " ".join(map(str, b)).encode()}
        lines = ["NRRD0004", *(f"{key}: {value}" for key, value in header.items())]
        lines += [f"{key}:={value}" for key, value in entries.items()]
        path = tmp_path / name
        path.write_bytes(("\n".join(lines) + "\n\n").encode() + pack[encoding](stacked.tobytes()))
        return path

    return write


def boxes():
    """Two layers: spine with a canal partly in it; a disc in the spine, in the canal's layer."""
    shape = (6, 5, 4)
    first, second = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    first[1:5, 1:4] = 1
    second[2:4, 2:5] = 1
    second[5, 0] = 0
    second[4, 1:3] = 2
    return first, second


SEGMENTS = (("Spine", 0, 1), ("canal", 1, 1), ("disc", 1, 2))


@pytest.mark.parametrize("encoding", ["gzip", "raw", "ascii"])
def test_overlapping_segments_become_the_integers_of_regions(encoding, layered):
    spine, others = boxes()
    found = read_labels(layered((spine, others), SEGMENTS, encoding=encoding), OVERLAPPING)
    expected = np.where(others == 2, 2, np.where(others == 1, np.where(spine == 1, 3, 4), spine))
    # Axes along i, j and k lead to the left, the back and up: those of (S, P, L).
    assert np.array_equal(found.array[0], expected)
    assert found.grid.spacing_mm == (2.0, 1.25, 1.5)
    assert found.grid.origin_mm == (10.0, 20.0, 30.0)
    (note,) = found.notes
    assert "2 layers" in note
    assert f"'Spine' with 'canal' is 3 ({(expected == 3).sum()} voxels)" in note
    assert f"'canal' is 4 ({(expected == 4).sum()} voxels)" in note


def test_layers_become_what_their_sets_of_segments_mean(layered):
    """Against each voxel on its own."""
    rng = np.random.default_rng(3)
    names = ("spine", "canal", "disc", "ignore")
    layers = [(rng.random((9, 8, 7)) < 0.3).astype(np.uint8) for _ in names]
    layers[2] &= (layers[0] == 1) & (layers[1] == 0)
    found = read_labels(layered(layers, [(name, n, 1) for n, name in enumerate(names)]), OVERLAPPING)
    for place in np.ndindex(9, 8, 7):
        inside = {name for name, layer in zip(names, layers, strict=True) if layer[place]}
        regions = {
            integer: {
                name
                for name, members in zip(OVERLAPPING.names, OVERLAPPING.members, strict=True)
                if integer in members
            }
            for integer in (0, *OVERLAPPING.integers)
        }
        expected = next(integer for integer in regions if regions[integer] == inside - {"ignore"})
        assert found.array[0][place] == (9 if "ignore" in inside else expected)


def test_a_combination_without_integer_is_named(layered):
    spine, others = boxes()
    disc = np.zeros_like(spine)
    disc[2, 2] = 1
    path = layered((spine, others, disc), (*SEGMENTS[:2], ("Disc", 1, 2), ("disc", 2, 1)))
    with pytest.raises(ImageError) as raised:
        read_labels(path, OVERLAPPING)
    said = str(raised.value)
    assert "'Spine' with 'canal' with 'disc' (4 voxels)" in said
    assert "such as 10 to 'spine' and 'canal' and 'disc'" in said
    nested = parse_labels({"background": 0, "spine": [1, 2], "canal": [2]}, [1, 2])
    with pytest.raises(ImageError, match=r"'canal' alone \(8 voxels\).*such as 3 to 'canal'$"):
        read_labels(layered((spine, others % 2), SEGMENTS[:2]), nested)


def test_plain_labels_may_lie_in_layers_that_do_not_overlap(layered):
    plain = parse_labels({"background": 0, "spine": 300, "canal": 7})
    spine, others = boxes()
    apart = np.where(spine == 1, 0, others).astype(np.uint8)
    found = read_labels(layered((spine, apart), SEGMENTS[:2]), plain)
    assert np.array_equal(found.array[0], np.where(apart == 1, 7, 300 * spine.astype(int)))
    twice = int(((spine == 1) & (others == 1)).sum())
    with pytest.raises(
        ImageError, match=rf"'Spine' with 'canal' \({twice} voxels\).*describe them as regions"
    ):
        read_labels(layered((spine, others % 2), SEGMENTS[:2]), plain)


@pytest.mark.parametrize(
    ("segments", "found"),
    [
        ((("rib", 0, 4), *SEGMENTS[1:]), "'rib' \\(4\\)"),
        ((("rib", 0, 1), *SEGMENTS[1:]), "'rib' \\(1\\), which is none of its labels"),
        ((("spine", 0, 1), ("Segment_2", 1, 1), ("disc", 1, 2)), "'Segment_2', whose value 1 other"),
        ((("spine", 0, 1), ("canal", 1, 1)), "the value 2 in layer 1 \\(8 voxels\\).*save"),
        ((*SEGMENTS, ("disc", 1, 1)), "'canal' and 'disc' for the value 1 in layer 1"),
        ((*SEGMENTS, ("ignore", 2, 1)), "'ignore' in layer 2"),
        ((), "the value 1 in layer 0 \\(.*the value 1 in layer 1 \\("),
    ],
)
def test_segments_that_do_not_fit_are_refused(segments, found, layered):
    path = layered(boxes(), segments, more={"Segmentation_SourceRepresentation": "Binary labelmap"})
    with pytest.raises(ImageError, match=found):
        read_labels(path, OVERLAPPING)


def test_segments_without_a_name_count_by_a_value_of_their_own(layered):
    spine, others = boxes()
    plain = parse_labels({"background": 0, "spine": 1, "canal": 7})
    apart = np.where(spine == 1, 0, 7 * (others == 1)).astype(np.uint8)
    found = read_labels(layered((spine, apart), (("spine", 0, 1), ("Segment_2", 1, 7))), plain)
    assert np.array_equal(found.array[0], spine + apart)


def test_segments_of_old_versions_have_layers_of_their_own(layered):
    spine, others = boxes()
    old = layered((spine, (others == 1).astype(np.uint8)), (("spine", None, None), ("canal", None, None)))
    new = layered((spine, (others == 1).astype(np.uint8)), (("spine", 0, 1), ("canal", 1, 1)), "b.seg.nrrd")
    assert np.array_equal(read_labels(old, OVERLAPPING).array, read_labels(new, OVERLAPPING).array)


def test_layers_that_slicer_does_not_write_are_refused(layered):
    spine, others = boxes()
    for changes, found in (
        ({"sizes": "4 5 6 2", "space_directions": "(1,0,0) (0,1,0) (0,0,1) none"}, "first axis"),
        ({"sizes": "300 4 5 6"}, "found 300"),
        ({"sizes": "0 4 5 6"}, "found 0"),
        ({"sizes": "-2 4 5 6"}, "found -2"),
        ({"sizes": "2 4 5 60000000"}, "cannot hold"),
        ({"sizes": "2 4 5 7"}, "bytes of voxels"),
    ):
        with pytest.raises(ImageError, match=found):
            read_labels(layered((spine, others), SEGMENTS, **changes), OVERLAPPING)
    with pytest.raises(ImageError, match="found them as float"):
        read_labels(layered([layer.astype(np.float32) for layer in boxes()], SEGMENTS), OVERLAPPING)


def test_more_combinations_than_are_numbered_are_refused(layered):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 30000, (50, 50, 50)).astype(np.int16) for _ in range(2)]
    with pytest.raises(ImageError, match=r"at most 65536 combinations.*save"):
        read_labels(layered(noise, SEGMENTS), OVERLAPPING)


def test_layers_are_no_image(layered):
    path = layered(boxes(), SEGMENTS)
    for read in (read_labels, read_volume):
        with pytest.raises(ImageError, match="found 2 layers of segments; give the image"):
            read(path)


def test_large_layers_are_read_part_by_part(layered):
    """Rows of voxels that end within a part of the stream, in two bytes each."""
    shape = (70, 130, 170)
    first, second = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
    first[10:60, 20:90, 30:120] = 1
    second[30:70, 50:130, 60:170] = 1
    third = np.roll(first, 30, axis=2) * (first == 0) * (second == 0)
    plain = parse_labels({"background": 0, "spine": [1, 3], "canal": [2, 3], "rib": [4]}, [1, 2, 4])
    path = layered((first, second, third.astype(np.int16)), (("spine", 0, 1), ("canal", 1, 1), ("rib", 2, 1)))
    assert np.array_equal(read_labels(path, plain).array[0], first + 2 * second + 4 * third)


def test_predictions_of_regions_are_read_back_as_they_were(tmp_path):
    """What is exported holds output labels, also where regions are written over others."""
    for space in (
        REGIONS,
        OVERLAPPING,
        parse_labels({"background": 0, "spine": [1, 2], "canal": [2, 3]}, [1, 2]),
        parse_labels({"background": 0, "spine": [1, 2], "canal": [1, 3]}, [1, 1]),
    ):
        inside = np.random.default_rng(1).random((len(space.names), 6, 5, 4)) < 0.4
        labels = space.decode(inside)
        grid = Grid(
            shape=(6, 5, 4),
            spacing_mm=(2.0, 1.25, 1.5),
            origin_mm=(1.0, 2.0, 3.0),
            direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        )
        for ending in (".seg.nrrd", ".nrrd"):
            write_labels(tmp_path / f"a{ending}", labels, grid, segments_of(space))
            assert np.array_equal(read_labels(tmp_path / f"a{ending}", space).array[0], labels)


@pytest.mark.real_data
def test_published_segments_that_overlap_are_joined(real_data, layered):
    """The segments that dcmqi takes out of a DICOM segmentation, as layers of one file."""
    folder = real_data / "odd" / "dicom_seg"
    layers = [read_labels(folder / f"partial_overlaps-{n}.nrrd").array[0] for n in (1, 2, 3)]
    segments, regions, stored = [], {}, []
    for number, layer in enumerate(layers):
        values = [int(value) for value in np.unique(layer) if value]
        stored.append(layer.astype(np.uint8))
        segments += [(f"class {value}", number, value) for value in values]
    combinations = np.unique(np.stack(layers, -1).reshape(-1, 3), axis=0)
    for integer, row in enumerate((row for row in combinations.tolist() if any(row)), start=1):
        for value in filter(None, row):
            regions.setdefault(f"class {value}", []).append(integer)
    space = parse_labels({"background": 0, **regions}, [members[0] for members in regions.values()])
    found = read_labels(layered(stored, segments), space).array[0]
    for name, members in regions.items():
        value = int(name.split()[1])
        assert np.array_equal(np.isin(found, members), np.any([layer == value for layer in layers], axis=0))
    plain = parse_labels({"background": 0, **{name: n + 1 for n, name in enumerate(regions)}})
    with pytest.raises(ImageError, match=r"'class \d+' with 'class \d+' \(\d+ voxels\)"):
        read_labels(layered(stored, segments), plain)
