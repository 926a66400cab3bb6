"""The size search: the largest patch, width and batch size that fit the memory budget."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, prod
from typing import Any

import numpy as np

from autospine.core.defaults import DEFAULT_LOSS
from autospine.core.errors import PlanError
from autospine.core.geometry import triple
from autospine.core.types import Shape3, Vector3
from autospine.dataset.raw import Dataset
from autospine.fingerprint import Fingerprint
from autospine.inference.case_memory import case_memory
from autospine.inference.tiles import TileGrid
from autospine.memory.estimate import (
    InferenceMemory,
    TrainingMemory,
    has_closed_form,
    inference_memory,
    training_memory,
)
from autospine.network.network_plan import NetworkPlan
from autospine.plan import AnyNetworkPlan, Precision
from autospine.storage.trained_models import FOLDS
from autospine.system.hardware import GIB
from autospine.vertebrae.dataset_levels import level_integers
from planners import rules
from planners.networks import NetworkPlanner, NetworkRequest, PlanningContext, network_planner
from planners.overrides import Overrides
from planners.rationale import readable
from planners.rules import StepSize

FULLRES, LOWRES, FAST = "fullres", "lowres", "fast"
"""Names of the configurations, by their spacing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Memory and device that a plan is made for."""

    memory_bytes: int
    """GPU memory, or the share of RAM that training may take."""

    gpu: bool
    """Whether training runs on a GPU."""

    precision: Precision
    """Number format of activations, the fastest that the device multiplies natively."""

    reason: str
    """Where the memory figure comes from."""

    gpu_name: str = ""
    """Name of the GPU as CUDA reports it; empty for one of another machine, and without one."""

    calibration: float = 1.0
    """Factor on the memory estimate that `planners.calibration_factor` has measured on this device."""


class MemoryBudgetError(PlanError):
    """Error of a configuration whose smallest training step exceeds the memory budget.

    Args:
        message: Text for the user.
        least: Bytes that would be enough.
    """

    def __init__(self, message: str, least: int) -> None:
        super().__init__(message)
        self.least = least


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """The candidates of a network, and the largest of them that fits the budget."""

    planner: NetworkPlanner[Any]
    candidates: list[StepSize]
    """Sizes that were tried, each larger than the one before."""

    best: int | None
    """Index of the largest candidate that fits; None if none does."""

    bytes_needed: Callable[[StepSize], int]
    """Estimated bytes of a training step of a size."""

    @property
    def size(self) -> StepSize:
        """The largest candidate that fits."""
        assert self.best is not None, "choose has refused it"
        return self.candidates[self.best]

    @property
    def network(self) -> AnyNetworkPlan:
        """The plan of the network of that size."""
        network: AnyNetworkPlan = self.planner.network(self.size.width, self.size.patch)
        return network


@dataclass(slots=True)
class SizeSearch:
    """Chooses the sizes for a dataset, a budget and the user's overrides."""

    dataset: Dataset
    fingerprint: Fingerprint
    budget: Budget
    overrides: Overrides
    _estimates: dict[str, TrainingMemory] = field(default_factory=dict)
    """Estimates by network and size; those of traced networks take a second."""

    @property
    def trainer(self) -> rules.Device:
        """Rules for the device that training runs on."""
        return rules.GPU() if self.budget.gpu else rules.CPU()

    def device(self, cases: str) -> rules.Device:
        """Return the rules for a configuration's sizes.

        `fast` is made for a CPU wherever it is planned; a patch of `lowres` shall span the spine.
        """
        device = rules.CPU() if cases == FAST else self.trainer
        if cases == LOWRES:
            goals = tuple((max(extent, self.spine_mm), width) for extent, width in device.goals)
            return device._replace(goals=goals)
        return rules.for_levels(device) if self.names_levels else device

    @property
    def names_levels(self) -> bool:
        """Whether the classes are vertebra levels."""
        return bool(level_integers(self.dataset.labels))

    @property
    def thicknesses_mm(self) -> list[float]:
        """Thickness of each class that occurs."""
        return [c.thickness_mm for c in self.fingerprint.classes if c.thickness_mm is not None]

    @property
    def median_size_mm(self) -> Vector3:
        """Field of view (S, P, L) of the median case."""
        s, p, left = np.median([case.size_mm for case in self.fingerprint.cases], axis=0).tolist()
        return s, p, left

    @property
    def spine_mm(self) -> float:
        """Extent along S of the median case's structures."""
        known = [case.spine_mm for case in self.fingerprint.cases if case.spine_mm > 0]
        return float(np.median(known)) if known else self.median_size_mm[0]

    def dataset_voxels(self, spacing_mm: Vector3) -> int:
        """Return the voxels of all cases at a spacing."""
        return int(sum(prod(case.size_mm) for case in self.fingerprint.cases) / prod(spacing_mm))

    def median_shape(self, spacing_mm: Vector3) -> Shape3:
        """Return the voxels (S, P, L) of the median case at a spacing."""
        return rules.median_shape([case.size_mm for case in self.fingerprint.cases], spacing_mm)

    def choose(
        self, cases: str, name: str, spacing_mm: Vector3, request: NetworkRequest
    ) -> tuple[SearchResult, str]:
        """Return the result of the search for a configuration, and the reason for or against checkpointing.

        Args:
            cases: Which of the spacings it is for: `fullres`, `lowres` or `fast`.
            name: Name of the configuration, for messages.
            spacing_mm: Target spacing (S, P, L).
            request: Network to plan for.

        Raises:
            MemoryBudgetError: If not even the first candidate fits.
            PlanError: If the user's patch is against the rules.
        """
        shape = self.median_shape(spacing_mm)
        result, reason = self._search(cases, spacing_mm, shape, request), "set by the user"
        if not request.checkpointing:
            result, reason = self._with_checkpointing_if_needed(result, cases, spacing_mm, shape, request)
        if result.best is None:
            least = result.bytes_needed(result.candidates[0])
            enough = ceil(100 * least / GIB) / 100
            patch, mend = "the smallest patch", "give more with --memory"
            if self.overrides.patch_size:
                patch = f"--patch {readable(self.overrides.patch_size)}"
                mend = "give a smaller one, or more with --memory"
            raise MemoryBudgetError(
                f"expected a memory budget of at least {enough:.2f} GiB for {patch} of "
                f"configuration {name!r}, found {self.budget.memory_bytes / GIB:.2f} GiB; {mend}",
                least,
            )
        return result, reason

    def training(self, network: NetworkPlan, size: StepSize, spacing_mm: Vector3) -> TrainingMemory:
        """Return the estimated memory of a training step."""
        key = f"{network} {size} {spacing_mm}"
        if key not in self._estimates:
            self._estimates[key] = training_memory(
                network,
                size.patch,
                batch_size=size.batch,
                precision=self.budget.precision,
                in_channels=len(self.dataset.channels),
                out_channels=self.dataset.labels.n_channels,
                spacing_mm=spacing_mm,
                gpu=self.budget.gpu,
                factor=self.budget.calibration,
                other_loss=self.overrides.loss != DEFAULT_LOSS,
            )
        return self._estimates[key]

    def inference(
        self, network: NetworkPlan, size: StepSize, spacing_mm: Vector3
    ) -> tuple[str, InferenceMemory]:
        """Return the name of the largest case, and the estimated memory of its prediction by all folds."""
        largest = max(self.fingerprint.cases, key=lambda case: prod(case.size_mm))
        shape = rules.median_shape([largest.size_mm], spacing_mm)
        channels, labels = len(self.dataset.channels), self.dataset.labels
        return largest.name, inference_memory(
            network,
            size.patch,
            case=case_memory(TileGrid.covering(shape, size.patch), largest.shape, channels, labels),
            precision=self.budget.precision,
            in_channels=channels,
            out_channels=labels.n_channels,
            spacing_mm=spacing_mm,
            networks=FOLDS,
            gpu=self.budget.gpu,
            factor=self.budget.calibration,
        )

    def _search(
        self, cases: str, spacing_mm: Vector3, shape: Shape3, request: NetworkRequest
    ) -> SearchResult:
        planner = network_planner(request, self._context(cases, spacing_mm, shape))
        candidates = self._candidates(cases, spacing_mm, shape, planner)

        def bytes_needed(size: StepSize) -> int:
            return self.training(planner.network(size.width, size.patch), size, spacing_mm).total

        # A trace takes up to a second, so a traced network is not asked for every candidate.
        first = planner.network(candidates[0].width, candidates[0].patch)
        best = rules.largest_fitting(
            candidates,
            lambda size: bytes_needed(size) <= self.budget.memory_bytes,
            bisect=not has_closed_form(first),
        )
        return SearchResult(planner=planner, candidates=candidates, best=best, bytes_needed=bytes_needed)

    def _with_checkpointing_if_needed(
        self,
        plain: SearchResult,
        cases: str,
        spacing_mm: Vector3,
        shape: Shape3,
        request: NetworkRequest,
    ) -> tuple[SearchResult, str]:
        """Return the result with checkpointing where only that reaches the first goal, or comes nearer to it.

        With checkpointing the search goes no further than that goal: otherwise a larger budget, which reaches
        the goal without it, could give a smaller step.
        """
        device = self.device(cases)
        if isinstance(device, rules.CPU):
            return plain, "on a CPU time is scarcer than memory"
        extent, _ = device.goals[0]
        goal = next(
            (
                i
                for i, size in enumerate(plain.candidates)
                if rules.holds(size.patch, extent, spacing_mm, shape) and size.batch >= device.batches[1]
            ),
            len(plain.candidates) - 1,
        )
        if plain.best is not None and plain.best >= goal:
            return plain, "not needed"
        saving = self._search(cases, spacing_mm, shape, replace(request, checkpointing=True))
        reached = -1 if saving.best is None else min(saving.best, goal)
        if reached <= (-1 if plain.best is None else plain.best):
            return plain, "would not give a larger step"
        reason = f"without it, two patches of {extent:g} mm along S do not fit"
        return replace(saving, best=reached), reason

    def _candidates(
        self, cases: str, spacing_mm: Vector3, shape: Shape3, planner: NetworkPlanner[Any]
    ) -> list[StepSize]:
        """Return the sizes to try, by the rules for the device or as the user has set them."""
        device, width_set = self.device(cases), self.overrides.feature_size
        patches = self._patches(cases, spacing_mm, shape, planner)
        voxels = self.dataset_voxels(spacing_mm)
        goals = [
            (partial(rules.holds, extent_mm=extent, spacing_mm=spacing_mm, shape=shape), width_set or width)
            for extent, width in device.goals
        ]
        widths = rules.widths_within(planner.widths, device.goals[-1][1], voxels)
        return rules.candidate_sizes(
            patches,
            goals,
            widths=(width_set,) if width_set else widths,
            batches=rules.batches_within(device.batches, patches[-1], voxels),
        )

    def _patches(
        self, cases: str, spacing_mm: Vector3, shape: Shape3, planner: NetworkPlanner[Any]
    ) -> list[Shape3]:
        """Return the patch sizes in the order of growth, or only the one that the user has set."""
        patch = self.overrides.patch_size
        if patch is None:
            # A network that would rather begin with a larger patch does not pad a short axis for it.
            smallest = triple(min(n, m) for n, m in zip(planner.smallest, shape, strict=True))
            along_mm = rules.REGION_MM if self.names_levels else 0.0
            patches = rules.patch_path(spacing_mm, shape, planner.divisor, smallest, along_mm)
            most = rules.FAST_VOXELS if cases == FAST else self.device(cases).patch_voxels
            return [each for each in patches if prod(each) <= most] or patches[:1]
        network = planner.network(planner.widths[0], patch)
        if any(n % d for n, d in zip(patch, network.divisor, strict=True)):
            nearest = [max(1, round(n / d)) * d for n, d in zip(patch, network.divisor, strict=True)]
            raise PlanError(
                f"expected a patch divisible by {readable(network.divisor)}, the strides of {network.name} "
                f"for {cases}, found --patch {readable(patch)}; the nearest is {readable(nearest)}"
            )
        return [patch]

    def _context(self, cases: str, spacing_mm: Vector3, shape: Shape3) -> PlanningContext:
        return PlanningContext(
            spacing_mm=spacing_mm,
            shape=shape,
            patch_size=self.overrides.patch_size,
            thicknesses_mm=self.thicknesses_mm,
            in_channels=len(self.dataset.channels),
            out_channels=self.dataset.labels.n_channels,
            device=self.device(cases),
        )
