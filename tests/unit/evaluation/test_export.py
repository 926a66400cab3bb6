import csv

import pytest

from autospine.evaluation.export import CSV, JSON, write_evaluation
from autospine.evaluation.overlap import Counts
from autospine.evaluation.scores import CaseScores, Evaluation


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '=HYPERLINK("http://x")'])
def test_names_are_no_formulas_of_a_spreadsheet(name, tmp_path):
    counts = (Counts(tp=3, fp=1, fn=0),)
    case = CaseScores(case=name, modality="CT", site=name, classes=("bone",), counts=counts)
    write_evaluation(Evaluation(classes=("bone",), cases=(case,)), tmp_path)
    with (tmp_path / CSV).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["case"], row["site"], row["tp"]) == (f"'{name}", f"'{name}", "3")
    assert name.strip()[:2] in (tmp_path / JSON).read_text()
