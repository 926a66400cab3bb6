import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import makers
import pytest
import torch

from autospine.core.errors import FormatError, TrainingError
from autospine.data import PatchBatches, PatchSource
from autospine.data.loader import batches_ahead
from autospine.storage.serialization import write_json


@pytest.fixture
def load(cases, configure):
    def make(workers=0, start=0, stop=6, **changes):
        return PatchBatches(
            cases, configure(**changes), seed=7, start=start, stop=stop, workers=workers, cache_bytes=10**6
        )

    return make


def same(batches, source, steps):
    found = list(batches)
    assert len(found) == len(steps)
    for step, batch in zip(steps, found, strict=True):
        expected = source.batch(step)
        assert batch.images.equal(expected.images)
        assert batch.labels.equal(expected.labels)
        assert batch.cases == expected.cases


def test_any_number_of_workers_gives_the_same_patches(load, cases, configure):
    source = PatchSource(cases, configure(), seed=7, cache_bytes=0)
    with load() as batches:
        same(batches, source, range(6))
        assert batches.seconds_waited > 0
        assert next(batches, None) is None
    with load(start=4) as batches:
        same(batches, source, range(4, 6))
    with load(workers=2) as batches:
        same(batches, source, range(6))


def test_an_endless_run_closes_at_once(load):
    batches = load(stop=10**9)
    next(batches)
    began = time.monotonic()
    batches.close()
    batches.close()
    assert time.monotonic() - began < 5
    assert next(batches, None) is None
    assert not any(thread.name == "patches" for thread in threading.enumerate())


def test_the_threads_of_the_network_stay(load):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with load() as batches:
            next(batches)
            assert torch.get_num_threads() == 2
            found = []
            other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
            other.start()
            other.join()
            assert found == [2]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_workers_error_is_raised_as_itself(load, cases, workers):
    for case in cases:
        (case.folder / f"{case.name}_labels.b2nd").write_bytes(b"damaged")
    with (
        load(workers=workers) as batches,
        pytest.raises(FormatError, match=r"stored labels of case \w+") as caught,
    ):
        next(batches)
    assert any("while a patch was cut from case" in note for note in caught.value.__notes__)


def test_a_killed_worker_is_noticed(load):
    handler, before = signal.getsignal(signal.SIGCHLD), set(multiprocessing.active_children())
    with load(workers=1, stop=10**6) as batches:
        next(batches)
        assert signal.getsignal(signal.SIGCHLD) == handler
        (process,) = set(multiprocessing.active_children()) - before
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(TrainingError, match=r"--shm-size 8g.*fewer --workers"):
            for _ in range(100):
                next(batches)


FORGETFUL = """
import sys
from pathlib import Path
from autospine.data import PatchBatches
from autospine.plan import Configuration
from autospine.preprocessing.store import open_cases
from autospine.storage.serialization import read_json

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    cases = open_cases(folder, ["large"])
    configuration = read_json(folder / "configuration", Configuration)
    opened = [
        PatchBatches(cases, configuration, seed=0, start=0, stop=10**9, workers=workers, cache_bytes=0)
        for workers in (0, 1)
    ]
    for batches in opened:
        next(batches)
    raise KeyboardInterrupt
"""


def test_forgotten_loaders_do_not_hold_up_the_exit(cases, configure, tmp_path):
    write_json(cases[0].folder / "configuration", configure())
    script = tmp_path / "forgetful.py"
    script.write_text(FORGETFUL)
    done = subprocess.run(
        [sys.executable, str(script), str(cases[0].folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode in (1, 130, -signal.SIGINT)
    assert "terminate called" not in done.stderr


CRAMPED = """
import sys
from pathlib import Path
from autospine.data import PatchBatches, PatchSource
from autospine.plan import Configuration
from autospine.preprocessing.store import open_cases
from autospine.storage.serialization import read_json

if __name__ == "__main__":
    import resource

    # No file may be larger, those in shared memory included.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    folder = Path(sys.argv[1])
    cases = open_cases(folder, ["large"])
    configuration = read_json(folder / "configuration", Configuration)
    source = PatchSource(cases, configuration, seed=0, cache_bytes=0)
    options = {"seed": 0, "start": 0, "stop": 4, "workers": 2, "cache_bytes": 0}
    with PatchBatches(cases, configuration, **options) as batches:
        for step, batch in enumerate(batches):
            expected = source.batch(step)
            assert batch.images.equal(expected.images) and batch.labels.equal(expected.labels)
    print("all", step + 1)
"""


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_no_batch_is_lost_where_there_is_no_shared_memory(cases, configure, tmp_path):
    write_json(cases[0].folder / "configuration", configure())
    script = tmp_path / "cramped.py"
    script.write_text(CRAMPED)
    done = subprocess.run(
        [sys.executable, str(script), str(cases[0].folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.split() == ["all", "4"], done.stderr
    assert done.stderr.count("too little shared memory") == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_ended_is_not_waited_for(load, monkeypatch):
    made = PatchSource.batch

    def ending(source, step):
        if step == 4:
            raise SystemExit  # which ends a thread without a word
        return made(source, step)

    monkeypatch.setattr(PatchSource, "batch", ending)
    with load(stop=10**6) as batches:
        next(batches)
        with pytest.raises(TrainingError, match="thread that makes patches"):
            for _ in range(10):
                next(batches)


@pytest.mark.parametrize(
    ("edge", "batch", "workers", "ahead"),
    [(64, 1, 8, 3), (128, 2, 8, 3), (192, 2, 8, 3), (288, 2, 8, 1), (288, 2, 2, 3)],
)
def test_large_batches_wait_in_smaller_numbers(edge, batch, workers, ahead):
    configuration = makers.configuration(patch_size=(edge,) * 3, training={"batch_size": batch})
    assert batches_ahead(configuration, workers) == ahead


def test_the_thread_that_makes_patches_computes_with_one_thread(load, monkeypatch):
    counts, usual = [], PatchSource.batch

    def counted(source, step):
        made = usual(source, step)  # a thread takes torch's default when it computes for the first time
        counts.append(torch.get_num_threads())
        return made

    monkeypatch.setattr(PatchSource, "batch", counted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with load() as batches:
            assert len(list(batches)) == 6
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(counts) == {1}
