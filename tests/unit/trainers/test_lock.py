import json
import os
import socket
import subprocess
import sys

import psutil
import pytest

from autospine.errors import TrainingError
from trainers.lock import LOCK, locked


def write_lock(folder, **changes):
    mine = psutil.Process().create_time()
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "began": mine, **changes}
    (folder / LOCK).write_text(json.dumps(owner), encoding="utf-8")


def test_a_fold_is_free_again_afterwards(tmp_path):
    folder = tmp_path / "fold_0"
    for _ in range(2):
        with locked(folder):
            assert json.loads((folder / LOCK).read_text(encoding="utf-8"))["pid"] == os.getpid()
        assert not (folder / LOCK).exists()


def test_a_fold_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    with locked(tmp_path):
        pass


def test_a_second_training_is_refused_and_told_who_is_at_it(tmp_path):
    with locked(tmp_path):
        with (
            pytest.raises(TrainingError, match=rf"one training of .* found process {os.getpid()} on "),
            locked(tmp_path),
        ):
            pass
        assert (tmp_path / LOCK).exists()


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    write_lock(tmp_path, pid=ended.pid)
    with locked(tmp_path):
        pass


def test_a_later_process_with_the_same_number_does_not_count(tmp_path):
    write_lock(tmp_path, began=1.0)
    with locked(tmp_path):
        pass


def test_nobody_knows_whether_processes_of_other_machines_have_ended(tmp_path):
    write_lock(tmp_path, host="elsewhere", began=1.0)
    with pytest.raises(TrainingError, match=r"on elsewhere at it; wait for it, or delete"), locked(tmp_path):
        pass


def test_a_damaged_lock_is_told(tmp_path):
    (tmp_path / LOCK).write_text("{", encoding="utf-8")
    with pytest.raises(TrainingError, match="process unknown on an unknown machine"), locked(tmp_path):
        pass
