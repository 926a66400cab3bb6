"""How large a step the memory bears: the highest rung of the ladder that fits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, prod
from typing import Any

import numpy as np

from autospine.core.errors import PlanError
from autospine.core.types import Shape3, Vector3
from autospine.core.units import GIB
from autospine.dataset.raw import Dataset
from autospine.dataset.splits import FOLDS
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
from planners import rules
from planners.networks import Design, Facts, Wish, design
from planners.overrides import Overrides
from planners.rules import Size

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
    """The factor that `planners.calibration_factor` has measured on this device."""


class MemoryBudgetError(PlanError):
    """Not even the smallest step fits.

    Args:
        message: for the user.
        least: bytes that would do.
    """

    def __init__(self, message: str, least: int) -> None:
        super().__init__(message)
        self.least = least


Needs = Callable[[Size], int]
"""Bytes that a size needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Climb:
    """How far up its ladder a network gets."""

    designed: Design[Any]
    rungs: list[Size]
    best: int | None
    """Index of the highest rung that fits; None if none does."""

    needs: Needs

    @property
    def size(self) -> Size:
        """The highest rung that fits."""
        assert self.best is not None, "choose has refused it"
        return self.rungs[self.best]

    @property
    def network(self) -> AnyNetworkPlan:
        """Of that size."""
        network: AnyNetworkPlan = self.designed.network(self.size.width, self.size.patch)
        return network


