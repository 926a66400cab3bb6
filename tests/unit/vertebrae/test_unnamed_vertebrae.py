"""Maps with one label for all vertebrae: told apart, and named from the sacrum."""

import json
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.cli.app import main
from autospine.core.geometry import Grid
from autospine.core.labels import VERSE, parse_labels
from autospine.core.types import LabelArray
from autospine.io.images import read_labels, write_array
from autospine.vertebrae.dataset_levels import level_integers, vertebra_class
from autospine.vertebrae.label_instances import find_vertebrae
from autospine.vertebrae.touching_vertebrae import VERTEBRA
from autospine.vertebrae.unnamed_vertebrae import FIRST_UNKNOWN, name_unnamed

STRUCTURES = {"vertebra": 1, "disc": 2, "canal": 3, "sacrum": 4}


@pytest.fixture(scope="module")
def lumbosacral(real_data: Path) -> tuple[LabelArray, Grid]:
    """A CT from T9 to the sacrum, with the levels that its map names."""
    volume = read_labels(real_data / "real" / "ct_lumbosacral" / "labels_verse.nii.gz")
    return volume.array[0].astype(np.int16), volume.grid


def plain(levels: LabelArray) -> LabelArray:
    """The same map without names."""
    vertebra = (levels >= 1) & (levels <= 25)
    sacrum = np.isin(levels, (26, 29))
    return np.select([vertebra, sacrum, levels == 60], [1, 4, 3], 0).astype(np.uint8)


def test_vertebrae_are_named_from_the_sacrum(lumbosacral) -> None:
    levels, grid = lumbosacral
    named, identities = name_unnamed("case", plain(levels), grid, STRUCTURES)
    assert [each.level for each in identities.vertebrae][-6:] == ["L1", "L2", "L3", "L4", "L5", "sacrum"]
    for value in (20, 21, 22, 23, 24):
        assert np.bincount(named[levels == value]).argmax() == value
    assert np.array_equal(named == VERSE["canal"], levels == 60)
    assert np.array_equal(named > 0, plain(levels) > 0)


def test_without_an_anchor_order_is_certain_and_levels_are_unknown() -> None:
    labels = np.zeros((110, 50, 50), dtype=np.uint8)
    s, p, left = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    for place in (90, 54, 18):
        labels[(s - place) ** 2 + (p - 25) ** 2 + (left - 25) ** 2 < 14**2] = 1
    named, identities = name_unnamed("case", labels, makers.grid(labels.shape), STRUCTURES)
    assert [each.order for each in identities.vertebrae] == [1, 2, 3]
    assert "no sacrum" in identities.notes[0]
    for place, vertebra in zip((90, 54, 18), identities.vertebrae, strict=True):
        expected = FIRST_UNKNOWN + vertebra.order if vertebra.level == "unknown" else VERSE[vertebra.level]
        assert named[place, 25, 25] == expected
    assert np.array_equal(named > 0, labels > 0)


def test_what_is_no_vertebra_has_a_value_of_its_own(lumbosacral) -> None:
    levels, grid = lumbosacral
    labels = plain(levels)
    crumb = (slice(2, 5), slice(2, 5), slice(2, 5))
    assert not labels[crumb].any()
    labels[crumb] = STRUCTURES["vertebra"]
    named, identities = name_unnamed("case", labels, grid, STRUCTURES)
    assert set(np.unique(named[crumb])) == {FIRST_UNKNOWN}
    assert np.array_equal(named == VERSE["sacrum"], labels == STRUCTURES["sacrum"])
    assert all(each.level != "unknown" or each.order > 0 for each in identities.vertebrae)


def test_a_piece_as_large_as_a_fragment_that_is_no_vertebra_is_told(lumbosacral) -> None:
    levels, grid = lumbosacral
    labels = plain(levels)
    block = (slice(2, 11), slice(2, 11), slice(2, 11))
    assert not labels[block].any()
    labels[block] = STRUCTURES["vertebra"]
    named, identities = name_unnamed("case", labels, grid, STRUCTURES)
    assert set(np.unique(named[block])) == {FIRST_UNKNOWN}
    assert any("belong to no whole vertebra; their label is 150" in note for note in identities.notes)


def test_a_vertebra_that_may_be_two_is_told(lumbosacral) -> None:
    levels, grid = lumbosacral
    _, identities = name_unnamed("case", plain(levels), grid, STRUCTURES)
    assert not any("times as large" in note for note in identities.notes)
    joined = plain(levels)
    upper, lower = (np.argwhere(levels == VERSE[level]) for level in ("L2", "L3"))
    centres = np.stack([upper.mean(axis=0), lower.mean(axis=0)])
    column = [
        slice(int(low) - 12, int(high) + 12) for low, high in zip(*np.sort(centres, axis=0), strict=True)
    ]
    joined[tuple(column)] = 1
    _, identities = name_unnamed("case", joined, grid, STRUCTURES)
    assert any("times as large as its larger neighbour" in note for note in identities.notes)


