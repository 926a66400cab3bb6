"""Findings of the spine beyond wear of the discs: which of them one spine has, and how they look.

Shares among people follow what imaging of adults finds: Schmorl's nodes in a third, haemangiomas in a tenth,
transitional lumbosacral vertebrae in a twelfth, slipped vertebrae in one of fifteen (orders of magnitude,
since every share depends on age).
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from autospine.phantom.anatomy import BreakKind, Dent, Lesion, LesionKind, Spine, Vertebra
from autospine.phantom.shapes import Frame

Pathology = Literal["none", "usual", "much"]
"""How often findings are drawn: never, as in adults, or four times as often."""

_FACTOR: dict[Pathology, float] = {"none": 0.0, "usual": 1.0, "much": 4.0}

# Share of people with each finding.
_NODES, _BRIDGES, _FUSION, _SLIP, _WING = 0.3, 0.05, 0.05, 0.07, 0.08
_METASTASES, _HAEMANGIOMA, _CEMENT = 0.06, 0.11, 0.03
# Shares of kinds among broken vertebrae.
_BREAKS: dict[BreakKind, float] = {"wedge": 0.6, "biconcave": 0.25, "burst": 0.15}


def with_findings(spine: Spine, rng: np.random.Generator, pathology: Pathology) -> Spine:
    """Return a spine with findings drawn at random; labels and names of its vertebrae stay as they are."""
    factor = _FACTOR[pathology]
    chances = rng.random(8)
    people = [
        share * factor
        for share in (_NODES, _BRIDGES, _FUSION, _SLIP, _WING, _METASTASES, _HAEMANGIOMA, _CEMENT)
    ]
    nodes, bridges, fusion, slip, wing, metastases, haemangioma, cement = (
        bool(chance < share) for chance, share in zip(chances, people, strict=True)
    )
    if factor == 0:
        healthy = tuple(replace(v, crush=1.0) for v in spine.vertebrae)
        return replace(spine, vertebrae=healthy)
    vertebrae = [_broken(v, rng) for v in spine.vertebrae]
    vertebrae = [
        replace(v, spur=float(np.clip(wear * rng.uniform(0, 1.3) - 0.2, 0, 1)))
        for v, wear in zip(vertebrae, spine.degeneration, strict=True)
    ]
    if nodes:
        vertebrae = [_with_nodes(v, rng) for v in vertebrae]
    if bridges:
        first, count = int(rng.integers(9, 14)), int(rng.integers(4, 8))
        vertebrae[first : first + count] = [replace(v, bridge=True) for v in vertebrae[first : first + count]]
    if fusion:
        place = int(rng.integers(1, len(vertebrae) - 1))
        vertebrae[place] = replace(vertebrae[place], fused=True)
    if wing:
        vertebrae[-1] = replace(vertebrae[-1], sacralised=True)
    vertebrae = _with_lesions(vertebrae, rng, metastases=metastases, haemangioma=haemangioma, cement=cement)
    if slip:
        vertebrae = _slipped(vertebrae, rng)
    return replace(spine, vertebrae=tuple(vertebrae))


def _broken(vertebra: Vertebra, rng: np.random.Generator) -> Vertebra:
    """Return a vertebra whose fracture, if it has one, is of a kind."""
    kinds = tuple(_BREAKS)
    kind = kinds[int(rng.choice(len(kinds), p=tuple(_BREAKS.values())))]
    return replace(vertebra, break_kind=kind) if vertebra.crush < 1 else vertebra


def _with_nodes(vertebra: Vertebra, rng: np.random.Generator) -> Vertebra:
    """Return a vertebra with Schmorl's nodes in some of its endplates, of the lower chest and loin mostly."""
    share = {"C": 0.0, "T": 0.25, "L": 0.3}[vertebra.region]
    dents = []
    for cranial in (True, False):
        if rng.random() < share:
            size = vertebra.size
            dents.append(
                Dent(
                    x_mm=float(rng.normal(0, 0.14)) * size.width,
                    y_mm=float(rng.uniform(-0.2, 0.2)) * size.depth,
                    radius_mm=float(rng.uniform(0.10, 0.24)) * size.depth,
                    depth_mm=float(rng.uniform(0.12, 0.32)) * size.height,
                    cranial=cranial,
                )
            )
    return replace(vertebra, dents=tuple(dents))


def _slipped(vertebrae: list[Vertebra], rng: np.random.Generator) -> list[Vertebra]:
    """Return vertebrae of which one, with all above it, has slipped forwards, or somewhat backwards."""
    forward = rng.random() < 0.75
    back = int(rng.integers(1, 3)) if forward else int(rng.integers(2, 5))
    way = float(rng.uniform(-12, -4)) if forward else float(rng.uniform(2, 5))
    last = len(vertebrae) - back
    shift = np.array([0.0, way, 0.0])
    return [
        replace(v, frame=Frame(origin_mm=v.frame.origin_mm + shift, axes=v.frame.axes)) if i <= last else v
        for i, v in enumerate(vertebrae)
    ]


def _with_lesions(
    vertebrae: list[Vertebra], rng: np.random.Generator, *, metastases: bool, haemangioma: bool, cement: bool
) -> list[Vertebra]:
    """Return vertebrae with lesions in their bodies or arches."""
    result = list(vertebrae)
    if haemangioma:
        place = int(rng.integers(7, len(result)))
        result[place] = _with_lesion(result[place], "haemangioma", rng)
    if metastases:
        kind: LesionKind = "sclerotic" if rng.random() < 0.45 else "lytic"
        for place in range(2, len(result)):
            if rng.random() < 0.3:
                result[place] = _with_lesion(result[place], kind, rng)
    for place, vertebra in enumerate(result):
        if vertebra.region != "C" and (vertebra.crush < 1 and rng.random() < 0.15):
            result[place] = _with_lesion(vertebra, "cement", rng)
    if cement:
        place = int(rng.integers(10, len(result)))
        result[place] = _with_lesion(result[place], "cement", rng)
    return result


def _with_lesion(vertebra: Vertebra, kind: LesionKind, rng: np.random.Generator) -> Vertebra:
    """Return a vertebra with one to three lesions of a kind more."""
    size = vertebra.size
    found = []
    for _ in range(1 if kind != "cement" else 2):
        # Most lie in the body; metastases like the pedicles.
        behind = kind in ("lytic", "sclerotic") and rng.random() < 0.3
        y = 0.55 * size.depth if behind else float(rng.uniform(-0.28, 0.25)) * size.depth
        found.append(
            Lesion(
                kind=kind,
                centre_mm=(
                    float(rng.uniform(-0.32, 0.32)) * size.width,
                    y,
                    float(rng.uniform(-0.25, 0.25)) * size.height,
                ),
                radii_mm=(
                    float(rng.uniform(0.12, 0.36)) * size.width,
                    float(rng.uniform(0.15, 0.4)) * size.depth,
                    float(rng.uniform(0.2, 0.5)) * size.height,
                ),
            )
        )
    return replace(vertebra, lesions=(*vertebra.lesions, *found))
