"""The three failures that the paper names, each as a number with a threshold, and inert mechanisms.

docs/concepts/monitors.md explains the numbers and what to do about them.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
from torch import nn

from autospine.core.defaults import DEFAULT_LOSS
from autospine.core.types import Vector3
from autospine.network import AdaptiveSwinUNETR
from autospine.network.swin.swin_plan import SwinPlan
from autospine.plan import Configuration
from trainers.monitors.counts import PatchCounts, add

LOOK_EVERY = 5
"""Steps between two looks at a prediction."""

LOOKS = 40
"""Looks that the numbers are taken over; warnings wait until there are as many."""

LEAST_FOREGROUND = 0.1
"""Share of the true foreground's size below which the prediction has collapsed to background."""

MOST_FOREGROUND = 10.0
"""The same above which it floods the background."""

LARGEST_KERNEL_RATIO = 2.0
"""Effective kernel of the fusion over the thickness of the thinnest class."""

LEAST_DICE_RATIO = 0.5
"""Dice of the thinnest class over the mean of the others."""

LARGEST_BORDER_SHIFT = 0.5
"""Voxels by which the predicted border may lie outside the true one on average."""

LIMITS = {
    "foreground_ratio": LEAST_FOREGROUND,
    "border_shift": LARGEST_BORDER_SHIFT,
    "kernel_ratio": LARGEST_KERNEL_RATIO,
    "dice_ratio": LEAST_DICE_RATIO,
}
"""By the reading that each is a limit of."""

INERT = 0.01
"""Fusion weights that have moved less, and gammas that are smaller, change about 1 % of anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Readings:
    """The monitors' numbers at the end of an epoch; None where there is nothing to tell them from."""

    foreground_ratio: float | None = None
    """Predicted over true foreground voxels."""

    border_shift: float | None = None
    """Voxels by which the predicted foreground reaches over its border; negative where it falls short."""

    thinnest_class: str | None = None
    kernel_ratio: float | None = None
    """Effective kernel of the fusion over the thickness of the thinnest class."""

    dice_ratio: float | None = None
    """Dice of the thinnest class over the mean of the others."""


