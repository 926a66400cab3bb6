"""Files of measured cases, by the command that writes them."""

import csv
import json
import shutil
from pathlib import Path

import makers
import matplotlib.pyplot as plt
import numpy as np
import pytest
from report_folders import Page

from autospine.cli.app import main
from autospine.core.colours import class_colours
from autospine.core.errors import FormatError
from autospine.core.labels import VERSE
from autospine.io.images import read_labels, write_array
from autospine.measurements.measurement_failures import FAILURES, read_failures, record_failures
from autospine.measurements.measurement_files import read_measurements
from autospine.phantom.generate import PhantomSettings, generate
from autospine.report.folder_report import write_report


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measured phantom in an unusual orientation, with its image and every kind of points."""
    folder = tmp_path_factory.mktemp("measured")
    settings = PhantomSettings(
        region="lumbar",
        modality="CT",
        spacing_mm=(1.5, 1.5, 1.5),
        size_mm=(150.0, 110.0, 100.0),
        orientation="PIR",
        oblique_deg=0.0,
        variant="usual",
        pathology="none",
        metal=False,
    )
    phantom = generate(settings, seed=2)
    write_array(folder / "maps" / "a.nii.gz", phantom.labels, phantom.grid)
    write_array(folder / "images" / "a_0000.nii.gz", phantom.image, phantom.grid)
    words = ["anatomy", "measure", "-i", str(folder / "maps"), "-o", str(folder / "out")]
    words += ["--images", str(folder / "images"), "--scheme", "spineps-instance"]
    for kind in ("verse", "tptbox", "slicer", "fcsv", "sct"):
        words += ["--points", kind]
    assert main(words) == 0
    return folder


def read_json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_json_and_tables_say_the_same(written: Path) -> None:
    measured = read_json(written / "out" / "a_measurements.json")
    assert "not a medical device" in measured["disclaimer"]
    with (written / "out" / "a_measurements.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["level"] for row in rows] == [each["level"] for each in measured["vertebrae"]]
    for row, each in zip(rows, measured["vertebrae"], strict=True):
        assert row["depth_mm"] == ("" if each["depth_mm"] is None else str(each["depth_mm"]))
    assert any(row["disc_below_height_mm"] for row in rows)
    with (written / "out" / "a_spine.csv").open(encoding="utf-8", newline="") as file:
        angles = {row["measurement"]: row["value"] for row in csv.DictReader(file)}
    assert float(angles["sacral slope"]) == next(
        angle["degrees"] for angle in measured["angles"] if angle["name"] == "sacral slope"
    )


def test_the_page_is_a_picture(written: Path) -> None:
    page = plt.imread(written / "out" / "a_measurements.png")
    assert page.ndim == 3 and min(page.shape[:2]) > 500
    assert len(np.unique(page[..., :3].reshape(-1, 3), axis=0)) > 100  # the image, labels and lines


def test_the_page_shows_outlines_over_the_image_and_has_no_empty_part(written: Path) -> None:
    page = plt.imread(written / "out" / "a_measurements.png")[..., :3]
    level = read_json(written / "out" / "a_measurements.json")["vertebrae"][1]["level"]
    apart = np.abs(page - np.array(class_colours([level])[level])).max(axis=2)
    assert np.sum(apart < 0.1) > 30  # a thin line, drawn with soft edges
    blank = (page > 0.99).all(axis=(1, 2))
    ends = np.flatnonzero(np.diff(np.concatenate([[0], blank.astype(int), [0]])))
    assert max(ends[1::2] - ends[::2]) < 0.1 * len(page)


def test_the_report_shows_what_was_measured(written: Path) -> None:
    page = Page(written / "out" / "report.html")
    case = page.case(0)
    levels = [each["level"] for each in read_json(written / "out" / "a_measurements.json")["vertebrae"]]
    assert [row[0] for row in case["tables"][0]["rows"]] == levels
    assert case["tables"][0]["columns"][:2] == ["level", "ant. mm"]
    assert "sacral slope" in [fact["name"] for fact in case["facts"]]
    (picture,) = case["pictures"]
    assert min(picture["height"], picture["width"]) > 450
    for text in ("not a medical device", "Posterior height, by level", "Area of the canal, by level"):
        assert text in page.words
    assert page.source.count('data-case="0"') > len(levels)


def test_levels_that_were_unknown_beside_the_map_are_doubted(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(written / "maps", tmp_path / "maps")
    vertebra = {"order": 1, "level": "unknown", "likeliest": "L4", "confidence": 0.66}
    names = {
        "format_version": 1,
        "case": "a",
        "vertebrae": [{**vertebra, "position_mm": [0, 0, 0], "cut": False, "called": "L3"}],
        "no_vertebra_mm": [],
        "last_thoracic": None,
        "last_lumbar": None,
        "notes": [],
    }
    (tmp_path / "maps" / "a_vertebrae.json").write_text(json.dumps(names), encoding="utf-8")
    words = ["anatomy", "measure", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out"), "--no-report"]
    assert main([*words, "--scheme", "spineps-instance"]) == 0
    measured = read_measurements(tmp_path / "out" / "a_measurements.json")
    notes = {each.level: each.notes for each in measured.vertebrae}
    doubt = "the level is unknown: the label is L3, and L4 with a probability of 0.66"
    assert doubt in notes["L3"] and not any(note.startswith("the level") for note in notes["L2"])
    assert f"a: the levels of 1 of {len(notes)} vertebrae are unknown" in capsys.readouterr().out
    (tmp_path / "maps" / "a_vertebrae.json").write_text("{", encoding="utf-8")
    assert main([*words, "--scheme", "spineps-instance"]) == 0
    assert "a: measured without knowing which levels are unknown: expected" in capsys.readouterr().out


def test_what_naming_has_left_without_a_level_is_no_surprise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    map_of = np.zeros((60, 40, 40), dtype=np.uint8)
    for place, value in ((45, 23), (30, 100), (15, 24)):
        map_of[place - 5 : place + 5, 10:30, 10:30] = value
    map_of[:3, :3, :3] = 150
    write_array(tmp_path / "maps" / "a.nii.gz", map_of, makers.grid(map_of.shape, (2.0, 2.0, 2.0)))
    words = ["anatomy", "measure", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out"), "--no-report"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "100" not in said and "150" not in said and "left out" not in said


def test_a_scheme_and_a_dataset_are_not_stated_together(tmp_path: Path, capsys) -> None:
    for command in ("measure", "identify"):
        words = ["-i", str(tmp_path), "-o", str(tmp_path / "out"), "--scheme", "spider-from-top"]
        assert main(["anatomy", command, *words, "--labels-of", str(tmp_path / "dataset.json")]) == 1
        said = capsys.readouterr().err
        assert "found --scheme spider-from-top and --labels-of" in said and "leave one of them out" in said


def test_the_report_has_the_names_that_lie_beside_the_label_map(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "out", tmp_path / "out")
    vertebra = {"order": 1, "level": "unknown", "likeliest": "L4", "confidence": 0.4}
    names = {
        "format_version": 1,
        "case": "a",
        "vertebrae": [{**vertebra, "position_mm": [0, 0, 0], "cut": True, "called": "L3"}],
        "no_vertebra_mm": [],
        "last_thoracic": None,
        "last_lumbar": None,
        "notes": [],
    }
    beside = written / "maps" / "a_vertebrae.json"
    beside.write_text(json.dumps(names), encoding="utf-8")
    case = Page(write_report(tmp_path / "out")).case(0)
    beside.unlink()
    assert case["tables"][1]["rows"] == [["L4?", "0.40", "L3", "cut by the border, unknown: its label stays"]]
    assert "nothing tells the level of L4 for sure: labels stay as predicted" in case["findings"]


def test_a_damaged_file_is_left_out_of_the_report(
    written: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(written / "out", tmp_path / "out")
    (tmp_path / "out" / "b_measurements.json").write_text("{", encoding="utf-8")
    (tmp_path / "out" / "a_measurements.png").write_bytes(b"nothing")
    page = Page(write_report(tmp_path / "out"))
    assert "1 measured" in page.words
    assert page.case(0)["pictures"] == []
    assert "b_measurements.json" in caplog.text


def test_rings_of_earlier_files_have_columns_of_their_own(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "a_measurements.json"
    content = read_json(written / "out" / "a_measurements.json") | {"format_version": 1}
    for each in content["vertebrae"]:
        each["canal_source"] = each["canal_source"] and "vertebral ring"
        for name in ("area_mm2", "depth_mm", "width_mm"):
            del each[f"ring_{name}"]
    path.write_text(json.dumps(content), encoding="utf-8")
    areas = [each["canal_area_mm2"] for each in content["vertebrae"]]
    found = read_measurements(path).vertebrae
    assert any(areas) and [each.ring_area_mm2 for each in found] == areas
    assert {each.canal_area_mm2 for each in found} == {None}
    page = Page(write_report(tmp_path))
    columns = page.case(0)["tables"][0]["columns"]
    assert "ring mm²" in columns and "canal mm²" not in columns
    assert "Area of the vertebral ring, by level" in page.words
    assert "Area of the canal, by level" not in page.words
    path.write_text(json.dumps(content | {"format_version": 3}), encoding="utf-8")
    with pytest.raises(FormatError, match="measure` again"):
        read_measurements(path)


def test_a_map_with_head_and_feet_exchanged_is_named(written: Path, tmp_path: Path, capsys) -> None:
    volume = read_labels(written / "maps" / "a.nii.gz")
    turned = np.ascontiguousarray(volume.array[0][::-1])
    write_array(tmp_path / "maps" / "a.nii.gz", turned, volume.grid)
    words = ["anatomy", "measure", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out")]
    assert main([*words, "--scheme", "spineps-instance"]) == 1
    error = capsys.readouterr().err
    assert "from the head to the feet in a" in error and "header" in error


def test_points_of_each_format_lie_at_the_same_place(written: Path) -> None:
    stored = read_labels(written / "maps" / "a.nii.gz").stored
    found = read_json(written / "out" / "a_measurements.json")["vertebrae"]
    cut = [each["level"] for each in found if "cuts the body" in " ".join(each["notes"])]
    assert cut == ["L2"]  # which VerSe leaves out, too
    measured = {each["level"]: each["centre_mm"] for each in found if each["level"] not in cut}
    verse = read_json(written / "out" / "a_centroids.json")
    assert verse[0] == {"direction": ["P", "I", "R"]}
    header, poi = read_json(written / "out" / "a_poi.json")
    assert header["format"] == "POI" and header["direction"] == ["P", "I", "R"]
    affine = np.array(header["rotation"]) * header["zoom"]
    slicer = {
        point["label"]: point["position"]
        for point in read_json(written / "out" / "a.mrk.json")["markups"][0]["controlPoints"]
    }
    lines = (written / "out" / "a.fcsv").read_text(encoding="utf-8").splitlines()
    fcsv = {line.split(",")[11]: list(map(float, line.split(",")[1:4])) for line in lines if line[0] != "#"}
    assert {entry["label"] for entry in verse[1:]} == {VERSE[level] for level in measured}
    assert set(slicer) == set(fcsv) == set(measured) and set(poi) == {str(VERSE[level]) for level in measured}
    for entry in verse[1:]:
        level = next(name for name, n in VERSE.items() if n == entry["label"])
        x, y, z = stored.physical(np.array([entry["Z"], entry["Y"], entry["X"]]))
        assert (x, y, z) == pytest.approx(measured[level], abs=0.05)
        assert slicer[level] == pytest.approx(measured[level], abs=0.01)
        assert fcsv[level] == pytest.approx(measured[level], abs=0.01)
        in_ras = affine @ np.array(poi[str(entry["label"])]["50"]) + header["origin"]
        assert (-in_ras[0], -in_ras[1], in_ras[2]) == pytest.approx(measured[level], abs=0.05)


def test_discs_of_the_spinal_cord_toolbox_lie_between_their_vertebrae(written: Path) -> None:
    discs = read_labels(written / "out" / "a_discs.nii.gz")
    centres = {
        each["level"]: each["centre_mm"]
        for each in read_json(written / "out" / "a_measurements.json")["vertebrae"]
    }
    numbers = sorted(set(np.unique(discs.array)) - {0})
    assert numbers[-1] == 25 and 24 in numbers
    at = discs.grid.physical(np.argwhere(discs.array[0] == 24)[0])
    assert centres["L5"][2] < at[2] < centres["L4"][2]
    assert at[1] > centres["L5"][1]


def test_cut_vertebrae_that_the_points_leave_out_are_named(written: Path, tmp_path: Path, capsys) -> None:
    words = ["anatomy", "measure", "-i", str(written / "maps"), "-o", str(tmp_path / "out"), "--no-report"]
    assert main([*words, "--scheme", "spineps-instance", "--points", "verse"]) == 0
    assert "a: the border of the image cuts L2, left out of the points" in capsys.readouterr().out


def test_points_of_bodies_that_were_not_found_are_doubted(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = real_data / "real" / "ct_lumbosacral" / "labels_verse.nii.gz"
    words = ["anatomy", "measure", "-i", str(labels), "-o", str(tmp_path / "out"), "--no-report"]
    assert main([*words, "--points", "verse"]) == 0
    said = capsys.readouterr().out
    assert "the bodies of T12, L1, L3 were not told from their arches; look at their points" in said


def test_wrong_input_is_named(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["anatomy", "measure", "-i", str(written / "maps"), "-o", str(tmp_path / "out")]
    assert main([*words, "--points", "obj"]) == 1
    assert "format among verse" in capsys.readouterr().err
    assert main([*words, "--scheme", "totalsegmentator-vertebrae-body"]) == 1
    assert "expected vertebrae by level" in capsys.readouterr().err
    write_array(
        tmp_path / "images" / "a.nii.gz",
        np.zeros((9, 9, 9), np.int16),
        read_labels(written / "maps" / "a.nii.gz").stored,
    )
    assert main([*words, "--scheme", "spineps-instance", "--images", str(tmp_path / "images")]) == 1
    assert "on the grid of its label map" in capsys.readouterr().err


def test_a_damaged_map_or_image_does_not_stop_the_others(written: Path, tmp_path: Path, capsys) -> None:
    for name in "abc":
        for folder, ending in (("maps", ".nii.gz"), ("images", "_0000.nii.gz")):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(written / folder / f"a{ending}", tmp_path / folder / f"{name}{ending}")
    makers.cut_short(tmp_path / "maps" / "a.nii.gz")
    makers.cut_short(tmp_path / "images" / "b_0000.nii.gz")
    words = ["anatomy", "measure", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out")]
    assert main([*words, "--images", str(tmp_path / "images"), "--scheme", "spineps-instance"]) == 1
    assert "2 of 3 files failed: a, b; 1 other is written" in capsys.readouterr().err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {name for name in names if name[0] != "c"} == {"report.html", "measurement_failures.json"}
    page = Page(tmp_path / "out" / "report.html")
    assert [page.case(index)["name"] for index in range(3)] == ["a", "b", "c"]
    assert [page.case(index)["status"] for index in range(3)] == ["failed", "failed", "measured"]
    assert page.case(0)["findings"][0].startswith("it could not be measured: ")
    assert "2 failed, 1 measured" in page.words


def test_a_case_that_is_measured_at_last_is_no_failure_any_more(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(written / "out", out)
    record_failures(out, {"a": "its header is damaged", "b": "it is empty"}, ["c"])
    (case, other) = (Page(write_report(out)).case(index) for index in range(2))
    assert (case["name"], case["tables"]) == ("a", [])  # what was measured before is not its map's any more
    assert (other["name"], other["status"]) == ("b", "failed")
    record_failures(out, {}, ["a"])
    assert read_failures(out) == {"b": "it is empty"}
    record_failures(out, {}, ["b"])
    assert not (out / FAILURES).exists()
    (out / FAILURES).write_text("{", encoding="utf-8")
    assert Page(write_report(out)).case(0)["status"] == "measured"


def test_labels_of_a_dataset_go_by_their_names(written: Path, tmp_path: Path, capsys) -> None:
    names = {"background": 0, **{f"vertebra_L{i}": 19 + i for i in range(1, 6)}, "rest": 200}
    described = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 0, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    words = ["anatomy", "measure", "-i", str(written / "maps"), "-o", str(tmp_path / "out")]
    assert main([*words, "--labels-of", str(tmp_path / "dataset.json")]) == 0
    levels = [each["level"] for each in read_json(tmp_path / "out" / "a_measurements.json")["vertebrae"]]
    assert levels[-1] == "L5"
    described["labels"] = {"background": 0, "vertebra": 1}
    (tmp_path / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    assert main([*words, "--labels-of", str(tmp_path / "dataset.json")]) == 1
    assert "vertebrae by level" in capsys.readouterr().err