@dataclass(slots=True)
class Sizing:
    """Chooses sizes for a dataset, a budget and the user's wishes."""

    dataset: Dataset
    fingerprint: Fingerprint
    budget: Budget
    overrides: Overrides
    _known: dict[str, TrainingMemory] = field(default_factory=dict)
    """Estimates by network and size; those of traced networks take a second."""

    @property
    def trainer(self) -> rules.Device:
        """The device that training runs on."""
        return rules.GPU() if self.budget.gpu else rules.CPU()

    def device(self, cases: str) -> rules.Device:
        """What the sizes are for: `fast` suits a CPU, wherever it is planned; `lowres` spans the spine."""
        if cases == FAST:
            return rules.CPU()
        if cases == LOWRES:
            climbs = tuple((max(extent, self.spine_mm), width) for extent, width in self.trainer.climbs)
            return self.trainer._replace(climbs=climbs)
        return self.trainer

    @property
    def thicknesses_mm(self) -> list[float]:
        """Of the classes that occur."""
        return [c.thickness_mm for c in self.fingerprint.classes if c.thickness_mm is not None]

    @property
    def median_size_mm(self) -> Vector3:
        """Field of view of the median case."""
        s, p, left = np.median([case.size_mm for case in self.fingerprint.cases], axis=0).tolist()
        return s, p, left

    @property
    def spine_mm(self) -> float:
        """Extent of the median case's structures along S."""
        known = [case.spine_mm for case in self.fingerprint.cases if case.spine_mm > 0]
        return float(np.median(known)) if known else self.median_size_mm[0]

    def median_shape(self, spacing: Vector3) -> Shape3:
        """Voxels of the median case at a spacing."""
        return rules.median_shape([case.size_mm for case in self.fingerprint.cases], spacing)

    def choose(self, cases: str, name: str, spacing: Vector3, wish: Wish) -> tuple[Climb, str]:
        """The climb of a configuration, and why it checkpoints or not.

        Args:
            cases: which of the spacings it is for.
            name: of the configuration, for messages.
            spacing: in mm.
            wish: the network.

        Raises:
            MemoryBudgetError: if not even the first rung fits.
            PlanError: if the user's patch is against the rules.
        """
        shape = self.median_shape(spacing)
        climb, saved = self._climb(cases, spacing, shape, wish), "set by the user"
        if not wish.checkpointing:
            climb, saved = self._with_checkpointing_if_needed(climb, cases, spacing, shape, wish)
        if climb.best is None:
            least = climb.needs(climb.rungs[0])
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
        return climb, saved

    def inference(self, network: NetworkPlan, size: Size, spacing: Vector3) -> tuple[str, InferenceMemory]:
        """Name of the largest case, and what its prediction by all folds takes."""
        largest = max(self.fingerprint.cases, key=lambda case: prod(case.size_mm))
        shape = rules.median_shape([largest.size_mm], spacing)
        channels, labels = len(self.dataset.channels), self.dataset.labels
        return largest.name, inference_memory(
            network,
            size.patch,
            case=case_memory(TileGrid.covering(shape, size.patch), largest.shape, channels, labels),
            precision=self.budget.precision,
            in_channels=channels,
            out_channels=labels.n_channels,
            spacing_mm=spacing,
            networks=FOLDS,
            gpu=self.budget.gpu,
            factor=self.budget.calibration,
        )

    def _climb(self, cases: str, spacing: Vector3, shape: Shape3, wish: Wish) -> Climb:
        designed = design(wish, self._facts(cases, spacing, shape))
        rungs = self._ladder(cases, spacing, shape, designed)

        def needs(size: Size) -> int:
            return self.memory(designed.network(size.width, size.patch), size, spacing).total

        halving = not has_closed_form(designed.network(rungs[0].width, rungs[0].patch))
        best = rules.highest_rung(
            rungs, lambda size: needs(size) <= self.budget.memory_bytes, halving=halving
        )
        return Climb(designed=designed, rungs=rungs, best=best, needs=needs)

    def _with_checkpointing_if_needed(
        self, plain: Climb, cases: str, spacing: Vector3, shape: Shape3, wish: Wish
    ) -> tuple[Climb, str]:
        """The climb with checkpointing where only that reaches the first climb's goal, or comes nearer to it.

        It goes no further than that goal, so that without it more memory is never less of a step.
        """
        device = self.device(cases)
        if isinstance(device, rules.CPU):
            return plain, "on a CPU time is scarcer than memory"
        extent, _ = device.climbs[0]
        goal = next(
            (
                i
                for i, size in enumerate(plain.rungs)
                if rules.holds(size.patch, extent, spacing, shape) and size.batch >= device.batches[1]
            ),
            len(plain.rungs) - 1,
        )
        if plain.best is not None and plain.best >= goal:
            return plain, "not needed"
        thrifty = self._climb(cases, spacing, shape, replace(wish, checkpointing=True))
        reached = -1 if thrifty.best is None else min(thrifty.best, goal)
        if reached <= (-1 if plain.best is None else plain.best):
            return plain, "would not give a larger step"
        reason = f"without it, two patches of {extent:g} mm along S do not fit"
        return replace(thrifty, best=reached), reason

    def _ladder(self, cases: str, spacing: Vector3, shape: Shape3, designed: Design[Any]) -> list[Size]:
        device, wanted = self.device(cases), self.overrides.feature_size
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
            # A network that would rather begin larger does not pad a short axis for it.
            s, p, left = (min(n, m) for n, m in zip(designed.smallest, shape, strict=True))
            path = rules.patch_path(spacing, shape, designed.divisor, (s, p, left))
            quick = [patch for patch in path if prod(patch) <= rules.FAST_VOXELS]
            return (quick or path[:1]) if cases == FAST else path
        network = designed.network(designed.widths[0], wanted)
        if any(n % d for n, d in zip(wanted, network.divisor, strict=True)):
            nearest = [max(1, round(n / d)) * d for n, d in zip(wanted, network.divisor, strict=True)]
            raise PlanError(
                f"expected a patch divisible by {readable(network.divisor)}, the strides of {network.name} "
                f"for {cases}, found --patch {readable(wanted)}; the nearest is {readable(nearest)}"
            )
        return [wanted]

    def _facts(self, cases: str, spacing: Vector3, shape: Shape3) -> Facts:
        return Facts(
            spacing_mm=spacing,
            shape=shape,
            patch_size=self.overrides.patch_size,
            thicknesses_mm=self.thicknesses_mm,
            in_channels=len(self.dataset.channels),
            out_channels=self.dataset.labels.n_channels,
            device=self.device(cases),
        )

    def memory(self, network: NetworkPlan, size: Size, spacing: Vector3) -> TrainingMemory:
        """What a training step takes."""
        key = f"{network} {size} {spacing}"
        if key not in self._known:
            self._known[key] = training_memory(
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
        return self._known[key]


def readable(value: object) -> str:
    """Triples as 1x2x3, lists of triples separated by commas."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        joint = "x" if all(isinstance(item, int | float) for item in value) else ", "
        return joint.join(readable(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
