"""Measurement of a dataset: every case once, several at a time, then statistics over all of them."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from autospine.cluster.executor import Executor
from autospine.cluster.this_machine import WorkerThreads
from autospine.core.errors import AutospineError, DatasetError
from autospine.core.labels import LabelSpace
from autospine.core.types import Modality
from autospine.dataset.case_sizes import case_tasks
from autospine.dataset.raw import Case, Dataset
from autospine.fingerprint.case import Measured, measure_case
from autospine.fingerprint.duplicates import find_duplicates
from autospine.fingerprint.facts import (
    FORMAT_VERSION,
    MEASURES,
    CaseFacts,
    ClassFacts,
    Fingerprint,
    IntensityFacts,
    SiteFacts,
)
from autospine.storage.digest import digest_of
from autospine.system.hardware import cores
from autospine.system.log import progress

MOST_AT_ONCE = 4
"""Cases that are measured at the same time unless the user wants more: each needs about four times the memory
of its image."""


def measure(dataset: Dataset, workers: int | None = None, cluster: Executor | None = None) -> Fingerprint:
    """Read every training case once and measure it.

    Args:
        dataset: A verified dataset.
        workers: Number of cases that are measured at the same time, each in a thread; by default one per
            core, at most `MOST_AT_ONCE`. Reading, transforms and hashing release the interpreter's lock, and
            threads start at once.
        cluster: Measures the cases instead of this machine's threads.

    Raises:
        DatasetError: If a case cannot be measured (lists all of them), or if no case has foreground.
        ClusterError: If the cluster is gone.
    """
    measured = _measure_all(dataset, workers or min(cores(), MOST_AT_ONCE), cluster)
    facts = tuple(case.facts for case in measured)
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
        duplicates=find_duplicates([case.name for case in facts], [case.signature for case in measured]),
    )


def dataset_key(dataset: Dataset) -> str:
    """Return a digest of all that is measured: the files' names, sizes and times, the labels, `cases.csv`."""
    texts = [repr((MEASURES, dataset.channels, dataset.labels))]
    for case in dataset.cases:
        texts.append(repr((case.name, case.modality, case.site, case.subject)))
        for path in (*case.images, *((case.labels,) if case.labels else ())):
            state = path.stat()
            texts.append(f"{path.name} {state.st_size} {state.st_mtime_ns}")
    return digest_of(text.encode() for text in texts)


def _measure_all(dataset: Dataset, workers: int, cluster: Executor | None) -> list[Measured]:
    """Measure every case, on a cluster or in threads; return the facts in the dataset's order.

    Raises:
        DatasetError: If a case cannot be measured; lists all of them.
    """
    measured: dict[str, Measured] = {}
    problems: list[str] = []
    executor = cluster or WorkerThreads(workers)
    tasks = case_tasks(dataset.cases, elsewhere=cluster is not None)
    with progress("fingerprint", len(tasks)) as meter:
        for task, outcome in executor.run(partial(_attempt, labels=dataset.labels), tasks):
            if isinstance(outcome, Measured):
                measured[task.name] = outcome
            else:
                problems.append(str(outcome))
            meter.advance()
    if problems:
        listed = "\n".join(f"  {line}" for line in sorted(problems))
        raise DatasetError(
            f"expected to measure all {len(dataset.cases)} cases of {dataset.name}, {len(problems)} failed:\n"
            f"{listed}\nmend or remove them and run the command again"
        )
    return [measured[case.name] for case in dataset.cases]


def _attempt(case: Case, *, labels: LabelSpace) -> Measured | str:
    """Measure a case; return a line that says what is wrong with it if that is not possible."""
    try:
        return measure_case(case, labels)
    except AutospineError as error:
        return f"{case.name}: {error}"
    except (OSError, MemoryError) as error:
        return f"{case.name}: {type(error).__name__}: {error}"


def _class_facts(cases: Sequence[CaseFacts], labels: LabelSpace) -> Iterator[ClassFacts]:
    """Return each class's medians over the cases in which it occurs."""
    for index, name in enumerate(labels.names):
        found = [(case, facts) for case in cases if (facts := case.structures[index]) is not None]
        volumes = [facts.voxels * float(np.prod(case.spacing_mm)) / 1000 for case, facts in found]
        thicknesses = [facts.thickness_mm for _, facts in found]
        yield ClassFacts(
            name=name,
            cases=len(found),
            volume_ml=round(float(np.median(volumes)), 3) if found else 0.0,
            thickness_mm=round(float(np.median(thicknesses)), 2) if found else None,
        )


def _by_modality(measured: Sequence[Measured]) -> dict[Modality, IntensityFacts]:
    facts: dict[Modality, IntensityFacts] = {}
    for modality in sorted({case.facts.modality for case in measured}):
        found = _intensity_facts([case for case in measured if case.facts.modality == modality])
        if found is not None:
            facts[modality] = found
    return facts


def _by_site(measured: Sequence[Measured]) -> Iterator[SiteFacts]:
    known = [(case.facts.modality, case.facts.site) for case in measured if case.facts.site is not None]
    for modality, site in sorted(set(known)):
        here = [case for case in measured if (case.facts.modality, case.facts.site) == (modality, site)]
        found = _intensity_facts(here)
        if found is not None:
            yield SiteFacts(modality=modality, site=site, intensities=found)


def _intensity_facts(measured: Sequence[Measured]) -> IntensityFacts | None:
    """Return statistics over the samples of several cases; None if no case has foreground."""
    samples = [case.sample for case in measured if case.sample.size]
    if not samples:
        return None
    values = np.concatenate(samples)
    points = [float(value) for value in np.percentile(values, [0.5, 25, 50, 75, 99.5])]
    return IntensityFacts(
        cases=len(samples),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        percentile_00_5=points[0],
        percentile_25=points[1],
        median=points[2],
        percentile_75=points[3],
        percentile_99_5=points[4],
    )
