import json
import os

import makers
import numpy as np
import pytest
import torch

from autospine.core.errors import FormatError, WorkspaceError
from autospine.plan import build_network
from trainers.metrics_log import (
    CURVES,
    MECHANISMS,
    METRICS,
    Record,
    numbers,
    read_rows,
    seconds_trained,
    summary,
)
from trainers.monitors import PatchCounts
from trainers.monitors.failures import SAMPLES
from trainers.step_result import StepResult

CLASSES = ("bone", "canal")


def step(
    loss=1.0, dice=(0.2, 0.4), finite=True, overlap=((2, 10, 10), (4, 10, 10)), counts=None
) -> StepResult:
    parts = {"ce": 2 * loss, "dice_loss": 1 - sum(dice) / len(dice)}
    return StepResult(loss=loss, parts=parts, finite=finite, overlap=overlap, counts=counts)


HEALTHY = PatchCounts.restored([10, 10, 10, 10, 9, 9, *[4] * 6, 20, 20, 10, 0, 0])
"""What the monitors count where nothing is wrong."""


def record(folder, epochs=0) -> Record:
    return Record(
        folder, title="small, fold 0", classes=CLASSES, configuration=makers.configuration(), epochs=epochs
    )


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def network():
    return torch.nn.Identity()


def test_the_time_of_a_fold_is_that_of_its_epochs(tmp_path, network):
    assert seconds_trained(tmp_path) == 0
    made = record(tmp_path)
    for seconds in (1.5, 2.0):
        made.add([step()], network, progress=0.5, learning_rate=0.1, seconds=seconds)
    assert seconds_trained(tmp_path) == 3.5


def test_an_epoch_is_the_mean_of_its_steps(tmp_path, network):
    folder = tmp_path / "fold_0"
    steps = [step(), step(2.0, (0.6, 0.4), overlap=((6, 5, 15), (4, 10, 10)))]
    made = record(folder)
    row = made.add(steps, network, progress=0.5, learning_rate=0.1)
    nothing = ("foreground_ratio", "border_shift", "thinnest_class", "kernel_ratio", "dice_ratio")
    assert row == {
        "epoch": 1,
        "progress": 0.5,
        "loss": 1.5,
        "ce": 3.0,
        "dice_loss": pytest.approx(1 - (0.4 + 0.4) / 2),
        "pseudo_dice": {"bone": 0.4, "canal": 0.4},
        "skipped_steps": 0,
        "learning_rate": 0.1,
        "monitors": dict.fromkeys(nothing),
        "warnings": {},
    }
    assert rows(folder) == [row]
    assert not (folder / CURVES).exists(), "drawing takes as long as a few steps, and nothing has changed yet"
    made.close()
    assert (folder / CURVES).stat().st_size > 1000


def test_curves_are_drawn_now_and_then(tmp_path, network, monkeypatch):
    monkeypatch.setattr("trainers.metrics_log.CURVES_SECONDS", 0.0)
    record(tmp_path).add([step()], network, progress=0.5)
    assert (tmp_path / CURVES).stat().st_size > 1000


def test_a_class_that_no_patch_has_does_not_count(tmp_path, network):
    """In the loss its Dice is nearly 1; steps of which the overlap is not known tell nothing."""
    made = record(tmp_path)
    absent = step(dice=(0.2, 0.99), overlap=((2, 10, 10), (0, 0.01, 0)))
    row = made.add([absent, absent, step(overlap=())], network, progress=0.5)
    assert row["pseudo_dice"] == {"bone": 0.2, "canal": None}
    assert "Dice 0.20" in summary(row)[0]
    assert "pseudo_dice/canal" not in numbers(row)
    # It is in one step of three: false voxels of the others count.
    row = made.add([absent, absent, step(overlap=((0, 5, 0), (4.99, 9.98, 10)))], network, progress=0.5)
    assert row["pseudo_dice"] == {"bone": pytest.approx(8 / 45, abs=1e-5), "canal": 0.499}
    assert made.add([step(overlap=())], network, progress=0.5)["pseudo_dice"] == {}
    assert rows(tmp_path) == made.rows


