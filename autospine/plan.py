"""The plan: every decision that the planner took, as data.

Trainers, preprocessing and inference read it; nothing here decides anything. Triples are in array
order (superior, posterior, left). Importing this module does not load torch, so that a plan can be read and
shown at once.
"""

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Annotated, Literal, get_args, get_type_hints

from autospine.core.defaults import DEFAULT_LOSS
from autospine.core.errors import PlanError
from autospine.core.geometry import COARSEST_MM, FINEST_MM
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.core.types import Modality
from autospine.network.cnn3d_plan import CNNPlan
from autospine.network.external_plan import ExternalPlan
from autospine.network.swin.swin_plan import SwinPlan
from autospine.network.unet_plans import ResEncPlan, UNetPlan, UNetTransformerPlan
from autospine.storage.serialization import (
    FileEnding,
    FolderName,
    above,
    at_most,
    between,
    many,
    stored_as,
    told_apart_by,
)

if TYPE_CHECKING:
    from torch import nn

FORMAT_VERSION = 1

LARGEST_PLAN = 2 * 2**20
"""Most bytes of a plan; one of four configurations has a fortieth of it."""

LARGEST_PATCH = 2**27
"""Most voxels of a patch; training steps of the largest GPUs hold a tenth of it."""

MOST_CLASSES = IGNORE_INDEX - 1
"""Most classes, which are stored as bytes."""

# Bounds of a plan's numbers when it is read: far beyond what anybody trains with, and small enough that a
# plan of nonsense is refused before it takes memory.
Share = Annotated[float, between(0, 1)]
Count = Annotated[int, between(1, 10**6)]
Strength = Annotated[float, between(0, 1e6)]
StoredIndex = Annotated[int, between(0, IGNORE_INDEX)]
Spacing = Annotated[float, between(FINEST_MM, COARSEST_MM)]
Edge = Annotated[int, between(1, 2048)]
Bytes = Annotated[int, between(0, 2**60)]

