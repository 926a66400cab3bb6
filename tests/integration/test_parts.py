"""Prediction and preprocessing in parts: several jobs into one folder, and the result of a single one."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import makers
import numpy as np
import pytest

from autospine.cli import main
from autospine.core.errors import WorkspaceError
from autospine.core.labels import parse_labels
from autospine.dataset.case_parts import CasePart
from autospine.evaluation.statistics_files import read_statistics
from autospine.io.images import write_array
from autospine.models.model_folder import open_model
from autospine.prediction import part_records, predict_cases
from autospine.prediction.case_log import RECORD, read_record
from autospine.prediction.prediction_options import PredictionOptions
from autospine.storage.locks import heartbeat_lock
from autospine.storage.part_folders import PARTS, part_folder, part_lock

CASES = tuple(f"case{number}" for number in range(5))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with an untrained model and five images, and the prediction of all of them at once."""
    folder = tmp_path_factory.mktemp("parts")
    makers.write_model(folder / "model", labels=parse_labels({"background": 0, "vertebra": 1}))
    rng = np.random.default_rng(0)
    for name in CASES:
        image = rng.normal(0, 200, (12, 10, 14)).astype(np.int16)
        write_array(folder / "in" / f"{name}_0000.nii.gz", image, makers.grid(image.shape))
    predicted(folder, "whole")
    return folder


def predicted(place: Path, output: str, part: tuple[int, int] | None = None, **options):
    return predict_cases.predict(
        [open_model(place / "model")],
        place / "in",
        place / output,
        PredictionOptions(device="cpu", **options),
        part=None if part is None else CasePart(number=part[0], count=part[1]),
    )


def content(folder: Path) -> dict[str, object]:
    """Everything in a folder by name, but the report, and what clock, memory and threads decide."""
    found: dict[str, object] = {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != RECORD
    }
    found.pop("report.html", None)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    for case in record["cases"]:
        del case["seconds"], case["peak_gb"], case["device"]
    return found | {RECORD: record, "folders": [path.name for path in folder.iterdir() if path.is_dir()]}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_parts_in_any_order_leave_what_one_run_leaves(place, order):
    output = f"order{order[0]}"
    first, last = (predicted(place, output, (number, 2)) for number in order)
    assert (first.whole, last.whole) == (False, True)
    assert {case.case for case in (*first.cases, *last.cases)} == set(CASES)
    assert abs(len(first.cases) - len(last.cases)) == 1
    assert content(place / output) == content(place / "whole")


def test_parts_at_the_same_time_lose_nothing_of_each_other(place):
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda number: predicted(place, "at_once", (number, 3)), (1, 2, 3)))
    assert [result.whole for result in results].count(True) == 1
    assert content(place / "at_once") == content(place / "whole")


def test_the_record_of_parts_can_be_read_before_all_are_done(place, capsys):
    assert not predicted(place, "some", (2, 2)).whole
    folder = place / "some"
    assert not (folder / RECORD).exists()
    assert set(read_record(folder)) == set(read_statistics(folder)) == {"case1", "case3"}
    assert main(["report", str(folder)]) == 0
    # One run without parts takes what is there and does the rest.
    result = predicted(place, "some", overwrite=False)
    assert result.kept == {"case1", "case3"}
    assert content(folder) == content(place / "whole")


def test_more_parts_than_cases_end_well(place, said):
    results = [predicted(place, "many", (number, 7)) for number in (7, 1, 2, 3, 4, 6, 5)]
    assert "part 7/7 has none of the 5 cases" in said.text
    assert [result.whole for result in results] == [False] * 6 + [True]
    assert content(place / "many") == content(place / "whole")


def test_a_part_that_is_run_again_takes_the_place_of_its_first_run(place):
    predicted(place, "again", (1, 2))
    predicted(place, "again", (1, 2))
    assert predicted(place, "again", (2, 2)).whole
    # All cases are there: each part that runs again completes the record once more.
    assert predicted(place, "again", (2, 2), overwrite=False).whole
    assert content(place / "again") == content(place / "whole")


def test_another_division_goes_on_where_the_first_one_was_left(place):
    predicted(place, "divided", (1, 3))
    results = [predicted(place, "divided", (number, 2), overwrite=False) for number in (1, 2)]
    assert sum(len(result.kept) for result in results) == 2
    assert results[-1].whole
    assert content(place / "divided") == content(place / "whole")


