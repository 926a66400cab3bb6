"""Maps whose scheme is not the one that was stated."""

import json
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.cli.app import main
from autospine.core.geometry import Grid
from autospine.core.types import LabelArray
from autospine.io.images import read_labels, write_array
from autospine.vertebrae.label_conversion import convert_labels, plan_conversion
from autospine.vertebrae.levels import INDEX
from autospine.vertebrae.proportions import STEPS_MM
from autospine.vertebrae.scheme_doubts import doubts_of_scheme, fitting_schemes
from autospine.vertebrae.schemes import SCHEMES

RIGHT = {
    "ct_cervical/labels_verse.nii.gz": "verse",
    "ct_hip_metal/labels_totalsegmentator.nii.gz": "totalsegmentator",
    "ct_lumbar_crop/labels_verse.nii.gz": "verse",
    "ct_lumbosacral/labels_verse.nii.gz": "verse",
    "ct_thorax/labels_verse.nii.gz": "verse",
    "gl003/labels_verse.nii.gz": "verse",
    "verse004/sub-verse004_seg-vert_msk.nii.gz": "verse",
    "verse010/labels_verse.nii.gz": "verse",
}
"""Right label maps of real scans."""


def bodies(values: dict[str, int], missing: tuple[str, ...] = ()) -> tuple[LabelArray, Grid]:
    """Bodies of these levels at the distances of a mean spine, with these label values, in voxels of 2 mm."""
    levels = sorted(values, key=lambda level: INDEX[level])
    below = np.cumsum([0.0, *(STEPS_MM[level] for level in levels[:-1])]) / 2
    labels = np.zeros((round(below[-1]) + 20, 24, 24), dtype=np.int16)
    for level, depth in zip(levels, below, strict=True):
        top = labels.shape[0] - 10 - round(depth)
        if level not in missing:
            labels[top - 4 : top + 4, 4:20, 4:20] = values[level]
    return labels, makers.grid(labels.shape, spacing_mm=(2.0, 2.0, 2.0))


def lumbar(scheme: str, *levels: str) -> tuple[LabelArray, Grid]:
    return bodies({level: SCHEMES[scheme].integers[level] for level in levels or LUMBAR})


LUMBAR = ("T11", "T12", "L1", "L2", "L3", "L4", "L5")


@pytest.mark.parametrize(("file", "scheme"), RIGHT.items(), ids=str)
def test_right_maps_are_not_doubted(file: str, scheme: str, real_data: Path) -> None:
    volume = read_labels(real_data / "real" / file)
    assert doubts_of_scheme(volume.array[0], volume.grid, SCHEMES[scheme]).reasons == ()
    assert scheme in fitting_schemes(volume.array[0], volume.grid)


def test_a_map_of_totalsegmentator_is_none_of_verse(real_data: Path) -> None:
    """25 and 27 to 31 are L6, T13 and segments of the sacrum by VerSe."""
    volume = read_labels(real_data / "real" / "ct_lumbosacral" / "labels_verse.nii.gz")
    from_l1 = np.where((volume.array[0] >= 20) & (volume.array[0] < 60), volume.array[0], 0)
    verse, total = SCHEMES["verse"], SCHEMES["totalsegmentator"]
    labels = convert_labels(from_l1, plan_conversion(np.unique(from_l1).tolist(), verse, total).integers)
    assert set(np.unique(labels).tolist()) == {0, 25, 27, 28, 29, 30, 31}
    doubts = doubts_of_scheme(labels, volume.grid, verse)
    assert doubts.fitting == ("totalsegmentator",)
    assert doubts.in_words(verse) == (
        "its labels may be of another scheme than verse (no level but T13, L6 is read by it): they fit "
        "totalsegmentator; state it with --scheme"
    )
    assert doubts_of_scheme(labels, volume.grid, total).in_words(total) is None


def test_a_map_without_any_level_of_the_scheme_is_doubted_too() -> None:
    """29 to 31, segments of the sacrum by VerSe, are L3 to L1."""
    labels, grid = lumbar("totalsegmentator", "L1", "L2", "L3")
    assert doubts_of_scheme(labels, grid, SCHEMES["verse"]).reasons == ("no level is read by it",)


