"""What a report reads of the JSON of scores and experiments: the types of these parts; others are kept.

Numbers in tables stay unchecked, since `result_folder.number` passes over what is none.
"""

from typing import Any, Required

from typing_extensions import TypedDict  # pydantic reads that of `typing` from Python 3.12 on alone

from autospine.storage.serialization import stored_as

StoredValues = dict[str, Any]
"""Numbers by metric."""

StoredClasses = dict[str, StoredValues]
"""Numbers of each class by metric."""


class StoredSpread(TypedDict, total=False):
    """Spread of a mean over the cases."""

    interval: tuple[float, float] | None


StoredMetricSpreads = dict[str, StoredSpread]


class StoredSpreads(TypedDict, total=False):
    """Spreads of all means."""

    mean: StoredMetricSpreads | None
    foreground: StoredMetricSpreads | None
    classes: dict[str, StoredMetricSpreads]
    modalities: dict[str, StoredMetricSpreads]
    sites: dict[str, StoredMetricSpreads]


class ScoresOfCase(TypedDict, total=False):
    """Scores of a case."""

    modality: str | None
    site: str | None
    classes: StoredClasses


class StoredNaming(TypedDict, total=False):
    """What voxels of a class are called."""

    called: dict[str, float | None]


class StoredComparison(TypedDict):
    """Folders that were compared."""

    predictions: str
    references: str
    description: str


@stored_as("scores")
class StoredScores(TypedDict, total=False):
    """`evaluation.json` and what `cross_validation.json` has in common with it."""

    format_version: int
    spread: StoredSpreads | None
    foreground: StoredValues | None
    classes: StoredClasses
    modalities: StoredClasses
    sites: StoredClasses
    cases: dict[str, ScoresOfCase]
    found: dict[str, StoredNaming] | None
    missing: list[str]
    extra: list[str]
    failed: dict[str, str]
    training_images: list[str]
    compared: StoredComparison | None


class StoredDesign(TypedDict, total=False):
    """A design of an experiment."""

    scores: Required[StoredValues]
    differences: list[StoredValues] | None
    differences_by_group: StoredClasses | None
    dice_by_class: StoredValues | None


class StoredProtocol(TypedDict, total=False):
    """How the designs of an experiment were trained."""

    seeds: list[int] | None
    folds: list[str] | None


@stored_as("an experiment")
class StoredExperiment(TypedDict):
    """`experiment.json`."""

    format_version: int
    question: str
    verdict: list[str]
    protocol: StoredProtocol
    made: dict[str, Any]
    designs: dict[str, StoredDesign]


class StoredDifference(TypedDict, total=False):
    """A difference from another evaluation."""

    metric: Required[str]
    class_name: Any
    value: Any
    other: Any
    difference: Any
    low: Any
    high: Any
    p: Any
    p_corrected: Any
    n_subjects: Any


@stored_as("differences of scores")
class StoredDifferences(TypedDict):
    """`comparison.json`."""

    other: str
    differences: list[StoredDifference]
