import os
from types import SimpleNamespace

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autospine.core.errors import AutospineError, PlanError
from autospine.system import hardware
from autospine.system.hardware import (
    bfloat16_pays,
    choose_device,
    cores,
    describe,
    devices_like,
    free_memory,
    memory_budget,
    parse_bytes,
)

UNITS = {"": 1024**3, "G": 1024**3, "M": 1024**2, "T": 1024**4}
CPU = torch.device("cpu")


@given(
    st.integers(1, 10**4),
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(["", "B", "iB"]),
    st.sampled_from(["", " "]),
    st.booleans(),
)
def test_amounts_of_memory_are_understood(amount, unit, suffix, space, lower):
    text = f"{space}{amount}{space}{unit}{suffix}"
    assert parse_bytes(text.lower() if lower else text) == amount * UNITS[unit]


def test_fractions_are_understood():
    assert parse_bytes("1.5GB") == 3 * 1024**3 // 2
    assert parse_bytes("0.5") == 1024**3 // 2


@pytest.mark.parametrize(
    "text", ["", "GB", "0", "0GB", "0.0000000000001GB", "-1GB", "8KB", "8 gigabytes", "1e3", "8GB 2", "."]
)
def test_anything_else_is_no_amount_of_memory(text):
    with pytest.raises(PlanError, match="amount of memory such as 8GB"):
        parse_bytes(text)


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
    with pytest.raises(AutospineError, match="found --device cuda:99; use --device cpu"):
        choose_device("cuda:99")


def test_the_device_is_described():
    assert f"{torch.get_num_threads()} threads" in describe(CPU)
    assert isinstance(bfloat16_pays(CPU), bool)


def test_no_more_is_counted_than_the_machine_has():
    assert 1 <= cores() <= os.cpu_count()
    assert 0 <= free_memory() <= psutil.virtual_memory().total


@pytest.fixture
def control_group(tmp_path, monkeypatch):
    """Writes what a control group says; the machine has 64 GB free."""
    monkeypatch.setattr(hardware, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 10**9))

    def write(**files: str) -> None:
        for name, text in files.items():
            (tmp_path / f"memory.{name}").write_text(f"{text}\n")

    return write


def test_files_that_were_read_do_not_take_memory_away(control_group):
    control_group(max="8000000000", current="7900000000")
    assert free_memory() == 100_000_000
    control_group(stat="anon 900000000\nfile 7000000000\ninactive_file 5000000000\nactive_file 2000000000")
    assert free_memory() == 7_100_000_000
    control_group(stat="anon 900000000")
    assert free_memory() == 100_000_000


def test_a_control_group_allows_no_more_than_is_free(control_group):
    assert free_memory() == 64 * 10**9
    control_group(max="max", current="1")
    assert free_memory() == 64 * 10**9
    control_group(max="100000000000", current="1")
    assert free_memory() == 64 * 10**9
    control_group(max="8000000000", current="8000000001")
    assert free_memory() == 0


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
        monkeypatch.setattr(hardware, "native_half", lambda _, half=half: half)
        assert {name: hardware.inference_half(name, cpu) for name in expected} == expected