def test_a_part_that_is_at_work_elsewhere_is_waited_for(place):
    """All cases are there of an earlier run, but a part is predicting some of them again."""
    predicted(place, "busy")
    working = part_folder(place / "busy", 2, 2)
    with heartbeat_lock(part_lock(working), "one run", WorkspaceError):
        working.mkdir(parents=True)
        assert not predicted(place, "busy", (1, 2)).whole
        assert main(["predict", *arguments(place, "busy"), "--part", "2/2"]) == 1
        assert len(list((place / "busy" / PARTS).iterdir())) == 3
    assert predicted(place, "busy", (2, 2)).whole
    assert content(place / "busy") == content(place / "whole")


def test_the_same_part_twice_is_refused_by_name(place, capsys):
    with part_records.working_on(place / "twice", CasePart(number=1, count=2)):
        assert main(["predict", *arguments(place, "twice"), "--part", "1/2"]) == 1
    said = capsys.readouterr().err
    assert "expected one run of part 1/2 into" in said
    assert f"process {os.getpid()}" in said


def test_a_killed_part_is_run_again(place):
    """SIGKILL after a case: nothing of it is lost, and the last part joins what both runs have done."""
    script = (
        "import sys, time, autospine.prediction.prediction_run as run\n"
        "from autospine.cli import main\n"
        "add = run.RunRecord.add\n"
        "def slow(*given): add(*given); print('added', flush=True); time.sleep(600)\n"
        "run.RunRecord.add = slow\n"
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", script, "predict", *arguments(place, "killed"), "--part", "1/2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("added" in line for line in process.stdout)
        assert not predicted(place, "killed", (2, 2)).whole
        process.send_signal(signal.SIGKILL)
    assert set(read_record(place / "killed")) == {"case0", "case1", "case3"}
    result = predicted(place, "killed", (1, 2), overwrite=False)
    assert result.whole
    assert "case0" in result.kept
    assert content(place / "killed") == content(place / "whole")


def test_failed_and_incomplete_cases_belong_to_a_part(place, tmp_path):
    for name in ("good", "bad"):
        (tmp_path / f"{name}.nii.gz").write_bytes((place / "in" / "case0_0000.nii.gz").read_bytes())
    (tmp_path / "bad.nii.gz").write_bytes(b"no image")
    given = ["-i", str(tmp_path), "-o", str(place / "failed"), "-m", str(place / "model"), "--device", "cpu"]
    assert main(["predict", *given, "--part", "1/2", "--no-report"]) == 1
    assert main(["predict", *given, "--part", "2/2", "--no-report"]) == 0
    entries = read_record(place / "failed")
    assert {name: entry.status for name, entry in entries.items()} == {"bad": "failed", "good": "written"}
    assert (place / "failed" / RECORD).is_file()


def test_the_last_part_alone_writes_the_report(place, capsys):
    report = place / "reported" / "report.html"
    assert main(["predict", *arguments(place, "reported"), "--part", "2/2"]) == 0
    assert not report.exists()
    assert main(["predict", *arguments(place, "reported"), "--part", "1/2"]) == 0
    text = report.read_text(encoding="utf-8")
    assert all(case in text for case in CASES)


@pytest.mark.parametrize("part", ["3/2", "0/4", "a/b", "1", "1/0", "-1/2", "1/2/3", "1.0/2", "½/2", ""])
def test_what_is_no_part_is_refused(place, capsys, part):
    assert main(["predict", *arguments(place, "refused"), "--part", part]) == 1
    said = capsys.readouterr().err
    assert "expected --part I/N with whole numbers and I from 1 to N" in said
    assert said.count("\n") == 1
    assert not (place / "refused").exists()


def test_every_case_is_in_one_part_of_about_equal_size():
    for count in range(1, 9):
        parts = [CasePart(number=n, count=count).of(CASES[::-1]) for n in range(1, count + 1)]
        assert sorted(sum(parts, ())) == list(CASES)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert CasePart(number=2, count=3).of(CASES) == ("case1", "case4")


def arguments(place: Path, output: str) -> list[str]:
    words = ("-i", place / "in", "-o", place / output, "-m", place / "model", "--device", "cpu")
    return [str(word) for word in words]


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO", logger="autospine")
    return caplog
