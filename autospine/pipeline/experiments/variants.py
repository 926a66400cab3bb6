"""Variants of a planned configuration: one thing changed, and everything else as planned."""

from dataclasses import dataclass, replace
from math import prod

from autospine.core.errors import PlanError, counted
from autospine.dataset.raw import Dataset
from autospine.dataset.splits import Fold, make_folds
from autospine.fingerprint import Fingerprint
from autospine.network.swin.swin_plan import SwinPlan
from autospine.network.swin.swin_settings import AttentionKind, AttentionSettings, FusionSettings
from autospine.pipeline.measuring import facts_for_folds
from autospine.pipeline.smaller_patch import with_smaller_patch
from autospine.plan import Augmentation, Configuration, Plan, built_in_networks
from autospine.storage.trained_models import FOLDS
from planners.overrides import Overrides
from planners.planner import make_plan
from planners.rules.transformer import heads
from planners.sizing import FULLRES, Budget

PLANNED = "as_planned"
"""Name of the variant that changes nothing, which the others are compared with."""

LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of cross-entropy that are swept: Dice alone, three mixtures, cross-entropy alone."""

NARROWER = {"three_quarters_width": 0.75, "half_width": 0.5}
"""Shares of the planned channels that cheaper designs have."""

WIDTH_STEP = 4
"""Channels at full resolution are a multiple of it, so that two heads divide those of every stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedDesign:
    """One design of an experiment."""

    name: str
    """Name of its folder and of its row in the tables."""

    change: str
    """The change in words, as a continuation of "trained with"."""

    plan: Plan
    """The dataset's plan with this design as its only configuration."""

    split: tuple[Fold, ...] | None = None
    """Folds of its own; None for the dataset's."""

    @property
    def configuration(self) -> Configuration:
        """The design."""
        return self.plan.configurations[0]


def as_planned(plan: Plan, configuration: Configuration) -> ComparedDesign:
    """Return the variant that changes nothing."""
    return _variant(PLANNED, "the design as planned", plan, configuration)


def ablations(plan: Plan, configuration: Configuration) -> tuple[ComparedDesign, ...]:
    """Return the design as planned, and designs from which a mechanism is taken.

    Raises:
        PlanError: If the network has neither multi-scale fusion nor adaptive attention.
    """
    network = configuration.network
    fusion = network.fusion if isinstance(network, SwinPlan) else None
    attention = network.attention if isinstance(network, SwinPlan) else "plain"
    adaptive = isinstance(attention, AttentionSettings)
    if not isinstance(network, SwinPlan) or (fusion is None and not adaptive):
        raise PlanError(
            f"expected a network with multi-scale fusion or adaptive attention for an ablation, found "
            f"{network.name} without either in configuration {configuration.name}; name another "
            "configuration with -c, or plan one with `autospine plan --network adaptive_swin_unetr`"
        )

    def with_network(
        name: str, change: str, fusion: FusionSettings | None, kind: AttentionKind
    ) -> ComparedDesign:
        changed = replace(network, fusion=fusion, attention=kind)
        return _variant(name, change, plan, replace(configuration, network=changed))

    variants = [as_planned(plan, configuration)]
    if fusion is not None:
        variants.append(with_network("fusion_off", "no multi-scale fusion", None, attention))
        if fusion.weighting != "ones":
            ones = replace(fusion, weighting="ones")
            variants.append(with_network("fusion_ones", "all fusion weights fixed at 1", ones, attention))
    if adaptive:
        variants.append(with_network("attention_plain", "Swin's own attention", fusion, "plain"))
    variants.append(with_network("attention_identity", "no attention at all", fusion, "identity"))
    if fusion is not None and adaptive:
        variants.append(with_network("both_off", "neither fusion nor adaptive attention", None, "plain"))
    return tuple(variants)


def lambdas(plan: Plan, configuration: Configuration) -> tuple[ComparedDesign, ...]:
    """Return the design with each of `LAMBDAS`; the planned weight comes first.

    Raises:
        PlanError: If the planned loss has no such weight.
    """
    training = configuration.training
    if training.loss != "dice_ce":
        raise PlanError(
            f"expected the loss dice_ce, whose weight is swept, found {training.loss} in configuration "
            f"{configuration.name}; name another configuration with -c"
        )
    return (
        as_planned(plan, configuration),
        *(
            _variant(
                f"lambda_{value:g}".replace(".", "_"),
                f"cross-entropy weighted by {value:g}",
                plan,
                replace(configuration, training=replace(training, lambda_ce=value)),
            )
            for value in LAMBDAS
            if value != training.lambda_ce
        ),
    )


