"""The names of the vertebrae of a case: how sure they are, what naming changed, and what is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from autospine.core.errors import AutospineError
from autospine.core.labels import IGNORE_INDEX, LabelSpace
from autospine.evaluation.postprocessing import LabelChange
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.report.case_views import CaseMaps
from autospine.report.report_content import Guide, NamedVertebra, ReportTable
from autospine.report.views import index_names
from autospine.storage.serialization import read_json
from autospine.system.log import get_logger
from autospine.vertebrae.identities import NAMES_ENDING, UNKNOWN, SpineIdentities

logger = get_logger(__name__)

REACH_MM = 15.0
"""Distance from the centre of a vertebra within which the reference is asked for its name."""

LEAST_CHANGE_ML = 0.05
"""Least volume of a change of names that a case mentions."""

NAMES_GUIDE = Guide(
    shown="The vertebrae from the head down: the likeliest level, its probability, what the label map called "
    "it before, and what the reference calls it where there is one.",
    good="Probabilities near 1, and no level that is unknown.",
    action="Below 0.5 the level is unknown and the label stays as it was: show more of the spine, down to "
    "the sacrum or up to the skull, or name it by hand. A name that is wrong by one level often shows a "
    "sixth lumbar or a missing twelfth thoracic vertebra.",
)


def read_names(folders: Sequence[Path], case: str) -> SpineIdentities | None:
    """Read the names of a case's vertebrae from the first folder that has them.

    Returns:
        The names; None if there are none, or the file is damaged.
    """
    for folder in folders:
        path = folder / f"{case}{NAMES_ENDING}"
        if path.is_file():
            try:
                return read_json(path, SpineIdentities)
            except AutospineError as error:
                logger.warning("the report has no names of %s: %s", case, error)
                return None
    return None


def named_vertebrae(
    found: SpineIdentities, maps: CaseMaps | None = None, labels: LabelSpace | None = None
) -> tuple[NamedVertebra, ...]:
    """Return the vertebrae of a case, compared with the reference where there is one.

    Args:
        found: The names.
        maps: Label maps of the case; None if they are not known.
        labels: Meaning of their label values; None if it is not known.
    """
    referred = _in_reference(found, maps, labels)
    return tuple(
        NamedVertebra(
            level=each.likeliest,
            known=each.level != UNKNOWN,
            confidence=each.confidence,
            called=each.called or "",
            cut=each.cut,
            reference=referred.get(each.order, ""),
        )
        for each in found.vertebrae
    )


def names_table(vertebrae: Sequence[NamedVertebra]) -> ReportTable:
    """Return the table of the names of a case."""
    referred = any(each.reference for each in vertebrae)
    columns = (
        "level",
        "probability",
        "called before",
        *(["in the reference"] if referred else []),
        "remarks",
    )
    rows = []
    for each in vertebrae:
        remarks = ["cut by the border"] if each.cut else []
        remarks += [] if each.known else ["unknown: its label stays"]
        remarks += ["renamed"] if each.known and each.called not in ("", each.level) else []
        remarks += ["wrong"] if each.right is False else []
        reference = [each.reference or "–"] if referred else []
        name = each.level if each.known else f"{each.level}?"
        rows.append((name, f"{each.confidence:.2f}", each.called or "–", *reference, ", ".join(remarks)))
    return ReportTable(
        title="Names of the vertebrae", columns=columns, rows=tuple(rows), numeric=(1,), guide=NAMES_GUIDE
    )


def name_findings(
    vertebrae: Sequence[NamedVertebra], changes: Sequence[LabelChange] = (), notes: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return sentences about the names of a case.

    Args:
        vertebrae: The vertebrae.
        changes: What naming changed in the label map, the largest volume first.
        notes: Oddities of the scan.
    """
    found = [
        f"{each.level} is {each.reference} in the reference, with a probability of {each.confidence:.2f}"
        for each in vertebrae
        if each.right is False
    ]
    if unknown := [each.level for each in vertebrae if not each.known]:
        found.append(f"nothing tells the level of {', '.join(unknown)} for sure: labels stay as predicted")
    if changes := [each for each in changes if each.ml >= LEAST_CHANGE_ML]:
        named = ", ".join(f"{each.from_label} to {each.to_label} ({each.ml:.1f} ml)" for each in changes[:6])
        found.append(f"naming changed {named}")
    return (*found, *notes)


def _in_reference(
    found: SpineIdentities, maps: CaseMaps | None, labels: LabelSpace | None
) -> Mapping[int, str]:
    """Return the level that the reference has where each vertebra is, by its order; as far as it has one."""
    naming = None if labels is None else VertebraNaming.of_labels(labels)
    if maps is None or maps.reference is None or labels is None or naming is None:
        return {}
    by_class = {name: level for level, name in naming.names.items()}
    levels = [by_class.get(name, "") for name in index_names(labels)]
    referred = {}
    for each in found.vertebrae:
        called = each.called if each.level == UNKNOWN else each.level
        if called not in levels:
            continue
        centre = maps.grid.index(np.asarray(each.position_mm))
        around = tuple(
            slice(max(0, round(float(at) - REACH_MM / mm)), max(0, round(float(at) + REACH_MM / mm) + 1))
            for at, mm in zip(centre, maps.grid.spacing_mm, strict=True)
        )
        true = maps.reference[around][maps.prediction[around] == levels.index(called) + 1]
        counts = np.bincount(true[true != IGNORE_INDEX], minlength=len(levels) + 1)[1 : len(levels) + 1]
        if counts.any() and levels[int(counts.argmax())]:
            referred[each.order] = levels[int(counts.argmax())]
    return referred
