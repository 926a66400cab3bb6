from itertools import permutations
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.cli.app import main
from autospine.core.errors import DatasetError
from autospine.io.images import read_labels, write_array
from autospine.vertebrae.label_conversion import convert_labels, plan_conversion
from autospine.vertebrae.schemes import COMMON, SCHEMES

WITH_LEVELS = [scheme for scheme in SCHEMES.values() if set(COMMON) <= set(scheme.integers)]


@pytest.mark.parametrize(("source", "target"), list(permutations(WITH_LEVELS, 2)), ids=lambda s: s.name)
def test_the_common_vertebrae_go_there_and_back(source, target) -> None:
    labels = np.array([source.integers[level] for level in COMMON]).reshape(2, 3, 4)
    there = plan_conversion(set(labels.ravel().tolist()), source, target)
    back = plan_conversion(set(there.integers.values()), target, source)
    assert there.lossless and back.lossless
    converted = convert_labels(labels, there.integers)
    assert converted.ravel().tolist() == [target.integers[level] for level in COMMON]
    assert np.array_equal(convert_labels(converted, back.integers), labels)


def test_what_is_lost_and_what_is_merged_is_said() -> None:
    total, verse = SCHEMES["totalsegmentator"], SCHEMES["verse"]
    plan = plan_conversion({0, 5, 25, 26, 27, 92}, total, verse)
    assert dict(plan.integers) == {27: 24, 25: 26, 26: 26}
    assert plan.merged == ("S1 becomes sacrum",)
    assert dict(plan.lost) == {5: "a structure beside the spine", 92: "rib_left_1"}
    assert not plan.lossless


def test_a_rib_loses_its_side_where_there_is_none() -> None:
    plan = plan_conversion({92}, SCHEMES["totalsegmentator"], SCHEMES["spineps-instance"])
    assert dict(plan.integers) == {92: 40} and plan.merged == ("rib_left_1 becomes rib_T1",)


def test_t13_is_not_lost_without_a_word() -> None:
    plan = plan_conversion({19, 28, 20}, SCHEMES["verse"], SCHEMES["totalsegmentator"])
    assert dict(plan.lost) == {28: "T13"}


@pytest.mark.parametrize(
    ("source", "target"), [("totalspineseg", "spider-from-bottom"), ("spineps-subregion", "structures")]
)
def test_the_cord_fills_the_canal_where_there_is_no_label_for_it(source: str, target: str) -> None:
    cord, canal = (SCHEMES[source].integers[name] for name in ("cord", "canal"))
    plan = plan_conversion({cord, canal}, SCHEMES[source], SCHEMES[target])
    assert set(plan.integers.values()) == {SCHEMES[target].integers["canal"]}
    assert plan.merged == ("cord becomes canal",) and not plan.lost


def test_parts_of_vertebrae_become_vertebrae() -> None:
    parts, structures = SCHEMES["spineps-subregion"], SCHEMES["structures"]
    plan = plan_conversion(parts.integers.values(), parts, structures)
    assert not plan.lost
    others = {"disc": 2, "cord": 3, "canal": 3, "sacrum": 4}
    assert dict(plan.integers) == {n: others.get(name, 1) for name, n in parts.integers.items()}
    body = plan_conversion({41, 49, 50}, parts, SCHEMES["totalsegmentator-vertebrae-body"])
    assert dict(body.integers) == {49: 1, 50: 1} and dict(body.lost) == {41: "arch"}


def test_an_endplate_becomes_its_vertebra_where_there_are_no_endplates() -> None:
    plan = plan_conversion({24, 224}, SCHEMES["spineps-instance"], SCHEMES["verse"])
    assert dict(plan.integers) == {24: 24, 224: 24} and plan.merged == ("endplate_L5 becomes L5",)


def test_numbers_of_spider_that_nothing_tells_to_be_of_six_lumbar_vertebrae_are_no_lossless_ones() -> None:
    verse, spider = SCHEMES["verse"], SCHEMES["spider-from-bottom"]
    whole = plan_conversion(range(1, 26), verse, spider)
    assert whole.lossless and whole.integers[25] == 1 and whole.integers[1] == 25
    lumbar = plan_conversion({24, 25}, verse, spider)
    assert dict(lumbar.integers) == {24: 2, 25: 1}
    assert lumbar.merged == ("L5 becomes 2, which is read as L4", "L6 becomes 1, which is read as L5")


