"""Names of vertebrae in a report: their probabilities, and how often they are right."""

from pathlib import Path

import makers
import numpy as np
import pytest
import report_folders
from report_folders import Page

from autospine.cli import main
from autospine.evaluation.postprocessing import LabelChange
from autospine.prediction.case_log import add_to_record, read_record
from autospine.prediction.vertebra_naming import write_identities
from autospine.report.charts import reliability_plot
from autospine.report.folder_report import write_report
from autospine.vertebrae.identities import SpineIdentities, VertebraIdentity

LEVELS = {"background": 0, "L1": 20, "L2": 21, "L3": 61}


def names(case: str, *vertebrae: tuple[str, float, int]) -> SpineIdentities:
    """Names of a case: level, probability and label value of each vertebra, which was called L2 before."""
    grid = makers.grid(report_folders.SHAPE, report_folders.SPACING)
    labels = report_folders.prediction(case)
    found = [
        VertebraIdentity(
            order=order,
            level=level if confidence >= 0.5 else "unknown",
            likeliest=level,
            confidence=confidence,
            position_mm=tuple(grid.physical(np.argwhere(labels == value).mean(axis=0))),
            called="L2",
        )
        for order, (level, confidence, value) in enumerate(vertebrae, start=1)
    ]
    return SpineIdentities(
        format_version=1,
        case=case,
        vertebrae=tuple(found),
        no_vertebra_mm=(),
        last_thoracic=None,
        last_lumbar=None,
        notes=("a rib is short",),
    )


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """Evaluated predictions of which two are named: one right, one with exchanged names."""
    out = report_folders.dataset_folder(tmp_path, labels=LEVELS)
    write_identities(out / "good_vertebrae.json", names("good", ("L1", 0.99, 20), ("L2", 0.4, 21)))
    write_identities(out / "exchanged_vertebrae.json", names("exchanged", ("L1", 0.9, 20)))
    change = LabelChange(from_label="L2", to_label="L1", voxels=10, ml=2.34)
    record = read_record(out)["exchanged"]
    add_to_record(out, [type(record)(**{**_fields(record), "renamed": (change,)})])
    assert main(["evaluate", str(out), str(tmp_path / "Dataset001_Small/labelsTs"), "--no-report"]) == 0
    return out


def _fields(entry: object) -> dict[str, object]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__}


def test_each_case_says_how_sure_its_names_are_and_what_is_wrong(named):
    page = Page(write_report(named))
    cases = {page.case(index)["name"]: page.case(index) for index in range(4)}
    (table,) = cases["good"]["tables"]
    assert table["columns"] == ["level", "probability", "called before", "in the reference", "remarks"]
    assert table["rows"] == [
        ["L1", "0.99", "L2", "L1", "renamed"],
        ["L2?", "0.40", "L2", "L2", "unknown: its label stays"],
    ]
    assert "a rib is short" in cases["good"]["findings"]
    assert "L1 is L2 in the reference, with a probability of 0.90" in cases["exchanged"]["findings"]
    assert "naming changed L2 to L1 (2.3 ml)" in cases["exchanged"]["findings"]
    assert cases["shifted"]["tables"] == []


def test_the_section_counts_names_and_shows_whether_to_trust_them(named):
    page = Page(write_report(named))
    assert "right 2 of 3, 67 %" in page.words
    assert "unknown 1" in page.words
    for heading in ("Probability of each level", "Probability of right and wrong names", "Reliability of"):
        assert heading in page.words
    assert "exchanged L1, wrong: 0.9" in page.words


def test_damaged_names_are_left_out(named, caplog):
    (named / "good_vertebrae.json").write_text("[]", encoding="utf-8")
    page = Page(write_report(named))
    assert "right 0 of 1" in page.words
    assert "the report has no names of good" in caplog.text


def test_reliability_lies_on_the_line_where_probability_and_share_agree():
    svg = reliability_plot([(0.5, 5, 10), (1.0, 3, 3)], title="t", x_title="x", y_title="y")
    assert "5 of 10 at a mean probability of 0.50" in svg
    assert svg.count('class="interval"') == 2
