"""The names that the vertebrae of a scan get, as they are written beside its label map or points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autospine.core.errors import FormatError
from autospine.core.geometry import vector
from autospine.core.types import Vector3
from autospine.evaluation.postprocessing import LabelChange
from autospine.storage.serialization import stored_as
from autospine.vertebrae.decoding import Decoded, FoundVertebrae
from autospine.vertebrae.levels import INDEX, UNUSUAL

FORMAT_VERSION = 2
READABLE = (1, FORMAT_VERSION)
"""Versions that can be read. In version 1 there are no `changes`."""

NAMES_ENDING = "_vertebrae.json"
"""End of the name of the file with the names, after that of the case."""

UNKNOWN = "unknown"
"""Level of a vertebra that nothing in view tells."""

LEAST_CONFIDENCE = 0.5
"""Probability of a level below which a vertebra's level is unknown."""

SURELY = 0.9
"""Probability of an unusual spine from which on it is not doubted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VertebraIdentity:
    """One vertebra, or the sacrum, and what it is."""

    order: int
    """Place from the head down among those of the scan, from 1 on; it is certain where the level is not."""

    level: str
    """Level, such as L3, or `unknown`."""

    likeliest: str
    """The likeliest level, also where it is unknown."""

    confidence: float
    """Probability of the likeliest level, 0 to 1."""

    position_mm: Vector3
    """Centre (x, y, z) in LPS."""

    cut: bool = False
    """Whether the border of the image cuts it, so that it is a part of a vertebra."""

    called: str | None = None
    """Level that the label map called it; None for points, which have no names."""


@stored_as("the names of vertebrae")
@dataclass(frozen=True, kw_only=True, slots=True)
class SpineIdentities:
    """The content of `CASE_vertebrae.json`."""

    format_version: int
    case: str
    vertebrae: tuple[VertebraIdentity, ...]
    """From the head down."""

    no_vertebra_mm: tuple[Vector3, ...]
    """Centres of what was taken for no vertebra."""

    last_thoracic: str | None
    """Last thoracic level of the likeliest spine; None if it is not in view."""

    last_lumbar: str | None
    """Last lumbar level of the likeliest spine; None if it is not in view."""

    notes: tuple[str, ...] = ()
    """Oddities of the scan, in words."""

    changes: tuple[LabelChange, ...] = ()
    """Vertebrae, or pieces of them, that have another label in the new map, the largest volume first."""

    def __post_init__(self) -> None:
        if self.format_version not in READABLE:
            raise FormatError(
                f"expected names of vertebrae of format_version 1 or {FORMAT_VERSION}, found "
                f"{self.format_version}; use the AutoSpine version that wrote them, or name the vertebrae "
                "again with `autospine anatomy identify`"
            )


def nothing_found(case: str) -> SpineIdentities:
    """Return the content of the file of a scan without vertebrae."""
    return SpineIdentities(
        format_version=FORMAT_VERSION,
        case=case,
        vertebrae=(),
        no_vertebra_mm=(),
        last_thoracic=None,
        last_lumbar=None,
        notes=("there is no vertebra",),
    )


def _oddities(
    vertebrae: Sequence[VertebraIdentity], last_thoracic: str | None, last_lumbar: str | None
) -> list[str]:
    """Return in words what of a scan's names a user should look at."""
    notes = []
    confidence = {each.likeliest: each.confidence for each in vertebrae}
    for last, region in ((last_thoracic, "thoracic"), (last_lumbar, "lumbar")):
        if last not in (None, "T12", "L5"):
            doubt = "" if confidence[last] >= SURELY else "; else names are off by one"
            notes.append(
                f"{last} is the last {region} vertebra, with a probability of {confidence[last]:.2f}{doubt}"
            )
    for level in UNUSUAL:
        if any(each.called == level for each in vertebrae) and level not in confidence:
            notes.append(f"the map calls a vertebra {level}, and the likeliest spine has none")
    doubtful = [each for each in vertebrae if each.level == UNKNOWN and each.called in INDEX]
    if doubtful:
        one = doubtful[0]
        notes.append(
            f"unknown levels keep their labels: what is called {one.called} is {one.likeliest} with a "
            f"probability of {one.confidence:.2f}"
        )
    return notes


def identities_of(
    case: str,
    found: FoundVertebrae,
    decoded: Decoded,
    cut: Sequence[bool] = (),
    called: Sequence[str] = (),
    notes: Sequence[str] = (),
    least: Sequence[float] = (),
) -> SpineIdentities:
    """Return what is written about the vertebrae of a scan.

    Args:
        case: Name of the scan.
        found: What was decoded.
        decoded: Its levels.
        cut: Whether each is cut by the border; by default none is.
        called: What a label map called each, if it comes from one.
        notes: What was odd.
        least: Probability that the level of each takes to be known; by default `LEAST_CONFIDENCE`.
    """
    positions = [vector(position) for position in np.round(found.positions_mm, 2)]
    vertebrae: list[VertebraIdentity] = []
    for place, level in enumerate(decoded.levels):
        if level is None:
            continue
        confidence = float(decoded.probability[place, INDEX[level]])
        vertebrae.append(
            VertebraIdentity(
                order=len(vertebrae) + 1,
                level=level if confidence >= (least[place] if least else LEAST_CONFIDENCE) else UNKNOWN,
                likeliest=level,
                confidence=round(min(confidence, 1.0), 4),
                position_mm=positions[place],
                cut=bool(cut[place]) if cut else False,
                called=called[place] if called else None,
            )
        )
    seen = {each.likeliest for each in vertebrae}
    thoracic, lumbar = (
        [level for level in decoded.variant.levels if level[0] == region][-1] for region in "TL"
    )
    last_thoracic = thoracic if {thoracic, "L1"} <= seen else None
    last_lumbar = lumbar if lumbar in seen else None
    return SpineIdentities(
        format_version=FORMAT_VERSION,
        case=case,
        vertebrae=tuple(vertebrae),
        no_vertebra_mm=tuple(
            position for level, position in zip(decoded.levels, positions, strict=True) if level is None
        ),
        last_thoracic=last_thoracic,
        last_lumbar=last_lumbar,
        notes=(*notes, *_oddities(vertebrae, last_thoracic, last_lumbar)),
    )
