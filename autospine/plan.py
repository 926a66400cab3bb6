"""The plan: every decision that the planner took, as data.

Trainers, preprocessing and inference read it; nothing here decides anything. Triples are in array
order (superior, posterior, left).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Literal

from autospine.core.errors import PlanError
from autospine.core.labels import LabelSpace
from autospine.core.types import Modality, Shape3, Vector3
from autospine.storage.serialization import told_apart_by

FORMAT_VERSION = 1

Placement = Literal["embedding", "stem", "both"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One number of the plan and why it is what it is."""

    name: str
    """What was decided, e.g. `fullres.patch_size`."""

    value: str
    """The value, for reading."""

    reason: str
    """The rule and the facts that led to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """How one modality's intensities become network input: clip, then (x - mean) / std."""

    scope: Literal["dataset", "image"]
    """CT: the dataset's foreground statistics; MR: each image's own."""

    lower: float
    """Clipping bound: HU for `dataset`; a quantile in [0, 1] for `image`."""

    upper: float
    """Likewise; greater than `lower`."""

    mean: float
    """Subtracted after clipping, in HU; unused for `image`."""

    std: float
    """Divisor, in HU, positive; unused for `image`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Strengths of the random changes made to training patches."""

    rotation_deg: Vector3
    """Largest rotation about the S, P and L axis."""

    scale: tuple[float, float]
    """Range of the zoom factor, about 1."""

    elastic_mm: float
    """Standard deviation of the elastic displacement at its control points; 0 turns it off."""

    spatial_probability: float
    """Share of patches that are rotated, scaled and deformed."""

    intensity_probability: float
    """Share of patches that each intensity change (noise, blur, brightness, contrast, gamma) touches."""

    mirror_axes: tuple[int, ...]
    """Axes of (S, P, L) that may be flipped: 2 (left/right) or none."""

    mirror_pairs: tuple[tuple[int, int], ...]
    """Stored label indices that change places in a left/right flip."""

    # Off where a plan does not mention them, so that older plans still mean what they meant.
    bias_probability: float = 0.0
    """Share of MR patches that are multiplied by a smooth field."""

    bias_std: float = 0.0
    """Standard deviation of that field's logarithm at its control points."""

    metal_probability: float = 0.0
    """Share of CT patches that show metal with streaks; those without a structure stay as they are."""

    metal_hu: float = 0.0
    """What the strongest streaks add or take away, in HU."""

    window_probability: float = 0.0
    """Share of CT patches that are clipped at other bounds."""

    window_shift: float = 0.0
    """Largest shift of either bound, as a share of the clipping range."""


