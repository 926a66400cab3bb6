"""DICOM segmentations, read back by highdicom: the same voxels in the same place."""

import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_makers import write_frames, write_slices

from autospine import __version__
from autospine.core.errors import AutospineError, ImageError
from autospine.core.geometry import orientation
from autospine.core.labels import VERTEBRAE, LabelSpace, parse_labels
from autospine.io import dicom_seg
from autospine.io.dicom import find_series
from autospine.io.dicom_seg import check_slices, require_highdicom, structure, write_segmentation
from autospine.io.images import Volume, read_volume
from autospine.io.segments import rgb, segments_of
from autospine.io.slice_stack import StraightenedGrid

hd = pytest.importorskip("highdicom")

WriteSeries = Callable[..., list[Path]]

SPACE = parse_labels({"background": 0, "T12": 19, "T13": 300, "L1": 20, "Röhre\\Kanal": 61})


@pytest.fixture
def series(write_series: WriteSeries, tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(-1000, 2000, (6, 8, 9)).astype(np.int16)
    write_series(tmp_path / "in", pixels, [10.0 + 2.5 * index for index in range(6)])
    return tmp_path / "in"


def written(path: Path, labels: np.ndarray, series: Path, volume: Volume, space: LabelSpace = SPACE) -> Any:
    write_segmentation(path, labels, volume.stored, segments_of(space), series)
    return hd.seg.segread(path)


def label_map(made: Any, space: LabelSpace) -> Any:
    """A volume of integers as on disk."""
    numbers = made.get_volume(combine_segments=True, allow_missing_positions=True)
    integers = dict(zip((one.name for one in segments_of(space)), space.painted, strict=True))
    table = [0] + [integers[one.SegmentLabel.replace("/", "\\")] for one in made.SegmentSequence]
    return numbers.with_array(np.asarray(table)[numbers.array])


def check_place(found: Any, labels: np.ndarray, volume: Volume) -> None:
    """The voxels that are there are the label map's, where they belong; frames may be in another order."""
    stored = orientation(volume.stored).to_stored(labels)
    index = np.argwhere(stored)
    places = volume.stored.physical(index)
    inverse = np.linalg.inv(found.affine)
    at = np.rint(places @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    assert np.allclose(at @ found.affine[:3, :3].T + found.affine[:3, 3], places, atol=1e-3)
    assert np.array_equal(found.array[tuple(at.T)], stored[tuple(index.T)])
    assert np.count_nonzero(found.array) == len(index)


def test_voxels_come_back_in_their_place(series: Path, tmp_path: Path):
    volume = read_volume(series)
    labels = np.random.default_rng(1).choice([0, 19, 300, 20, 61], volume.grid.shape)
    made = written(tmp_path / "out" / "seg.dcm", labels, series, volume)
    check_place(label_map(made, SPACE), labels, volume)
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["seg.dcm"]


def test_every_segment_is_described(series: Path, tmp_path: Path):
    volume = read_volume(series)
    labels = np.random.default_rng(1).choice([0, 19, 300, 61], volume.grid.shape)
    made = written(tmp_path / "seg.dcm", labels, series, volume)
    assert made.SegmentationType == "BINARY"
    described = made.SegmentSequence
    assert [one.SegmentLabel for one in described] == ["T12", "T13", "Röhre/Kanal"]  # no L1 here
    codes = [one.SegmentedPropertyTypeCodeSequence[0] for one in described]
    assert [(code.CodingSchemeDesignator, code.CodeValue) for code in codes] == [
        ("SCT", "23215003"),
        ("SCT", "51282000"),
        ("SCT", "91723000"),
    ]
    assert {one.SegmentAlgorithmType for one in described} == {"AUTOMATIC"}
    algorithm = described[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("AutoSpine", __version__)
    colours = {one.name: rgb(one.colour) for one in segments_of(SPACE)}
    lab = hd.color.CIELabColor.from_dicom_value(described[0].RecommendedDisplayCIELabValue)
    assert np.allclose(lab.to_rgb(clip=True), colours["T12"], atol=1)


def test_the_slices_are_referred_to(series: Path, tmp_path: Path):
    import pydicom

    volume = read_volume(series)
    made = written(tmp_path / "seg.dcm", np.full(volume.grid.shape, 20), series, volume)
    slices = [pydicom.dcmread(file) for file in find_series(series).files]
    assert [source[2] for source in made.get_source_image_uids()] == [one.SOPInstanceUID for one in slices]
    assert made.StudyInstanceUID == slices[0].StudyInstanceUID
    assert made.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    assert made.SeriesInstanceUID != slices[0].SeriesInstanceUID


def test_the_step_is_that_of_the_positions(series: Path, tmp_path: Path):
    """Readers that believe a wrong spacing in the header find no volume."""
    import pydicom

    volume = read_volume(series)
    for file in series.iterdir():
        slice_ = pydicom.dcmread(file)
        slice_.SpacingBetweenSlices = "1.0"
        slice_.save_as(file)
    labels = np.full(volume.grid.shape, 20)
    labels[2:4] = 0
    made = written(tmp_path / "seg.dcm", labels, series, volume)
    check_place(label_map(made, SPACE), labels, volume)


def test_an_empty_label_map_can_be_written(series: Path, tmp_path: Path):
    volume = read_volume(series)
    made = written(tmp_path / "seg.dcm", np.zeros(volume.grid.shape, np.uint8), series, volume)
    assert len(made.SegmentSequence) == 4
    assert not made.pixel_array.any()


def stated_by_frame(header: Any) -> None:
    """State the size and orientation of pixels in each frame, as Philips does, and a wrong step."""
    shared = header.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence[0].SpacingBetweenSlices = "1"
    del shared.PixelMeasuresSequence[0].SliceThickness
    for group in header.PerFrameFunctionalGroupsSequence:
        for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
            group[keyword] = copy.deepcopy(shared[keyword])
    del shared.PixelMeasuresSequence, shared.PlaneOrientationSequence


TILTED = (1.0, 0.0, 0.0, 0.0, 0.94832366, -0.31730466)


@pytest.mark.parametrize(
    "kind", ["tilted", "tilted, with steps that change", "frames", "tilted frames", "frames by themselves"]
)
def test_a_segmentation_lies_on_the_slices_themselves(kind: str, tmp_path: Path):
    """Also where they are no straight stack, and in whatever order frames are stored."""
    pixels = np.random.default_rng(0).integers(0, 4000, (8, 20, 9)).astype(np.uint16)
    z = [0, 4, 8, 12, 13, 20, 27, 34] if "change" in kind else [3 * n for n in range(8)]
    positions = np.asarray([(0.0, 0.0, float(mm)) for mm in z])
    orientation_ = TILTED if "tilted" in kind else (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    order = [3, 0, 1, 7, 6, 2, 4, 5]
    if "frames" in kind:
        series = write_frames(
            tmp_path / "mf.dcm",
            pixels[order],
            positions[order],
            orientation=orientation_,
            change=stated_by_frame if "themselves" in kind else None,
        )
    else:
        series = tmp_path / "in"

        def change(header: Any) -> None:
            header.SliceThickness = "4" if header.InstanceNumber <= 4 else "7"

        write_slices(series, pixels, positions, orientation=orientation_, change=change)
    volume = read_volume(series)
    check_slices(series, volume.stored, segments_of(SPACE))
    labels = np.random.default_rng(1).choice([0, 19, 20], volume.grid.shape)
    made = written(tmp_path / "seg.dcm", labels, series, volume)
    expected = orientation(volume.stored).to_stored(labels)
    if isinstance(volume.stored, StraightenedGrid):
        expected = volume.stored.on_slices(expected)
    (measures,) = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    steps = [float(measures.SpacingBetweenSlices)] if "SpacingBetweenSlices" in measures else []
    assert steps == pytest.approx([] if "change" in kind else [volume.stored.spacing_mm[0]], abs=1e-3)
    numbers = {segment.SegmentNumber: segment.SegmentLabel for segment in made.SegmentSequence}
    found = np.zeros(pixels.shape, np.int64)
    for frame, groups in zip(made.pixel_array, made.PerFrameFunctionalGroupsSequence, strict=True):
        number = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = np.asarray(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        (index,) = np.flatnonzero(np.linalg.norm(positions - place, axis=1) < 1e-4)
        found[index][frame > 0] = {"T12": 19, "L1": 20}[numbers[number]]
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        if "frames" in kind:
            assert order[int(source.ReferencedFrameNumber) - 1] == index
        else:
            assert source.ReferencedSOPInstanceUID == f"1.2.3.{index + 1}"
    assert np.array_equal(found, expected)


def changed(series: Path, change: Callable[[Any], None]) -> None:
    import pydicom

    for file in series.iterdir():
        header = pydicom.dcmread(file)
        change(header)
        header.save_as(file)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda header: delattr(header, "FrameOfReferenceUID"),
            "with a frame of reference, .* found none in",
        ),
        (lambda header: setattr(header, "FrameOfReferenceUID", ""), "with a frame of reference"),
        (
            lambda header: setattr(header, "SOPClassUID", "1.2.3"),
            r"can refer to in .*, found headers that do",
        ),
    ],
)
def test_slices_that_cannot_be_referred_to_are_named(series: Path, tmp_path: Path, change: Any, says: str):
    volume = read_volume(series)
    changed(series, change)
    for check in (
        lambda: check_slices(series, volume.stored, segments_of(SPACE)),
        lambda: written(tmp_path / "seg.dcm", np.ones(volume.grid.shape, np.uint8), series, volume),
    ):
        with pytest.raises(ImageError, match=rf"{says}.*; predict with another --format"):
            check()
    assert not (tmp_path / "seg.dcm").exists()


def test_made_up_studies_are_told_once(series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    volume = read_volume(series)
    changed(series, lambda header: setattr(header, "StudyInstanceUID", ""))
    check_slices(series, volume.stored, segments_of(SPACE))
    written(tmp_path / "seg.dcm", np.full(volume.grid.shape, 20), series, volume)
    assert caplog.text.count("refers to made-up ones") == 1


def test_slices_of_old_without_a_mark_are_referred_to(series: Path, tmp_path: Path):
    import pydicom

    volume = read_volume(series)
    for file in series.iterdir():
        header = pydicom.dcmread(file)
        header.preamble, header.file_meta = None, pydicom.dataset.FileMetaDataset()
        header.save_as(file, implicit_vr=True, little_endian=True)
    assert read_volume(series).grid == volume.grid
    made = written(tmp_path / "seg.dcm", np.full(volume.grid.shape, 20), series, volume)
    assert made.NumberOfFrames == len(volume.array[0])


def test_without_highdicom_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch):
    require_highdicom()
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    with pytest.raises(AutospineError, match=r"pip install 'autospine\[dicom\]'"):
        require_highdicom()


@pytest.mark.parametrize(
    ("name", "keyword"),
    [
        ("C1", "C1Vertebra"),
        ("vertebrae_T12", "T12Vertebra"),
        ("vertebra l5", "L5Vertebra"),
        ("L6", "Vertebra"),
        ("T13", "Vertebra"),
        ("T14", "AnatomicalStructure"),
        ("Vertebrae", "Vertebra"),
        ("sacrum", "Sacrum"),
        ("coccyx", "Coccyx"),
        ("cord", "SpinalCord"),
        ("spinal_cord", "SpinalCord"),
        ("canal", "VertebralCanal"),
        ("spinal-canal", "VertebralCanal"),
        ("disc_L1_L2", "L1L2Disc"),
        ("Disk T9/T10", "T9T10Disc"),
        ("intervertebral disc C7-T1", "C7T1Disc"),
        ("disc_T12L1", "T12L1Disc"),
        ("disc_L5_S", "L5S1Disc"),
        ("disc L5/S1", "L5S1Disc"),
        ("disc_L5_sacrum", "L5S1Disc"),
        ("disc_below_C2", "C2C3Disc"),
        ("disc_below_L3", "L3L4Disc"),
        ("disc_below_L5", "AnatomicalStructure"),
        ("disc_below_L6", "AnatomicalStructure"),
        ("disc_below_T12", "AnatomicalStructure"),
        ("disc_T12_T13", "AnatomicalStructure"),
        ("disc_L4_S1", "AnatomicalStructure"),
        ("disc_L1_L3", "AnatomicalStructure"),
        ("disc_C1_C2", "AnatomicalStructure"),
        ("disc", "AnatomicalStructure"),
        ("C1 lamina", "AnatomicalStructure"),
    ],
)
def test_structures_are_known_by_their_names(name: str, keyword: str):
    from pydicom.sr.codedict import codes

    assert structure(name) == keyword
    assert getattr(codes.SCT, keyword).scheme_designator == "SCT"


def test_the_codes_of_discs_are_those_of_their_context_group():
    from pydicom.sr.codedict import codes

    column = [*(name for name in VERTEBRAE if name not in ("C1", "T13", "L6")), "S1"]
    pairs = list(pairwise(column))
    assert {structure(f"disc_{upper}_{lower}") for upper, lower in pairs} == set(codes.cid7604.dir())
    meanings = [getattr(codes.SCT, structure(f"disc_{upper}_{lower}")).meaning for upper, lower in pairs]
    assert meanings == [f"{upper}/{lower} disc" for upper, lower in pairs]


@pytest.mark.real_data
def test_the_real_series(real_data: Path, tmp_path: Path):
    import pydicom

    folder = real_data / "real" / "dicom_ct"
    volume = read_volume(folder)
    labels = np.zeros(volume.grid.shape, np.int64)
    bone = volume.array[0] > 200
    labels[bone] = 20
    labels[:8][bone[:8]] = 19
    made = written(tmp_path / "seg.dcm", labels, folder, volume)
    check_place(label_map(made, SPACE), labels, volume)
    assert made.StudyInstanceUID  # although the slices have none
    assert made.FrameOfReferenceUID == pydicom.dcmread(find_series(folder).files[0]).FrameOfReferenceUID
