"""Fingerprint and memory budget in, plan out."""

from dataclasses import dataclass, field, fields
from math import floor

from autospine.core.defaults import DEFAULT_LOSS
from autospine.core.types import Shape3, Vector3
from autospine.core.units import GIB
from autospine.dataset.raw import Dataset
from autospine.dataset.splits import FOLDS
from autospine.fingerprint import Fingerprint
from autospine.memory.estimate import InferenceMemory, TrainingMemory
from autospine.network.external_plan import ExternalPlan
from autospine.network.network_plan import NetworkPlan
from autospine.plan import (
    FORMAT_VERSION,
    Augmentation,
    Configuration,
    Decision,
    Plan,
    TrainingPlan,
)
from autospine.system.log import get_logger
from planners import rules
from planners.networks import Wish
from planners.overrides import Overrides
from planners.rules import Size
from planners.sizing import FAST, FULLRES, LOWRES, Budget, Climb, MemoryBudgetError, Sizing, readable

logger = get_logger(__name__)


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
        PlanError: if no patch of any configuration fits the budget, or an override contradicts the rules.
    """
    wishes = overrides or Overrides()
    sizing = Sizing(dataset, fingerprint, budget, wishes)
    return _Planning(dataset, fingerprint, budget, wishes, sizing).plan()


@dataclass(slots=True)
class _Planning:
    """One run of the planner: the facts, and the reasons as they accrue."""

    dataset: Dataset
    fingerprint: Fingerprint
    budget: Budget
    overrides: Overrides
    sizing: Sizing
    rationale: list[Decision] = field(default_factory=list)
    too_large: list[MemoryBudgetError] = field(default_factory=list)
    """The configurations that do not fit."""

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

    def _note(self, name: str, value: object, reason: str) -> None:
        self.rationale.append(Decision(name=name, value=readable(value), reason=reason))

    def _configurations(self) -> list[list[Configuration]]:
        """Those of each spacing, in the order of recommendation; what does not fit is left out."""
        full, why = rules.target_spacing([case.spacing_mm for case in self.fingerprint.cases])
        if self.overrides.spacing_mm:
            full, why = self.overrides.spacing_mm, "set by the user"
        fullres = self._at_spacing(FULLRES, full, why)
        fast = self._fast(full)
        lowres = self._lowres(full, fullres)
        ordered = [fullres, lowres, fast] if self.budget.gpu else [fast, lowres, fullres]
        ordered = ordered if fast else [fullres, lowres]
        if not any(ordered):
            raise min(self.too_large, key=lambda error: error.least)
        for error in self.too_large:
            logger.warning("%s", error)
        self._note("configuration 0", *self._recommended(fullres, fast))
        return ordered

    def _recommended(self, fullres: list[Configuration], fast: list[Configuration]) -> tuple[str, str]:
        """The spacing that comes first, and why."""
        if not fullres:
            return FAST if fast else LOWRES, f"there is no {FULLRES}"
        if not fast:
            return FULLRES, f"there is no {FAST}"
        if self.budget.gpu:
            return FULLRES, "a GPU trains at full resolution in reasonable time"
        return FAST, "without a GPU time is scarcest"

    def _fast(self, full: Vector3) -> list[Configuration]:
        """Those of the coarse spacing; none where it would show less than three levels."""
        spacing, why = rules.fast_spacing(full, self.sizing.thicknesses_mm)
        if spacing == full:
            self._note(FAST, "none", f"no coarser than {FULLRES} ({why})")
            return []
        noted = len(self.rationale)
        planned = self._at_spacing(FAST, spacing, why)
        shape = self.sizing.median_shape(spacing)
        if all(rules.holds(one.patch_size, rules.THREE_LEVELS_MM, spacing, shape) for one in planned):
            return planned
        if self.overrides.patch_size:
            return planned
        del self.rationale[noted:]
        reason = (
            f"{rules.FAST_VOXELS} voxels would show less than three levels at {readable(spacing)} mm ({why})"
        )
        self._note(FAST, "none", reason)
        return []

    def _lowres(self, full: Vector3, fullres: list[Configuration]) -> list[Configuration]:
        size, spine = self.sizing.median_size_mm, self.sizing.spine_mm
        low, why = rules.lowres_spacing(full, size, spine)
        patch_mm = fullres[0].patch_size[0] * full[0] if fullres else None
        reason = rules.why_no_lowres(full, low, size, spine, patch_mm)
        if reason is None:
            return self._at_spacing(LOWRES, low, why)
        self._note(LOWRES, "none", reason)
        return []

    def _at_spacing(self, cases: str, spacing: Vector3, why: str) -> list[Configuration]:
        self._warn_of_lost_classes(cases, spacing)
        planned = []
        for wish in self.overrides.wishes:
            noted = len(self.rationale)
            try:
                planned.append(self._configuration(cases, spacing, why, wish))
            except MemoryBudgetError as error:
                del self.rationale[noted:]
                self._note(f"{cases}{wish.suffix}", "none", str(error))
                self.too_large.append(error)
        return planned

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
            logger.warning("%s at %s mm: %s", cases, readable(spacing), reason)

    def _configuration(self, cases: str, spacing: Vector3, why: str, wish: Wish) -> Configuration:
        name = f"{cases}{wish.suffix}"
        self._note(f"{name}.spacing_mm", spacing, why)
        climb, saved = self.sizing.choose(cases, name, spacing, wish)
        size, network = climb.size, climb.network
        shape = self.sizing.median_shape(spacing)
        self._note(f"{name}.patch_size", size.patch, self._why_patch(cases, climb, shape))
        wide = "set by the user" if self.overrides.feature_size else climb.designed.width_reason()
        for what, value, reason in climb.designed.notes(network, wide):
            self._note(f"{name}.{what}", value, reason)
        if not isinstance(network, ExternalPlan):
            self._note(f"{name}.checkpointing", "on" if network.checkpointing else "off", saved)
        memory = self.sizing.memory(network, size, spacing)
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

    def _why_patch(self, cases: str, climb: Climb, shape: Shape3) -> str:
        size = climb.size
        above = climb.rungs[climb.rungs.index(size) + 1 :]
        grown = f"grown towards the median case {readable(shape)}"
        if self.overrides.patch_size:
            grown = "set by the user"
        if above:
            larger, budget = above[0], self.budget.memory_bytes / GIB
            step = f"{readable(larger.patch)}, {larger.width} channels, batch {larger.batch}"
            needed = climb.needs(larger)
            if needed <= self.budget.memory_bytes:
                return f"{grown}; as far as checkpointing is worth its time"
            return f"{grown}; the next step ({step}) needs {needed / GIB:.2f} GiB of {budget:.2f}"
        covered = all(n >= (1 - rules.SPARE) * m for n, m in zip(size.patch, shape, strict=True))
        if self.overrides.patch_size or not covered:
            return grown if cases != FAST else f"{grown}; a larger one would not be fast"
        return f"{grown}, which is covered"

    def _note_inference(self, name: str, network: NetworkPlan, size: Size, spacing: Vector3) -> None:
        """Of the largest case; more than the budget is said aloud."""
        case, predicted = self.sizing.inference(network, size, spacing)
        gib = predicted.total / GIB
        reason = f"estimated for the largest case, {case}, and {FOLDS} folds: {_parts(predicted)}"
        if predicted.total > self.budget.memory_bytes:
            reason += "; more than the budget for training"
            logger.warning("%s: the prediction of %s would take about %.1f GiB", name, case, gib)
        self._note(f"{name}.inference", f"{gib:.2f} GiB", reason)

    def _training(self, name: str, size: Size, shape: Shape3) -> TrainingPlan:
        device = self.sizing.trainer
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
            loss=self.overrides.loss,
            loss_settings=self.overrides.loss_settings,
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
        if plan.loss != DEFAULT_LOSS:
            self._note(f"{name}.loss", plan.loss, "set by the user")
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
        artefacts, why = rules.artefacts({case.modality for case in self.fingerprint.cases})
        self._note(f"{name}.artefacts", why, "the modalities of the dataset")
        plan = Augmentation(
            rotation_deg=(10.0, 10.0, 15.0),
            scale=(0.85, 1.18),
            elastic_mm=2.0,
            spatial_probability=self.sizing.trainer.spatial_probability,
            intensity_probability=0.15,
            mirror_axes=axes,
            mirror_pairs=pairs,
            **artefacts,
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
