import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from autospine.core.errors import TrainingError
from autospine.storage.locks import heartbeat_lock, is_held, scratch_folder, waiting_lock

LOCK = "training.lock"


def test_the_second_one_says_so_and_waits(tmp_path, caplog):
    caplog.set_level("INFO", logger="autospine")
    lock, done = tmp_path / "folder" / "work.lock", []

    def work() -> None:
        with waiting_lock(lock, "counts"):
            done.append("second")

    with ThreadPoolExecutor(1) as other:
        with waiting_lock(lock, "counts"):
            assert "waiting" not in caplog.text
            second = other.submit(work)
            while "another process counts; waiting for it" not in caplog.text and not second.done():
                time.sleep(0.01)
            done.append("first")
        second.result(60)
    assert done == ["first", "second"]


CROWD = """
import sys
from pathlib import Path
from autospine.storage.locks import waiting_lock
folder = Path(sys.argv[1])
for _ in range(100):
    with waiting_lock(folder / "work.lock", "counts"):
        (folder / "inside").touch(exist_ok=False)  # raises where two are inside
        (folder / "inside").unlink()
"""


def test_many_that_wait_are_never_inside_together_and_leave_no_file(tmp_path):
    """Although each removes the file that the others have opened."""
    command = [sys.executable, "-c", CROWD, str(tmp_path)]
    with ThreadPoolExecutor(3) as crowd:
        ended = [*crowd.map(lambda _: subprocess.run(command, capture_output=True, check=False), range(3))]
    assert [one.returncode for one in ended] == [0, 0, 0], ended
    assert not any(tmp_path.iterdir())


def test_a_lock_is_free_after_an_error(tmp_path, caplog):
    caplog.set_level("INFO", logger="autospine")
    for _ in range(2):
        try:
            with waiting_lock(tmp_path / "work.lock", "counts"):
                raise KeyError
        except KeyError:
            pass
    assert "waiting" not in caplog.text


def locked(folder):
    return heartbeat_lock(folder / LOCK, f"one training of {folder}", TrainingError)


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


@contextmanager
def another_holds(folder):
    """Another process of this machine trains here, until it is killed without a word."""
    script = """
import sys, time
from pathlib import Path
from autospine.core.errors import TrainingError
from autospine.storage.locks import heartbeat_lock
with heartbeat_lock(Path(sys.argv[1]), "one training", TrainingError):
    print("held", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder / LOCK)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_the_lock_of_a_process_that_was_killed_is_free_at_once(tmp_path):
    with another_holds(tmp_path) as other:
        with (
            pytest.raises(
                TrainingError, match=rf"found process {other.pid} on .* \(it began at 2\d\d\d-\d\d-"
            ),
            locked(tmp_path),
        ):
            pass
        # What the holder has written is not touched by others who ask.
        assert json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))["pid"] == other.pid
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass


def test_an_empty_lock_is_that_of_a_process_that_was_killed_on_the_way(tmp_path):
    (tmp_path / LOCK).touch()
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))["pid"] == os.getpid()


def test_an_empty_lock_that_is_held_counts(tmp_path):
    with another_holds(tmp_path):
        (tmp_path / LOCK).write_text("", encoding="utf-8")
        with pytest.raises(TrainingError, match="process unknown"), locked(tmp_path):
            pass


def test_of_several_that_find_an_abandoned_lock_at_once_one_gets_it(tmp_path):
    """Many times over, and no two are ever inside together."""
    script = """
import sys
from contextlib import suppress
from pathlib import Path
from autospine.core.errors import TrainingError
from autospine.storage.locks import heartbeat_lock
abandoned, LOCK = sys.argv[2], 'training.lock'
folder, inside = Path(sys.argv[1]), Path(sys.argv[1]) / "inside"
got = 0
print("ready", flush=True)
while not (folder / "go").exists():
    pass
for _ in range(500):
    try:
        with heartbeat_lock(folder / LOCK, 'one training', TrainingError):
            inside.touch(exist_ok=False)  # raises where two are inside
            got += 1
            inside.unlink()
        with suppress(FileExistsError), (folder / LOCK).open("x") as file:
            file.write(abandoned)
    except TrainingError:
        pass
