"""The levels that the U-Nets have in common: channels, strides and kernels, checked once for all of them."""

from dataclasses import dataclass
from typing import Annotated

from autospine.core.errors import PlanError
from autospine.core.types import Shape3
from autospine.network.network_plan import MOST_LEVELS, Channels, Extents, NetworkPlan, total_stride
from autospine.storage.serialization import at_most


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetLevels(NetworkPlan):
    """The levels of a U-Net, from the finest to the coarsest.

    Raises:
        PlanError: If the numbers of features, strides and kernels differ, one of them is not positive, or a
            kernel is even.
    """

    # First, as in the files; each U-Net narrows it to its own name.
    name: str
    features: Annotated[tuple[Channels, ...], at_most(MOST_LEVELS)]
    """Channels of each level."""

    strides: Annotated[tuple[Extents, ...], at_most(MOST_LEVELS)]
    """Stride into each level; that of the first is 1."""

    kernels: Annotated[tuple[Extents, ...], at_most(MOST_LEVELS)]
    """Odd kernel sizes of each level's convolutions, in voxels."""

    def __post_init__(self) -> None:
        features, strides, kernels = self.features, self.strides, self.kernels
        if not features or not len(features) == len(strides) == len(kernels):
            raise PlanError(
                f"expected features, strides and kernels for as many levels each, found {len(features)}, "
                f"{len(strides)} and {len(kernels)}; plan again or correct the network of the plan"
            )
        if min(features) < 1 or any(min(triple) < 1 for triple in (*strides, *kernels)):
            raise PlanError(
                f"expected features, strides and kernels of at least 1, found {features}, {strides} and "
                f"{kernels}; plan again or correct the network of the plan"
            )
        if any(side % 2 == 0 for kernel in kernels for side in kernel):
            raise PlanError(
                f"expected odd kernels, which keep the size of the map, found {kernels}; "
                "plan again or correct the network of the plan"
            )

    @property
    def divisor(self) -> Shape3:
        """Number that each axis of the input must be a multiple of: the product of its strides."""
        return total_stride(self.strides)
