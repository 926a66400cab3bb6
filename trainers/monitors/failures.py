"""Monitors of the paper's three failures, each a number with a threshold, and of inert mechanisms.

docs/concepts/monitors.md explains the numbers and what to do about them.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from autospine.core.defaults import DEFAULT_LOSS
from autospine.core.types import Vector3
from autospine.network import AdaptiveSwinUNETR
from autospine.network.swin.swin_plan import SwinPlan
from autospine.plan import Configuration
from trainers.monitors.counts import PatchCounts, add

SAMPLE_EVERY = 5
"""Steps between two samples of a prediction."""

SAMPLES = 40
"""Samples in the running window of the numbers; there are no warnings until the window is full, also none of
inert mechanisms: in fewer steps than these samples take, no weight moves far."""

LEAST_FOREGROUND = 0.1
"""Predicted over true foreground voxels below which the prediction has collapsed to background."""

MOST_FOREGROUND = 10.0
"""Predicted over true foreground voxels above which the prediction floods the background."""

LARGEST_KERNEL_RATIO = 2.0
"""Largest effective kernel of the fusion over the thickness of the thinnest class."""

LEAST_DICE_RATIO = 0.5
"""Least Dice of the thinnest class over the mean of the others."""

LARGEST_BORDER_SHIFT = 0.5
"""Largest mean distance in voxels by which the predicted border may lie outside the true one."""

LIMITS = {
    "foreground_ratio": LEAST_FOREGROUND,
    "border_shift": LARGEST_BORDER_SHIFT,
    "kernel_ratio": LARGEST_KERNEL_RATIO,
    "dice_ratio": LEAST_DICE_RATIO,
}
"""Limits by the name of the reading, for the curves."""

INERT = 0.01
"""Change of a fusion weight, or size of a gamma, below which it alters its features by about 1 % at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Readings:
    """Readings of the monitors at the end of an epoch; None if there is nothing to compute them from."""

    foreground_ratio: float | None = None
    """Predicted over true foreground voxels."""

    border_shift: float | None = None
    """Mean distance in voxels by which the predicted border lies outside the true one; negative if inside."""

    thinnest_class: str | None = None
    """Name of the class with the shortest mean intercept length."""

    kernel_ratio: float | None = None
    """Effective kernel of the fusion over the thickness of the thinnest class."""

    dice_ratio: float | None = None
    """Dice of the thinnest class over the mean of the others."""


class Monitors:
    """Collector of counts over the steps, which are judged at the end of each epoch.

    Args:
        classes: Names of the foreground classes.
        configuration: Configuration with spacing, network and recipe.
        known: Kinds of the warnings that an earlier run has given, which are not repeated.
        state: State that `state` returned in an earlier run.
        window: Samples that the readings are computed over.
    """

    def __init__(
        self,
        classes: Sequence[str],
        configuration: Configuration,
        *,
        known: Iterable[str] = (),
        state: Sequence[Sequence[int]] = (),
        window: int = SAMPLES,
    ) -> None:
        self._classes, self._configuration = classes, configuration
        restored = [PatchCounts.restored(numbers) for numbers in state]
        self._all: PatchCounts | None = restored[0] if restored else None
        self._recent: deque[PatchCounts] = deque(restored[1:], maxlen=window)
        self._known = set(known)

    def state(self) -> list[list[int]]:
        """Return the sum of all counts, then those of each sample in the window, for a checkpoint."""
        return [] if self._all is None else [counts.numbers() for counts in (self._all, *self._recent)]

    def update(self, samples: Sequence[PatchCounts]) -> None:
        """Add the counts of further samples."""
        if samples:
            self._recent.extend(samples)
            self._all = add([*samples] if self._all is None else [self._all, *samples])

    def read(self, network: nn.Module) -> Readings:
        """Compute the readings over the samples in the window.

        Args:
            network: Network, whose fusion has an effective kernel.
        """
        if self._all is None:
            return Readings()
        counts = add(self._recent)
        true, predicted = counts.foreground
        faces, over, under = counts.border
        # Thickness is a property of the labels, so that all samples count, not only those in the window.
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
        """Return the new warnings, as sentences by kind.

        Failures are reported after the warm-up, inert mechanisms at the end of training.

        Args:
            readings: Readings of this epoch.
            network: Network, whose fusion weights and gammas are judged.
            progress: Progress of the training in [0, 1].
        """
        current: list[tuple[str, str]] = []
        seen_enough = len(self._recent) == self._recent.maxlen
        if seen_enough and progress > self._configuration.training.warmup_fraction:
            current += self._failures(readings, network)
        if seen_enough and progress >= 1:
            current += self._inert(network)
        new = {kind: text for kind, text in current if kind not in self._known}
        self._known.update(new)
        return new

    def _failures(self, readings: Readings, network: nn.Module) -> Iterator[tuple[str, str]]:
        """Yield a warning for each reading beyond its limit."""
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
        """Say how to give a part of the loss more weight."""
        recipe = self._configuration.training
        if recipe.loss != DEFAULT_LOSS:
            return f"change training.loss_settings of the loss {recipe.loss}, or choose another, in plan.json"
        now = f"(now {recipe.lambda_ce:g})"
        return f"{change} training.lambda_ce {now} in plan.json so that {part} counts for more"

    def _attention_advice(self, network: nn.Module) -> str:
        """Say which attention to compare with, depending on whether the present one has an effect."""
        gammas = stage_gammas(network)
        if max(gammas, default=0.0) < INERT:
            return "compare with --attention adaptive in all stages, or a lower training.lambda_ce"
        return "compare with --attention plain: gradients may not tell edges from noise here"

    def _inert(self, network: nn.Module) -> Iterator[tuple[str, str]]:
        """Yield a warning for each mechanism of the network that training has hardly changed."""
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
        """Return the largest change of a trainable fusion weight from its initial 0 or 1, else None."""
        plan = self._configuration.network
        fusion = plan.fusion if isinstance(plan, SwinPlan) else None
        if fusion is None or fusion.weighting != "trainable":
            return None
        weights = torch.cat([network.fusion_weights().cpu(), network.level_weights().cpu()]).numpy()
        return float(np.minimum(abs(weights), abs(weights - 1)).max())


