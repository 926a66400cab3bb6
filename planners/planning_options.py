"""The values of a plan that the user may fix, declared once for command line, YAML file and planner.

PyTorch is not imported here, so that the command line can list them at once.
"""

from dataclasses import dataclass
from typing import Annotated

from autospine.core.declaration import Option
from autospine.core.defaults import DEFAULT_LOSS, DEFAULT_NETWORK
from autospine.core.errors import PlanError


def _stages(text: str) -> tuple[int, ...]:
    """Read stages such as `1,2`."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdigit() for word in words):
        raise PlanError(f"expected --adaptive-stages such as 1,2, found {text!r}")
    return tuple(int(word) for word in words)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanningOptions:
    """Values that the user fixes; everything else is planned around them."""

    spacing_mm: Annotated[
        tuple[float, float, float] | None,
        Option(
            names=("--spacing",),
            metavar="S P L",
            help="Resample cases of `fullres` to this voxel size, in mm along S, P and L.",
        ),
    ] = None
    """Target spacing of `fullres`, in mm along S, P and L."""

    patch_size: Annotated[
        tuple[int, int, int] | None,
        Option(
            names=("--patch",),
            metavar="S P L",
            help="Use patches of this size in every configuration, in voxels along S, P and L.",
        ),
    ] = None
    """Patch size of every configuration, in voxels along S, P and L."""

    feature_size: Annotated[
        int | None,
        Option(
            names=("--feature-size",),
            help="Use this many channels at full resolution in every configuration: 8 to 96, a multiple of "
            "4.",
        ),
    ] = None
    """Channels at full resolution of every configuration: 8 to 96, a multiple of 4."""

    networks: Annotated[
        tuple[str, ...],
        Option(
            names=("--network",),
            metavar="NAME",
            help="Plan for this network; an unknown name lists all. Repeat it for several; by default "
            f"{DEFAULT_NETWORK}.",
        ),
    ] = (DEFAULT_NETWORK,)
    """Names of the networks; each is planned for at each spacing."""

    attention: Annotated[
        tuple[str, ...],
        Option(
            names=("--attention",),
            metavar="KIND",
            help="Give Swin networks this attention: adaptive, plain, or identity (no attention, as a "
            "control). Repeat it for several; by default as the network's name says.",
        ),
    ] = ()
    """Kinds of attention of Swin networks; each is planned for. Without any, as the network's name says."""

    adaptive_stages: Annotated[
        tuple[int, ...] | None,
        Option(
            names=("--adaptive-stages",),
            metavar="STAGES",
            takes=str,
            read=_stages,
            help="Use adaptive attention in these stages, such as 1,2 (the default) or 1,2,3,4.",
        ),
    ] = None
    """Stages with adaptive attention, from 1 to 4."""

    fusion_weighting: Annotated[
        tuple[str, ...],
        Option(
            names=("--fusion-weighting",),
            metavar="KIND",
            help="Weight the kernels of the multi-scale fusion like this: trainable, ones, or off (no "
            "fusion). Repeat it for several; by default as the network's name says.",
        ),
    ] = ()
    """Kinds of weights of the multi-scale fusion; each is planned for."""

    fusion_placement: Annotated[
        tuple[str, ...],
        Option(
            names=("--fusion-placement",),
            metavar="PLACE",
            help="Fuse scales in this place: embedding (the default), stem or both. Repeat it for several.",
        ),
    ] = ()
    """Places of the multi-scale fusion; each is planned for."""

    fusion_levels: Annotated[
        bool,
        Option(
            names=("--fusion-levels/--no-fusion-levels",),
            help="Fuse the decoder's levels too: each has logits of its own, whose weighted sum is added at "
            "full resolution; on by default.",
        ),
    ] = True
    """Whether the decoder's levels are fused too."""

    gradient_channel: Annotated[
        bool,
        Option(
            names=("--gradient-channel/--no-gradient-channel",),
            help="Show the gradient of the image, by which adaptive attention knows boundaries, to the "
            "convolutions as well; on by default.",
        ),
    ] = True
    """Whether the gradient's magnitude is a channel beside the image's."""

    v2_blocks: Annotated[
        bool,
        Option(
            names=("--v2-blocks/--no-v2-blocks",),
            help="Put a convolution block before each stage of Swin networks, as SwinUNETR-V2 does; on by "
            "default. MONAI's default weights belong to networks without these blocks.",
        ),
    ] = True
    """Whether Swin networks have a convolution block before each stage."""

    checkpointing: Annotated[
        bool,
        Option(
            names=("--checkpointing/--no-checkpointing",),
            help="Recompute stages in the backward pass: the same memory holds larger patches, and steps are "
            "slower; off by default.",
        ),
    ] = False
    """Whether stages are recomputed in the backward pass, which saves memory and takes time."""

    loss: Annotated[
        str,
        Option(
            names=("--loss",),
            metavar="NAME",
            help=f"Train with this loss; an unknown name lists all. By default {DEFAULT_LOSS}.",
        ),
    ] = DEFAULT_LOSS
    """Name of the loss of every configuration."""