def test_steps_that_were_not_taken_are_counted_apart(tmp_path, network):
    made = record(tmp_path)
    nan = float("nan")
    broken = step(nan, (nan, nan), finite=False, overlap=((nan, nan, 1), (nan, nan, 1)))
    row = made.add([step(), broken], network, progress=0.5)
    assert (row["loss"], row["skipped_steps"]) == (1.0, 1)
    row = made.add([step(float("inf"), finite=False)], network, progress=0.5)
    assert (row["loss"], row["ce"], row["dice_loss"], row["pseudo_dice"]) == (None, None, None, {})
    assert [r["epoch"] for r in rows(tmp_path)] == [1, 2]


def test_a_resumed_record_drops_what_came_after_the_checkpoint(tmp_path, network):
    first = record(tmp_path)
    for loss in (3.0, 2.0, 1.0):
        first.add([step(loss)], network, progress=0.5)
    again = record(tmp_path, epochs=2)
    assert [row["loss"] for row in again.rows] == [3.0, 2.0]
    again.add([step(1.5)], network, progress=0.5)
    assert [row["loss"] for row in rows(tmp_path)] == [3.0, 2.0, 1.5]
    assert rows(tmp_path)[-1]["epoch"] == 3


def test_a_line_cut_short_is_dropped(tmp_path, network):
    record(tmp_path).add([step()], network, progress=0.5)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert len(record(tmp_path, epochs=5).rows) == 1
    assert len(rows(tmp_path)) == 1


def test_a_new_record_starts_empty(tmp_path, network):
    record(tmp_path).add([step()], network, progress=0.5)
    assert record(tmp_path).rows == []
    assert (tmp_path / METRICS).read_text(encoding="utf-8") == ""


def collapsed(folder) -> Record:
    """A record after an epoch in which nothing but background was predicted."""
    nothing = PatchCounts(
        true=np.array([90, 10]),
        predicted=np.array([0, 0]),
        overlap=np.array([0, 0]),
        faces=np.array([[20, 20, 20], [10, 10, 10]]),
        foreground=(100, 0),
        border=(60, 0, 60),
    )
    made = record(folder)
    missed = ((0.0, 0.0, 90.0), (0.0, 0.0, 10.0))
    parts = {"ce": 1.0, "dice_loss": 1.0}
    looked_at = StepResult(loss=1.0, parts=parts, finite=True, overlap=missed, counts=nothing)
    made.add([looked_at] * SAMPLES, torch.nn.Identity(), progress=0.5)
    return made


def test_what_the_monitors_find_stands_in_the_row_and_is_said_once(tmp_path, caplog):
    made = collapsed(tmp_path)
    row = rows(tmp_path)[0]
    assert row["monitors"]["foreground_ratio"] == 0
    assert row["monitors"]["thinnest_class"] == "canal"
    assert set(row["warnings"]) == {"collapse"}
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        f"small, fold 0: {row['warnings']['collapse']}"
    ]
    assert made.add([step()], torch.nn.Identity(), progress=0.6)["warnings"] == {}
    assert record(tmp_path, epochs=2).add([step()], torch.nn.Identity(), progress=0.7)["warnings"] == {}


def test_what_is_inert_is_said_again_when_a_finished_training_is_extended(tmp_path):
    plan = makers.plan()
    network = build_network(plan, plan.configurations[0])
    for _ in range(2):
        made = record(tmp_path, epochs=len(read_rows(tmp_path)))
        assert made.add([step(counts=HEALTHY)] * SAMPLES, network, progress=0.5)["warnings"] == {}
        made = record(tmp_path, epochs=len(read_rows(tmp_path)))  # goes on
        found = made.add([step(counts=HEALTHY)] * SAMPLES, network, progress=1.0)["warnings"]
        assert set(found) == {"inert_fusion", "inert_attention"}


def test_an_early_end_is_said_and_kept_and_trackers_get_the_held_out_dice(tmp_path, network, caplog):
    caplog.set_level("INFO")
    row = record(tmp_path).add(
        [step()], network, progress=0.5, held_out_dice=0.5, early_stop="training stops early"
    )
    assert caplog.messages == ["small, fold 0: training stops early"]
    assert rows(tmp_path) == [row]
    assert row["early_stop"] == "training stops early"
    assert numbers(row)["held_out_dice"] == 0.5
    assert "early_stop" not in numbers(row)


