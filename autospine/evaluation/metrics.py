"""Metrics of one class in one case: their table, and those of other distributions.

A metric of another distribution is an entry point of the group `autospine.metrics` that names a `Metric`. It
is loaded only when it is asked for by name, so that a broken one is no trouble to anybody else.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import SupportsFloat

from autospine.core.errors import EvaluationError
from autospine.core.plugins import find_plugin, let_interrupts_pass, plugin_names, warn_if_hidden
from autospine.core.types import MaskArray, Vector3
from autospine.evaluation.boundary import BAND_MM, boundary_dice
from autospine.evaluation.class_pair import ClassPair
from autospine.evaluation.instances import small_recall
from autospine.evaluation.overlap import Counts
from autospine.evaluation.surface import TOLERANCE_MM, hausdorff95, mean_surface_distance, surface_dice

GROUP = "autospine.metrics"
"""Group of the entry points."""

ALL = "all"
"""Name that stands for every built-in metric."""

RESERVED = frozenset(
    {
        *("case", "modality", "site", "class", "tp", "fp", "fn", "accuracy", "acc", "n_cases"),
        *(ALL, "overlap", "surface", "instance", "vertebra"),
    }
)
"""Names that mean something else in the files of an evaluation, or stand for several metrics."""

CountFunction = Callable[[Counts], float]
"""Computes a metric from the numbers of voxels."""

MaskFunction = Callable[[MaskArray, MaskArray, Vector3], float]
"""Computes a metric from the (S, P, L) masks of prediction and reference and their spacing in mm."""

PairFunction = Callable[[ClassPair], float]
"""Computes a metric from what is measured for several metrics together, such as distances of surfaces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A score of one class in one case. Exactly one of the three functions is given.

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
    """Computes the metric from masks that are cut to the box around both. Voxels that the reference ignores
    are in neither mask."""

    from_pair: PairFunction | None = None
    """Computes the metric from measurements that other metrics share."""

    of_foreground: bool = False
    """Whether a metric that does not take counts is computed for all classes taken as one as well."""

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
        functions = (self.from_counts, self.from_masks, self.from_pair)
        if sum(function is not None for function in functions) != 1:
            raise EvaluationError(
                f"metric {self.name} must be computed in one way; give exactly one of from_counts, "
                "from_masks and from_pair"
            )

    def of_counts(self, counts: Counts) -> float:
        """Compute a metric that takes counts; NaN where it is undefined.

        Raises:
            EvaluationError: If the function fails or its value is out of range.
        """
        function = self.from_counts
        if function is None:
            raise EvaluationError(f"metric {self.name} needs masks; it cannot be computed from counts")
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
            raise EvaluationError(f"metric {self.name} is not computed from two masks alone")
        return self._checked(lambda: function(prediction, reference, spacing_mm))

    def of_pair(self, pair: ClassPair) -> float:
        """Compute a metric that does not take counts for a class of a case; NaN where it is undefined.

        Raises:
            EvaluationError: If the function fails or its value is out of range.
        """
        function = self.from_pair
        if function is None:
            return self.of_masks(pair.prediction, pair.reference, pair.spacing_mm)
        return self._checked(lambda: function(pair))

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


def surface_dice_metric(tolerance_mm: float) -> Metric:
    """Return the metric that is the normalised surface Dice with a tolerance."""
    return Metric(
        name=f"nsd_{tolerance_mm:g}mm".replace(".", "_"),
        title=f"NSD{tolerance_mm:g}mm",
        from_pair=lambda pair: surface_dice(pair.distances, tolerance_mm),
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="prediction and reference are empty",
    )


SURFACE_METRICS = (
    Metric(
        name="hd95",
        title="HD95",
        from_pair=lambda pair: hausdorff95(pair.distances),
        range=(0.0, math.inf),
        higher_is_better=False,
        undefined="prediction or reference is empty",
        unit="mm",
    ),
    surface_dice_metric(TOLERANCE_MM),
    Metric(
        name="assd",
        title="ASSD",
        from_pair=lambda pair: mean_surface_distance(pair.distances),
        range=(0.0, math.inf),
        higher_is_better=False,
        undefined="prediction or reference is empty",
        unit="mm",
    ),
    Metric(
        name=f"boundary_dice_{BAND_MM:g}mm",
        title=f"bDice{BAND_MM:g}mm",
        from_masks=boundary_dice,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="prediction and reference are empty",
    ),
)
"""Metrics of the borders of masks."""

