"""Statistics of a fingerprint's cases by modality and site, and warnings; computed when shown, not stored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autospine.core.geometry import triple
from autospine.core.labels import side_pairs
from autospine.core.types import Modality, Vector3
from autospine.fingerprint.facts import CaseFacts, Fingerprint, IntensityFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupStatistics:
    """Medians over the cases of one modality, or of one modality at one site."""

    modality: Modality
    site: str | None
    """None for all sites together."""

    cases: int
    """Number of cases."""

    spacing_mm: Vector3
    """Median voxel size along each of S, P, L."""

    size_mm: Vector3
    """Median field of view along each of S, P, L."""

    anisotropy: float
    """Median of the cases' coarsest over finest spacing: well above 1 for scans with thick slices."""

    intensities: IntensityFacts | None
    """Foreground intensities; None if no case has foreground."""


def group_statistics(fingerprint: Fingerprint) -> tuple[GroupStatistics, ...]:
    """Return the statistics of every modality, each followed by those of its sites if it has several."""
    groups: list[GroupStatistics] = []
    for modality in sorted({case.modality for case in fingerprint.cases}):
        cases = [case for case in fingerprint.cases if case.modality == modality]
        groups.append(_statistics(cases, modality, None, fingerprint.intensities.get(modality)))
        sites = sorted({case.site for case in cases if case.site is not None})
        if len({case.site for case in cases}) > 1:
            groups += [
                _statistics(
                    [case for case in cases if case.site == site],
                    modality,
                    site,
                    _site_intensities(fingerprint, modality, site),
                )
                for site in sites
            ]
    return tuple(groups)


def find_warnings(fingerprint: Fingerprint) -> tuple[str, ...]:
    """Return what the owner of the dataset should know or mend, one sentence each."""
    return (*_duplicates(fingerprint), *_absent(fingerprint), *_one_sided(fingerprint))


def _statistics(
    cases: Sequence[CaseFacts], modality: Modality, site: str | None, intensities: IntensityFacts | None
) -> GroupStatistics:
    return GroupStatistics(
        modality=modality,
        site=site,
        cases=len(cases),
        spacing_mm=triple(np.median([case.spacing_mm for case in cases], axis=0)),
        size_mm=triple(np.median([case.size_mm for case in cases], axis=0)),
        anisotropy=float(np.median([case.anisotropy for case in cases])),
        intensities=intensities,
    )


def _site_intensities(fingerprint: Fingerprint, modality: Modality, site: str) -> IntensityFacts | None:
    matching = (facts for facts in fingerprint.sites if (facts.modality, facts.site) == (modality, site))
    return next((facts.intensities for facts in matching), None)


def _duplicates(fingerprint: Fingerprint) -> Iterator[str]:
    subjects = {case.name: case.subject for case in fingerprint.cases}
    for first, *others in fingerprint.duplicates:
        apart = [name for name in others if subjects[name] != subjects[first]]
        if apart:
            lines = " ".join(f"{name},{subjects[first]}" for name in apart)
            yield (
                f"{', '.join((first, *others))} show the same image, or nearly so: folds must not separate "
                f"them, and new ones do not; give them one subject in cases.csv (case,subject): {lines}"
            )


def _absent(fingerprint: Fingerprint) -> Iterator[str]:
    absent = [facts.name for facts in fingerprint.classes if not facts.cases]
    if absent:
        yield (
            f"{', '.join(absent)}: in dataset.json but in no label file, so nothing can be learnt about it; "
            "remove it or add cases that have it"
        )


def _one_sided(fingerprint: Fingerprint) -> Iterator[str]:
    names = [facts.name for facts in fingerprint.classes]
    single = [names[index] for index in side_pairs(names).single]
    if single:
        yield (
            f"{', '.join(single)}: left or right without a counterpart of the same name, so patches are not "
            "mirrored; mend the names in dataset.json if that is not meant"
        )