def test_a_row_fits_a_terminal_of_80_columns():
    row = {
        "epoch": 1000,
        "loss": -0.123,
        "ce": 10.25,
        "pseudo_dice": {"bone": 0.5, "disc": 0.25},
        "fusion_weights": [-0.98, 0.03, -0.01, 0.07],
        "gamma": [0.0201, 0.011, 0.0, 0.0],
        "learning_rate": 0.049999,
        "seconds": 1234.5,
        "seconds_waited_for_data": 123.4,
        "monitors": {"foreground_ratio": 10.5, "border_shift": -0.126},
    }
    learning, mechanisms = summary(row)
    assert learning == "epoch 1000  loss -0.12  Dice 0.38  CE 10.25  waited 123 of 1234 s"
    assert mechanisms == ("foreground ×10.50  border -0.13  fusion -0.98 0.03 -0.01 0.07  γ 0.020 0.011")
    held_out, _ = summary(row | {"held_out_dice": 0.3265})
    assert held_out == learning.replace("loss", "held-out 0.33  loss")
    assert max(len(learning), len(mechanisms), len(held_out)) <= 80
    assert summary({"epoch": 3, "loss": None}) == ("epoch 3  no step was taken", "")


def test_the_numbers_of_a_row_have_flat_names(tmp_path):
    row = collapsed(tmp_path).rows[0]
    assert numbers({**row, "gamma": [0.1, 0.2]}) == {
        "epoch": 1,
        "progress": 0.5,
        "loss": 1,
        "ce": 1,
        "dice_loss": 1,
        "skipped_steps": 0,
        "pseudo_dice/bone": 0,
        "pseudo_dice/canal": 0,
        "gamma/1": 0.1,
        "gamma/2": 0.2,
        "monitors/foreground_ratio": 0,
        "monitors/border_shift": -1,
    }


def test_rows_are_read_while_they_are_written(tmp_path):
    assert read_rows(tmp_path) == []
    collapsed(tmp_path)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1]


@pytest.mark.parametrize(
    "line",
    ["3", "[]", '{"pseudo_dice": 3}', '{"epoch": 1, "progress": "x", "seconds": 1, "pseudo_dice": {}}'],
)
def test_rows_of_nonsense_are_refused(tmp_path, line):
    collapsed(tmp_path)
    with (tmp_path / METRICS).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(FormatError, match=r"an epoch in line 2 of .*metrics\.jsonl.*move the fold"):
        read_rows(tmp_path)


def test_a_log_that_is_nested_deeply_ends_there(tmp_path):
    (tmp_path / METRICS).write_text("[" * 100_000)
    assert read_rows(tmp_path) == []


def test_a_pipe_in_the_place_of_a_log_is_refused(tmp_path):
    os.mkfifo(tmp_path / METRICS)
    with pytest.raises(FormatError, match="a named pipe instead of a file"):
        read_rows(tmp_path)


class Told:
    """A tracker that remembers, or fails when it is told numbers."""

    def __init__(self, run, broken=False):
        self.said, self.broken = [("run", run.name)], broken

    def log_params(self, params):
        self.said.append(("params", dict(params)))

    def log_metrics(self, metrics, step):
        if self.broken:
            raise ConnectionError("no route to host")
        self.said.append(("metrics", step, metrics["loss"]))

    def log_image(self, name, path, step):
        self.said.append(("image", name, path.name, step))

    def close(self):
        self.said.append(("close",))


def tracked(folder, *made) -> Record:
    """A record with these trackers."""
    from trainers import trackers

    run = trackers.TrackedRun(group="g", name="fold 0", folder=folder, identity="x", params={"seed": 0})
    return Record(
        folder,
        title="small, fold 0",
        classes=CLASSES,
        configuration=makers.configuration(),
        epochs=0,
        trackers=trackers.Trackers([str(i) for i in range(len(made))], run, lambda name: made[int(name)]),
    )


def test_trackers_are_told_every_epoch_and_the_curves_at_the_end(tmp_path, network):
    made = []
    written = tracked(tmp_path, lambda run: made.append(Told(run)) or made[0])
    assert made == []  # opened when there is something to tell
    for loss in (2.0, 1.0):
        written.add([step(loss)], network, progress=0.5)
    written.close()
    assert made[0].said == [
        ("run", "fold 0"),
        ("params", {"seed": 0}),
        ("metrics", 1, 2.0),
        ("metrics", 2, 1.0),
        ("image", "curves", CURVES, 2),
        ("image", "mechanisms", MECHANISMS, 2),
        ("close",),
    ]


