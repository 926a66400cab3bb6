"""What is planned for each kind of network: its numbers for a spacing and a patch, each with its reason."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Generic, Literal, TypeVar, cast

import torch

from autospine.core.types import Shape3, Vector3
from autospine.network.cnn3d_plan import CNNPlan
from autospine.network.external import external_names, find_external, stated_divisor
from autospine.network.external_plan import ExternalPlan
from autospine.network.network_plan import NetworkPlan
from autospine.network.resenc_unet_plan import ResEncPlan
from autospine.network.swin.swin_plan import SwinPlan, token_grids
from autospine.network.swin.swin_settings import AttentionSettings, FusionPlacement, FusionSettings
from autospine.network.unet3d_plan import UNetPlan
from autospine.network.unet3d_transformer_plan import UNetTransformerPlan
from planners import rules
from planners.planning_options import DEFAULT

SWINS = (DEFAULT, "swin_unetr")
OURS = (*SWINS, "cnn3d", "unet3d", "unet3d_transformer", "resenc_unet")

Planned = TypeVar("Planned", bound=NetworkPlan)

Attention = Literal["adaptive", "plain", "identity"]
Weighting = Literal["trainable", "ones", "off"]
Stages = tuple[bool, bool, bool, bool]
Levels = tuple[Shape3, Shape3, Shape3, Shape3, Shape3]
Windows = tuple[Shape3, Shape3, Shape3, Shape3]
Note = tuple[str, object, str]
"""What was decided, its value and the reason."""

ADAPTIVE_STAGES: Stages = (True, True, False, False)
"""The stages whose token grid is fine enough to show edges."""


def known_networks() -> tuple[str, ...]:
    """Names that may be planned for: our own, then those of other distributions."""
    return (*OURS, *(name for name in external_names() if name not in OURS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """One network to plan for."""

    network: str = DEFAULT
    attention: Attention = "adaptive"
    """Of Swin networks, as the rest below."""

    weighting: Weighting = "trainable"
    placement: FusionPlacement = "embedding"
    stages: Stages = ADAPTIVE_STAGES
    """With adaptive attention."""

    v2_blocks: bool = True
    """Convolution block before each stage."""

    checkpointing: bool = False

    @property
    def suffix(self) -> str:
        """What tells its configurations from those of the default network; empty for the default."""
        usual = usual_wish(self.network)
        parts = [] if self.network == DEFAULT else [self.network]
        parts += [] if self.attention == usual.attention else [self.attention]
        if self.attention == "adaptive" and self.stages != ADAPTIVE_STAGES:
            parts.append("stages_" + "_".join(str(i + 1) for i, on in enumerate(self.stages) if on))
        parts += [] if self.weighting == usual.weighting else [f"fusion_{self.weighting}"]
        if self.weighting != "off" and self.placement != "embedding":
            parts.append(self.placement)
        parts += [] if self.v2_blocks else ["v1"]
        return "".join(f"_{part}" for part in parts)


def usual_wish(network: str) -> Wish:
    """A network as its name says, without further wishes."""
    if network in SWINS and network != DEFAULT:
        return Wish(network=network, attention="plain", weighting="off")
    return Wish(network=network)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a network is planned for."""

    spacing_mm: Vector3
    shape: Shape3
    """Voxels of the median case."""

    patch_size: Shape3 | None
    """The user's, if one is wished for."""

    thicknesses_mm: Sequence[float]
    in_channels: int
    out_channels: int
    device: rules.Device


class Design(ABC, Generic[Planned]):
    """How one kind of network follows from the facts.

    Args:
        wish: what to plan for.
        facts: about the dataset and the device.
    """

    smallest: Shape3 = (1, 1, 1)
    """Where the growth of the patch starts."""

    def __init__(self, wish: Wish, facts: Facts) -> None:
        self.wish, self.facts = wish, facts

    @property
    @abstractmethod
    def widths(self) -> tuple[int, ...]:
        """Channels at full resolution that the network may have, ascending."""

    @abstractmethod
    def divisor(self, patch: Shape3) -> Shape3:
        """What a patch of about this size must be a multiple of."""

    @abstractmethod
    def network(self, width: int, patch: Shape3) -> Planned:
        """The network for a patch."""

    @abstractmethod
    def notes(self, network: Planned, wide: str) -> list[Note]:
        """The decisions behind a network that `network` made; `wide` is the reason for its width."""

    def width_reason(self) -> str:
        """Why the width is what it is, unless the user set it."""
        if isinstance(self.facts.device, rules.CPU):
            return "on a CPU time is scarcest: 16 channels fill one vector register and no more"
        usual = self.facts.device.climbs[-1][1]
        return f"context and width grow in turn; up to {usual} before the patch covers the case"


