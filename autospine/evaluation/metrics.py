"""Metrics of one class in one case: the built-in ones, and those of other distributions.

A metric of another distribution is an entry point of the group `autospine.metrics` that names a `Metric`. It
is loaded only when it is asked for by name, so that a broken one is no trouble to anybody else.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import SupportsFloat

from autospine.core.errors import EvaluationError
from autospine.core.plugins import find_plugin, let_interrupts_pass, plugin_names, warn_if_hidden
from autospine.core.types import MaskArray, Vector3
from autospine.evaluation.overlap import Counts
from autospine.evaluation.surface import TOLERANCE_MM, hausdorff95, surface_dice

GROUP = "autospine.metrics"
"""Group of the entry points."""

RESERVED = frozenset({"case", "modality", "site", "class", "tp", "fp", "fn", "accuracy", "acc", "n_cases"})
"""Names that mean something else in the files of an evaluation."""

CountFunction = Callable[[Counts], float]
"""Computes a metric from the numbers of voxels."""

MaskFunction = Callable[[MaskArray, MaskArray, Vector3], float]
"""Computes a metric from the (S, P, L) masks of prediction and reference and their spacing in mm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A score of one class in one case. Exactly one of `from_counts` and `from_masks` is given.

    Raises:
        EvaluationError: If the name cannot be used, or not exactly one function is given.
    """

    name: str
    """Name on the command line and in files: a Python identifier in lower case."""

    title: str
    """Short name for the head of a table on the screen."""

    from_counts: CountFunction | None = None
    """Computes the metric from the counted voxels: all such metrics take one pass over the maps together."""

    from_masks: MaskFunction | None = None
    """Computes the metric from masks, which takes a pass for each class. Voxels that the reference ignores
    are in neither mask."""

    range: tuple[float, float]
    """Smallest and largest possible value; infinity where there is no bound. A value itself is finite."""

    higher_is_better: bool

    undefined: str
    """When the metric has no value, in words. The function returns NaN then, and means leave it out."""

    unit: str = ""
    """Unit of the values; empty for a share."""

    origin: str = "autospine"
    """Distribution that it comes from; set when an entry point is loaded."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name != self.name.lower() or self.name in RESERVED:
            raise EvaluationError(
                f"expected a lower-case Python identifier as the name of a metric, and none of "
                f"{', '.join(sorted(RESERVED))}, found {self.name!r}; rename the metric"
            )
        if (self.from_counts is None) == (self.from_masks is None):
            raise EvaluationError(
                f"metric {self.name} must be computed either from counts or from masks; give exactly one of "
                "from_counts and from_masks"
            )

    def of_counts(self, counts: Counts) -> float:
        """Compute a metric that takes counts; NaN where it is undefined.

        Raises:
            EvaluationError: If the function fails or its value is out of range.
        """
        function = self.from_counts
        if function is None:
            raise EvaluationError(f"metric {self.name} is computed from masks; it cannot be had from counts")
        return self._checked(lambda: function(counts))

    def of_masks(self, prediction: MaskArray, reference: MaskArray, spacing_mm: Vector3) -> float:
        """Compute a metric that takes masks; NaN where it is undefined.

        Args:
            prediction: (S, P, L) predicted mask.
            reference: (S, P, L) reference mask of the same shape.
            spacing_mm: Voxel spacing of both along S, P and L.

        Raises:
            EvaluationError: If the function fails or its value is out of range.
        """
        function = self.from_masks
        if function is None:
            raise EvaluationError(f"metric {self.name} is computed from counts; it cannot be had from masks")
        return self._checked(lambda: function(prediction, reference, spacing_mm))

    def _checked(self, compute: Callable[[], SupportsFloat]) -> float:
        try:
            value = float(compute())
        except BaseException as error:  # whatever other people's code raises
            let_interrupts_pass(error)
            raise EvaluationError(
                f"metric {self.name} of {self.origin} failed with {type(error).__name__}: {error}; mend "
                "it, or choose other metrics"
            ) from error
        low, high = self.range
        if math.isnan(value) or (math.isfinite(value) and low <= value <= high):
            return value
        raise EvaluationError(
            f"expected a value from {low:g} to {high:g} of the metric {self.name} of {self.origin}, found "
            f"{value:g}; mend the metric, or choose others"
        )


DEFAULT_METRICS = (
    Metric(
        name="dice",
        title="Dice",
        from_counts=lambda counts: counts.dice,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="prediction and reference are empty",
    ),
    Metric(
        name="iou",
        title="IoU",
        from_counts=lambda counts: counts.iou,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="prediction and reference are empty",
    ),
    Metric(
        name="recall",
        title="Recall",
        from_counts=lambda counts: counts.recall,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="the reference is empty",
    ),
)
"""The metrics of a cross-validation, and of an evaluation that names no others."""

BUILT_IN = (
    *DEFAULT_METRICS,
    Metric(
        name="hd95",
        title="HD95",
        from_masks=hausdorff95,
        range=(0.0, math.inf),
        higher_is_better=False,
        undefined="prediction or reference is empty",
        unit="mm",
    ),
    Metric(
        name=f"nsd_{TOLERANCE_MM:g}mm",
        title=f"NSD{TOLERANCE_MM:g}mm",
        from_masks=surface_dice,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="prediction and reference are empty",
    ),
)
"""Every metric that comes with AutoSpine. A new one is a row of this table."""


def find_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Find metrics by name: built-in ones first, then those of other distributions.

    Args:
        names: Names of metrics; each counts once. None at all stands for the default metrics.

    Raises:
        EvaluationError: If a name is unknown or stands for several metrics, or the metric cannot be loaded.
    """
    return tuple(map(_find_metric, dict.fromkeys(names))) or DEFAULT_METRICS


def metric_names() -> tuple[str, ...]:
    """Return the names of all metrics: the built-in ones, then those of other distributions by name."""
    own = tuple(metric.name for metric in BUILT_IN)
    return (*own, *(name for name in plugin_names(GROUP) if name not in own))


def _find_metric(name: str) -> Metric:
    for metric in BUILT_IN:
        if metric.name == name:
            warn_if_hidden(GROUP, name, "metric")
            return metric
    if name not in metric_names():
        raise EvaluationError(f"expected one of the metrics {', '.join(metric_names())}, found {name!r}")
    plugin = find_plugin(GROUP, name, kind="metric", error=EvaluationError)
    loaded = plugin.load()
    if not isinstance(loaded, Metric) or loaded.name != name:
        found = f"one named {loaded.name!r}" if isinstance(loaded, Metric) else type(loaded).__name__
        raise EvaluationError(
            f"expected a Metric named {name!r} from {plugin.description}, found {found}; {plugin.remedy}"
        )
    return replace(loaded, origin=plugin.distribution)
