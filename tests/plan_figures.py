"""Figures of the plans for GPUs: how full they make a card. Nothing is run, and no GPU is needed."""

import torch
from unit.planners.archetypes import ARCHETYPES

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
    return ARCHETYPES[archetype](Budget(memory_bytes=amount, gpu=True, precision=precision, reason=reason))


def plan_budget_share_max() -> float:
    """The largest predicted share of a card's memory, over all archetypes and cards."""
    return max(
        configuration.memory_bytes / card(name).total_bytes
        for name in CARDS
        for archetype in ARCHETYPES
        for configuration in plan_for(archetype, card(name)).configurations
    )