print(got)
"""
    write_lock(tmp_path, pid=2**22 + 1)
    command = [sys.executable, "-c", script, str(tmp_path), (tmp_path / LOCK).read_text(encoding="utf-8")]
    with ExitStack() as running:
        crowd = []
        for _ in range(3):
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            crowd.append(running.enter_context(subprocess.Popen(command, **pipes)))
            running.callback(crowd[-1].kill)  # before its context waits for it
        assert [one.stdout.readline() for one in crowd] == [b"ready\n"] * 3
        (tmp_path / "go").touch()
        said = [one.communicate(timeout=120) for one in crowd]
    assert [one.returncode for one in crowd] == [0, 0, 0], said
    assert sum(int(out) for out, _ in said) > 0


def test_a_later_process_with_the_same_number_does_not_count(tmp_path):
    write_lock(tmp_path, began=1.0)
    with locked(tmp_path):
        pass


def test_the_lock_of_another_machine_is_taken_over_where_nothing_beats(tmp_path, caplog):
    """A container that was killed comes back under another name."""
    write_lock(tmp_path, host="elsewhere", beat_seconds=0.02)
    with locked(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))["pid"] == os.getpid()
    assert "its process was killed, this one goes on" in caplog.text


def test_the_lock_of_another_machine_counts_where_it_beats(tmp_path):
    """Also where the operating system passes no locks on."""
    write_lock(tmp_path, host="elsewhere", beat_seconds=0.5)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(tmp_path / LOCK)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        with (
            pytest.raises(TrainingError, match=r"on elsewhere at it, alive; wait for it, or"),
            locked(tmp_path),
        ):
            pass
    finally:
        ended.set()
        beating.join()


def test_a_lock_beats_for_as_long_as_it_is_held(tmp_path):
    path = tmp_path / LOCK
    with heartbeat_lock(path, "one training", TrainingError, beat_seconds=0.02):
        os.utime(path, (1, 1))
        until = time.monotonic() + 10
        while path.stat().st_mtime == 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert path.stat().st_mtime > 1
    time.sleep(0.1)
    assert not path.exists()


def test_it_is_known_who_holds_a_lock_without_touching_it(tmp_path):
    path = tmp_path / LOCK
    assert not is_held(path)
    with locked(tmp_path):
        before = path.read_bytes()
        assert is_held(path)
        assert path.read_bytes() == before
    for left_behind in ({"began": 1.0}, {"pid": 2**22 + 1}, {"pid": "who"}):
        write_lock(tmp_path, **left_behind)
        assert not is_held(path), left_behind
    write_lock(tmp_path, host="elsewhere", beat_seconds=10)
    assert is_held(path)
    os.utime(path, (1, 1))
    assert not is_held(path)
    path.write_text("damaged", encoding="utf-8")
    assert not is_held(path)


def test_a_lock_that_cannot_be_touched_does_not_say_that_it_beats(tmp_path, monkeypatch):
    """Else it would be taken from who holds it."""
    monkeypatch.setattr(os, "utime", lambda *_: None)
    with locked(tmp_path):
        assert "beat_seconds" not in json.loads((tmp_path / LOCK).read_text(encoding="utf-8"))


def test_a_lock_of_another_machine_that_goes_meanwhile_is_free(tmp_path):
    write_lock(tmp_path, host="elsewhere", beat_seconds=10)
    timer = threading.Timer(0.2, (tmp_path / LOCK).unlink)
    timer.start()
    with locked(tmp_path):
        timer.join()


def test_nobody_knows_whether_processes_of_other_machines_have_ended(tmp_path):
    write_lock(tmp_path, host="elsewhere", began=1.0)
    with pytest.raises(TrainingError, match=r"on elsewhere at it; wait for it, or delete"), locked(tmp_path):
        pass


def test_a_damaged_lock_is_told(tmp_path):
    (tmp_path / LOCK).write_text("{", encoding="utf-8")
    with pytest.raises(TrainingError, match="process unknown on an unknown machine"), locked(tmp_path):
        pass


DIES_INSIDE = """
import os, signal, sys
from pathlib import Path
from autospine.storage.locks import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("a model")
    os.kill(os.getpid(), getattr(signal, sys.argv[2]))
"""


def killed_inside(parent, name="SIGKILL"):
    """Have a process killed that works in a scratch folder; return that folder."""
    before = set(parent.iterdir())
    done = subprocess.run([sys.executable, "-c", DIES_INSIDE, str(parent), name], check=False)
    assert done.returncode != 0
    (left,) = set(parent.iterdir()) - before
    assert (left / "files" / "half").is_file()
    return left


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGABRT"])
def test_the_next_scratch_folder_removes_those_of_dead_processes_and_no_other(tmp_path, name):
    killed_inside(tmp_path, name)
    with scratch_folder(tmp_path) as mine:
        assert list(mine.iterdir()) == []
        with scratch_folder(tmp_path) as other:  # mine is in use
            assert [*tmp_path.iterdir()] and {mine.parent, other.parent} == set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_what_another_machine_has_left_is_removed_a_day_later(tmp_path):
    """There nobody knows whether the process is alive; it touches its lock as long as it is."""
    theirs = killed_inside(tmp_path)
    (theirs / "owner.lock").write_text(json.dumps({"host": "elsewhere"}), encoding="utf-8")
    link = tmp_path / ".autospine-link.tmp"
    link.symlink_to(tmp_path / "kept")
    (tmp_path / "kept").mkdir()
    for old in (theirs / "files" / "half", theirs / "files", theirs):
        os.utime(old, (0, 0))
    with scratch_folder(tmp_path):
        assert theirs.is_dir()  # its lock was touched lately
    os.utime(theirs / "owner.lock", (0, 0))
    with scratch_folder(tmp_path):
        assert not theirs.exists()
    assert set(tmp_path.iterdir()) == {link, tmp_path / "kept"}