class SwinDesign(Design[SwinPlan]):
    """Swin UNETR, with whatever mechanisms are wished for."""

    @property
    def widths(self) -> tuple[int, ...]:
        """The device's."""
        return self.facts.device.widths

    @cached_property
    def strides(self) -> tuple[Levels, str]:
        """Of the embedding and the mergings, with the reason."""
        levels, why = rules.strides(self.facts.spacing_mm, self.facts.patch_size or self.facts.shape)
        return cast(Levels, levels), why

    def divisor(self, patch: Shape3) -> Shape3:
        """The product of the strides."""
        s, p, left = (prod(axis) for axis in zip(*self.strides[0], strict=True))
        return s, p, left

    def network(self, width: int, patch: Shape3) -> SwinPlan:
        """The network whose windows tile the patch's token grids."""
        strides, _ = self.strides
        windows, _ = rules.windows(token_grids(patch, strides), self.facts.device.largest_window)
        return SwinPlan(
            name=cast(Literal["adaptive_swin_unetr", "swin_unetr"], self.wish.network),
            feature_size=width,
            depths=(2, 2, 2, 2),
            num_heads=rules.heads(width),
            window_sizes=cast(Windows, windows),
            strides=strides,
            use_v2=self.wish.v2_blocks,
            fusion=self._fusion(),
            attention=self._attention(),
            checkpointing=self.wish.checkpointing,
        )

    def notes(self, network: SwinPlan, wide: str) -> list[Note]:
        """Strides, width, windows, fusion and attention."""
        largest = self.facts.device.largest_window
        _, tiling = rules.windows([(1, 1, 1)], largest)
        notes: list[Note] = [
            ("strides", network.strides, self.strides[1]),
            ("feature_size", network.feature_size, wide),
            ("window_sizes", network.window_sizes, tiling),
        ]
        if network.fusion is None:
            why = "no structure is wider than the embedding's kernel"
            notes.append(("fusion", "off", "wished for" if self.wish.weighting == "off" else why))
        else:
            notes.append(("fusion_kernels", network.fusion.kernels, self._kernels()[1]))
        return [*notes, *self._mechanisms(network)]

    def _mechanisms(self, network: SwinPlan) -> list[Note]:
        """Blocks, attention and fusion."""
        usual, wish = usual_wish(self.wish.network), self.wish

        def why(otherwise: str, *fields: str) -> str:
            wished = any(getattr(wish, field) != getattr(usual, field) for field in fields)
            return "set by the user" if wished else otherwise

        attention: str = wish.attention
        if isinstance(network.attention, AttentionSettings):
            stages = (str(i + 1) for i, on in enumerate(network.attention.saliency) if on)
            attention = f"adaptive in stages {', '.join(stages)}"
        blocks = f"{network.depths[0]} per stage, {'' if network.use_v2 else 'no '}convolutions first"
        first = "Swin UNETR's depth; in SwinUNETR-V2 the convolutions gained 1.5 points of Dice"
        edges = (
            "where the token grid is fine enough to show edges" if "stages" in attention else "the network's"
        )
        notes: list[Note] = [
            ("blocks", blocks, why(first, "v2_blocks")),
            (
                "num_heads",
                ", ".join(map(str, network.num_heads)),
                "Swin UNETR's where they divide the channels",
            ),
            ("attention", attention, why(edges, "attention", "stages")),
        ]
        if network.fusion is not None:
            value = f"{network.fusion.weighting} weights, placement {network.fusion.placement}"
            reason = "the paper's weights, in the first layer of the Swin branch"
            notes.append(("fusion", value, why(reason, "weighting", "placement")))
        return notes

    def _kernels(self) -> tuple[tuple[Shape3, ...], str]:
        return rules.fusion_kernels(self.facts.spacing_mm, self.strides[0][0], self.facts.thicknesses_mm)

    def _fusion(self) -> FusionSettings | None:
        kernels, _ = self._kernels()
        if self.wish.weighting == "off" or len(kernels) == 1:
            return None
        return FusionSettings(kernels=kernels, weighting=self.wish.weighting, placement=self.wish.placement)

    def _attention(self) -> AttentionSettings | Literal["plain", "identity"]:
        if self.wish.attention == "adaptive":
            return AttentionSettings(saliency=self.wish.stages, temperature=self.wish.stages)
        return self.wish.attention


