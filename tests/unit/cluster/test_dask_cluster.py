"""Tasks on the workers of a Dask cluster: a scheduler in this process, and workers in two others."""

import io
import logging
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL

import pytest

from autospine import __version__
from autospine.cluster import dask_cluster, worker_survey
from autospine.cluster.dask_cluster import DaskCluster, cluster_of, connected
from autospine.cluster.executor import ClusterError, Lost, Need, Task
from autospine.cluster.shared_paths import SharedPaths
from autospine.cluster.worker_side import WorkerFacts, unwanted_check, worker_threads
from autospine.cluster.worker_survey import ClusterWorker

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")

GIB = 1024**3

NOTHING_SHARED = SharedPaths(written=Path("shared"))


@pytest.fixture(scope="module")
def started():
    """A scheduler with two workers, on which a task may be killed once."""
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="4GiB", dashboard_address=":0"
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def local(started):
    """The scheduler once both workers are there, also those that an earlier test has killed."""
    with distributed.Client(started) as client:
        client.wait_for_workers(2, timeout=60)
    return started


@pytest.fixture
def cluster(local, tmp_path: Path):
    with connected(local.scheduler_address, SharedPaths(written=tmp_path / "shared")) as found:
        yield found


def tasks(*arguments: object, need: Need = Need()) -> list[Task]:  # noqa: B008
    return [
        Task(name=f"task {number}", argument=argument, need=need) for number, argument in enumerate(arguments)
    ]


def results(cluster, function, *arguments, need: Need = Need()) -> dict[str, object]:  # noqa: B008
    return {task.name: result for task, result in cluster.run(function, tasks(*arguments, need=need))}


def worker(address: str, host: str, memory_gib: float = 0, gpus: int = 0) -> ClusterWorker:
    facts = WorkerFacts(version=__version__, unseen=(), gpus=gpus)
    memory = round(memory_gib * GIB)
    return ClusterWorker(address=address, host=host, threads=1, memory_bytes=memory, facts=facts)


def test_tasks_run_in_the_workers(cluster, tmp_path: Path):
    assert cluster.workers == 2
    found = results(cluster, lambda number: (number**2, os.getpid()), 1, 2, 3)
    assert {name: value for name, (value, _) in found.items()} == {"task 0": 1, "task 1": 4, "task 2": 9}
    assert os.getpid() not in {pid for _, pid in found.values()}
    assert not list((tmp_path / "shared").iterdir())  # the note by which workers are looked at is gone


def test_what_the_function_raises_is_raised(cluster):
    def refuse(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(KeyError, match="why"):
        results(cluster, refuse, "why")


def test_a_task_that_needs_every_core_has_the_threads_of_its_worker(cluster):
    import torch

    assert results(cluster, lambda _: worker_threads(), 0, need=Need(alone=True)) == {"task 0": 1}
    assert results(cluster, lambda _: torch.get_num_threads(), 0) == {"task 0": 1}


def test_a_killed_worker_s_task_is_done_by_another(cluster, tmp_path: Path):
    def die_once(name: str) -> str:
        mark = tmp_path / name
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return name

    assert results(cluster, die_once, "a") == {"task 0": "a"}


def test_a_task_that_kills_every_worker_is_lost_and_the_others_are_not(cluster):
    def die(argument: int) -> int:
        if argument:
            os._exit(1)
        return argument

    found = results(cluster, die, 0, 1, 0, 0)
    lost = found.pop("task 1")
    assert found == {"task 0": 0, "task 2": 0, "task 3": 0}
    assert isinstance(lost, Lost)
    assert "its worker was killed each time" in lost.reason


def test_a_task_learns_that_nobody_waits_for_it(cluster, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "LOOK_SECONDS", 0.2)

    def wait_for_the_end(name: str) -> None:
        unwanted, place = unwanted_check(), tmp_path / name
        place.write_text("begun", encoding="utf-8")
        until = time.monotonic() + 60
        while not unwanted() and time.monotonic() < until:
            time.sleep(0.05)
        place.write_text("unwanted" if unwanted() else "waited", encoding="utf-8")

    events = cluster.events(wait_for_the_end, tasks("a"))
    place, until = tmp_path / "a", time.monotonic() + 60
    while not place.is_file():
        assert next(events) is None
        assert time.monotonic() < until
    events.close()
    while place.read_text(encoding="utf-8") != "unwanted":
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("need", "says"),
    [
        (
            Need(memory_bytes=8 * GIB),
            r"expected a worker with 8\.0 GiB of memory for task 0, found none: the largest has 4\.0 GiB of "
            r"memory; start larger ones",
        ),
        (Need(gpu=True), "expected a worker with a GPU for task 0, found none: .*on a machine with a GPU"),
    ],
)
def test_a_task_that_fits_no_worker_is_refused_before_any_begins(cluster, tmp_path: Path, need, says):
    small, large = tasks(tmp_path / "ran")[0], tasks(tmp_path / "ran", need=need)[0]
    with pytest.raises(ClusterError, match=says):
        list(cluster.run(Path.touch, [small, large]))
    time.sleep(0.5)
    assert not (tmp_path / "ran").exists()