Precision = Literal["float32", "bfloat16", "float16"]
DeviceKind = Literal["gpu", "cpu"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One number of the plan and its reason."""

    name: str
    """Name of the decision, such as `fullres.patch_size`."""

    value: str
    """The value in words."""

    reason: str
    """The rule and the facts that led to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalisation:
    """Normalisation of one modality's intensities: clip, then (x - mean) / std."""

    scope: Literal["dataset", "image"]
    """CT: the dataset's foreground statistics; MR: each image's own."""

    lower: float
    """Clipping bound: HU for `dataset`; a quantile in [0, 1] for `image`."""

    upper: float
    """Upper clipping bound in the same unit; greater than `lower`."""

    mean: float
    """Subtracted after clipping, in HU; unused for `image`."""

    std: Annotated[float, above(0, 1e12)]
    """Divisor, in HU, positive; unused for `image`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """Strengths of the random changes made to training patches."""

    rotation_deg: tuple[Strength, Strength, Strength]
    """Largest rotation about the S, P and L axis."""

    scale: tuple[Strength, Strength]
    """Range of the zoom factor, about 1."""

    elastic_mm: Strength
    """Standard deviation of the elastic displacement at its control points; 0 turns it off."""

    spatial_probability: Share
    """Share of patches that are rotated, scaled and deformed."""

    intensity_probability: Share
    """Share of patches that each intensity change (noise, blur, brightness, contrast, gamma) touches."""

    mirror_axes: Annotated[tuple[Annotated[int, between(0, 2)], ...], at_most(3)]
    """Axes of (S, P, L) that may be flipped: 2 (left/right) or none."""

    mirror_pairs: Annotated[tuple[tuple[StoredIndex, StoredIndex], ...], at_most(MOST_CLASSES)]
    """Stored label indices that change places in a left/right flip."""

    # Off where a plan does not mention them, so that older plans still mean what they meant.
    bias_probability: Share = 0.0
    """Share of MR patches that are multiplied by a smooth field."""

    bias_std: Strength = 0.0
    """Standard deviation of that field's logarithm at its control points."""

    metal_probability: Share = 0.0
    """Share of CT patches that show metal with streaks; those without a structure stay as they are."""

    metal_hu: Strength = 0.0
    """Largest magnitude of the streaks, in HU."""

    window_probability: Share = 0.0
    """Share of CT patches that are clipped at other bounds."""

    window_shift: Strength = 0.0
    """Largest shift of either bound, as a share of the clipping range."""

    synthesis_probability: Share = 0.0
    """Share of the patches of cases with a tissue map whose image is made from the map."""


AnyNetworkPlan = Annotated[
    SwinPlan | CNNPlan | UNetPlan | UNetTransformerPlan | ResEncPlan | ExternalPlan, told_apart_by("name")
]
"""The known networks: a new one is added here, and its plan says how it is built."""


def built_in_networks() -> tuple[str, ...]:
    """Return the names of the networks that come with AutoSpine, as their plans state them."""
    kinds = [kind for kind in get_args(get_args(AnyNetworkPlan)[0]) if kind is not ExternalPlan]
    return tuple(name for kind in kinds for name in get_args(get_type_hints(kind)["name"]))


FEW = 0.02
"""A network counts as hardly trained after less than this share of its plan's steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """The recipe."""

    epochs: Count
    """Epochs without a time limit."""

    iterations_per_epoch: Count
    """Optimiser steps per epoch."""

    batch_size: Annotated[int, between(1, 4096)]
    """Patches per step."""

    learning_rate: Annotated[float, between(0, 100)]
    """Peak of the schedule: how far a step moves a weight, as a share of its tensor's initial size."""

    weight_decay: Strength
    """On matrices and convolution kernels only."""

    warmup_fraction: Share
    """Share of the steps in which the learning rate rises linearly from zero."""

    gradient_clip: Annotated[float, above(0, 1e12)]
    """Largest norm of the gradient."""

    ema_decay: Share
    """Decay per step of the averaged weights that are validated and exported."""

    # The default where a plan does not mention it, so that older plans still mean what they meant.
    loss: str = DEFAULT_LOSS
    """Name of the loss: a built-in one, or an entry point of the group `autospine.losses`."""

    loss_settings: Annotated[dict[str, bool | int | float | str], at_most(100)] = field(default_factory=dict)
    """Keyword arguments that the loss is made with, besides the labels and `lambda_ce`."""

    lambda_ce: Share
    """Weight of cross-entropy in `dice_ce`: lambda_ce * cross-entropy + (1 - lambda_ce) * (1 - Dice)."""

    oversample_foreground_fraction: Share
    """Share of patches centred on a foreground voxel of a class drawn evenly."""

    precision: Precision
    """Number format of activations; weights are float32."""

    @property
    def steps(self) -> int:
        """Optimiser steps without a time limit."""
        return self.epochs * self.iterations_per_epoch

    def is_cut_short(self, steps: float) -> bool:
        """Return whether a training of so many steps has hardly begun, so that its labels will be coarse."""
        return steps < FEW * self.steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One way to train on the dataset."""

    name: FolderName
    """Name such as `fullres`, by which it is trained and used."""

    cases: FolderName
    """Folder of the stored cases beside the plan; configurations of the same spacing share one."""

    spacing_mm: tuple[Spacing, Spacing, Spacing]
    """Voxel size to which every case is resampled."""

    patch_size: tuple[Edge, Edge, Edge]
    """Voxels of a training patch and of an inference tile."""

    network: AnyNetworkPlan
    training: TrainingPlan
    augmentation: Augmentation

    memory_bytes: Bytes
    """Estimated peak of a training step."""

    def __post_init__(self) -> None:
        if prod(self.patch_size) > LARGEST_PATCH:
            raise PlanError(
                f"expected a patch of at most {LARGEST_PATCH} voxels in configuration {self.name!r}, found "
                f"{self.patch_size}; run `autospine plan` again"
            )
        if any(n % d for n, d in zip(self.patch_size, self.network.divisor, strict=True)):
            raise PlanError(
                f"expected a patch size divisible by {self.network.divisor} in configuration {self.name!r}, "
                f"found {self.patch_size}; run `autospine plan` again"
            )


@stored_as("a plan", largest=LARGEST_PLAN)
@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The decisions for one dataset."""

    format_version: int
    dataset: FolderName
    """Name of the dataset folder."""

    channels: Annotated[tuple[str, ...], at_most(1000), many()]
    """Input channels in order."""

    labels: LabelSpace
    file_ending: FileEnding
    """Ending of the prediction files, as in the dataset."""

    normalisation: dict[Modality, Normalisation]
    """Normalisation of each modality; one that the dataset lacks has its default."""

    configurations: Annotated[tuple[Configuration, ...], at_most(1000), many()]
    """The first one is recommended."""

    memory_budget_bytes: Bytes
    """Memory budget that the plan was made for."""

    device: DeviceKind | None = None
    """Kind of device that the plan was made for; None in plans of earlier versions, which do not say it."""

    rationale: Annotated[tuple[Decision, ...], at_most(10_000), many()]
    """The reason for each number."""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise PlanError(
                f"expected a plan of format_version {FORMAT_VERSION}, found {self.format_version}; "
                "plan again, or use the AutoSpine version that made it"
            )

    def configuration(self, name: str) -> Configuration:
        """Return the configuration of an index or name.

        Raises:
            PlanError: If there is none.
        """
        for index, configuration in enumerate(self.configurations):
            if name in (str(index), configuration.name):
                return configuration
        known = ", ".join(f"{index} ({c.name})" for index, c in enumerate(self.configurations))
        raise PlanError(
            f"expected a configuration of the plan of {self.dataset}, found {name!r}; name one of {known}"
        )


def build_network(plan: Plan, configuration: Configuration) -> "nn.Module":
    """Return the configuration's network with fresh weights, for the plan's channels and labels.

    Raises:
        PlanError: If the plan's numbers do not fit each other, or a network of another distribution is not
            installed.
    """
    return configuration.network.build(
        len(plan.channels),
        plan.labels.n_channels,
        spacing_mm=configuration.spacing_mm,
        patch_size=configuration.patch_size,
    )