class Monitors:
    """Gathers counts step by step and judges them at the end of each epoch.

    Args:
        classes: names of the foreground classes.
        configuration: its spacing, network and recipe.
        said: warnings of an earlier run, which are not said again.
        state: what `state` gave in an earlier run.
        looks: `LOOKS`, or fewer.
    """

    def __init__(
        self,
        classes: Sequence[str],
        configuration: Configuration,
        *,
        said: Iterable[str] = (),
        state: Sequence[Sequence[int]] = (),
        looks: int = LOOKS,
    ) -> None:
        self._classes, self._configuration = classes, configuration
        seen = [PatchCounts.restored(numbers) for numbers in state]
        self._all: PatchCounts | None = seen[0] if seen else None
        self._recent: deque[PatchCounts] = deque(seen[1:], maxlen=looks)
        self._said = set(said)

    def state(self) -> list[list[int]]:
        """All that was seen: in total, then the last looks one by one."""
        return [] if self._all is None else [look.numbers() for look in (self._all, *self._recent)]

    def see(self, looks: Sequence[PatchCounts]) -> None:
        """Take in what was counted."""
        if looks:
            self._recent.extend(looks)
            self._all = add([*looks] if self._all is None else [self._all, *looks])

    def read(self, network: nn.Module) -> Readings:
        """The numbers over the last looks."""
        if self._all is None:
            return Readings()
        counts = add(self._recent)
        true, predicted = counts.foreground
        faces, over, under = counts.border
        thinnest, thickness_mm = thinnest_class(self._all, self._configuration.spacing_mm)
        if thinnest is None:
            return Readings()
        kernel_mm = effective_kernel_mm(network, self._configuration.spacing_mm)
        return Readings(
            foreground_ratio=_number(predicted / true) if true else None,
            border_shift=_number((over - under) / faces) if faces else None,
            thinnest_class=self._classes[thinnest],
            kernel_ratio=None if kernel_mm is None else _number(kernel_mm / thickness_mm),
            dice_ratio=_dice_ratio(counts.dice, thinnest),
        )

    def warnings(self, readings: Readings, network: nn.Module, progress: float) -> dict[str, str]:
        """What is wrong and was not said yet: kind -> sentence. At the end of training, what stayed inert.

        Args:
            readings: of this epoch.
            network: for the mechanisms' state.
            progress: of the training, in [0, 1].
        """
        found: list[tuple[str, str]] = []
        warm = progress > self._configuration.training.warmup_fraction
        if warm and len(self._recent) == self._recent.maxlen:
            found += self._failures(readings, network)
        if progress >= 1:
            found += self._inert(network)
        new = {kind: text for kind, text in found if kind not in self._said}
        self._said.update(new)
        return new

    def _failures(self, readings: Readings, network: nn.Module) -> Iterator[tuple[str, str]]:
        share = readings.foreground_ratio
        if share is not None and share < LEAST_FOREGROUND:
            yield (
                "collapse",
                f"the prediction collapses to background: expected at least {LEAST_FOREGROUND:.0%} of the "
                f"true foreground, found {share:.1%}; {self._balance_advice('lower', 'Dice')}",
            )
        if share is not None and share > MOST_FOREGROUND:
            yield (
                "flood",
                f"the prediction floods the background: expected at most {MOST_FOREGROUND:g} times the "
                f"true foreground, found {share:.0f}; {self._balance_advice('raise', 'cross-entropy')}",
            )
        shift = readings.border_shift
        if shift is not None and shift > LARGEST_BORDER_SHIFT:
            yield (
                "bleeding",
                f"edges bleed into the background: expected borders at most {LARGEST_BORDER_SHIFT:g} voxel "
                f"too far out on average, found {shift:.1f}; {self._attention_advice(network)}",
            )
        kernel, dice = readings.kernel_ratio, readings.dice_ratio
        if kernel is None or dice is None:
            return
        if kernel > LARGEST_KERNEL_RATIO and dice < LEAST_DICE_RATIO:
            yield (
                "small_structures",
                f"small structures are lost: expected a Dice of {readings.thinnest_class} of at least "
                f"{LEAST_DICE_RATIO:.0%} of the other classes', found {dice:.0%} while the fusion's kernels "
                f"are {kernel:.1f} times as wide as it is thick; plan with a finer --spacing or with "
                "--fusion-weighting off and compare",
            )

    def _balance_advice(self, change: str, part: str) -> str:
        """Say how to make a part of the loss count for more."""
        recipe = self._configuration.training
        if recipe.loss != DEFAULT_LOSS:
            return f"change training.loss_settings of the loss {recipe.loss}, or choose another, in plan.json"
        now = f"(now {recipe.lambda_ce:g})"
        return f"{change} training.lambda_ce {now} in plan.json so that {part} counts for more"

    def _attention_advice(self, network: nn.Module) -> str:
        gammas = stage_gammas(network)
        if max(gammas, default=0.0) < INERT:
            return "compare with --attention adaptive in all stages, or a lower training.lambda_ce"
        return "compare with --attention plain: gradients may not tell edges from noise here"

    def _inert(self, network: nn.Module) -> Iterator[tuple[str, str]]:
        if not isinstance(network, AdaptiveSwinUNETR):
            return
        fusion = self._fusion_moved(network)
        if fusion is not None and fusion < INERT:
            yield (
                "inert_fusion",
                f"the multi-scale fusion stayed inert: its weights moved by at most {fusion:.4f} from where "
                "they began; train for longer, or leave it out with --fusion-weighting off",
            )
        gammas = stage_gammas(network)
        if gammas and max(gammas) < INERT:
            yield (
                "inert_attention",
                f"the adaptive attention stayed inert: mean |gamma| is at most {max(gammas):.4f} in any "
                "stage; train for longer, or plan with --attention plain, which takes less time",
            )

    def _fusion_moved(self, network: AdaptiveSwinUNETR) -> float | None:
        """How far trainable fusion weights are from their start of zeros and ones, None without any."""
        plan = self._configuration.network
        fusion = plan.fusion if isinstance(plan, SwinPlan) else None
        if fusion is None or fusion.weighting != "trainable":
            return None
        weights = network.fusion_weights().cpu().numpy()
        return float(np.minimum(abs(weights), abs(weights - 1)).max())


def thinnest_class(counts: PatchCounts, spacing_mm: Vector3) -> tuple[int | None, float]:
    """The class whose straight runs are shortest, and how long these are on average.

    Returns:
        Its position and its thickness in mm; None and NaN where no class was seen.
    """
    thickness = (counts.chords() * np.asarray(spacing_mm)).min(axis=1)
    if not np.isfinite(thickness).any():
        return None, nan
    index = int(np.nanargmin(np.where(np.isfinite(thickness), thickness, nan)))
    return index, float(thickness[index])


def effective_kernel_mm(network: nn.Module, spacing_mm: Vector3) -> float | None:
    """Mean edge of the fusion's kernels, each weighted by |w_i|; None without fusion."""
    if not isinstance(network, AdaptiveSwinUNETR) or len(kernels := network.fusion_kernels()) < 2:
        return None
    edges = (np.asarray(kernels) * np.asarray(spacing_mm)).prod(axis=1) ** (1 / 3)
    weights = network.fusion_weights().abs().cpu().numpy()
    return float((weights * edges).sum() / weights.sum()) if weights.sum() else None


def stage_gammas(network: nn.Module) -> list[float]:
    """Mean |gamma| of each stage that has any."""
    if not isinstance(network, AdaptiveSwinUNETR):
        return []
    stages = network.saliency_gammas()
    return [float(np.mean([float(g.abs().mean()) for g in stage])) for stage in stages if stage]


def _dice_ratio(dice: np.ndarray, thinnest: int) -> float | None:
    others = np.delete(dice, thinnest)
    others = others[np.isfinite(others)]
    mean = float(others.mean()) if len(others) else 0.0
    return _number(float(dice[thinnest]) / mean) if mean > 0 else None


def _number(value: float) -> float | None:
    return round(value, 4) if isfinite(value) else None


def known_warnings(rows: Collection[dict[str, object]]) -> set[str]:
    """Kinds of the warnings that the rows of a record hold."""
    return {kind for row in rows if isinstance(said := row.get("warnings"), dict) for kind in said}