def test_a_task_goes_to_workers_that_are_large_enough():
    """By host where all workers of a host are: one that is killed comes again under another address."""
    small = [worker("tcp://a:1", "a", 4), worker("tcp://c:1", "c", 4)]
    large = [worker("tcp://b:1", "b", 16), worker("tcp://b:2", "b", 16), worker("tcp://c:2", "c", 16)]
    cluster = DaskCluster(None, NOTHING_SHARED, [*small, *large])
    (task,) = tasks(0, need=Need(memory_bytes=8 * GIB))
    assert cluster._places(task) == ["b", "tcp://c:2"]
    (task,) = tasks(0, need=Need(memory_bytes=2 * GIB))
    assert cluster._places(task) is None
    (task,) = tasks(0, need=Need(memory_bytes=8 * GIB))
    assert (
        DaskCluster(None, NOTHING_SHARED, [worker("tcp://a:1", "a")])._places(task) is None
    )  # without a limit of memory


def test_threads_of_a_worker_share_its_memory_unless_a_task_has_it_alone():
    shared = replace(worker("tcp://a:1", "a", 8), threads=2)
    (alone,) = tasks(0, need=Need(memory_bytes=6 * GIB, alone=True))
    assert DaskCluster(None, NOTHING_SHARED, [shared])._places(alone) is None
    (beside,) = tasks(0, need=Need(memory_bytes=6 * GIB))
    with pytest.raises(ClusterError, match=r"with 6\.0 GiB of memory .* the largest has 4\.0 GiB"):
        DaskCluster(None, NOTHING_SHARED, [shared])._places(beside)


def test_gpus_are_used_where_there_are_any():
    without, having = worker("tcp://a:1", "a"), worker("tcp://b:1", "b", gpus=1)
    (task,) = tasks(0, need=Need(gpu=True))
    assert DaskCluster(None, NOTHING_SHARED, [without, having])._places(task) == ["b"]
    assert DaskCluster(None, NOTHING_SHARED, [without, having]).uses_gpu("auto")
    assert not DaskCluster(None, NOTHING_SHARED, [without]).uses_gpu("auto")
    assert not DaskCluster(None, NOTHING_SHARED, [having]).uses_gpu("cpu")
    assert DaskCluster(None, NOTHING_SHARED, [without]).uses_gpu(
        "cuda:0"
    )  # which is refused when the task is


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            WorkerFacts(version="0.0.1", unseen=(), gpus=0),
            rf"has AutoSpine 0\.0\.1, this is {__version__}; install the same version there",
        ),
        (
            WorkerFacts(version=__version__, unseen=("/data/shared",), gpus=0),
            r"does not see /data/shared; give it the same shared folders under the same paths",
        ),
        (
            ModuleNotFoundError("No module named 'autospine'"),
            rf"has no AutoSpine {__version__} \(ModuleNotFoundError: No module named 'autospine'\)",
        ),
    ],
    ids=["other version", "other folder", "nothing"],
)
def test_workers_that_cannot_take_part_are_named_before_work_begins(
    local, tmp_path: Path, monkeypatch, answer, says
):
    def describe(_: object) -> WorkerFacts:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(worker_survey, "describe_worker", describe)
    with (
        distributed.Client(local) as client,
        pytest.raises(ClusterError, match=rf"found 2 of 2 that cannot: tcp://\S+ (\(\S+\) )?{says}"),
    ):
        cluster_of(client, SharedPaths(written=tmp_path / "shared"))


