"""What the cases of a fingerprint have in common, and what is wrong with them: computed, stored nowhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autospine.core.geometry import triple
from autospine.core.labels import side_pairs
from autospine.core.types import Modality, Vector3
from autospine.fingerprint.facts import CaseFacts, Fingerprint, IntensityFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """One number per case, over several cases."""

    lowest: float
    median: float
    highest: float


Spread3 = tuple[Spread, Spread, Spread]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """The cases of one modality, or of one modality at one site."""

    modality: Modality
    site: str | None
    """None for all sites together."""

    cases: int
    spacing_mm: Spread3
    shape: Spread3
    """Voxels along S, P, L."""

    size_mm: Spread3
    """Field of view."""

    anisotropy: Spread
    """Coarsest over finest spacing of each case."""

    spine_mm: Spread | None
    """Extent along S of what is labelled, over the cases that have any."""

    noise: Spread | None
    """HU for CT, share of the foreground's median for MR; over the cases in which it could be told."""

    intensities: IntensityFacts | None
    """Of the foreground; None without any."""


def summarise(fingerprint: Fingerprint) -> tuple[Summary, ...]:
    """Every modality as a whole, followed by its sites where it has more than one."""
    summaries: list[Summary] = []
    for modality in sorted({case.modality for case in fingerprint.cases}):
        cases = [case for case in fingerprint.cases if case.modality == modality]
        summaries.append(_summary(cases, modality, None, fingerprint.intensities.get(modality)))
        sites = sorted({case.site for case in cases if case.site is not None})
        if len({case.site for case in cases}) > 1:
            summaries += [
                _summary(
                    [case for case in cases if case.site == site],
                    modality,
                    site,
                    _site_intensities(fingerprint, modality, site),
                )
                for site in sites
            ]
    return tuple(summaries)


def find_warnings(fingerprint: Fingerprint) -> tuple[str, ...]:
    """What the owner of the dataset should know or mend, one sentence each."""
    return (*_duplicates(fingerprint), *_absent(fingerprint), *_one_sided(fingerprint))


def _summary(
    cases: Sequence[CaseFacts], modality: Modality, site: str | None, intensities: IntensityFacts | None
) -> Summary:
    spines = [case.spine_mm for case in cases if case.spine_mm > 0]
    noises = [case.noise for case in cases if case.noise is not None]
    return Summary(
        modality=modality,
        site=site,
        cases=len(cases),
        spacing_mm=_spread3([case.spacing_mm for case in cases]),
        shape=_spread3([case.shape for case in cases]),
        size_mm=_spread3([case.size_mm for case in cases]),
        anisotropy=_spread([case.anisotropy for case in cases]),
        spine_mm=_spread(spines) if spines else None,
        noise=_spread(noises) if noises else None,
        intensities=intensities,
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(lowest=float(min(values)), median=float(np.median(values)), highest=float(max(values)))


def _spread3(triples: Sequence[Vector3]) -> Spread3:
    return triple(_spread(values) for values in zip(*triples, strict=True))


def _site_intensities(fingerprint: Fingerprint, modality: Modality, site: str) -> IntensityFacts | None:
    found = (one for one in fingerprint.sites if (one.modality, one.site) == (modality, site))
    return next((one.intensities for one in found), None)


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
    absent = [one.name for one in fingerprint.classes if not one.cases]
    if absent:
        yield (
            f"{', '.join(absent)}: in dataset.json but in no label file, so nothing can be learnt about it; "
            "remove it or add cases that have it"
        )


def _one_sided(fingerprint: Fingerprint) -> Iterator[str]:
    names = [one.name for one in fingerprint.classes]
    single = [names[index] for index in side_pairs(names).single]
    if single:
        yield (
            f"{', '.join(single)}: left or right without a counterpart of the same name, so patches are not "
            "mirrored; mend the names in dataset.json if that is not meant"
        )