def thinnest_class(counts: PatchCounts, spacing_mm: Vector3) -> tuple[int | None, float]:
    """Find the class with the shortest mean intercept length along any axis.

    Args:
        counts: Counts over all patches.
        spacing_mm: Voxel size (S, P, L).

    Returns:
        Index of the class and this length in mm; None and NaN if no class was in any patch.
    """
    thickness = (counts.chords() * np.asarray(spacing_mm)).min(axis=1)
    if not np.isfinite(thickness).any():
        return None, nan
    index = int(np.nanargmin(np.where(np.isfinite(thickness), thickness, nan)))
    return index, float(thickness[index])


def effective_kernel_mm(network: nn.Module, spacing_mm: Vector3) -> float | None:
    """Compute the mean edge of the fusion's kernels in mm, weighted by |w_i|; None without fusion.

    Args:
        network: Network, with or without fusion.
        spacing_mm: Voxel size (S, P, L).
    """
    if not isinstance(network, AdaptiveSwinUNETR) or len(kernels := network.fusion_kernels()) < 2:
        return None
    # The edge of a kernel is that of the cube with its volume.
    edges = (np.asarray(kernels) * np.asarray(spacing_mm)).prod(axis=1) ** (1 / 3)
    weights = network.fusion_weights().abs().cpu().numpy()
    return float((weights * edges).sum() / weights.sum()) if weights.sum() else None


def stage_gammas(network: nn.Module) -> list[float]:
    """Return the mean |gamma| of each stage that has adaptive attention."""
    if not isinstance(network, AdaptiveSwinUNETR):
        return []
    stages = network.saliency_gammas()
    return [float(np.mean([float(g.abs().mean()) for g in stage])) for stage in stages if stage]


def _dice_ratio(dice: Float[np.ndarray, "n"], thinnest: int) -> float | None:
    """Divide the Dice of the thinnest class by the mean of the others; None if that mean is 0 or unknown."""
    others = np.delete(dice, thinnest)
    others = others[np.isfinite(others)]
    mean = float(others.mean()) if len(others) else 0.0
    return _number(float(dice[thinnest]) / mean) if mean > 0 else None


def _number(value: float) -> float | None:
    return round(value, 4) if isfinite(value) else None


def known_warnings(rows: Collection[dict[str, object]]) -> set[str]:
    """Return the kinds of all warnings in the rows of a metrics.jsonl."""
    return {kind for row in rows if isinstance(kinds := row.get("warnings"), dict) for kind in kinds}