def test_discs_of_a_spine_with_six_lumbar_vertebrae() -> None:
    instances, seg = SCHEMES["spineps-instance"], SCHEMES["totalspineseg"]
    plan = plan_conversion({24, 25, 124, 125}, instances, seg)
    assert dict(plan.integers) == {24: 45, 25: 46, 124: 96, 125: 100}
    back = plan_conversion(set(plan.integers.values()), seg, instances)
    assert {n: back.integers[m] for n, m in plan.integers.items()} == {n: n for n in (24, 25, 124, 125)}


def test_labels_of_another_scheme_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"TotalSpineSeg.*found 7, 8.*--from"):
        plan_conversion({7, 8, 11}, SCHEMES["totalspineseg"], SCHEMES["verse"])


def labels(folder: Path, values: list[int], name: str = "case") -> Path:
    array = np.zeros((4, 3, 3), dtype=np.int16)
    array.reshape(-1)[: len(values)] = values
    path = folder / "maps" / f"{name}.nii.gz"
    write_array(path, array, makers.grid((4, 3, 3)))
    return path


def test_the_command_converts_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels(tmp_path, [27, 28, 92])
    words = ["convert", "labels", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out")]
    assert main([*words, "--from", "totalsegmentator", "--to", "verse"]) == 0
    said = capsys.readouterr().out
    assert "case: lost 92 (rib_left_1)" in said and "1 label map" in said
    written = read_labels(tmp_path / "out" / "case.nii.gz").array.reshape(-1)
    assert written[:4].tolist() == [24, 23, 0, 0]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--to": "spider"}, "spider-from-bottom"),
        ({"--from": "verse"}, "found 92"),
        ({"-o": "maps"}, "output folder of its own"),
        ({"-i": "nowhere"}, "found nothing there"),
        ({"--lossless": None}, "rib_left_1"),
    ],
)
def test_the_command_says_what_is_wrong(changed, said, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels(tmp_path, [27, 92])
    options = {"-i": "maps", "-o": "out", "--from": "totalsegmentator", "--to": "verse", **changed}
    words = [word for pair in options.items() for word in pair if word is not None]
    assert main(["convert", "labels", *words]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_map_of_which_nothing_would_be_left_is_refused(tmp_path: Path, capsys) -> None:
    labels(tmp_path, [92])
    words = ["convert", "labels", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out")]
    assert main([*words, "--from", "totalsegmentator", "--to", "verse"]) == 1
    assert "found 92 (rib_left_1) alone, of which nothing would be left" in capsys.readouterr().err
    assert not (tmp_path / "out" / "case.nii.gz").exists()


def test_a_file_of_slicer_has_the_names_of_a_spine_with_six_lumbar_vertebrae(tmp_path: Path) -> None:
    array = np.zeros((4, 3, 3), dtype=np.int16)
    array.reshape(-1)[:4] = (24, 25, 124, 125)
    write_array(tmp_path / "a.seg.nrrd", array, makers.grid((4, 3, 3)))
    words = ["--from", "spineps-instance", "--to", "totalspineseg", "-o", str(tmp_path / "out")]
    assert main(["convert", "labels", "-i", str(tmp_path / "a.seg.nrrd"), *words]) == 0
    names = {45: "L5", 46: "L6", 96: "disc_below_L5", 100: "disc_below_L6"}
    assert makers.segment_names(tmp_path / "out" / "a.seg.nrrd") == names


def test_an_empty_map_stays_empty(tmp_path: Path) -> None:
    path = labels(tmp_path, [])
    words = ["--from", "verse", "--to", "totalspineseg"]
    assert main(["convert", "labels", "-i", str(path), "-o", str(tmp_path / "out"), *words]) == 0
    assert not read_labels(tmp_path / "out" / "case.nii.gz").array.any()


@pytest.mark.parametrize("lossless", [False, True])
def test_a_damaged_map_does_not_stop_the_others(lossless: bool, tmp_path: Path, capsys) -> None:
    for name in "abc":
        labels(tmp_path, [27, 92] if lossless and name == "b" else [27], name)
    if not lossless:
        makers.cut_short(tmp_path / "maps" / "b.nii.gz")
    words = ["convert", "labels", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out")]
    words += ["--from", "totalsegmentator", "--to", "verse", *["--lossless"] * lossless]
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("b: ") and "b.nii.gz" in line]
    assert said[-1] == "autospine: 1 of 3 files failed: b; 2 others are written"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]
