"""The plan of a network of another distribution."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from autospine.core.types import Shape3, Vector3
from autospine.network.external import Setting, find_external
from autospine.network.network_plan import Extents, NetworkPlan
from autospine.storage.serialization import at_most

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalPlan(NetworkPlan):
    """A network of another distribution."""

    name: Literal["external"]
    entry_point: str
    """Its name in the entry points `autospine.networks`."""

    distribution: str
    """Name and version of the distribution that it came from."""

    settings: Annotated[dict[str, Setting], at_most(1000)]
    """Arguments that it is made with, besides channels, spacing and patch size."""

    # Given explicitly, since a field without it would take the property of the base class as its default.
    divisor: Extents = field()
    """Number that each axis (S, P, L) of the input must be a multiple of, as the network states it."""

    def build(
        self, in_channels: int, out_channels: int, *, spacing_mm: Vector3, patch_size: Shape3
    ) -> "nn.Module":
        """Return the network with fresh weights; see `NetworkPlan.build`.

        Raises:
            PlanError: If it is not installed, or its own code fails; names the distribution.
        """
        network = find_external(self.entry_point)
        return network.make(in_channels, out_channels, spacing_mm, patch_size, self.settings)