def test_the_last_vertebra_is_no_piece_of_the_sacrum_that_it_touches(lumbosacral) -> None:
    levels, grid = lumbosacral
    labels = plain(levels)
    last = levels == VERSE["L5"]
    below = np.zeros_like(last)
    below[:-6] = last[6:]
    touching = np.where(below & (labels == 0), 4, labels).astype(np.uint8)  # the sacrum grows up to it
    named, _ = name_unnamed("case", touching, grid, STRUCTURES)
    assert np.bincount(named[last]).argmax() == VERSE["L5"]


def test_what_is_called_vertebra_at_the_upper_end_of_the_sacrum_is_a_piece_of_it() -> None:
    labels = np.zeros((100, 40, 60), dtype=np.uint8)
    labels[5:45, :35, 20:50] = STRUCTURES["sacrum"]
    labels[25:44, :35, 14:20] = STRUCTURES["vertebra"]  # the border cuts it, as it does the sacrum
    labels[60:85, :35, 20:50] = STRUCTURES["vertebra"]
    levels = {1: VERTEBRA, 4: "sacrum"}
    found = find_vertebrae(labels, makers.grid(labels.shape), levels).vertebrae
    assert sorted((each.is_sacrum, len(each.pieces)) for each in found) == [(False, 1), (True, 2)]


def test_a_crumb_of_sacrum_in_a_vertebra_does_not_take_it_away(lumbosacral) -> None:
    levels, grid = lumbosacral
    labels = plain(levels)
    s, p, x = (int(np.median(axis)) for axis in np.nonzero(levels == VERSE["L3"]))
    block = labels[s - 6 : s + 6, p - 6 : p + 6, x - 6 : x + 6]
    block[block == STRUCTURES["vertebra"]] = STRUCTURES["sacrum"]
    named, _ = name_unnamed("case", labels, grid, STRUCTURES)
    for value in (20, 21, 22, 23, 24):
        assert np.bincount(named[levels == value]).argmax() == value


