"""Settings of the two mechanisms of the Swin UNETR: multi-scale fusion and adaptive attention.

They are part of the plan, so this module loads without torch.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from autospine.core.errors import PlanError
from autospine.network.network_plan import MOST_LEVELS, Extents
from autospine.storage.serialization import at_most

FusionWeighting = Literal["trainable", "ones"]
FusionPlacement = Literal["embedding", "stem", "both"]
StageFlags = tuple[bool, bool, bool, bool]
"""One switch per Swin stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionSettings:
    """Settings of the multi-scale fusion; a network without fusion has None in their place.

    Raises:
        PlanError: If a kernel is smaller than a voxel, or a choice is unknown.
    """

    kernels: Annotated[tuple[Extents, ...], at_most(MOST_LEVELS)]
    """Kernel sizes (S, P, L) in voxels; the first is the embedding's own and equals its stride."""

    weighting: FusionWeighting = "trainable"
    """`trainable`: free weights that start at (1, 0, ...); `ones`: all weights fixed at 1."""

    placement: FusionPlacement = "embedding"
    """Where the scales are fused: in the patch embedding, the first layer of the Swin branch; in a stem
    before the whole network; or in both."""

    levels: bool = False
    """Whether the decoder's levels are fused too: each has logits of its own, whose weighted sum is added to
    those at full resolution."""

    def __post_init__(self) -> None:
        if not self.kernels or min(size for kernel in self.kernels for size in kernel) < 1:
            raise PlanError(
                f"expected fusion kernels of at least 1 voxel per axis, found {self.kernels}; "
                "plan the dataset again or correct the kernel sizes"
            )
        for name, value, known in (
            ("weighting", self.weighting, get_args(FusionWeighting)),
            ("placement", self.placement, get_args(FusionPlacement)),
        ):
            if value not in known:
                raise PlanError(
                    f"expected a fusion {name} of {', '.join(known)}, found {value!r}; choose one of them"
                )

    @property
    def has_stem(self) -> bool:
        """Whether scales are fused before the network."""
        return self.placement != "embedding"

    @property
    def is_in_embedding(self) -> bool:
        """Whether scales are fused in the patch embedding."""
        return self.placement != "stem"


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionSettings:
    """Stages of the adaptive attention."""

    saliency: StageFlags = (True, True, True, True)
    """Stages whose keys are re-weighted by their saliency."""

    temperature: StageFlags = (True, True, True, True)
    """Stages whose queries have their own temperature."""

    gradient_channel: bool = False
    """Whether the gradient's magnitude is a channel beside the image's, so that convolutions see it too."""


AttentionKind = AttentionSettings | Literal["plain", "identity"]
"""Adaptive attention with its settings; `plain`, Swin's own; `identity`, blocks without attention, as a
control."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionBounds:
    """Bounds within which adaptive attention may change plain attention. Plans always use these defaults.

    Raises:
        PlanError: If a number is out of its range.
    """

    saliency: float = 4.0
    """Largest magnitude of gamma_h s_j, in logits; positive."""

    temperature: float = 1.0
    """Largest magnitude c of log tau, in (0, 1]: 1 allows temperatures from 0.37 to 2.7."""

    gradient_sigma_mm: float = 1.0
    """Smoothing of the image before its gradient is taken, in mm; positive."""

    def __post_init__(self) -> None:
        if not (self.saliency > 0 and 0 < self.temperature <= 1 and self.gradient_sigma_mm > 0):
            raise PlanError(
                "expected a positive saliency bound, a temperature bound in (0, 1] and a positive gradient "
                f"sigma, found {self.saliency}, {self.temperature} and {self.gradient_sigma_mm}; "
                "correct the attention bounds"
            )
