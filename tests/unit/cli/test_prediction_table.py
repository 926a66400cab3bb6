from autospine.cli.prediction_table import show_predictions
from autospine.prediction.case_log import PredictedCase


def test_a_failed_case_is_in_the_table_and_its_reason_was_said_before(capsys):
    failed = PredictedCase(case="spine7", status="failed", error="expected an image, found none")
    show_predictions([failed, PredictedCase(case="spine8", status="written")])
    shown = capsys.readouterr().out
    assert "spine7" in shown and "failed" in shown and "spine8" in shown
    assert "expected an image" not in shown
