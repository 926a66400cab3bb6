"""Fingerprint and memory budget in, plan out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import isfinite, prod
from typing import Any, cast, get_args

from autospine.dataset import Dataset
from autospine.errors import PlanError
from autospine.fingerprint import Fingerprint
from autospine.network.external import find_external
from autospine.plan import (
    FORMAT_VERSION,
    Augmentation,
    Configuration,
    Decision,
    ExternalPlan,
    NetworkPlan,
    Placement,
    Plan,
    Precision,
    TrainingPlan,
)
from autospine.types import Shape3, Vector3
from planners import rules
from planners.memory import has_closed_form, training_bytes
from planners.networks import (
    DEFAULT,
    OURS,
    SWINS,
    Attention,
    Design,
    Facts,
    Weighting,
    Wish,
    design,
    known_networks,
    usual_wish,
)

GIB = 1024**3

FAST = "fast"
"""Name of the coarse configuration."""


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

    networks: tuple[str, ...] = (DEFAULT,)
    """Each is planned for at each spacing."""

    attention: tuple[str, ...] = ()
    """Of Swin networks, as the next three; each is planned for. None: as the network's name says."""

    fusion_weighting: tuple[str, ...] = ()
    fusion_placement: tuple[str, ...] = ()
    adaptive_stages: tuple[int, ...] | None = None
    """Stages with adaptive attention, from 1 to 4."""

    checkpointing: bool = False
    """Recompute stages in the backward pass, which saves memory and takes time."""

    @property
    def wishes(self) -> tuple[Wish, ...]:
        """The networks to plan for, each once."""
        wished = [wish for network in self.networks for wish in self._variants(network)]
        return tuple({wish.suffix: wish for wish in wished}.values())

    def _variants(self, network: str) -> Iterator[Wish]:
        usual = replace(usual_wish(network), checkpointing=self.checkpointing)
        if network not in SWINS:
            yield usual
            return
        for attention, weighting, placement in product(
            self.attention or (usual.attention,),
            self.fusion_weighting or (usual.weighting,),
            self.fusion_placement or (usual.placement,),
        ):
            stages = usual.stages
            if self.adaptive_stages is not None:
                one, two, three, four = (stage in self.adaptive_stages for stage in range(1, 5))
                stages = (one, two, three, four)
            yield replace(
                usual,
                attention=cast(Attention, attention),
                weighting=cast(Weighting, weighting),
                placement=cast(Placement, placement),
                stages=stages,
            )

    def _check_networks(self) -> None:
        known = known_networks()
        for option, values, allowed in (
            ("--network", self.networks, known),
            ("--attention", self.attention, get_args(Attention)),
            ("--fusion-weighting", self.fusion_weighting, get_args(Weighting)),
            ("--fusion-placement", self.fusion_placement, get_args(Placement)),
            ("--adaptive-stages", self.adaptive_stages or (), (1, 2, 3, 4)),
        ):
            for value in values:
                if value not in allowed:
                    listed = ", ".join(str(item) for item in allowed)
                    raise PlanError(f"expected {option} among {listed}, found {value!r}; choose one of them")
        mechanisms = (self.attention, self.fusion_weighting, self.fusion_placement, self.adaptive_stages)
        if any(mechanisms) and not set(self.networks) & set(SWINS):
            raise PlanError(
                f"expected a network that attention and fusion options apply to ({' or '.join(SWINS)}), "
                f"found --network {', '.join(self.networks)}; leave the options out or add such a network"
            )
        for name in self.networks:
            if name not in OURS:
                find_external(name).load()

    def __post_init__(self) -> None:
        self._check_networks()
        wanted = self.feature_size
        if wanted is not None and (wanted % 4 or not 8 <= wanted <= 96):
            raise PlanError(f"expected --feature-size from 8 to 96, a multiple of 4, found {wanted}")
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
        spacings = self._spacings()
        planned = [[self._configuration(*spacing, wish) for wish in self._wishes] for spacing in spacings]
        configurations = [one for same_spacing in self._ordered(planned) for one in same_spacing]
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
    def _wishes(self) -> tuple[Wish, ...]:
        return self.overrides.wishes

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
        planned = [("fullres", full, why), (FAST, fast, why_fast)]
        return planned if fast != full else planned[:1]

    def _ordered(self, planned: list[list[Configuration]]) -> list[list[Configuration]]:
        if len(planned) == 1:
            reason = "the data are coarse already: a faster one would not differ"
        elif self.budget.gpu:
            reason = "a GPU trains at full resolution in reasonable time"
        else:
            planned, reason = planned[::-1], "without a GPU time is scarcest"
        self._note("configuration 0", planned[0][0].name, reason)
        return planned

    def _configuration(self, cases: str, spacing: Vector3, why: str, wish: Wish) -> Configuration:
        name = f"{cases}{wish.suffix}"
        self._note(f"{name}.spacing_mm", spacing, why)
        patch, network = self._patch_and_network(name, spacing, wish)
        training = self._training(name)
        memory = self._bytes(network, patch, spacing)
        self._note(f"{name}.memory", f"{memory / GIB:.2f} GiB", "estimated peak of a training step")
        return Configuration(
            name=name,
            cases=cases,
            spacing_mm=spacing,
            patch_size=patch,
            network=network,
            training=training,
            augmentation=self._augmentation(name),
            memory_bytes=memory,
        )

    def _patch_and_network(self, name: str, spacing: Vector3, wish: Wish) -> tuple[Shape3, NetworkPlan]:
        """The widest network whose patch still holds the context; else the largest patch there is."""
        shape = rules.median_shape([case.size_mm for case in self.fingerprint.cases], spacing)
        designed = design(wish, self._facts(spacing, shape))
        wanted = self.overrides.feature_size
        for width in (wanted,) if wanted else designed.widths:
            patch, why_patch = self._patch(name, spacing, shape, designed, width)
            if patch is not None and rules.holds_context(patch, spacing, shape):
                break
        if patch is None:
            smallest = self.overrides.patch_size or self._smallest(spacing, shape, designed)
            least = self._bytes(designed.network(width, smallest), smallest, spacing)
            raise PlanError(
                f"expected a memory budget of at least {least / GIB:.2f} GiB for the smallest patch of "
                f"configuration {name!r}, found {self.budget.memory_bytes / GIB:.2f} GiB; "
                "give more with --memory"
            )
        network: NetworkPlan = designed.network(width, patch)
        self._note(f"{name}.patch_size", patch, why_patch)
        wide = "set by the user" if wanted else designed.width_reason()
        for what, value, reason in designed.notes(network, wide):
            self._note(f"{name}.{what}", value, reason)
        if wish.checkpointing and not isinstance(network, ExternalPlan):
            self._note(f"{name}.checkpointing", "on", "wished for: less memory, more time")
        return patch, network

    @staticmethod
    def _smallest(spacing: Vector3, shape: Shape3, designed: Design[Any]) -> Shape3:
        return rules.patch_path(spacing, shape, designed.divisor, designed.smallest)[0]

    def _facts(self, spacing: Vector3, shape: Shape3) -> Facts:
        return Facts(
            spacing_mm=spacing,
            shape=shape,
            patch_size=self.overrides.patch_size,
            thicknesses_mm=self.thicknesses_mm,
            in_channels=len(self.dataset.channels),
            out_channels=self.dataset.labels.n_channels,
            device=self.device,
        )

    def _patch(
        self, name: str, spacing: Vector3, shape: Shape3, designed: Design[Any], width: int
    ) -> tuple[Shape3 | None, str]:
        def fits(patch: Shape3) -> bool:
            network = designed.network(width, patch)
            return self._bytes(network, patch, spacing) <= self.budget.memory_bytes

        def quick(patch: Shape3) -> bool:
            return not name.startswith(FAST) or prod(patch) <= rules.FAST_VOXELS

        wanted = self.overrides.patch_size
        if wanted is None:
            smallest = self._smallest(spacing, shape, designed)
            return rules.patch_size(
                spacing,
                shape,
                designed.divisor,
                lambda patch: quick(patch) and fits(patch),
                smallest=smallest,
                halving=not has_closed_form(designed.network(width, smallest)),
            )
        divisor = designed.network(width, wanted).divisor
        if any(n % d for n, d in zip(wanted, divisor, strict=True)):
            raise PlanError(
                f"expected a patch divisible by {_readable(divisor)}, the network's strides, "
                f"found --patch {_readable(wanted)}"
            )
        return (wanted if fits(wanted) else None), "set by the user"

    def _bytes(self, network: NetworkPlan, patch: Shape3, spacing: Vector3) -> int:
        return training_bytes(
            network,
            patch,
            batch_size=self.device.batch_size,
            precision=self.budget.precision,
            in_channels=len(self.dataset.channels),
            out_channels=self.dataset.labels.n_channels,
            spacing_mm=spacing,
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
