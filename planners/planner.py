"""Fingerprint and memory budget in, plan out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from math import ceil, floor, prod
from typing import Any

import numpy as np

from autospine.dataset import Dataset
from autospine.errors import PlanError
from autospine.fingerprint import Fingerprint
from autospine.folds import FOLDS
from autospine.log import get_logger
from autospine.plan import (
    FORMAT_VERSION,
    Augmentation,
    Configuration,
    Decision,
    ExternalPlan,
    NetworkPlan,
    Plan,
    Precision,
    TrainingPlan,
)
from autospine.types import Shape3, Vector3
from planners import rules
from planners.memory import (
    InferenceMemory,
    TrainingMemory,
    has_closed_form,
    inference_memory,
    training_memory,
)
from planners.networks import Design, Facts, Wish, design
from planners.overrides import Overrides
from planners.rules import Size

logger = get_logger(__name__)

GIB = 1024**3

FULLRES, LOWRES, FAST = "fullres", "lowres", "fast"
"""Names of the configurations, by their spacing."""


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

    calibration: float = 1.0
    """The factor that `planners.calibration` has measured on this device."""


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


Needs = Callable[[Size], int]
"""Bytes that a size needs."""


@dataclass(slots=True)
class _Planning:
    """One run of the planner: the facts, and the reasons as they accrue."""

    dataset: Dataset
    fingerprint: Fingerprint
    budget: Budget
    overrides: Overrides
    rationale: list[Decision] = field(default_factory=list)
    known: dict[str, TrainingMemory] = field(default_factory=dict)
    """Estimates by network and size; those of traced networks take a second."""

    def plan(self) -> Plan:
        self._note("memory budget", f"{self.budget.memory_bytes / GIB:.1f} GiB", self.budget.reason)
        if self.budget.calibration != 1:
            factor = f"{self.budget.calibration:.2f}"
            self._note("calibration", factor, "measured over predicted memory, by real steps on this device")
        normalisation, reason = rules.normalisation(self.fingerprint)
        ct = normalisation["CT"]
        self._note("normalisation", f"CT {ct.lower:.0f} ... {ct.upper:.0f} HU, MR per image", reason)
        configurations = [one for same_spacing in self._configurations() for one in same_spacing]
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
    def _trainer(self) -> rules.Device:
        """The device that training runs on."""
        return rules.GPU() if self.budget.gpu else rules.CPU()

    def _device(self, cases: str) -> rules.Device:
        """What the sizes are for: `fast` suits a CPU, wherever it is planned."""
        return rules.CPU() if cases == FAST else self._trainer

    @property
    def thicknesses_mm(self) -> list[float]:
        return [c.thickness_mm for c in self.fingerprint.classes if c.thickness_mm is not None]

    @property
    def median_size_mm(self) -> Vector3:
        s, p, left = np.median([case.size_mm for case in self.fingerprint.cases], axis=0).tolist()
        return s, p, left

    def _note(self, name: str, value: object, reason: str) -> None:
        self.rationale.append(Decision(name=name, value=_readable(value), reason=reason))

    def _configurations(self) -> list[list[Configuration]]:
        """Those of each spacing, in the order of recommendation."""
        full, why = rules.target_spacing([case.spacing_mm for case in self.fingerprint.cases])
        if self.overrides.spacing_mm:
            full, why = self.overrides.spacing_mm, "set by the user"
        fullres = self._at_spacing(FULLRES, full, why)
        fast = self._fast(full)
        lowres = self._lowres(full, fast, fullres[0].patch_size)
        if not fast:
            self._note("configuration 0", FULLRES, "there is no fast one")
            return [fullres, *lowres]
        if self.budget.gpu:
            self._note("configuration 0", FULLRES, "a GPU trains at full resolution in reasonable time")
            return [fullres, *lowres, fast]
        self._note("configuration 0", FAST, "without a GPU time is scarcest")
        return [fast, *lowres, fullres]

    def _fast(self, full: Vector3) -> list[Configuration]:
        """Those of the coarse spacing; none where it would show less than three levels."""
        spacing, why = rules.fast_spacing(full, self.thicknesses_mm)
        if spacing == full:
            self._note(FAST, "none", f"no coarser than {FULLRES} ({why})")
            return []
        noted = len(self.rationale)
        planned = self._at_spacing(FAST, spacing, why)
        shape = self._median_shape(spacing)
        if all(rules.holds(one.patch_size, rules.THREE_LEVELS_MM, spacing, shape) for one in planned):
            return planned
        if self.overrides.patch_size:
            return planned
        del self.rationale[noted:]
        reason = (
            f"{rules.FAST_VOXELS} voxels would show less than three levels at {_readable(spacing)} mm ({why})"
        )
        self._note(FAST, "none", reason)
        return []

    def _lowres(self, full: Vector3, fast: list[Configuration], patch: Shape3) -> list[list[Configuration]]:
        size = self.median_size_mm
        low, why = rules.lowres_spacing(full, size)
        known = fast[0].spacing_mm if fast else None
        reason = rules.why_no_lowres(full, low, known, size, prod(patch))
        if reason is None:
            return [self._at_spacing(LOWRES, low, why)]
        self._note(LOWRES, "none", reason)
        return []

    def _median_shape(self, spacing: Vector3) -> Shape3:
        return rules.median_shape([case.size_mm for case in self.fingerprint.cases], spacing)

    def _at_spacing(self, cases: str, spacing: Vector3, why: str) -> list[Configuration]:
        self._warn_of_lost_classes(cases, spacing)
        return [self._configuration(cases, spacing, why, wish) for wish in self.overrides.wishes]

    @staticmethod
    def _advice(cases: str, thinnest_mm: float) -> str:
        """What would keep a class: for `fullres` the user decides."""
        enough = floor(100 * thinnest_mm) / 100
        return f"--spacing of at most {enough:g} mm keeps them" if cases == FULLRES else "fullres is finer"

    def _warn_of_lost_classes(self, cases: str, spacing: Vector3) -> None:
        known = {c.name: c.thickness_mm for c in self.fingerprint.classes if c.thickness_mm is not None}
        lost = rules.lost_classes(known, spacing)
        if lost:
            listed = ", ".join(f"{name} ({mm:.2f} mm)" for name, mm in lost.items())
            reason = f"thinner than a voxel: {listed}; {self._advice(cases, min(lost.values()))}"
            self._note(f"{cases} loses", f"{len(lost)} classes", reason)
            logger.warning("%s at %s mm: %s", cases, _readable(spacing), reason)

    def _configuration(self, cases: str, spacing: Vector3, why: str, wish: Wish) -> Configuration:
        name = f"{cases}{wish.suffix}"
        self._note(f"{name}.spacing_mm", spacing, why)
        shape = self._median_shape(spacing)
        designed = design(wish, self._facts(cases, spacing, shape))
        size, network = self._size_and_network(cases, name, spacing, shape, designed)
        if wish.checkpointing and not isinstance(network, ExternalPlan):
            self._note(f"{name}.checkpointing", "on", "wished for: less memory, more time")
        memory = self._memory(network, size, spacing)
        share = f"{memory.total / self.budget.memory_bytes:.0%} of the budget"
        self._note(f"{name}.memory", f"{memory.total / GIB:.2f} GiB", f"{share}: {_parts(memory)}")
        self._note_inference(name, network, size, spacing)
        return Configuration(
            name=name,
            cases=cases,
            spacing_mm=spacing,
            patch_size=size.patch,
            network=network,
            training=self._training(name, size, shape),
            augmentation=self._augmentation(name),
            memory_bytes=memory.total,
        )

    def _size_and_network(
        self, cases: str, name: str, spacing: Vector3, shape: Shape3, designed: Design[Any]
    ) -> tuple[Size, NetworkPlan]:
        """The highest rung of the ladder that fits, and its network."""
        rungs = self._ladder(cases, spacing, shape, designed)

        def needs(size: Size) -> int:
            return self._memory(designed.network(size.width, size.patch), size, spacing).total

        halving = not has_closed_form(designed.network(rungs[0].width, rungs[0].patch))
        best = rules.highest_rung(
            rungs, lambda size: needs(size) <= self.budget.memory_bytes, halving=halving
        )
        if best is None:
            least = ceil(100 * needs(rungs[0]) / GIB) / 100
            patch, mend = "the smallest patch", "give more with --memory"
            if self.overrides.patch_size:
                patch = f"--patch {_readable(self.overrides.patch_size)}"
                mend = "give a smaller one, or more with --memory"
            raise PlanError(
                f"expected a memory budget of at least {least:.2f} GiB for {patch} of "
                f"configuration {name!r}, found {self.budget.memory_bytes / GIB:.2f} GiB; {mend}"
            )
        size = rungs[best]
        network: NetworkPlan = designed.network(size.width, size.patch)
        self._note(f"{name}.patch_size", size.patch, self._why_patch(cases, rungs, best, shape, needs))
        wide = "set by the user" if self.overrides.feature_size else designed.width_reason()
        for what, value, reason in designed.notes(network, wide):
            self._note(f"{name}.{what}", value, reason)
        return size, network

    def _ladder(self, cases: str, spacing: Vector3, shape: Shape3, designed: Design[Any]) -> list[Size]:
        device, wanted = self._device(cases), self.overrides.feature_size
        path = self._path(cases, spacing, shape, designed)
        voxels = sum(prod(case.size_mm) for case in self.fingerprint.cases) / prod(spacing)
        climbs = [
            (partial(rules.holds, extent_mm=extent, spacing_mm=spacing, shape=shape), wanted or width)
            for extent, width in device.climbs
        ]
        return rules.ladder(
            path,
            climbs,
            widths=(wanted,)
            if wanted
            else rules.widths_within(designed.widths, device.climbs[-1][1], int(voxels)),
            batches=rules.batches_within(device.batches, path[-1], int(voxels)),
        )

    def _path(self, cases: str, spacing: Vector3, shape: Shape3, designed: Design[Any]) -> list[Shape3]:
        """The patches in the order of growth; the one that the user has set."""
        wanted = self.overrides.patch_size
        if wanted is None:
            path = rules.patch_path(spacing, shape, designed.divisor, designed.smallest)
            quick = [patch for patch in path if prod(patch) <= rules.FAST_VOXELS]
            return (quick or path[:1]) if cases == FAST else path
        network = designed.network(designed.widths[0], wanted)
        if any(n % d for n, d in zip(wanted, network.divisor, strict=True)):
            nearest = [max(1, round(n / d)) * d for n, d in zip(wanted, network.divisor, strict=True)]
            raise PlanError(
                f"expected a patch divisible by {_readable(network.divisor)}, the strides of {network.name} "
                f"for {cases}, found --patch {_readable(wanted)}; the nearest is {_readable(nearest)}"
            )
        return [wanted]

    def _why_patch(self, cases: str, rungs: list[Size], best: int, shape: Shape3, needs: Needs) -> str:
        grown = f"grown towards the median case {_readable(shape)}"
        if self.overrides.patch_size:
            grown = "set by the user"
        if best + 1 < len(rungs):
            size, budget = rungs[best + 1], self.budget.memory_bytes / GIB
            step = f"{_readable(size.patch)}, {size.width} channels, batch {size.batch}"
            return f"{grown}; the next step ({step}) needs {needs(size) / GIB:.2f} GiB of {budget:.2f}"
        covered = all(n >= (1 - rules.SPARE) * m for n, m in zip(rungs[best].patch, shape, strict=True))
        if self.overrides.patch_size or not covered:
            return grown if cases != FAST else f"{grown}; a larger one would not be fast"
        return f"{grown}, which is covered"

    def _facts(self, cases: str, spacing: Vector3, shape: Shape3) -> Facts:
        return Facts(
            spacing_mm=spacing,
            shape=shape,
            patch_size=self.overrides.patch_size,
            thicknesses_mm=self.thicknesses_mm,
            in_channels=len(self.dataset.channels),
            out_channels=self.dataset.labels.n_channels,
            device=self._device(cases),
        )

    def _memory(self, network: NetworkPlan, size: Size, spacing: Vector3) -> TrainingMemory:
        key = f"{network} {size} {spacing}"
        if key not in self.known:
            self.known[key] = training_memory(
                network,
                size.patch,
                batch_size=size.batch,
                precision=self.budget.precision,
                in_channels=len(self.dataset.channels),
                out_channels=self.dataset.labels.n_channels,
                spacing_mm=spacing,
                gpu=self.budget.gpu,
                factor=self.budget.calibration,
            )
        return self.known[key]

    def _note_inference(self, name: str, network: NetworkPlan, size: Size, spacing: Vector3) -> None:
        """Of the largest case; more than the budget is said aloud."""
        largest = max(self.fingerprint.cases, key=lambda case: prod(case.size_mm))
        predicted = inference_memory(
            network,
            size.patch,
            shape=rules.median_shape([largest.size_mm], spacing),
            precision=self.budget.precision,
            in_channels=len(self.dataset.channels),
            out_channels=self.dataset.labels.n_channels,
            spacing_mm=spacing,
            networks=FOLDS,
            gpu=self.budget.gpu,
            factor=self.budget.calibration,
        )
        gib = predicted.total / GIB
        reason = f"estimated for the largest case, {largest.name}, and {FOLDS} folds: {_parts(predicted)}"
        if predicted.total > self.budget.memory_bytes:
            reason += "; more than the budget for training"
            logger.warning("%s: the prediction of %s would take about %.1f GiB", name, largest.name, gib)
        self._note(f"{name}.inference", f"{gib:.2f} GiB", reason)

    def _training(self, name: str, size: Size, shape: Shape3) -> TrainingPlan:
        device = self._trainer
        lambda_ce, why_lambda = rules.lambda_ce([facts.volume_ml for facts in self.fingerprint.classes])
        oversampling, why_oversampling = rules.oversampling(size.patch, shape)
        plan = TrainingPlan(
            epochs=device.epochs,
            iterations_per_epoch=device.iterations_per_epoch,
            batch_size=size.batch,
            learning_rate=device.learning_rate,
            weight_decay=0.05,
            warmup_fraction=0.05,
            gradient_clip=1.0,
            ema_decay=0.999,
            lambda_ce=lambda_ce,
            oversample_foreground_fraction=oversampling,
            precision=self.budget.precision,
        )
        for what, value, reason in (
            ("batch_size", size.batch, self._why_batch(size)),
            (
                "training",
                f"{plan.epochs} epochs of {plan.iterations_per_epoch} steps",
                "the device's default; --max-minutes fits the schedule to a time",
            ),
            (
                "learning_rate",
                plan.learning_rate,
                "AdamW, relative to each tensor's size; higher where time is short",
            ),
            ("lambda_ce", lambda_ce, why_lambda),
            ("oversampling", oversampling, why_oversampling),
            ("precision", plan.precision, "the number format that pays on this device"),
            ("weight_decay", plan.weight_decay, "nnU-Net's for transformers; on matrices and kernels only"),
            ("warmup_fraction", plan.warmup_fraction, "nnU-Net's for transformers"),
            ("gradient_clip", plan.gradient_clip, "nnU-Net's for transformers"),
            ("ema_decay", plan.ema_decay, "a running average over about a thousand steps"),
        ):
            self._note(f"{name}.{what}", value, reason)
        return plan

    def _why_batch(self, size: Size) -> str:
        if not self.budget.gpu:
            return "on a CPU more steps in the same time are worth more"
        if size.batch == 1:
            return "as much as fits, or as a CPU would take"
        if size.batch == 2:
            return (
                "nnU-Net's least; more only once the case is covered and a batch is a small part of the data"
            )
        return "the case is covered, and a batch is a small part of the data"

    def _augmentation(self, name: str) -> Augmentation:
        axes, pairs, reason = rules.mirroring(self.dataset.labels)
        self._note(f"{name}.mirror_axes", "".join("SPL"[axis] for axis in axes) or "none", reason)
        plan = Augmentation(
            rotation_deg=(10.0, 10.0, 15.0),
            scale=(0.85, 1.18),
            elastic_mm=2.0,
            spatial_probability=self._trainer.spatial_probability,
            intensity_probability=0.15,
            mirror_axes=axes,
            mirror_pairs=pairs,
        )
        for what, value, why in (
            ("rotation_deg", plan.rotation_deg, "how patients lie; most about the L axis, where spines bend"),
            ("scale", plan.scale, "from small to tall adults"),
            ("elastic_mm", plan.elastic_mm, "less than the thinnest parts of a vertebra"),
            ("spatial_probability", plan.spatial_probability, "the device's: short trainings change fewer"),
            ("intensity_probability", plan.intensity_probability, "about nnU-Net's, for each change"),
        ):
            self._note(f"{name}.{what}", value, why)
        return plan


def _parts(memory: TrainingMemory | InferenceMemory) -> str:
    """The parts of an estimate, the largest first."""
    parts = {field.name: getattr(memory, field.name) / GIB for field in fields(memory)}
    listed = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {gib:.2f}" for name, gib in listed if gib >= 0.005)


def _readable(value: object) -> str:
    """Triples as 1x2x3, lists of triples separated by commas."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        joint = "x" if all(isinstance(item, int | float) for item in value) else ", "
        return joint.join(_readable(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