def test_the_level_of_the_uppermost_vertebra_can_be_stated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((110, 50, 50), dtype=np.uint8)
    s, p, left = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    for place in (90, 54, 18):
        labels[(s - place) ** 2 + (p - 25) ** 2 + (left - 25) ** 2 < 14**2] = 1
    write_array(tmp_path / "in" / "a.nii.gz", labels, makers.grid(labels.shape))
    measure = ["anatomy", "measure", "-i", str(tmp_path / "out"), "-o", str(tmp_path / "measured")]
    identify = ["anatomy", "identify", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    identify += ["--scheme", "structures"]
    unknown = np.select([labels == 0, s > 72, s > 36], [0, 151, 152], 153).astype(np.uint8)
    write_array(tmp_path / "out" / "a.nii.gz", unknown, makers.grid(labels.shape))
    assert main(measure) == 1
    said = capsys.readouterr().err
    assert "3 labels of vertebrae whose level is unknown" in said and "--uppermost LEVEL" in said
    assert main([*identify, "--uppermost", "l2"]) == 0
    named = read_labels(tmp_path / "out" / "a.nii.gz").array[0]
    assert [named[place, 25, 25] for place in (90, 54, 18)] == [VERSE["L2"], VERSE["L3"], VERSE["L4"]]
    assert main(measure) == 0
    assert main([*identify, "--uppermost", "X2"]) == 1
    write_array(tmp_path / "in" / "b.nii.gz", labels, makers.grid(labels.shape))
    assert main([*identify, "--uppermost", "L2"]) == 1
    said = capsys.readouterr().err
    assert "'X2'" in said and "one file with --uppermost, found 2" in said


def test_a_map_without_vertebrae(tmp_path: Path) -> None:
    empty = np.zeros((20, 20, 20), dtype=np.uint8)
    named, identities = name_unnamed("case", empty, makers.grid(empty.shape), STRUCTURES)
    assert not named.any() and identities.notes == ("there is no vertebra",)


def test_classes_of_datasets_are_levels_by_their_names() -> None:
    levels = parse_labels({"background": 0, "L2_vertebra": 3, "L1": 9, "T12": 4, "sacrum": 5, "liver": 6})
    assert level_integers(levels) == {"T12": 4, "L1": 9, "L2": 3, "sacrum": 5}
    assert list(level_integers(levels)) == ["T12", "L1", "L2", "sacrum"]
    assert vertebra_class(levels) == {}
    bones = parse_labels({"background": 0, "vertebrae": 1, "sacrum": 2})
    assert level_integers(bones) == {} and vertebra_class(bones) == {"vertebra": 1, "sacrum": 2}
    assert level_integers(parse_labels({"background": 0, "L1": 1, "L2": 2})) == {}


def test_the_command_takes_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((110, 50, 50), dtype=np.uint8)
    s, p, left = np.ogrid[tuple(slice(0, n) for n in labels.shape)]
    for place in (90, 54, 18):
        labels[(s - place) ** 2 + (p - 25) ** 2 + (left - 25) ** 2 < 14**2] = 1
    write_array(tmp_path / "in" / "a.nii.gz", labels, makers.grid(labels.shape))
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "bone": 1},
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps({**described, "numTraining": 0}), encoding="utf-8")
    words = ["anatomy", "identify", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main([*words, "--labels-of", str(tmp_path / "dataset.json")]) == 1
    assert "or a class `vertebra`" in capsys.readouterr().err
    assert main([*words, "--scheme", "structures"]) == 0
    written = json.loads((tmp_path / "out" / "a_vertebrae.json").read_text(encoding="utf-8"))
    assert len(written["vertebrae"]) == 3
    assert (read_labels(tmp_path / "out" / "a.nii.gz").array != 0).sum() == (labels != 0).sum()


@pytest.mark.parametrize(
    ("file", "scheme", "levels"),
    [
        (
            "ct_hip_metal/labels_vertebrae_body.nii.gz",
            "totalsegmentator-vertebrae-body",
            "T12 L1 L2 L3 L4 L5",
        ),
        (
            "metrics_pair_mr/semantic_ref.nii.gz",
            "spineps-subregion",
            "T11 T12 L1 L2 L3 L4 L5 sacrum",
        ),
        ("ct_lumbar_crop/labels_subregion.nii.gz", "spineps-subregion", "unknown unknown unknown"),
    ],
)
def test_maps_of_bodies_and_of_parts_are_named(
    file: str, scheme: str, levels: str, real_data: Path, tmp_path: Path
) -> None:
    source = real_data / "real" / file
    words = ["anatomy", "identify", "-i", str(source), "-o", str(tmp_path), "--scheme", scheme]
    assert main(words) == 0
    named = source.name.removesuffix(".nii.gz") + "_vertebrae.json"
    written = json.loads((tmp_path / named).read_text(encoding="utf-8"))
    assert [each["level"] for each in written["vertebrae"]] == levels.split()
    if scheme == "totalsegmentator-vertebrae-body":
        found = read_labels(tmp_path / source.name).array[0]
        true = read_labels(source.with_name("labels_verse_bodies.nii.gz")).array[0]
        for value in range(19, 25):
            assert np.bincount(found[true == value]).argmax() == value


def test_three_bodies_of_one_label_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((110, 50, 50), dtype=np.uint8)
    for place in (10, 46, 82):
        labels[place : place + 26, 10:40, 8:42] = 49
        labels[place : place + 26, 40:48, 20:30] = 41
    write_array(tmp_path / "in" / "a.nii.gz", labels, makers.grid(labels.shape))
    words = ["anatomy", "identify", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main([*words, "--scheme", "spineps-subregion", "--uppermost", "L2"]) == 0
    said = capsys.readouterr().out
    assert "a: L2 L3 L4" in said and "a.nii.gz: 41 are left out of the new map" in said
    found = read_labels(tmp_path / "out" / "a.nii.gz").array[0]
    assert [found[place, 20, 20] for place in (90, 50, 20)] == [21, 22, 23]
    assert not found[labels == 41].any()


def test_segments_of_a_file_of_slicer_have_the_names_of_a_spine_with_six_lumbar_vertebrae(
    tmp_path: Path,
) -> None:
    labels = np.zeros((290, 50, 50), dtype=np.uint8)
    labels[6:40, 10:40, 8:42] = 50
    for place, value in zip(range(54, 260, 36), (46, 45, 44, 43, 42, 41), strict=True):
        labels[place : place + 26, 10:40, 8:42] = value
    for place, value in ((44, 100), (80, 96), (116, 95)):
        labels[place : place + 8, 10:40, 8:42] = value
    write_array(tmp_path / "in" / "a.seg.nrrd", labels, makers.grid(labels.shape))
    words = ["-i", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main(["anatomy", "identify", *words, "--scheme", "totalspineseg"]) == 0
    names = makers.segment_names(tmp_path / "out" / "a.seg.nrrd")
    assert names[100] == "disc_below_L6" and names[96] == "disc_below_L5"
