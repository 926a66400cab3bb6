"""The parts of a report that are about a plan and the dataset that it was made for."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from autospine.core.errors import listed
from autospine.fingerprint.facts import Fingerprint
from autospine.plan import Configuration, Plan
from autospine.report.charts import ChartPoint, strip_plot
from autospine.report.report_content import Fact, Guide, ReportFigure, ReportSection, ReportTable

GIB = 2**30


DECISION_GUIDE = Guide(
    shown="Every decision of the planner, its value, and the measurement and the rule that it follows from.",
    good="Reasons that are true of your images, and of the memory of your machine.",
    action="Where a reason is not true, look at the dataset's measurements first; a number that is right for "
    "other reasons is given to `autospine plan` as an option, which then says so here.",
)


def plan_section(plan: Plan) -> ReportSection:
    """Return the configurations of a plan, and every decision about them with its reason."""
    columns = ("configuration", "voxel mm", "patch voxels", "batch", "network", "epochs", "steps", "GiB")
    several = len(plan.configurations) > 1
    return ReportSection(
        key="plan",
        title="Plan",
        facts=(
            Fact(name="classes", value=", ".join(plan.labels.names)),
            Fact(name="channels", value=", ".join(plan.channels)),
            Fact(
                name="memory budget",
                value=f"{plan.memory_budget_bytes / GIB:.1f} GiB",
                reason={"gpu": "of a GPU", "cpu": "of RAM", None: ""}[plan.device],
            ),
        ),
        tables=(
            ReportTable(
                title="Configurations, the recommended one first" if several else "Configuration",
                columns=columns,
                rows=tuple(map(_configuration, plan.configurations)),
                numeric=(1, 2, 3, 5, 6, 7),
                guide=Guide(
                    shown="What `autospine train` can train, and the memory that a step takes by estimate.",
                    good="The patch spans several vertebrae, and its voxels are not coarser than the "
                    "thinnest structure.",
                    action="Train the first one; override a number with an option of `autospine plan`.",
                ),
            ),
            *_decisions(plan),
        ),
    )


def dataset_section(measured: Fingerprint, excluded: Mapping[str, str]) -> ReportSection:
    """Return a dataset at a glance: cases, sizes, spacings, intensities, volumes of classes, and faults.

    Args:
        measured: Measurements of the dataset.
        excluded: Cases that its owner has excluded, and the reason of each.
    """
    groups = Counter((case.modality, case.site or "unknown") for case in measured.cases)
    return ReportSection(
        key="dataset",
        title="Dataset",
        facts=(
            Fact(name="cases", value=str(len(measured.cases))),
            Fact(name="subjects", value=str(len({case.subject for case in measured.cases}))),
            Fact(
                name="modality and site",
                value=", ".join(f"{n} {modality} {site}" for (modality, site), n in sorted(groups.items())),
            ),
        ),
        notes=tuple(_dataset_notes(measured, excluded)),
        figures=tuple(_dataset_figures(measured)),
        tables=(_classes(measured), _intensities(measured)),
    )


def _configuration(configuration: Configuration) -> tuple[str, ...]:
    recipe = configuration.training
    return (
        configuration.name,
        " × ".join(f"{mm:g}" for mm in configuration.spacing_mm),
        " × ".join(map(str, configuration.patch_size)),
        str(recipe.batch_size),
        configuration.network.name,
        str(recipe.epochs),
        str(recipe.steps),
        f"{configuration.memory_bytes / GIB:.2f}",
    )


def _decisions(plan: Plan) -> Iterator[ReportTable]:
    """Yield the decisions of the plan, and of each configuration that it has: a model's plan has its own."""
    planned = {"", *(configuration.name for configuration in plan.configurations)}
    groups: dict[str, list[tuple[str, ...]]] = {}
    for decision in plan.rationale:
        group, _, name = decision.name.rpartition(".")
        if group in planned:
            groups.setdefault(group, []).append((name, decision.value, decision.reason))
    for group, rows in groups.items():
        yield ReportTable(
            title=f"Decisions of {group}" if group else "Decisions",
            columns=("decision", "value", "reason"),
            rows=tuple(rows),
            guide=DECISION_GUIDE,
        )


