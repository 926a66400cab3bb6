"""Fingerprint and memory budget in, plan out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite, prod
from typing import cast

from autospine.dataset import Dataset
from autospine.errors import PlanError
from autospine.fingerprint import Fingerprint
from autospine.plan import (
    FORMAT_VERSION,
    Augmentation,
    Configuration,
    Decision,
    NetworkPlan,
    Plan,
    Precision,
    TrainingPlan,
)
from autospine.types import Shape3, Vector3
from planners import rules
from planners.memory import training_bytes

GIB = 1024**3

Stages = tuple[Shape3, Shape3, Shape3, Shape3]
Levels = tuple[Shape3, Shape3, Shape3, Shape3, Shape3]


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What the plan is made for."""

    memory_bytes: int
    """GPU memory, or the share of RAM that training may take."""

    gpu: bool
    """Whether training runs on a GPU."""

    precision: Precision
    """The number format of activations that pays on the device."""

    reason: str
    """Where the memory figure comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overrides:
    """What the user wants to be so; the rest is planned around it."""

    spacing_mm: Vector3 | None = None
    """Target spacing of `fullres`."""

    patch_size: Shape3 | None = None
    """Patch of every configuration, in voxels."""

    feature_size: int | None = None
    """Width of every configuration: 8 to 96, a multiple of 4."""

    def __post_init__(self) -> None:
        if self.spacing_mm is not None and not all(isfinite(d) and d > 0 for d in self.spacing_mm):
            raise PlanError(f"expected --spacing of three positive lengths in mm, found {self.spacing_mm}")
        if self.patch_size is not None and min(self.patch_size) < 1:
            raise PlanError(f"expected --patch of three positive numbers, found {self.patch_size}")


def make_plan(
    dataset: Dataset, fingerprint: Fingerprint, budget: Budget, overrides: Overrides | None = None
) -> Plan:
    """Decide everything that preprocessing, training and inference need.

    Args:
        dataset: its channels, labels and file ending go into the plan.
        fingerprint: measured on the same dataset.
        budget: memory and device to plan for.
        overrides: what the user has fixed.

    Raises:
        PlanError: if no patch fits the budget, or an override contradicts the rules.
    """
    return _Planning(dataset, fingerprint, budget, overrides or Overrides()).plan()


@dataclass(slots=True)
class _Planning:
    """One run of the planner: the facts, and the reasons as they accrue."""

    dataset: Dataset
    fingerprint: Fingerprint
    budget: Budget
    overrides: Overrides
    rationale: list[Decision] = field(default_factory=list)

    def plan(self) -> Plan:
        self._note("memory budget", f"{self.budget.memory_bytes / GIB:.1f} GiB", self.budget.reason)
        normalisation, reason = rules.normalisation(self.fingerprint)
        ct = normalisation["CT"]
        self._note("normalisation", f"CT {ct.lower:.0f} ... {ct.upper:.0f} HU, MR per image", reason)
        configurations = self._ordered([self._configuration(*item) for item in self._spacings()])
        return Plan(
            format_version=FORMAT_VERSION,
            dataset=self.dataset.name,
            channels=self.dataset.channels,
            labels=self.dataset.labels,
            file_ending=self.dataset.file_ending,
            normalisation=normalisation,
            configurations=tuple(configurations),
            memory_budget_bytes=self.budget.memory_bytes,
            rationale=tuple(self.rationale),
        )

    @property
    def device(self) -> rules.Device:
        return rules.GPU() if self.budget.gpu else rules.CPU()

    @property
    def thicknesses_mm(self) -> list[float]:
        return [c.thickness_mm for c in self.fingerprint.classes if c.thickness_mm is not None]

    def _note(self, name: str, value: object, reason: str) -> None:
        self.rationale.append(Decision(name=name, value=_readable(value), reason=reason))

    def _spacings(self) -> list[tuple[str, Vector3, str]]:
        full, why = rules.target_spacing([case.spacing_mm for case in self.fingerprint.cases])
        if self.overrides.spacing_mm:
            full, why = self.overrides.spacing_mm, "set by the user"
        fast, why_fast = rules.fast_spacing(full, self.thicknesses_mm)
        planned = [("fullres", full, why), ("fast", fast, why_fast)]
        return planned if fast != full else planned[:1]

    def _ordered(self, planned: list[Configuration]) -> list[Configuration]:
        if len(planned) == 1:
            reason = "the data are coarse already: a faster one would not differ"
        elif self.budget.gpu:
            reason = "a GPU trains at full resolution in reasonable time"
        else:
            planned, reason = planned[::-1], "without a GPU time is scarcest"
        self._note("configuration 0", planned[0].name, reason)
        return planned

    def _configuration(self, name: str, spacing: Vector3, why: str) -> Configuration:
        self._note(f"{name}.spacing_mm", spacing, why)
        patch, network = self._patch_and_network(name, spacing)
        training = self._training(name)
        memory = self._bytes(network, patch)
        self._note(f"{name}.memory", f"{memory / GIB:.2f} GiB", "estimated peak of a training step")
        return Configuration(
            name=name,
            spacing_mm=spacing,
            patch_size=patch,
            network=network,
            training=training,
            augmentation=self._augmentation(name),
            memory_bytes=memory,
        )

    def _patch_and_network(self, name: str, spacing: Vector3) -> tuple[Shape3, NetworkPlan]:
        """The widest network whose patch still holds the context; else the largest patch there is."""
        shape = rules.median_shape([case.size_mm for case in self.fingerprint.cases], spacing)
        strides, why_strides = rules.strides(spacing, self.overrides.patch_size or shape)
        sizes = self._feature_sizes()
        for feature_size in sizes:
            network = self._network(feature_size, spacing, cast(Levels, strides))
            patch, why_patch = self._patch(name, spacing, shape, network)
            if patch is not None and rules.holds_context(patch, spacing, shape):
                break
        if patch is None:
            smallest = self.overrides.patch_size or network.divisor
            least = self._bytes(
                self._network(feature_size, spacing, cast(Levels, strides), smallest), smallest
            )
            raise PlanError(
                f"expected a memory budget of at least {least / GIB:.2f} GiB for the smallest patch of "
                f"configuration {name!r}, found {self.budget.memory_bytes / GIB:.2f} GiB; "
                "give more with --memory"
            )
        network = self._network(feature_size, spacing, cast(Levels, strides), patch)
        self._note(f"{name}.patch_size", patch, why_patch)
        self._note(f"{name}.strides", strides, why_strides)
        self._note_network(name, network, patch)
        return patch, network

    def _feature_sizes(self) -> tuple[int, ...]:
        wanted = self.overrides.feature_size
        if wanted is None:
            return self.device.feature_sizes
        if wanted % 4 or not 8 <= wanted <= 96:
            raise PlanError(f"expected --feature-size from 8 to 96, a multiple of 4, found {wanted}")
        return (wanted,)

    def _patch(
        self, name: str, spacing: Vector3, shape: Shape3, network: NetworkPlan
    ) -> tuple[Shape3 | None, str]:
        def fits(patch: Shape3) -> bool:
            windowed = self._network(network.feature_size, spacing, network.strides, patch)
            return self._bytes(windowed, patch) <= self.budget.memory_bytes

        def quick(patch: Shape3) -> bool:
            return name != "fast" or prod(patch) <= rules.FAST_VOXELS

        wanted = self.overrides.patch_size
        if wanted is None:
            return rules.patch_size(
                spacing, shape, network.divisor, lambda patch: quick(patch) and fits(patch)
            )
        if any(n % d for n, d in zip(wanted, network.divisor, strict=True)):
            raise PlanError(
                f"expected a patch divisible by {_readable(network.divisor)}, the network's strides, "
                f"found --patch {_readable(wanted)}"
            )
        return (wanted if fits(wanted) else None), "set by the user"

    def _network(
        self, feature_size: int, spacing: Vector3, strides: Levels, patch: Shape3 | None = None
    ) -> NetworkPlan:
        """The network of this width; its windows wait for the patch."""
        kernels, _ = rules.fusion_kernels(spacing, strides[0], self.thicknesses_mm)
        windows: Stages = ((1, 1, 1),) * 4
        if patch is not None:
            grids = rules.token_grids(patch, strides)
            windows = cast(Stages, rules.windows(grids, self.device.largest_window)[0])
        return NetworkPlan(
            name="adaptive_swin_unetr",
            feature_size=feature_size,
            depths=(2, 2, 2, 2),
            num_heads=rules.heads(feature_size),
            window_sizes=windows,
            strides=strides,
            use_v2=True,
            fusion_kernels=kernels,
            adaptive_attention=(True, True, False, False),
        )

    def _note_network(self, name: str, network: NetworkPlan, patch: Shape3) -> None:
        wide = "set by the user" if self.overrides.feature_size else rules.width_reason(self.device)
        self._note(f"{name}.feature_size", network.feature_size, wide)
        _, why = rules.windows(rules.token_grids(patch, network.strides), self.device.largest_window)
        self._note(f"{name}.window_sizes", network.window_sizes, why)
        spacing = next(s for n, s, _ in self._spacings() if n == name)
        _, why = rules.fusion_kernels(spacing, network.strides[0], self.thicknesses_mm)
        self._note(f"{name}.fusion_kernels", network.fusion_kernels, why)

    def _bytes(self, network: NetworkPlan, patch: Shape3) -> int:
        return training_bytes(
            network,
            patch,
            batch_size=self.device.batch_size,
            precision=self.budget.precision,
            in_channels=len(self.dataset.channels),
            out_channels=self.dataset.labels.n_channels,
        )

    def _training(self, name: str) -> TrainingPlan:
        device = self.device
        plan = TrainingPlan(
            epochs=device.epochs,
            iterations_per_epoch=device.iterations_per_epoch,
            batch_size=device.batch_size,
            learning_rate=device.learning_rate,
            weight_decay=0.05,
            warmup_fraction=0.05,
            gradient_clip=1.0,
            ema_decay=0.999,
            lambda_ce=0.5,
            oversample_foreground_fraction=0.5,
            precision=self.budget.precision,
        )
        value = f"{plan.epochs} epochs of {plan.iterations_per_epoch} steps, batch {plan.batch_size}"
        self._note(
            f"{name}.training", value, "the device's default; --max-minutes fits the schedule to a time"
        )
        self._note(
            f"{name}.learning_rate",
            plan.learning_rate,
            "AdamW, relative to each tensor's size; higher where time is short",
        )
        self._note(f"{name}.lambda_ce", plan.lambda_ce, "cross-entropy and Dice in balance (the paper)")
        self._note(f"{name}.precision", plan.precision, "the number format that pays on this device")
        return plan

    def _augmentation(self, name: str) -> Augmentation:
        axes, pairs, reason = rules.mirroring(self.dataset.labels)
        self._note(f"{name}.mirror_axes", "".join("SPL"[axis] for axis in axes) or "none", reason)
        return Augmentation(
            rotation_deg=(10.0, 10.0, 15.0),
            scale=(0.85, 1.18),
            elastic_mm=2.0,
            spatial_probability=self.device.spatial_probability,
            intensity_probability=0.15,
            mirror_axes=axes,
            mirror_pairs=pairs,
        )


def _readable(value: object) -> str:
    """Triples as 1x2x3, lists of triples separated by commas."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        joint = "x" if all(isinstance(item, int | float) for item in value) else ", "
        return joint.join(_readable(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