@pytest.mark.parametrize(
    ("preload", "says"),
    [
        ("import autospine; autospine.__version__ = '0.0.1'", [r"has AutoSpine 0\.0\.1, this is"]),
        ("import sys; sys.modules['autospine'] = None", []),  # Dask ends it, as it cannot read its tasks
    ],
    ids=["other version", "nothing"],
)
def test_a_worker_that_comes_later_and_cannot_take_part_gets_no_work(
    cluster, local, tmp_path: Path, caplog, preload, says
):
    def square(number: int) -> int:
        time.sleep(0.1)
        return number**2

    (tmp_path / "preload.py").write_text(preload, encoding="utf-8")
    command = [sys.executable, "-m", "dask", "worker", local.scheduler_address, "--nthreads", "4"]
    command += ["--no-nanny", "--no-dashboard", "--preload", str(tmp_path / "preload.py")]
    with (
        subprocess.Popen(command, stdout=DEVNULL, stderr=DEVNULL) as late,
        distributed.Client(local) as client,
    ):
        try:
            client.wait_for_workers(3, timeout=60)
            found = results(cluster, square, *range(24))
        finally:
            late.terminate()
            late.wait()
            until = time.monotonic() + 60
            while len(client.scheduler_info()["workers"]) > 2 and time.monotonic() < until:
                time.sleep(0.1)
    assert found == {f"task {number}": number**2 for number in range(24)}
    warnings = [each.message for each in caplog.records if each.levelname == "WARNING"]
    for warning, fault in zip(warnings, says, strict=True):
        assert re.search(rf"a worker gets no work: tcp://\S+ {fault}", warning)


def test_a_worker_that_has_ended_is_named(cluster, tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(dask_cluster, "LOOK_SECONDS", 0.2)

    def die_once(name: str) -> str:
        mark = tmp_path / name
        if not mark.exists():
            mark.touch()
            os._exit(1)
        time.sleep(3)
        return name

    assert results(cluster, die_once, "a") == {"task 0": "a"}
    warnings = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert any(re.search(r"a worker has ended \(tcp://\S+\)", said) for said in warnings)
    assert not any("no worker is left" in said for said in warnings)


def test_what_workers_warn_of_is_logged_once(local, tmp_path: Path):
    said: list[str] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    def warn(number: int) -> None:
        logging.getLogger("autospine.test").warning("the same")
        logging.getLogger("autospine.test").warning("case %d", number)
        logging.getLogger("autospine.test").info("nothing")

    handler, other = Heard(), logging.StreamHandler(io.StringIO())
    for each in (other, handler):
        logging.getLogger("autospine").addHandler(each)
    try:
        with connected(local.scheduler_address, SharedPaths(written=tmp_path / "shared")) as cluster:
            results(cluster, warn, *range(6))
            until = time.monotonic() + 30
            while len(said) < 7 and time.monotonic() < until:
                time.sleep(0.1)
            time.sleep(0.5)
    finally:
        for each in (other, handler):
            logging.getLogger("autospine").removeHandler(each)
    assert sorted(text for text in said if not text.startswith("cluster: ")) == [
        *(f"case {number}" for number in range(6)),
        "the same",
    ]
    assert not handler.filters


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_a_scheduler_that_does_not_answer_is_said(tmp_path: Path, monkeypatch, address):
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(
            ClusterError, match=f"expected a Dask scheduler at {address}, found none .*`dask sched"
        ),
        connected(address, SharedPaths(written=tmp_path)),
    ):
        pass


def test_dask_that_is_not_installed_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "find_spec", lambda _: None)
    with (
        pytest.raises(ClusterError, match=r"run `pip install 'autospine\[cluster\]'`"),
        connected("", SharedPaths(written=tmp_path)),
    ):
        pass


def test_a_scheduler_without_workers_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 1.0)
    with (
        distributed.LocalCluster(
            n_workers=0, dashboard_address=":0", processes=False, protocol="tcp"
        ) as empty,
        pytest.raises(ClusterError, match=r"expected workers at the Dask scheduler tcp://.*, found none"),
        connected(empty.scheduler_address, SharedPaths(written=tmp_path)),
    ):
        pass


def test_a_scheduler_that_goes_away_meanwhile_is_said(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(dask_cluster, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 2.0)
    options = {"n_workers": 1, "processes": False, "dashboard_address": ":0", "protocol": "tcp"}
    with (
        distributed.LocalCluster(**options) as short,
        connected(short.scheduler_address, SharedPaths(written=tmp_path)) as cluster,
    ):
        events = cluster.events(time.sleep, tasks(6.0))
        assert next(events) is None
        short.close()
        with pytest.raises(
            ClusterError, match=r"expected the Dask scheduler at tcp://.* to stay, found it gone"
        ):
            list(events)
