import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from autospine.core.errors import AutospineError, counted
from autospine.system import devices
from autospine.system.cards import devices_like, memory_budget
from autospine.system.devices import (
    choose_device,
    choose_gpu,
    computing,
    describe,
    multiplies_bfloat16,
    seconds_without_core,
)
from autospine.system.hardware import CudaInstallation

CPU = torch.device("cpu")
CU130 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")


def test_the_budget_is_the_wish_or_a_share_of_the_free_memory():
    assert memory_budget(CPU, "2GB") == (2 * 1024**3, "set by --memory")
    amount, reason = memory_budget(CPU)
    assert 0 < amount < psutil.virtual_memory().total
    assert "half of the free RAM" in reason


def test_the_processor_can_always_be_chosen():
    assert choose_device("cpu") == CPU
    assert choose_device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("wish", ["", "gpu", "meta", "mps", "cuda:x", "cuda:-1", "cpu:0:1"])
def test_other_devices_are_refused(wish):
    with pytest.raises(AutospineError, match="--device auto, cpu, cuda or cuda:N"):
        choose_device(wish)


def test_an_absent_gpu_is_refused():
    with pytest.raises(AutospineError, match=r"--device cuda:99, found .*, or use --device cpu"):
        choose_device("cuda:99")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"cuda": None, "driver": True}, r"built without CUDA; install the build that https://pytorch.org"),
        ({"visible": ""}, r"CUDA_VISIBLE_DEVICES='' leaves no GPU; unset it"),
        ({"visible": "7"}, r"CUDA_VISIBLE_DEVICES='7' leaves no GPU; unset it"),
        (
            {"said": "The NVIDIA driver on your system is too old\nplease"},
            r"too old\); update NVIDIA's driver",
        ),
        # A scheduler sets the variable, which is then not to blame.
        ({"said": "driver is too old", "visible": "0"}, r"refuses the driver \(driver is too old\)"),
        ({}, "no NVIDIA driver is loaded; in a container, start it with --gpus all"),
        ({"driver": True}, "nvidia-smi"),
    ],
)
def test_why_there_is_no_gpu_is_said_with_what_to_do(found, said):
    installation = CudaInstallation(**{"version": "2.13.0", "cuda": "13.0", **found})
    with pytest.raises(AutospineError, match=f"--device cuda, found 0 GPUs: .*{said}.*--device cpu"):
        choose_gpu("cuda", 0, installation)


def test_without_a_gpu_the_cpu_is_used_and_a_line_says_why(caplog):
    installation = CudaInstallation(version="2.13.0", cuda="13.0", visible="3", driver=True)
    for _ in range(2):
        assert choose_gpu("auto", 0, installation) == torch.device("cpu")
    assert caplog.text.count("no GPU is used: CUDA_VISIBLE_DEVICES='3' leaves no GPU") == 1


class Properties:
    def __init__(self, name, major, minor):
        self.name, self.major, self.minor = name, major, minor


@pytest.fixture
def workstation(monkeypatch):
    """An old card, then a new one."""
    found = [Properties("Quadro P620", 6, 1), Properties("RTX 6000", 8, 9)]
    monkeypatch.setattr(torch.cuda, "get_device_properties", found.__getitem__)
    return CudaInstallation(version="2.13.0+cu130", cuda="13.0", built_for=CU130, driver=True)


def test_a_card_that_torch_has_kernels_for_comes_first(workstation):
    assert choose_gpu("auto", 2, workstation) == torch.device("cuda", 1)
    assert choose_gpu("cuda", 2, workstation) == torch.device("cuda", 1)
    assert choose_gpu("cuda:1", 2, workstation) == torch.device("cuda", 1)


def test_a_card_without_kernels_is_named_with_the_build_that_has_them(workstation, caplog):
    with pytest.raises(AutospineError, match=r"no kernels for Quadro P620 of .* 6\.1.*whl/cu126"):
        choose_gpu("cuda:0", 2, workstation)
    assert choose_gpu("auto", 1, workstation) == torch.device("cpu")
    assert "whl/cu126" in caplog.text


def test_a_number_that_no_card_has_is_refused(workstation):
    with pytest.raises(AutospineError, match=r"--device cuda:2, found 2 GPUs: GPUs are numbered from 0"):
        choose_gpu("cuda:2", 2, workstation)


def test_gpu_memory_may_grow_in_place_unless_the_user_has_set_the_allocator(monkeypatch):
    for name in devices.ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    choose_device("cpu")
    assert devices.ALLOCATOR[0] not in os.environ
    choose_device()
    assert os.environ.get(devices.ALLOCATOR[0]) == (
        "expandable_segments:True" if sys.platform.startswith("linux") else None
    )
    monkeypatch.delenv(devices.ALLOCATOR[0], raising=False)
    monkeypatch.setenv(devices.ALLOCATOR[1], "max_split_size_mb:512")
    choose_device()
    assert devices.ALLOCATOR[0] not in os.environ


def test_the_device_is_described():
    assert counted(torch.get_num_threads(), "thread") in describe(CPU)
    assert isinstance(multiplies_bfloat16(CPU), bool)


