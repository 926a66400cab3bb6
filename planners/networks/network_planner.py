"""The interface of the networks' planners, and the context that they plan in."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from autospine.core.types import Shape3, Vector3
from autospine.network.network_plan import NetworkPlan
from planners import rules
from planners.networks.network_request import NetworkRequest
from planners.rationale import Note

Planned = TypeVar("Planned", bound=NetworkPlan)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanningContext:
    """The facts about dataset and device that a network is planned for."""

    spacing_mm: Vector3
    """Target spacing (S, P, L)."""

    shape: Shape3
    """Voxels (S, P, L) of the median case at that spacing."""

    patch_size: Shape3 | None
    """Patch that the user has set, or None."""

    thicknesses_mm: Sequence[float]
    """Thickness of each class that occurs."""

    in_channels: int
    out_channels: int
    """Channels of the logits, background included."""

    device: rules.Device
    """Kind of device that the sizes are for."""


class NetworkPlanner(ABC, Generic[Planned]):
    """Plans one kind of network.

    Args:
        request: Network and options to plan for.
        context: Facts about the dataset and the device.
    """

    smallest: Shape3 = (1, 1, 1)
    """Smallest patch (S, P, L), where the search for the patch size starts."""

    def __init__(self, request: NetworkRequest, context: PlanningContext) -> None:
        self.request, self.context = request, context

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Channels at full resolution that the network may have, ascending."""

    @abstractmethod
    def divisor(self, patch: Shape3) -> Shape3:
        """Return what each axis of a patch of about this size must be a multiple of."""

    @abstractmethod
    def network(self, width: int, patch: Shape3) -> Planned:
        """Return the plan of the network for a width and a patch size."""

    @abstractmethod
    def notes(self, network: Planned, width_reason: str) -> list[Note]:
        """Return the decisions behind a plan that `network` made, with the reason for its width."""

    def width_reason(self) -> str:
        """Return the reason for the width where the user has not set it."""
        if isinstance(self.context.device, rules.CPU):
            return "on a CPU time is scarcest: 16 channels fill one vector register and no more"
        usual = self.context.device.goals[-1][1]
        return f"context and width grow in turn; up to {usual} before the patch covers the case"
