from autospine.cli.prediction_table import show_predictions
from autospine.prediction.case_log import PredictedCase


def test_a_failed_case_is_in_the_table_and_its_reason_was_said_before(capsys):
    failed = PredictedCase(case="spine7", status="failed", error="expected an image, found none")
    show_predictions([failed, PredictedCase(case="spine8", status="written")])
    shown = capsys.readouterr().out
    assert "spine7" in shown and "failed" in shown and "spine8" in shown
    assert "expected an image" not in shown


def test_a_long_name_is_not_broken_over_lines_where_there_is_no_terminal(capsys):
    name = "sub-" + "0123456789" * 12
    show_predictions([PredictedCase(case=name, status="written", modality="CT")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"{name}  written  CT")
