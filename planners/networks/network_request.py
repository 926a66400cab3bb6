"""Which network to plan for, and the options of the Swin networks."""

from dataclasses import dataclass
from typing import Literal

from autospine.core.defaults import DEFAULT_NETWORK
from autospine.network.external import external_names
from autospine.network.swin.swin_settings import FusionPlacement, StageFlags
from autospine.plan import built_in_networks

SWIN_NETWORKS = (DEFAULT_NETWORK, "swin_unetr")
BUILT_IN = built_in_networks()

AttentionChoice = Literal["adaptive", "plain", "identity"]
WeightingChoice = Literal["trainable", "ones", "off"]

ADAPTIVE_STAGES: StageFlags = (True, True, False, False)
"""The stages whose token grid is fine enough to show edges."""


def known_networks() -> tuple[str, ...]:
    """Return the names that may be planned for: the built-in networks, then those of other distributions.

    Entry points are listed without importing them, so that a distribution that is broken disturbs no other
    network.
    """
    return (*BUILT_IN, *(name for name in external_names() if name not in BUILT_IN))


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkRequest:
    """One network to plan for."""

    network: str = DEFAULT_NETWORK
    """Name of the network."""

    attention: AttentionChoice = "adaptive"
    """Kind of attention of a Swin network; other networks ignore all options but `checkpointing`."""

    weighting: WeightingChoice = "trainable"
    """Weights of the multi-scale fusion; `off` is the plain patch embedding."""

    placement: FusionPlacement = "embedding"
    """Where the scales are fused."""

    levels: bool = True
    """Whether the decoder's levels are fused too, where anything is."""

    stages: StageFlags = ADAPTIVE_STAGES
    """Stages with adaptive attention."""

    gradient_channel: bool = True
    """Whether the gradient's magnitude is a channel of the image, where attention is adaptive."""

    v2_blocks: bool = True
    """Residual convolution block before each stage."""

    of_model: bool = False
    """Whether it is the network of a trained model, so that names need not say what it leaves out."""

    checkpointing: bool = False
    """Recompute stages in the backward pass, which saves memory and takes time."""

    @property
    def suffix(self) -> str:
        """Suffix of its configurations' names; empty for the default network with default options."""
        usual = default_request(self.network)
        parts = [] if self.network == DEFAULT_NETWORK else [self.network]
        parts += [] if self.attention == usual.attention else [self.attention]
        if self.attention == "adaptive" and self.stages != ADAPTIVE_STAGES:
            parts.append("stages_" + "_".join(str(i + 1) for i, on in enumerate(self.stages) if on))
        parts += [] if self.weighting == usual.weighting else [f"fusion_{self.weighting}"]
        if self.weighting != "off" and self.placement != "embedding":
            parts.append(self.placement)
        parts += self._left_out()
        parts += [] if self.v2_blocks else ["v1"]
        return "".join(f"_{part}" for part in parts)

    def _left_out(self) -> list[str]:
        """Return what names say of levels and channel that are left out; `paper` without both."""
        levels = self.weighting != "off" and not self.levels
        channel = self.attention == "adaptive" and not self.gradient_channel
        if self.of_model or not (levels or channel):
            return []
        return ["paper"] if levels and channel else ["no_levels" if levels else "no_gradient_channel"]


def default_request(network: str) -> NetworkRequest:
    """Return the request for a network with the options that its name implies."""
    if network in SWIN_NETWORKS and network != DEFAULT_NETWORK:
        return NetworkRequest(network=network, attention="plain", weighting="off")
    return NetworkRequest(network=network)