def networks(
    plan: Plan, configuration: Configuration, dataset: Dataset, fingerprint: Fingerprint
) -> tuple[ComparedDesign, ...]:
    """Return the design as planned, and every built-in network with the same patch, recipe and memory.

    Args:
        plan: Plan of the dataset.
        configuration: Configuration of the plan whose spacing, patch, recipe and augmentation all have.
        dataset: The dataset.
        fingerprint: Its measurements.
    """
    others = tuple(name for name in built_in_networks() if name != configuration.network.name)
    budget = Budget(
        memory_bytes=plan.memory_budget_bytes,
        gpu=plan.device != "cpu",
        precision=configuration.training.precision,
        reason="that of the dataset's plan",
    )
    overrides = Overrides(
        networks=others, spacing_mm=configuration.spacing_mm, patch_size=configuration.patch_size
    )
    planned = make_plan(dataset, fingerprint, budget, overrides)
    alike = [
        replace(
            each,
            cases=configuration.cases,
            training=configuration.training,
            augmentation=configuration.augmentation,
        )
        for each in planned.configurations
        if each.cases == FULLRES
    ]
    return (
        as_planned(plan, configuration),
        *(_variant(each.network.name, f"the network {each.network.name}", plan, each) for each in alike),
    )


def against_plain(plan: Plan, configuration: Configuration) -> tuple[ComparedDesign, ...]:
    """Return the design as planned and plain Swin UNETR of the same size.

    Raises:
        PlanError: If the network has no mechanism that could be turned off.
    """
    both = ablations(plan, configuration)
    network = configuration.network
    assert isinstance(network, SwinPlan)  # others have been refused
    plain = replace(configuration, network=replace(network, fusion=None, attention="plain"))
    return both[0], _variant("swin_unetr", "plain Swin UNETR of the same size", plan, plain)


def between_sites(
    plan: Plan, configuration: Configuration, dataset: Dataset, fingerprint: Fingerprint
) -> tuple[ComparedDesign, ...]:
    """Return the design as planned, trained with other cases of a case's site, and trained without any.

    Both have as many folds: `FOLDS`, or the number of sites if that is less.

    Args:
        plan: Plan of the dataset.
        configuration: Configuration of the plan that is trained.
        dataset: The dataset.
        fingerprint: Its measurements, for modalities, classes and duplicates.

    Raises:
        PlanError: If the dataset has fewer than two sites, or cases whose site is not known.
        DatasetError: If there are fewer subjects than folds.
    """
    sites: dict[str, list[str]] = {}
    unknown = []
    for case in dataset.cases:
        if case.site is None:
            unknown.append(case.name)
        else:
            sites.setdefault(case.site, []).append(case.name)
    if unknown or len(sites) < 2:
        found = f"{counted(len(unknown), 'case')} without a site" if unknown else ", ".join(sites)
        raise PlanError(
            f"expected the sites of all cases, and at least two of them, in cases.csv of {dataset.name}, "
            f"found {found}; state them there, or draw hospitals with `autospine phantom --shifts`"
        )
    number = min(FOLDS, len(sites))
    seen = make_folds(facts_for_folds(dataset, fingerprint), number)
    apart = make_folds(facts_for_folds(dataset, fingerprint, together=tuple(sites.values())), number)
    change = "the site of the held-out cases left out"
    return (
        _variant("site_seen", "other cases of the same site", plan, configuration, seen),
        _variant("site_left_out", change, plan, configuration, apart),
    )


def cheaper(plan: Plan, configuration: Configuration) -> tuple[ComparedDesign, ...]:
    """Return the design as planned, and designs that cost less time or memory by one change each.

    They have fewer channels, a smaller patch, or a network without its mechanisms or without attention.
    """
    network, batch = configuration.network, configuration.training.batch_size
    variants = [as_planned(plan, configuration)]
    if isinstance(network, SwinPlan):
        for name, share in NARROWER.items():
            width = max(WIDTH_STEP, WIDTH_STEP * round(share * network.feature_size / WIDTH_STEP))
            if width < network.feature_size:
                narrow = replace(network, feature_size=width, num_heads=heads(width))
                change = f"{width} channels at full resolution"
                variants.append(_variant(name, change, plan, replace(configuration, network=narrow)))
    smaller = with_smaller_patch(plan, configuration, prod(configuration.patch_size) * batch - 1)
    if smaller != configuration:
        size = " x ".join(map(str, smaller.patch_size))
        variants.append(_variant("small_patch", f"patches of {size} voxels", plan, smaller))
    if isinstance(network, SwinPlan) and (network.fusion or isinstance(network.attention, AttentionSettings)):
        taken_out = ("both_off", "fusion_off", "attention_plain", "attention_identity")
        found = {each.name: each for each in ablations(plan, configuration)}
        variants += [found[name] for name in taken_out if name in found]
    return tuple(variants)


def memorising(plan: Plan, configuration: Configuration) -> tuple[ComparedDesign, ...]:
    """Return the design without any augmentation, which can learn a case by heart."""
    still = Augmentation(
        rotation_deg=(0.0, 0.0, 0.0),
        scale=(1.0, 1.0),
        elastic_mm=0.0,
        spatial_probability=0.0,
        intensity_probability=0.0,
        mirror_axes=(),
        mirror_pairs=(),
    )
    change = "one case and no augmentation"
    return (_variant("one_case", change, plan, replace(configuration, augmentation=still)),)


def _variant(
    name: str,
    change: str,
    plan: Plan,
    configuration: Configuration,
    split: tuple[Fold, ...] | None = None,
) -> ComparedDesign:
    # Of the same name everywhere: it is that of the dataset's stored cases and of no model of its own.
    alone = replace(plan, configurations=(configuration,))
    return ComparedDesign(name=name, change=change, plan=alone, split=split)
