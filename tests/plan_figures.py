"""Figures of the plans for GPUs: how full they make a card, and how long a fold takes.

Nothing is run, and no GPU is needed.
"""

import torch
from unit.planners.archetypes import ARCHETYPES

from autospine.cli.plan_tables import estimated_hours
from autospine.plan import Plan, Precision
from autospine.system.cards import Card
from planners.sizing import Budget

GIB = 1024**3

CARDS = {
    "RTX 3070": (7.75, (8, 6)),
    "RTX 4090": (23.6, (8, 9)),
    "H100 80GB HBM3": (79.2, (9, 0)),
    "H200": (139.8, (9, 0)),
}
"""Memory in GiB that cards report, and their compute capability: of 8, 24, 80 and 140 GB by name."""

CONTEXT_GIB = 0.4
"""Memory that CUDA itself has taken when a card is looked at."""


def card(name: str, *, held_gib: float = CONTEXT_GIB) -> Card:
    """One of `CARDS`, with so much of its memory taken."""
    total, capability = CARDS[name]
    return Card(
        device=torch.device("cuda", 0),
        name=name,
        total_bytes=int(total * GIB),
        free_bytes=int((total - held_gib) * GIB),
        capability=capability,
    )


def plan_for(archetype: str, held: Card) -> Plan:
    """The plan of an archetype for a card as it is."""
    amount, reason = held.budget
    precision: Precision = "bfloat16" if held.has_bfloat16 else "float16"
    given = Budget(memory_bytes=amount, gpu=True, precision=precision, reason=reason, gpu_name=held.name)
    return ARCHETYPES[archetype](given)


def hours_per_fold() -> dict[str, dict[str, float]]:
    """The estimated hours of a fold of configuration 0, by card and archetype, as the plan prints them."""
    found: dict[str, dict[str, float]] = {}
    for name in CARDS:
        plans = {archetype: plan_for(archetype, card(name)) for archetype in ARCHETYPES}
        hours = {each: estimated_hours(plan, plan.configurations[0].name) for each, plan in plans.items()}
        found[name] = {each: float(value) for each, value in hours.items() if value is not None}
    return found


def plan_budget_share_max() -> float:
    """The largest predicted share of a card's memory, over all archetypes and cards."""
    return max(
        configuration.memory_bytes / card(name).total_bytes
        for name in CARDS
        for archetype in ARCHETYPES
        for configuration in plan_for(archetype, card(name)).configurations
    )
