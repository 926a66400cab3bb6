"""The memory that training may take: of GPUs, as they are now (`Card`), or of a machine without one."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autospine.core.errors import PlanError
from autospine.system.hardware import GIB, free_memory, has_kernels, parse_bytes
from autospine.system.workers import WorkerPool

CARD_SHARE = 0.93
"""Share of a GPU's memory to plan for. The rest is for what no estimate knows: blocks of memory that nothing
fits into, larger workspace of another cuDNN, and a display that opens one more window."""

NAMED_SHARE = 0.9
"""Share of --memory to plan for on a GPU: cards report 1 to 3 % less than their name says, of which
`CARD_SHARE` is taken."""

CONTEXT_BYTES = 400 * 2**20
"""Memory that CUDA itself takes, reported as 300 to 500 MB. An estimate contains it; where
a GPU has been looked at, it is taken already."""

RAM_SHARE = 0.5
"""Share of the free RAM that training may take where there is no GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A GPU as it is now."""

    device: torch.device
    name: str

    total_bytes: int
    """Memory that it reports, a little less than its name says."""

    free_bytes: int
    """Memory that this process may still take, with what its allocator holds already."""

    capability: tuple[int, int]
    """CUDA's compute capability: (8, 9) is that of an RTX 4090."""

    supported: bool = True
    """Whether PyTorch has kernels for it."""

    def __str__(self) -> str:
        return f"{self.device} ({self.name})"

    @property
    def has_bfloat16(self) -> bool:
        """Whether it multiplies bfloat16 natively: GPUs from Ampere on."""
        return self.capability >= (8, 0)

    @property
    def has_float16(self) -> bool:
        """Whether it multiplies float16 natively: GPUs from Volta on."""
        return self.capability >= (7, 0)

    @property
    def budget(self) -> tuple[int, str]:
        """Bytes that training may take, and where the number comes from."""
        most, total = int(CARD_SHARE * self.total_bytes), self.total_bytes / GIB
        held = (self.total_bytes - self.free_bytes) / GIB
        if self.free_bytes < most:
            return self.free_bytes, (
                f"free now of the {total:.1f} GiB of {self.name}; {held:.1f} GiB are held by the display, "
                "other programs and CUDA"
            )
        return (
            most,
            f"{CARD_SHARE:.0%} of the {total:.1f} GiB of {self.name}, of which {held:.1f} GiB are held",
        )

    def why_not(self, needed_bytes: int, precision: str) -> str | None:
        """Return why a training cannot run here; None if it can.

        Args:
            needed_bytes: Estimated memory of a training step.
            precision: Number format of its plan.
        """
        if not self.supported:
            return f"PyTorch has no kernels for {self}"
        if not {"bfloat16": self.has_bfloat16, "float16": self.has_float16}.get(precision, True):
            return f"{self} has no {precision}, in which the plan trains"
        if needed_bytes - CONTEXT_BYTES > self.free_bytes:
            return f"{self} has {self.free_bytes / GIB:.1f} GiB free, and {needed_bytes / GIB:.1f} are needed"
        return None


def look_at(device: torch.device) -> Card:
    """Return a GPU as it is now; CUDA begins to use some of its memory."""
    free, total = torch.cuda.mem_get_info(device)
    return Card(
        device=device,
        name=torch.cuda.get_device_name(device),
        total_bytes=total,
        free_bytes=free + torch.cuda.memory_reserved(device),
        capability=torch.cuda.get_device_capability(device),
        supported=has_kernels(torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()),
    )


def look_at_all(devices: Sequence[torch.device]) -> list[Card]:
    """Return several GPUs as they are now.

    A process looks that ends afterwards: whoever looks takes memory of each GPU for as long as it lives.
    """
    with WorkerPool(1) as pool:
        return pool.submit(_look_at_each, tuple(devices)).result()


def _look_at_each(devices: Sequence[torch.device]) -> list[Card]:
    return [look_at(device) for device in devices]


def able_to_train(cards: Sequence[Card], needed_bytes: int, precision: str) -> tuple[list[Card], list[str]]:
    """Return the GPUs that can train, and why each of the others cannot.

    Args:
        cards: GPUs as they are now.
        needed_bytes: Estimated memory of a training step.
        precision: Number format of its plan.
    """
    faults = {card: card.why_not(needed_bytes, precision) for card in cards}
    return [card for card in cards if faults[card] is None], [why for why in faults.values() if why]


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


def memory_budget(device: torch.device | None, amount: str | None = None) -> tuple[int, str]:
    """Return the bytes that training may take, and where the number comes from.

    Args:
        device: A GPU, of which most is the default, or the CPU, for which half of the free RAM is; None for a
            GPU of another machine, for which the amount has to be given.
        amount: Such as `8GB`, `500MB` or `8`; None for the default.

    Raises:
        PlanError: If the text is not an amount of memory, or missing.
    """
    if amount is not None:
        if device is None or device.type == "cuda":
            reason = f"{NAMED_SHARE:.0%} of --memory {amount}: GPUs have less than their name says"
            return int(NAMED_SHARE * parse_bytes(amount)), reason
        return parse_bytes(amount), "set by --memory"
    if device is None:
        raise PlanError(
            "expected --memory with --for gpu where there is no GPU, found none; give what the GPU has, "
            "such as --memory 24GB"
        )
    if device.type == "cuda":
        return look_at(device).budget
    return int(free_memory() * RAM_SHARE), "half of the free RAM, as there is no GPU"
