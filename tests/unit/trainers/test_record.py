import json

import pytest
import torch

from trainers.learner import Step
from trainers.record import CURVES, METRICS, Record

CLASSES = ("bone", "canal")


def step(loss=1.0, dice=(0.2, 0.4), finite=True) -> Step:
    return Step(loss=loss, cross_entropy=2 * loss, dice=dice, finite=finite)


def record(folder, epochs=0) -> Record:
    return Record(folder, title="small, fold 0", classes=CLASSES, epochs=epochs)


def rows(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / METRICS).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def network():
    return torch.nn.Identity()


def test_an_epoch_is_the_mean_of_its_steps(tmp_path, network):
    folder = tmp_path / "fold_0"
    row = record(folder).add([step(), step(2.0, (0.6, 0.4))], network, learning_rate=0.1)
    assert row == {
        "epoch": 1,
        "loss": 1.5,
        "ce": 3.0,
        "dice_loss": pytest.approx(1 - (0.4 + 0.4) / 2),
        "pseudo_dice": {"bone": 0.4, "canal": 0.4},
        "skipped_steps": 0,
        "learning_rate": 0.1,
    }
    assert rows(folder) == [row]
    assert (folder / CURVES).stat().st_size > 1000


def test_steps_that_were_not_taken_are_counted_apart(tmp_path, network):
    made = record(tmp_path)
    row = made.add([step(), step(float("nan"), (float("nan"),) * 2, finite=False)], network)
    assert (row["loss"], row["skipped_steps"]) == (1.0, 1)
    row = made.add([step(float("inf"), finite=False)], network)
    assert (row["loss"], row["ce"], row["dice_loss"], row["pseudo_dice"]) == (None, None, None, {})
    assert [r["epoch"] for r in rows(tmp_path)] == [1, 2]


def test_a_resumed_record_drops_what_came_after_the_checkpoint(tmp_path, network):
    first = record(tmp_path)
    for loss in (3.0, 2.0, 1.0):
        first.add([step(loss)], network)
    again = record(tmp_path, epochs=2)
    assert [row["loss"] for row in again.rows] == [3.0, 2.0]
    again.add([step(1.5)], network)
    assert [row["loss"] for row in rows(tmp_path)] == [3.0, 2.0, 1.5]
    assert rows(tmp_path)[-1]["epoch"] == 3


def test_a_line_cut_short_is_dropped(tmp_path, network):
    record(tmp_path).add([step()], network)
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert len(record(tmp_path, epochs=5).rows) == 1
    assert len(rows(tmp_path)) == 1


def test_a_new_record_starts_empty(tmp_path, network):
    record(tmp_path).add([step()], network)
    assert record(tmp_path).rows == []
    assert (tmp_path / METRICS).read_text(encoding="utf-8") == ""