def test_work_is_dealt_out_to_every_gpu_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    cuda = [torch.device("cuda", index) for index in range(3)]
    assert devices_like(torch.device("cuda"), "auto") == tuple(cuda)
    assert devices_like(cuda[1], "cuda:1") == (cuda[1],)
    assert devices_like(CPU, "auto") == (CPU,)


def test_a_network_predicts_in_the_format_that_is_safe_for_it(monkeypatch):
    cpu = torch.device("cpu")
    for half, expected in (
        (torch.bfloat16, {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.bfloat16}),
        (torch.float16, {"float32": None, "bfloat16": None, "float16": torch.float16}),
        (None, {"float32": None, "bfloat16": None, "float16": None}),
    ):
        monkeypatch.setattr(devices, "native_half", lambda _, half=half: half)
        assert {name: devices.inference_half(name, cpu) for name in expected} == expected


GNU_ON_LINUX = sys.platform.startswith("linux") and "OpenMP" in torch.__config__.parallel_info()

needs_openmp = pytest.mark.skipif(not GNU_ON_LINUX, reason="GNU's OpenMP on Linux")


@pytest.fixture
def two_threads(monkeypatch) -> Iterator[None]:
    """Threads that wait for one another, and no choice of the user's."""
    for name in (*devices.CHOICES, "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "CHECK_SECONDS", 0.01)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def running(name: str) -> bool:
    return any(thread.name == name for thread in threading.enumerate())


def tasks() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def wait_for(condition) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def waited(monkeypatch) -> list[float]:
    """How many seconds more threads have waited for a core at each look; the last value is repeated."""
    more, total = [0.0], [0.0]

    def look() -> float:
        total[0] += more[0]
        return total[0]

    monkeypatch.setattr(devices, "seconds_without_core", look)
    return more


@pytest.mark.usefixtures("two_threads")
@needs_openmp
def test_threads_spin_unless_others_have_their_cores(waited):
    with computing():
        wait_for(lambda: running("cores"))
        time.sleep(0.1)
        assert not running("spare team")
        before = tasks()
        waited[0] = 0.5
        wait_for(lambda: running("spare team") and tasks() >= before + 2)
        waited[0] = 0.0
        wait_for(lambda: not running("spare team") and tasks() <= before)
        waited[0] = 0.5
        wait_for(lambda: running("spare team"))
    assert not running("cores")
    assert not running("spare team")


@pytest.mark.usefixtures("two_threads")
@needs_openmp
def test_a_shortage_of_one_look_is_no_neighbour(monkeypatch):
    waits, looked = [0.0], threading.Event()

    def look() -> float:
        waits.append(waits[-1] + 0.5 * (len(waits) % 2))
        if len(waits) > 20:
            looked.set()
        return waits[-1]

    monkeypatch.setattr(devices, "seconds_without_core", look)
    monkeypatch.setattr(devices, "_SpareTeam", lambda: pytest.fail("gave up spinning"))
    with computing():
        assert looked.wait(60)
        assert running("cores")


@pytest.mark.usefixtures("two_threads")
@needs_openmp
def test_blocks_share_one_watch(waited):
    with computing():
        with computing():
            wait_for(lambda: running("cores"))
        time.sleep(0.1)
        assert [thread.name for thread in threading.enumerate()].count("cores") == 1
    wait_for(lambda: not running("cores"))


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", devices.CHOICES)
def test_the_users_way_of_waiting_stays(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    with computing():
        assert not running("cores")


@pytest.mark.usefixtures("two_threads")
def test_one_thread_waits_for_nobody():
    torch.set_num_threads(1)
    with computing():
        assert not running("cores")


@pytest.mark.usefixtures("two_threads")
def test_there_are_no_more_threads_than_cores_unless_the_user_wants_them(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 1)
    with computing():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with computing():
        assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_the_wait_for_a_core_is_counted(monkeypatch, tmp_path):
    for number, text in {"1": "10 2000000000 3", "2": "10 500000000 3", "3": "nonsense"}.items():
        (tmp_path / number).mkdir()
        (tmp_path / number / "schedstat").write_text(text)
    monkeypatch.setattr(devices, "TASKS", tmp_path)
    assert seconds_without_core() == 2.5
    monkeypatch.setattr(devices, "TASKS", tmp_path / "absent")
    assert seconds_without_core() is None


FORKED = """
import logging, multiprocessing, sys
import torch
from autospine.system.devices import computing

logging.basicConfig(level="INFO")
torch.set_num_threads(2)

def work():
    with computing():
        for _ in range(20):
            torch.rand(300, 300) @ torch.rand(300, 300)
            torch.rand(500_000).exp_()

work()
child = multiprocessing.get_context("fork").Process(target=work)
with computing():
    child.start()
child.join(60)
code = child.exitcode
child.kill()
sys.exit(7 if code is None else code)
"""


@pytest.mark.usefixtures("two_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes of POSIX")
def test_a_process_that_was_forked_computes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("was forked and computes with one thread") == 1