def test_a_tracker_that_fails_is_said_once_and_left_out(tmp_path, network, caplog):
    good = []

    def missing(run):
        raise ImportError("no such module")

    written = tracked(
        tmp_path,
        lambda run: Told(run, broken=True),
        missing,
        lambda run: good.append(Told(run)) or good[0],
    )
    for _ in range(3):
        written.add([step()], network, progress=0.5)
    written.close()
    assert [set(row["warnings"]) for row in rows(tmp_path)] == [{"tracker_0", "tracker_1"}, set(), set()]
    texts = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(texts) == 2
    assert "could not be opened (ImportError: no such module) and is not used" in texts[0]
    assert "could not be sent the metrics (ConnectionError: no route to host)" in texts[1]
    assert [word for word, *_ in good[0].said].count("metrics") == 3


def test_what_fails_at_the_end_is_said_too(tmp_path, network, caplog):
    class Sticky(Told):
        def close(self):
            raise OSError("disk full")

    written = tracked(tmp_path, Sticky)
    written.add([step()], network, progress=1.0)
    written.close()
    assert "could not be closed (OSError: disk full)" in caplog.text


def test_a_disk_that_takes_no_more_stops_with_a_sentence(tmp_path, network, caplog):
    made = record(tmp_path)
    made.add([step()], network, progress=0.1)
    (tmp_path / METRICS).unlink()
    for name in (METRICS, CURVES):
        (tmp_path / name).mkdir()  # cannot be written to, as on a full disk
    with pytest.raises(WorkspaceError, match=r"metrics\.jsonl.*free disk space"):
        made.add([step()], network, progress=0.2)
    made.close()
    assert "the curves cannot be drawn" in caplog.text


def test_a_record_that_is_kept_whole_is_not_written_again(tmp_path, network):
    record(tmp_path).add([step()], network, progress=0.1)
    before = (tmp_path / METRICS).stat().st_mtime_ns
    assert len(record(tmp_path, epochs=1).rows) == 1
    assert (tmp_path / METRICS).stat().st_mtime_ns == before


NAN, INF = float("nan"), float("inf")


def test_numbers_that_json_does_not_know_are_null_however_deep(tmp_path, network):
    made = record(tmp_path)
    taken = StepResult(loss=1.0, parts={"ce": NAN, "focal": -INF, "other": 2.0}, finite=True)
    row = made.add([taken], network, progress=0.5, learning_rate=NAN, more={"a": [1.5, INF, {"b": (NAN, 2)}]})
    text = (tmp_path / METRICS).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == row
    assert (row["ce"], row["loss_parts"], row["learning_rate"]) == (None, {"focal": None, "other": 2.0}, None)
    assert row["more"] == {"a": [1.5, None, {"b": [None, 2]}]}
    assert numbers(row)["loss_parts/other"] == 2.0
    assert not {"ce", "loss_parts/focal", "learning_rate"} & set(numbers(row))
    assert summary(row)[0] == "epoch 1  loss 1.00  other 2.00"


def test_a_log_of_an_earlier_version_is_read_and_mended(tmp_path, network):
    record(tmp_path).add([step()], network, progress=0.5)
    text = (tmp_path / METRICS).read_text(encoding="utf-8")
    (tmp_path / METRICS).write_text(
        text.replace('"ce": 2.0', '"loss_parts": {"focal": NaN, "far": -Infinity}'), encoding="utf-8"
    )
    made = record(tmp_path, epochs=1)
    assert made.rows[0]["loss_parts"] == {"focal": None, "far": None}
    made.add([step()], network, progress=1.0)
    lines = (tmp_path / METRICS).read_text(encoding="utf-8").splitlines()
    assert (
        [json.loads(line, parse_constant=pytest.fail) for line in lines] == made.rows == read_rows(tmp_path)
    )
    made.close()
    assert (tmp_path / CURVES).stat().st_size > 1000


def test_weights_that_are_not_finite_do_not_break_the_line_of_an_epoch():
    row = {"epoch": 1, "loss": 1.0, "pseudo_dice": {"bone": None}, "fusion_weights": [None, 0.5]}
    assert summary(row | {"gamma": [None, 0.25], "learning_rate": None})[1] == "fusion ? 0.50  γ 0.250"
