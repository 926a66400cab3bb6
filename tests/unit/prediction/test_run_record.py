import pytest

from autospine.core.errors import FormatError
from autospine.dataset.raw import Case
from autospine.evaluation.label_statistics import LabelStatistics
from autospine.evaluation.statistics_files import STATISTICS, read_statistics
from autospine.prediction.case_log import RECORD, PredictedCase, UsedModel, add_to_record, read_record
from autospine.prediction.run_record import RunRecord

MODEL = UsedModel(folder="fullres", folds=("0",), digest="ab")
FOUND = LabelStatistics(
    label="L1",
    integer=20,
    voxels=1000,
    ml=1.0,
    centroid_mm=(0.0, 1.0, 2.0),
    mean_intensity=None,
    components=1,
    touches_border=False,
)
TEMPLATE = PredictedCase(case="", status="kept", models=(MODEL,))


def case(name: str) -> Case:
    return Case(name=name, images=(), labels=None, modality="CT", site=None, subject=name)


def test_a_label_map_is_kept_unless_its_last_prediction_failed(tmp_path):
    add_to_record(
        tmp_path, [PredictedCase(case="bad", status="failed"), PredictedCase(case="good", status="written")]
    )
    record = RunRecord.open(tmp_path, TEMPLATE)
    assert [record.may_keep(case(name)) for name in ("bad", "good", "unknown")] == [False, True, True]


def test_cases_come_in_the_order_of_their_names_and_kept_ones_are_not_written(tmp_path):
    record = RunRecord.open(tmp_path, TEMPLATE)
    record.add(record.failed("c", "too large"))
    record.keep(case("b"))
    record.add(PredictedCase(case="a", status="written"))
    record.finish()
    assert {name: entry.status for name, entry in record.cases.items()} == {
        "a": "written",
        "b": "kept",
        "c": "failed",
    }
    assert set(read_record(tmp_path)) == {"a", "c"}


def test_statistics_that_cannot_be_written_now_are_written_with_the_next(tmp_path):
    record = RunRecord.open(tmp_path, TEMPLATE)
    (tmp_path / STATISTICS).write_text("{", encoding="utf-8")
    record.add(PredictedCase(case="a", status="written"), (FOUND,))
    with pytest.raises(FormatError, match=STATISTICS):
        record.finish()
    with pytest.raises(FormatError, match=STATISTICS):
        RunRecord.open(tmp_path, TEMPLATE)
    (tmp_path / STATISTICS).unlink()
    record.add(PredictedCase(case="b", status="written"), (FOUND,))
    record.add(record.failed("c", "too large"))
    record.finish()
    assert read_statistics(tmp_path) == {"a": (FOUND,), "b": (FOUND,)}


def test_an_error_that_is_never_mended_is_raised_in_the_end(tmp_path):
    record = RunRecord.open(tmp_path, TEMPLATE)
    (tmp_path / RECORD).write_text("{", encoding="utf-8")
    record.add(PredictedCase(case="a", status="written"))
    with pytest.raises(FormatError, match=RECORD):
        record.finish()
    (tmp_path / RECORD).unlink()
    record.add(PredictedCase(case="b", status="written"))
    record.finish()
    assert set(read_record(tmp_path)) == {"a", "b"}
