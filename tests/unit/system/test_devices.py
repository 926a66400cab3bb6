import psutil
import pytest
import torch

from autospine.core.errors import AutospineError
from autospine.system import devices
from autospine.system.devices import bfloat16_pays, choose_device, describe, devices_like, memory_budget

CPU = torch.device("cpu")


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
