"""The device that networks run on: which one it is, its memory and the number formats that it supports."""

from pathlib import Path

import psutil
import torch

from autospine.core.errors import AutospineError
from autospine.system.hardware import GIB, check_device_name, free_memory, parse_bytes

RAM_SHARE = 0.5
"""Share of the free RAM that training may take where there is no GPU."""


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of this name.

    Args:
        name: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:1`.

    Raises:
        AutospineError: If no device has such a name, or this machine lacks it.
    """
    check_device_name(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise AutospineError(
            f"expected a CUDA device that is there ({torch.cuda.device_count()} are), found --device {name}; "
            "use --device cpu"
        )
    return device


def devices_like(device: torch.device, name: str) -> tuple[torch.device, ...]:
    """Return the devices that folds may be trained on at the same time.

    Args:
        device: The device that `choose_device` returned for the name.
        name: As `choose_device` takes it.

    Returns:
        Every GPU, unless the name is that of a certain one; the CPU alone if the device is the CPU.
    """
    if device.type == "cpu" or ":" in name:
        return (device,)
    return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))


def memory_budget(device: torch.device, amount: str | None = None) -> tuple[int, str]:
    """Return the bytes that training may take, and where the number comes from.

    Args:
        device: A GPU, whose whole memory is the default, or the CPU, for which half of the free RAM is.
        amount: Such as `8GB`, `500MB` or `8`; None for the default.

    Raises:
        PlanError: If the text is not an amount of memory.
    """
    if amount is not None:
        return parse_bytes(amount), "set by --memory"
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory, "memory of the GPU"
    return int(free_memory() * RAM_SHARE), "half of the free RAM, as there is no GPU"


def bfloat16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively (GPUs from Ampere on; AVX512-BF16 and AMX CPUs)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return "avx512_bf16" in _cpu_flags() or "amx_bf16" in _cpu_flags()


def native_half(device: torch.device) -> torch.dtype | None:
    """Return the 16-bit format that the device multiplies natively.

    This is bfloat16, whose range is that of float32; else float16 (GPUs from Volta on); else None.
    """
    if bfloat16_pays(device):
        return torch.bfloat16
    volta = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return torch.float16 if volta else None


def inference_half(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the 16-bit format in which a network trained in `precision` predicts, None for float32.

    A network trained in bfloat16 may overflow in float16; the reverse is safe.
    """
    half = None if precision == "float32" else native_half(device)
    return None if precision == "bfloat16" and half == torch.float16 else half


def describe(device: torch.device) -> str:
    """Describe the device in words."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"
    total = psutil.virtual_memory().total / GIB
    return f"CPU, {torch.get_num_threads()} threads, {total:.0f} GiB RAM"


def _cpu_flags() -> frozenset[str]:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(flags.split())