def _dataset_notes(measured: Fingerprint, excluded: Mapping[str, str]) -> Iterator[str]:
    """Yield sentences about what is odd about a dataset, and what is left out of it."""
    if never := [each.name for each in measured.classes if not each.cases]:
        yield f"No case has {listed(never, 10)}: this cannot be learnt."
    for group in measured.duplicates:
        yield f"{listed(group, 10)} show the same image, or nearly so; they stay on one side of every split."
    for name, reason in excluded.items():
        yield f"{name} is excluded: {reason or 'no reason is given'}."


def _dataset_figures(measured: Fingerprint) -> Iterator[ReportFigure]:
    axes = ("superior", "posterior", "left")
    spacings = {
        f"{modality}, {axis}": [
            ChartPoint(name=case.name, x=case.spacing_mm[k])
            for case in measured.cases
            if case.modality == modality
        ]
        for modality in sorted({case.modality for case in measured.cases})
        for k, axis in enumerate(axes)
    }
    yield ReportFigure(
        title="Spacing along each axis",
        svg=strip_plot(spacings, title="Spacing of each case along each axis", unit=" mm"),
        guide=Guide(
            shown="A point for each case: the distance of its voxels along an axis; the line is the median.",
            good="The cases of a modality lie together.",
            action="A case far to the right is thick-sliced: its labels are coarse along this axis, and so "
            "is what is learnt from it.",
        ),
    )
    volumes = {
        each.name: [
            ChartPoint(name=case.name, x=found.voxels * math.prod(case.spacing_mm) / 1000)
            for case in measured.cases
            if (found := case.structures[index]) is not None
        ]
        for index, each in enumerate(measured.classes)
    }
    yield ReportFigure(
        title="Volume of each class",
        svg=strip_plot(volumes, title="Volume of each class in each case", unit=" ml"),
        guide=Guide(
            shown="A point for each case in which a class occurs: its volume; the line is the median.",
            good="Points of a class lie together, and every class has many.",
            action="Open the label maps of points far from the others: a class may be cut by the image, or "
            "labelled as another.",
        ),
    )


def _classes(measured: Fingerprint) -> ReportTable:
    return ReportTable(
        title="Classes",
        columns=("class", "cases", "median volume ml", "median thickness mm"),
        rows=tuple(
            (each.name, str(each.cases), _short(each.volume_ml), _short(each.thickness_mm))
            for each in measured.classes
        ),
        numeric=(1, 2, 3),
        guide=Guide(
            shown="In how many cases a class occurs, and how large and thick it is there.",
            good="Every class occurs in at least ten cases.",
            action="A class that never occurs cannot be learnt: leave it out of dataset.json, or add cases.",
        ),
    )


def _intensities(measured: Fingerprint) -> ReportTable:
    rows: Sequence[tuple[str, ...]] = [
        (
            name,
            str(facts.cases),
            *(_short(x) for x in (facts.percentile_00_5, facts.median, facts.percentile_99_5)),
            *(_short(x) for x in (facts.mean, facts.std)),
        )
        for name, facts in [
            *measured.intensities.items(),
            *((f"{each.modality}, {each.site}", each.intensities) for each in measured.sites),
        ]
    ]
    return ReportTable(
        title="Intensities of the foreground",
        columns=("", "cases", "0.5 %", "median", "99.5 %", "mean", "SD"),
        rows=tuple(rows),
        numeric=(1, 2, 3, 4, 5, 6),
        guide=Guide(
            shown="Intensities of the labelled voxels, in HU for CT, by modality and by site.",
            good="CT with a median between 100 and 400 HU; sites of one modality that are alike.",
            action="CT far from that is not in HU: `autospine verify` says which cases.",
        ),
    )


def _short(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"
