"""Measure a dataset: every case once, several at a time, then what they have in common."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from autospine.core.errors import AutospineError, DatasetError
from autospine.core.labels import LabelSpace
from autospine.core.types import Modality, Vector3
from autospine.dataset.raw import Case, Dataset
from autospine.fingerprint.case import Measured, measure_case
from autospine.fingerprint.duplicates import find_duplicates
from autospine.fingerprint.facts import (
    FORMAT_VERSION,
    CaseFacts,
    ClassFacts,
    Fingerprint,
    IntensityFacts,
    Percentiles,
    SiteFacts,
    StructureFacts,
)
from autospine.system.hardware import cores
from autospine.system.log import progress

MOST_AT_ONCE = 4
"""Cases that are measured side by side unless the user wants more: each needs about four times its image."""


def measure(dataset: Dataset, workers: int | None = None) -> Fingerprint:
    """Read every training case once and measure it.

    Args:
        dataset: a verified dataset.
        workers: cases that are measured at the same time, each in a thread; by default one per core, at most
            `MOST_AT_ONCE`. Reading, transforms and hashing all release the interpreter's lock, and threads
            start at once.

    Raises:
        DatasetError: listing every case that cannot be measured, or if there is no foreground at all.
    """
    measured = _measure_all(dataset, workers or min(cores(), MOST_AT_ONCE))
    facts = tuple(one.facts for one in measured)
    if not any(any(case.class_voxels) for case in facts):
        raise DatasetError(
            f"expected labelled voxels in {dataset.folder / 'labelsTr'}, found only background in all "
            f"{len(facts)} cases; check the label files"
        )
    return Fingerprint(
        format_version=FORMAT_VERSION,
        dataset=dataset.name,
        key=dataset_key(dataset),
        cases=facts,
        classes=tuple(_class_facts(facts, dataset.labels)),
        intensities=_by_modality(measured),
        sites=tuple(_by_site(measured)),
        duplicates=find_duplicates([case.name for case in facts], [one.likeness for one in measured]),
    )


def dataset_key(dataset: Dataset) -> str:
    """Digest of all that is measured: the files' names, sizes and times, the labels, the case facts."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((FORMAT_VERSION, dataset.channels, dataset.labels)).encode())
    for case in dataset.cases:
        digest.update(repr((case.name, case.modality, case.site, case.subject)).encode())
        for path in (*case.images, *((case.labels,) if case.labels else ())):
            state = path.stat()
            digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()


def _measure_all(dataset: Dataset, workers: int) -> list[Measured]:
    """Every case in the dataset's order.

    Raises:
        DatasetError: listing the cases that cannot be measured.
    """
    measured: list[Measured] = []
    problems: list[str] = []
    pool = ThreadPoolExecutor(workers)
    try:
        with progress("fingerprint", len(dataset.cases)) as meter:
            for result in pool.map(lambda case: _attempt(case, dataset.labels), dataset.cases):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    measured.append(result)
                meter.advance()
    finally:
        # After Ctrl-C only the cases that are being measured are waited for.
        pool.shutdown(wait=True, cancel_futures=True)
    if problems:
        listed = "\n".join(f"  {line}" for line in problems)
        raise DatasetError(
            f"expected to measure all {len(dataset.cases)} cases of {dataset.name}, {len(problems)} failed:\n"
            f"{listed}\nmend or remove them and run the command again"
        )
    return measured


def _attempt(case: Case, labels: LabelSpace) -> Measured | str:
    """What was measured, or what went wrong."""
    try:
        return measure_case(case, labels)
    except AutospineError as error:
        return f"{case.name}: {error}"
    except (OSError, MemoryError) as error:
        return f"{case.name}: {type(error).__name__}: {error}"


def _class_facts(cases: Sequence[CaseFacts], labels: LabelSpace) -> Iterator[ClassFacts]:
    for index, name in enumerate(labels.names):
        found = [(case, one) for case in cases if (one := case.structures[index]) is not None]
        structures = [one for _, one in found]
        volumes = [one.voxels * float(np.prod(case.spacing_mm)) / 1000 for case, one in found]
        yield ClassFacts(
            name=name,
            cases=len(found),
            volume_ml=round(_median(volumes), 3) if found else 0.0,
            components=_median([one.components for one in structures]) if found else None,
            extent_mm=_median_extent(structures) if found else None,
            thickness_mm=round(_median([one.thickness_mm for one in structures]), 2) if found else None,
            local_thickness_mm=_median_percentiles(structures) if found else None,
        )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _median_extent(structures: Sequence[StructureFacts]) -> Vector3:
    s, p, l = np.median([one.extent_mm for one in structures], axis=0)  # noqa: E741
    return round(float(s), 1), round(float(p), 1), round(float(l), 1)


def _median_percentiles(structures: Sequence[StructureFacts]) -> Percentiles:
    local = [one.local_thickness_mm for one in structures]
    return Percentiles(
        p10=round(_median([one.p10 for one in local]), 2),
        p50=round(_median([one.p50 for one in local]), 2),
        p90=round(_median([one.p90 for one in local]), 2),
    )


def _by_modality(measured: Sequence[Measured]) -> dict[Modality, IntensityFacts]:
    facts: dict[Modality, IntensityFacts] = {}
    for modality in sorted({one.facts.modality for one in measured}):
        found = _intensity_facts([one for one in measured if one.facts.modality == modality])
        if found is not None:
            facts[modality] = found
    return facts


def _by_site(measured: Sequence[Measured]) -> Iterator[SiteFacts]:
    known = [(one.facts.modality, one.facts.site) for one in measured if one.facts.site is not None]
    for modality, site in sorted(set(known)):
        own = [one for one in measured if (one.facts.modality, one.facts.site) == (modality, site)]
        found = _intensity_facts(own)
        if found is not None:
            yield SiteFacts(modality=modality, site=site, intensities=found)


def _intensity_facts(measured: Sequence[Measured]) -> IntensityFacts | None:
    """Over the samples of several cases; None where no case has foreground."""
    samples = [one.sample for one in measured if one.sample.size]
    if not samples:
        return None
    values = np.concatenate(samples)
    points = [float(value) for value in np.percentile(values, [0.5, 5, 25, 50, 75, 95, 99.5])]
    return IntensityFacts(
        cases=len(samples),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        percentile_00_5=points[0],
        percentile_05=points[1],
        percentile_25=points[2],
        median=points[3],
        percentile_75=points[4],
        percentile_95=points[5],
        percentile_99_5=points[6],
    )