INSTANCE_METRICS = (
    Metric(
        name="rq",
        title="RQ",
        from_pair=lambda pair: pair.matches.recognition,
        of_foreground=True,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="prediction and reference are empty",
    ),
    Metric(
        name="sq",
        title="SQ",
        from_pair=lambda pair: pair.matches.segmentation,
        of_foreground=True,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="no instance has a partner",
    ),
    Metric(
        name="pq",
        title="PQ",
        from_pair=lambda pair: pair.matches.panoptic,
        of_foreground=True,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="prediction and reference are empty",
    ),
    Metric(
        name="small_recall",
        title="SmallRec",
        from_pair=lambda pair: small_recall(pair.prediction, pair.reference_instances, pair.spacing_mm),
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="the reference has no small structure",
    ),
)
"""Metrics of connected components."""

VERTEBRA_METRICS = (
    Metric(
        name="id_rate",
        title="IDrate",
        from_pair=lambda pair: pair.identified,
        range=(0.0, 1.0),
        higher_is_better=True,
        undefined="the class is no vertebra by name, or the reference is empty",
    ),
    Metric(
        name="centroid_distance",
        title="dCen",
        from_pair=lambda pair: pair.centroid_distance_mm,
        range=(0.0, math.inf),
        higher_is_better=False,
        undefined="prediction or reference is empty",
        unit="mm",
    ),
)
"""Metrics of centroids."""

BUILT_IN = (
    *DEFAULT_METRICS,
    Metric(
        name="volume_error",
        title="VolErr",
        from_counts=lambda counts: counts.volume_error,
        range=(0.0, math.inf),
        higher_is_better=False,
        undefined="the reference is empty",
    ),
    *SURFACE_METRICS,
    *INSTANCE_METRICS,
    *VERTEBRA_METRICS,
)
"""Every metric that comes with AutoSpine. A new one is a row of these tables."""

GROUPS: Mapping[str, tuple[Metric, ...]] = {
    "overlap": DEFAULT_METRICS,
    "surface": SURFACE_METRICS,
    "instance": INSTANCE_METRICS,
    "vertebra": VERTEBRA_METRICS,
    ALL: BUILT_IN,
}
"""Names that stand for several metrics."""

_SURFACE_DICE = re.compile(r"nsd_(\d+(?:_\d+)?)mm")
"""Name of the normalised surface Dice with any tolerance: `nsd_2mm`, `nsd_0_5mm`."""


def find_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Find metrics by name: built-in ones first, then those of other distributions.

    Args:
        names: Names of metrics, or of groups of them; each metric counts once. None at all stands for the
            default metrics.

    Raises:
        EvaluationError: If a name is unknown or stands for several metrics, or the metric cannot be loaded.
    """
    found = {metric.name: metric for name in dict.fromkeys(names) for metric in _metrics_named(name)}
    return tuple(found.values()) or DEFAULT_METRICS


def metric_names() -> tuple[str, ...]:
    """Return the names of all metrics: the built-in ones, then those of other distributions by name."""
    own = tuple(metric.name for metric in BUILT_IN)
    return (*own, *(name for name in plugin_names(GROUP) if name not in own))


def _metrics_named(name: str) -> tuple[Metric, ...]:
    return GROUPS[name] if name in GROUPS else (_find_metric(name),)


def _find_metric(name: str) -> Metric:
    for metric in BUILT_IN:
        if metric.name == name:
            warn_if_hidden(GROUP, name, "metric")
            return metric
    if match := _SURFACE_DICE.fullmatch(name):
        return surface_dice_metric(float(match[1].replace("_", ".")))
    if name not in metric_names():
        raise EvaluationError(
            f"expected one of the metrics {', '.join(metric_names())}, nsd_Xmm with another tolerance, or a "
            f"group of them ({', '.join(GROUPS)}), found {name!r}"
        )
    plugin = find_plugin(GROUP, name, kind="metric", error=EvaluationError)
    loaded = plugin.load()
    if not isinstance(loaded, Metric) or loaded.name != name:
        found = f"one named {loaded.name!r}" if isinstance(loaded, Metric) else type(loaded).__name__
        raise EvaluationError(
            f"expected a Metric named {name!r} from {plugin.description}, found {found}; {plugin.remedy}"
        )
    return replace(loaded, origin=plugin.distribution)
