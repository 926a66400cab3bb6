"""The result of an optimiser step, and its numbers on their way from the device."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from trainers.monitors import PatchCounts


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """The result of one optimiser step, for the metrics of its epoch."""

    loss: float
    """Total loss at full resolution."""

    parts: Mapping[str, float]
    """Parts of the loss by name."""

    finite: bool
    """Whether the step was taken; a step with a non-finite loss or gradient is not."""

    overlap: tuple[tuple[float, float, float], ...] = ()
    """Soft overlap of each foreground class, in the order of `SoftOverlap`'s fields; empty where unknown."""

    counts: PatchCounts | None = field(default=None, compare=False)
    """Counts of the first patch's prediction and labels; None unless the monitors sample this step."""

    def plain(self) -> dict[str, object]:
        """Return the result as JSON can hold it."""
        counts = None if self.counts is None else self.counts.numbers()
        return {**asdict(replace(self, counts=None)), "counts": counts}

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> "StepResult":
        """Return the result that `plain` was made from, also by versions whose only loss was `dice_ce`."""
        counts, parts = plain.get("counts"), plain.get("parts")
        if parts is None:
            dice = plain["dice"]
            parts = {"ce": plain["cross_entropy"], "dice_loss": 1 - sum(dice) / len(dice)}
        return cls(
            loss=plain["loss"],
            parts=parts,
            finite=plain["finite"],
            overlap=tuple(tuple(voxels) for voxels in plain.get("overlap", ())),
            counts=None if counts is None else PatchCounts.restored(counts),
        )


class Reading:
    """Numbers on their way from the device, so that a step waits for all of them once.

    Args:
        values: Tensors of any shapes and types that float64 holds.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        flat = torch.cat([value.reshape(-1).double() for value in values])
        self._values = flat.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if flat.device.type == "cuda":
            self._arrived = torch.cuda.current_stream(flat.device).record_event()

    def numbers(self) -> list[float]:
        """Wait for the numbers, and return them one after the other."""
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._values.tolist()
        return numbers
