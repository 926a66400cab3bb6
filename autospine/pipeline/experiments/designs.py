"""The experiments: what each asks, which designs it trains, and on what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from autospine.core.errors import PlanError
from autospine.dataset.splits import Fold
from autospine.pipeline.experiments.results import Grouping
from autospine.pipeline.experiments.variants import (
    ComparedDesign,
    ablations,
    against_plain,
    between_sites,
    cheaper,
    lambdas,
    memorising,
    networks,
)
from autospine.pipeline.measuring import fresh_fingerprint
from autospine.pipeline.training import Project


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """A question, and the designs whose training answers it."""

    name: str
    """Name on the command line."""

    question: str
    """The question in one sentence."""

    variants: Callable[[Project], tuple[ComparedDesign, ...]]
    """Returns the designs; the first is what the others are compared with."""

    one_case: bool = False
    """Whether training and validation are of the same single case."""

    at_boundaries: bool = False
    """Whether errors are counted by distance to the true boundary and by its contrast."""

    grouped_by: Grouping | None = None
    """Fact that parts the cases into groups, which are compared one by one, too; None for all together."""

    by_cost: bool = False
    """Whether accuracy is drawn against time and memory."""


def _ablations(project: Project) -> tuple[ComparedDesign, ...]:
    return ablations(project.plan, project.configuration)


def _lambdas(project: Project) -> tuple[ComparedDesign, ...]:
    return lambdas(project.plan, project.configuration)


def _by_modality(project: Project) -> tuple[ComparedDesign, ...]:
    measured = fresh_fingerprint(project.location, project.dataset)
    modalities = sorted({case.modality for case in measured.cases})
    if len(modalities) < 2:
        raise PlanError(
            f"expected CT and MR in {project.location.name}, found {modalities[0]} alone; name another "
            "dataset with -d, or run `autospine experiment ablation`"
        )
    return ablations(project.plan, project.configuration)


def _between_sites(project: Project) -> tuple[ComparedDesign, ...]:
    measured = fresh_fingerprint(project.location, project.dataset)
    return between_sites(project.plan, project.configuration, project.dataset, measured)


def _cheaper(project: Project) -> tuple[ComparedDesign, ...]:
    return cheaper(project.plan, project.configuration)


def _memorising(project: Project) -> tuple[ComparedDesign, ...]:
    return memorising(project.plan, project.configuration)


def _against_plain(project: Project) -> tuple[ComparedDesign, ...]:
    return against_plain(project.plan, project.configuration)


def _networks(project: Project) -> tuple[ComparedDesign, ...]:
    measured = fresh_fingerprint(project.location, project.dataset)
    return networks(project.plan, project.configuration, project.dataset, measured)


EXPERIMENTS: Mapping[str, Experiment] = {
    each.name: each
    for each in (
        Experiment(
            name="overfit",
            question="Can the network learn one case by heart, so that data and capacity are sound?",
            variants=_memorising,
            one_case=True,
        ),
        Experiment(
            name="ablation",
            question="Does each mechanism earn its cost?",
            variants=_ablations,
        ),
        Experiment(
            name="lambda",
            question="Which weight of cross-entropy against Dice is best, and does any of them collapse?",
            variants=_lambdas,
        ),
        Experiment(
            name="boundary",
            question="Does the design err less at boundaries, blurred ones above all, than plain Swin UNETR?",
            variants=_against_plain,
            at_boundaries=True,
        ),
        Experiment(
            name="compare",
            question="Which network is best for the same memory, patch and recipe?",
            variants=_networks,
        ),
        Experiment(
            name="modality",
            question="Does each mechanism earn its cost in CT, and does it in MR?",
            variants=_by_modality,
            grouped_by="modality",
        ),
        Experiment(
            name="transfer",
            question="What does the model lose at a site that it has not learnt from?",
            variants=_between_sites,
            grouped_by="site",
        ),
        Experiment(
            name="efficiency",
            question="Which cheaper design is as accurate?",
            variants=_cheaper,
            by_cost=True,
        ),
    )
}
"""Every experiment by its name."""


def for_one_case(project: Project) -> Project:
    """Return the project with one fold that is trained and validated on the same case.

    It is a case with the most classes, the one with the fewest voxels of several.
    """
    measured = fresh_fingerprint(project.location, project.dataset)
    best = min(measured.cases, key=lambda case: (case.structures.count(None), prod(case.shape), case.name))
    cases = tuple(case for case in project.dataset.cases if case.name == best.name)
    fold = Fold(name="0", training=(best.name,), validation=(best.name,))
    return replace(project, dataset=replace(project.dataset, cases=cases), split=(fold,))