Stages = tuple[bool, bool, bool, bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionPlan:
    """Multi-scale fusion."""

    kernels: tuple[Shape3, ...]
    """In voxels; the first is the patch embedding's own."""

    weighting: Literal["trainable", "ones"]
    """Free weights that start at (1, 0, ...), or all of them fixed at 1."""

    placement: Placement
    """In the patch embedding, in a stem before the whole network, or in both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionPlan:
    """Adaptive attention, stage by stage."""

    saliency: Stages
    """Stages whose keys are re-weighted by their saliency."""

    temperature: Stages
    """Stages whose queries have their own temperature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SwinPlan:
    """Swin UNETR with or without multi-scale fusion and adaptive attention."""

    name: Literal["adaptive_swin_unetr", "swin_unetr"]
    """What it was planned as; the settings below decide."""

    feature_size: int
    """Channels at full resolution."""

    depths: tuple[int, int, int, int]
    """Swin blocks per stage."""

    num_heads: tuple[int, int, int, int]
    """Attention heads per stage."""

    window_sizes: tuple[Shape3, Shape3, Shape3, Shape3]
    """Attention window of each stage, in tokens."""

    strides: tuple[Shape3, Shape3, Shape3, Shape3, Shape3]
    """Strides of the patch embedding and the four mergings."""

    use_v2: bool
    """Residual convolution block before each stage."""

    fusion: FusionPlan | None
    """None is the plain patch embedding."""

    attention: AttentionPlan | Literal["plain", "identity"]
    """`identity` leaves attention out of the blocks, as a control."""

    checkpointing: bool
    """Recompute stages in the backward pass: less memory, more time."""

    @property
    def divisor(self) -> Shape3:
        """What every axis of the input must be a multiple of: the product of its strides."""
        return _product(self.strides)


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetPlan:
    """The plain 3D U-Net, level by level from the finest."""

    name: Literal["unet3d"]
    features: tuple[int, ...]
    """Channels."""

    strides: tuple[Shape3, ...]
    """Into each level; the first is 1."""

    kernels: tuple[Shape3, ...]
    """Of the convolutions, in voxels."""

    checkpointing: bool

    @property
    def divisor(self) -> Shape3:
        """What every axis of the input must be a multiple of: the product of its strides."""
        return _product(self.strides)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResEncPlan:
    """The U-Net with a residual encoder, level by level from the finest."""

    name: Literal["resenc_unet"]
    features: tuple[int, ...]
    """Channels."""

    strides: tuple[Shape3, ...]
    """Into each level; the first is 1."""

    kernels: tuple[Shape3, ...]
    """Of the convolutions, in voxels."""

    blocks: tuple[int, ...]
    """Residual blocks."""

    checkpointing: bool

    @property
    def divisor(self) -> Shape3:
        """What every axis of the input must be a multiple of: the product of its strides."""
        return _product(self.strides)


@dataclass(frozen=True, kw_only=True, slots=True)
class UNetTransformerPlan:
    """The plain 3D U-Net with a Transformer at its coarsest level."""

    name: Literal["unet3d_transformer"]
    features: tuple[int, ...]
    """Channels, level by level from the finest."""

    strides: tuple[Shape3, ...]
    """Into each level; the first is 1."""

    kernels: tuple[Shape3, ...]
    """Of the convolutions, in voxels."""

    layers: int
    """Transformer layers."""

    heads: int
    """Attention heads of each layer."""

    checkpointing: bool

    @property
    def divisor(self) -> Shape3:
        """What every axis of the input must be a multiple of: the product of its strides."""
        return _product(self.strides)


@dataclass(frozen=True, kw_only=True, slots=True)
class CNNPlan:
    """The plain convolutional network at full resolution."""

    name: Literal["cnn3d"]
    features: int
    """Channels of every layer."""

    dilations: tuple[Shape3, ...]
    """Of each layer, in voxels."""

    checkpointing: bool

    @property
    def divisor(self) -> Shape3:
        """What every axis of the input must be a multiple of: any size will do."""
        return 1, 1, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class ExternalPlan:
    """A network of another distribution."""

    name: Literal["external"]
    entry_point: str
    """Its name in the entry points `autospine.networks`."""

    distribution: str
    """Name and version of the distribution that it came from."""

    settings: dict[str, bool | int | float | str]
    """What it is made with, besides channels, spacing and patch size."""

    divisor: Shape3
    """What every axis of the input must be a multiple of, as the network said."""


NetworkPlan = Annotated[
    SwinPlan | UNetPlan | ResEncPlan | UNetTransformerPlan | CNNPlan | ExternalPlan, told_apart_by("name")
]
"""Everything that determines the network but its input and output channels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """The recipe."""

    epochs: int
    """Epochs without a time limit."""

    iterations_per_epoch: int
    """Optimiser steps per epoch."""

    batch_size: int
    """Patches per step."""

    learning_rate: float
    """Peak of the schedule: how far a step moves a weight, as a share of its tensor's initial size."""

    weight_decay: float
    """On matrices and convolution kernels only."""

    warmup_fraction: float
    """Share of the steps in which the learning rate rises linearly from zero."""

    gradient_clip: float
    """Largest norm of the gradient."""

    ema_decay: float
    """Decay per step of the averaged weights that are validated and exported."""

    lambda_ce: float
    """Loss = lambda_ce * cross-entropy + (1 - lambda_ce) * Dice."""

    oversample_foreground_fraction: float
    """Share of patches centred on a foreground voxel of a class drawn evenly."""

    precision: Precision
    """Number format of activations; weights are float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One way to train on the dataset."""

    name: str
    """`fullres` for instance."""

    cases: str
    """Folder of the stored cases beside the plan; configurations of the same spacing share one."""

    spacing_mm: Vector3
    """Voxel size to which every case is resampled."""

    patch_size: Shape3
    """Voxels of a training patch and of an inference tile."""

    network: NetworkPlan
    training: TrainingPlan
    augmentation: Augmentation

    memory_bytes: int
    """Estimated peak of a training step."""

    def __post_init__(self) -> None:
        if any(n % d for n, d in zip(self.patch_size, self.network.divisor, strict=True)):
            raise PlanError(
                f"expected a patch size divisible by {self.network.divisor} in configuration {self.name!r}, "
                f"found {self.patch_size}; run `autospine plan` again"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What was decided for a dataset."""

    format_version: int
    dataset: str
    """Name of the dataset folder."""

    channels: tuple[str, ...]
    """Input channels in order."""

    labels: LabelSpace
    file_ending: str
    """Ending of the prediction files, as in the dataset."""

    normalisation: dict[Modality, Normalisation]
    """Per modality; one that the dataset lacks has its default."""

    configurations: tuple[Configuration, ...]
    """The first one is recommended."""

    memory_budget_bytes: int
    """What the plan was made for."""

    rationale: tuple[Decision, ...]
    """Why each number is what it is."""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise PlanError(
                f"expected a plan of format_version {FORMAT_VERSION}, found {self.format_version}; "
                "plan again, or use the AutoSpine version that made it"
            )

    def configuration(self, name: str) -> Configuration:
        """The configuration of this index or name.

        Raises:
            PlanError: if there is none.
        """
        for index, configuration in enumerate(self.configurations):
            if name in (str(index), configuration.name):
                return configuration
        known = ", ".join(f"{index} ({c.name})" for index, c in enumerate(self.configurations))
        raise PlanError(
            f"expected a configuration of the plan of {self.dataset}, found {name!r}; name one of {known}"
        )


def _product(strides: Sequence[Shape3]) -> Shape3:
    s, p, left = (prod(axis) for axis in zip(*strides, strict=True))
    return s, p, left