@pytest.mark.parametrize("stated", ["spider-from-top", "verse"])
def test_lumbar_vertebrae_that_are_counted_from_the_other_end_are_noticed(stated: str) -> None:
    labels, grid = lumbar("spider-from-bottom")
    doubts = doubts_of_scheme(labels, grid, SCHEMES[stated])
    distance, direction = doubts.reasons
    assert distance == "neighbours lie 1.9 times as far apart as C1 and those below do"
    assert direction == "it counts from the other end, unless the header has exchanged head and feet"
    assert "spider-from-bottom" in doubts.fitting and stated not in doubts.fitting
    assert doubts_of_scheme(labels, grid, SCHEMES["spider-from-bottom"]).reasons == ()


def test_a_header_that_has_exchanged_head_and_feet_may_be_another_scheme_instead() -> None:
    labels, grid = lumbar("verse")
    (reason,) = doubts_of_scheme(labels[::-1], grid, SCHEMES["verse"]).reasons
    assert reason == "it counts from the other end, unless the header has exchanged head and feet"


def test_missing_wrong_and_few_labels_are_no_sign_of_another_scheme() -> None:
    verse = SCHEMES["verse"]
    values = {level: verse.integers[level] for level in LUMBAR}
    for labels, grid in (
        bodies(values, missing=("T12", "L1", "L3", "L4")),
        bodies({**values, "L2": verse.integers["C4"]}),
        bodies({"T12": 19, "L5": 24}),
        bodies({"L5": 24}),
        (np.zeros((5, 5, 5), dtype=np.uint8), makers.grid((5, 5, 5))),
    ):
        assert doubts_of_scheme(labels, grid, verse).in_words(verse) is None


def test_levels_of_totalspineseg_are_none_of_totalsegmentator() -> None:
    """T11 to L5 are 31, 32 and 41 to 45, which are L1, T12, T3 to T1, C7 and C6 by TotalSegmentator."""
    labels, grid = lumbar("totalspineseg")
    doubts = doubts_of_scheme(labels, grid, SCHEMES["totalsegmentator"])
    assert doubts.reasons[0] == "C6, C7, T1, T2, T3, T12 and 1 more are no neighbours"
    assert doubts.fitting == ("totalspineseg",)


def written(folder: Path, scheme: str, *levels: str) -> Path:
    labels, grid = lumbar(scheme, *levels)
    write_array(folder / "in" / "a.nii.gz", labels, grid)
    return folder / "in" / "a.nii.gz"


def test_identify_says_it_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["anatomy", "identify", "-i", str(written(tmp_path, "spider-from-bottom"))]
    assert main([*words, "-o", str(tmp_path / "out"), "--scheme", "spider-from-top"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "may be of another scheme than spider-from-top" in said
    assert "they fit totalsegmentator-vertebrae-mr, spider-from-bottom; state it with --scheme" in said
    (*_, note) = json.loads((tmp_path / "out" / "a_vertebrae.json").read_text(encoding="utf-8"))["notes"]
    assert "counts from the other end" in note
    assert main([*words, "-o", str(tmp_path / "out"), "--scheme", "spider-from-bottom"]) == 0
    assert "another scheme" not in capsys.readouterr().out


def test_measure_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["anatomy", "measure", "-i", str(written(tmp_path, "spider-from-bottom")), "--no-report"]
    assert main([*words, "-o", str(tmp_path / "out")]) == 1  # the levels run from the feet to the head
    said = capsys.readouterr()
    assert "a.nii.gz: its labels may be of another scheme than verse" in " ".join(said.out.split())
    assert "state the scheme that counts so" in said.err


def test_convert_labels_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", "labels", "-i", str(written(tmp_path, "spider-from-bottom")), "--to", "verse"]
    assert main([*words, "--from", "spider-from-top", "-o", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "they fit totalsegmentator-vertebrae-mr, spider-from-bottom; state it with --from" in said


def test_a_map_with_unknown_labels_names_the_schemes_that_fit(tmp_path: Path, capsys) -> None:
    words = ["anatomy", "identify", "-i", str(written(tmp_path, "totalsegmentator", "T9", "T10", *LUMBAR))]
    assert main([*words, "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "give the scheme that the map has with --scheme, such as totalsegmentator" in said