class UNetDesign(Design[UNetPlan | ResEncPlan | UNetTransformerPlan]):
    """The U-Nets: plain, with a Transformer, with a residual encoder."""

    smallest = (2 * rules.SHORTEST_EDGE,) * 3

    @property
    def widths(self) -> tuple[int, ...]:
        """The residual one is what it is; the others are as wide as the device bears."""
        widest = rules.UNET_FEATURES
        return (widest,) if self.wish.network == "resenc_unet" or not self._cpu else (16,)

    def width_reason(self) -> str:
        """Why the width is what it is."""
        return "nnU-Net's" if self.widths == (rules.UNET_FEATURES,) else super().width_reason()

    def divisor(self, patch: Shape3) -> Shape3:
        """The product of the strides that nnU-Net would take for the patch."""
        strides, _, _ = rules.unet_levels(self.facts.spacing_mm, patch)
        s, p, left = (prod(axis) for axis in zip(*strides, strict=True))
        return s, p, left

    def network(self, width: int, patch: Shape3) -> UNetPlan | ResEncPlan | UNetTransformerPlan:
        """The network with as many levels as the patch bears."""
        strides, kernels, _ = rules.unet_levels(self.facts.spacing_mm, patch)
        features = rules.unet_features(width, len(strides))
        thrifty = self.wish.checkpointing
        if self.wish.network == "resenc_unet":
            return ResEncPlan(
                name="resenc_unet",
                features=features,
                strides=strides,
                kernels=kernels,
                blocks=rules.resenc_blocks(len(strides)),
                checkpointing=thrifty,
            )
        if self.wish.network == "unet3d_transformer":
            return UNetTransformerPlan(
                name="unet3d_transformer",
                features=features,
                strides=strides,
                kernels=kernels,
                layers=rules.TRANSFORMER_LAYERS,
                heads=rules.transformer_heads(features[-1]),
                checkpointing=thrifty,
            )
        return UNetPlan(
            name="unet3d", features=features, strides=strides, kernels=kernels, checkpointing=thrifty
        )

    def notes(self, network: UNetPlan | ResEncPlan | UNetTransformerPlan, wide: str) -> list[Note]:
        """Strides, kernels and width, and what the kind adds."""
        notes: list[Note] = [
            ("strides", network.strides, rules.unet_levels(self.facts.spacing_mm, (1, 1, 1))[2]),
            ("kernels", network.kernels, "nnU-Net's: 3 along the axes finer than twice the finest, else 1"),
            ("features", network.features, f"{wide}; doubled per level up to {rules.MOST_FEATURES}"),
        ]
        if isinstance(network, ResEncPlan):
            notes.append(("blocks", network.blocks, "nnU-Net's ResEnc presets"))
        if isinstance(network, UNetTransformerPlan):
            value = f"{network.layers} layers of {network.heads} heads"
            notes.append(("transformer", value, "TransBTS' depth, heads of at least 64 channels"))
        return notes

    @property
    def _cpu(self) -> bool:
        return isinstance(self.facts.device, rules.CPU)


class CNNDesign(Design[CNNPlan]):
    """The plain convolutional network at full resolution."""

    @property
    def widths(self) -> tuple[int, ...]:
        """As wide as the device bears."""
        return (16,) if isinstance(self.facts.device, rules.CPU) else (rules.UNET_FEATURES,)

    def width_reason(self) -> str:
        """Why the width is what it is."""
        cpu = isinstance(self.facts.device, rules.CPU)
        return super().width_reason() if cpu else "that of the U-Nets"

    def divisor(self, patch: Shape3) -> Shape3:
        """Any size would do; patches grow by a few voxels."""
        return rules.step((1, 1, 1), self.facts.shape)

    def network(self, width: int, patch: Shape3) -> CNNPlan:
        """The network; the patch does not change it."""
        steps, _ = rules.dilations(self.facts.spacing_mm, self.facts.shape)
        return CNNPlan(name="cnn3d", features=width, dilations=steps, checkpointing=self.wish.checkpointing)

    def notes(self, network: CNNPlan, wide: str) -> list[Note]:
        """Width and dilations."""
        _, why = rules.dilations(self.facts.spacing_mm, self.facts.shape)
        return [("features", network.features, wide), ("dilations", network.dilations, why)]


class ExternalDesign(Design[ExternalPlan]):
    """A network of another distribution, which knows itself what it is."""

    widths = (0,)

    @cached_property
    def planned(self) -> ExternalPlan:
        """The network as it states itself; it is built once, on the meta device."""
        found = find_external(self.wish.network)
        s, p, left = (32 * -(-n // 32) for n in self.facts.shape)
        with torch.device("meta"):
            built = found.make(
                self.facts.in_channels, self.facts.out_channels, self.facts.spacing_mm, (s, p, left), {}
            )
        return ExternalPlan(
            name="external",
            entry_point=self.wish.network,
            distribution=found.distribution,
            settings={},
            divisor=stated_divisor(built, found.distribution),
        )

    def divisor(self, patch: Shape3) -> Shape3:
        """A multiple of what the network states."""
        return rules.step(self.planned.divisor, self.facts.shape)

    def network(self, width: int, patch: Shape3) -> ExternalPlan:
        """The network; it is made for the patch when it is built."""
        return self.planned

    def notes(self, network: ExternalPlan, wide: str) -> list[Note]:
        """Where the network comes from, and its divisor."""
        return [
            ("network", self.wish.network, f"of the distribution {self.planned.distribution}"),
            ("divisor", self.planned.divisor, "as the network states"),
        ]


def design(wish: Wish, facts: Facts) -> Design[Any]:
    """How the wished network is planned."""
    if wish.network in SWINS:
        return SwinDesign(wish, facts)
    if wish.network == "cnn3d":
        return CNNDesign(wish, facts)
    return UNetDesign(wish, facts) if wish.network in OURS else ExternalDesign(wish, facts)
