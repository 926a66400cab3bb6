"""The fingerprint: what is measured on a raw dataset before anything is decided."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from autospine.dataset import Case, Dataset, case_modality
from autospine.errors import DatasetError
from autospine.hardware import cores
from autospine.images import Volume, read_labels, read_volume
from autospine.labels import IGNORE_INDEX, LabelSpace
from autospine.log import progress
from autospine.types import Modality, Shape3, Vector3

FORMAT_VERSION = 1

SAMPLES_PER_CASE = 20_000
"""Foreground voxels drawn per case for the intensity statistics; every case weighs the same."""

DISTANCE_VOXELS = 2_000_000
"""Boxes larger than this are thinned before the distance transform that measures thickness."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseFacts:
    """One training case."""

    name: str
    modality: Modality
    site: str | None
    shape: Shape3
    """Voxels along S, P, L."""

    spacing_mm: Vector3
    class_voxels: tuple[int, ...]
    """Voxels of each foreground class."""

    class_thickness_mm: tuple[float | None, ...]
    """Typical local thickness of each foreground class, None where absent."""

    repairs: tuple[str, ...]
    """What had to be mended in the header on reading."""

    @property
    def size_mm(self) -> Vector3:
        """Field of view."""
        s, p, l = (n * d for n, d in zip(self.shape, self.spacing_mm, strict=True))  # noqa: E741
        return s, p, l


@dataclass(frozen=True, kw_only=True, slots=True)
class IntensityFacts:
    """Foreground intensities of one modality over all its cases (HU for CT)."""

    cases: int
    mean: float
    std: float
    percentile_00_5: float
    median: float
    percentile_99_5: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFacts:
    """One foreground class over all cases."""

    name: str
    cases: int
    """Cases in which it occurs."""

    volume_ml: float
    """Median volume where it occurs; 0 if it never does."""

    thickness_mm: float | None
    """Median local thickness where it occurs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """The measured facts of a dataset."""

    format_version: int
    dataset: str
    key: str
    """Digest of the files and labels that were measured."""

    cases: tuple[CaseFacts, ...]
    classes: tuple[ClassFacts, ...]
    intensities: dict[Modality, IntensityFacts]
    """First channel, by modality."""

    @property
    def foreground_fraction(self) -> float:
        """Share of all voxels that belong to any class."""
        voxels = sum(int(np.prod(case.shape)) for case in self.cases)
        return sum(sum(case.class_voxels) for case in self.cases) / voxels


def measure(dataset: Dataset, workers: int | None = None) -> Fingerprint:
    """Read every training case once and measure it.

    Args:
        dataset: a verified dataset.
        workers: cases in memory at the same time; by default two, or one on a single core.

    Raises:
        DatasetError: if a case cannot be measured or there is no foreground at all.
    """
    workers = workers or min(2, cores())
    measured: list[tuple[CaseFacts, np.ndarray]] = []
    with progress("fingerprint", len(dataset.cases)) as meter, ThreadPoolExecutor(workers) as pool:
        for result in pool.map(lambda case: _measure_case(case, dataset.labels), dataset.cases):
            measured.append(result)
            meter.advance()
    facts = tuple(case for case, _ in measured)
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
        classes=_class_facts(facts, dataset.labels),
        intensities=_intensity_facts(measured),
    )


def dataset_key(dataset: Dataset) -> str:
    """Digest of all that is measured: the files' names, sizes and times, the labels, the case facts."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr((dataset.channels, dataset.labels)).encode())
    for case in dataset.cases:
        digest.update(repr((case.name, case.modality, case.site, case.subject)).encode())
        for path in (*case.images, *((case.labels,) if case.labels else ())):
            state = path.stat()
            digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()


def local_thickness_mm(mask: np.ndarray, spacing_mm: Vector3) -> float:
    """Typical local thickness of a structure.

    In a plate of thickness t the distance to the surface is spread evenly over 0 ... t/2, so its mean is
    t/4; rods give two thirds of their diameter, balls half of it. The surface lies halfway between the last
    voxel inside and the first outside.

    Args:
        mask: non-empty, (S, P, L).
        spacing_mm: voxel size.
    """
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    inside = mask[box]
    # Thinning by whole steps keeps the transform affordable on large structures such as a whole spine.
    step = int(np.ceil((inside.size / DISTANCE_VOXELS) ** (1 / 3)))
    inside = np.pad(inside[::step, ::step, ::step], 1)
    if not inside.any():
        return float(min(spacing_mm))
    sampling = [d * step for d in spacing_mm]
    distance, nearest = ndimage.distance_transform_edt(inside, sampling=sampling, return_indices=True)
    voxels = np.argwhere(inside)
    steps = np.abs(nearest[:, inside].T - voxels).max(axis=1)
    return float(4 * np.mean(distance[inside] * (1 - 0.5 / steps)))


def _measure_case(case: Case, labels: LabelSpace) -> tuple[CaseFacts, np.ndarray]:
    if case.labels is None:
        raise DatasetError(f"expected labels for training case {case.name!r}, found none")
    volume = read_volume(case.images)
    indices = labels.encode(read_labels(case.labels).array[0])
    spacing = volume.grid.spacing_mm
    voxels, thickness = zip(*_class_measures(indices, labels, spacing), strict=True)
    facts = CaseFacts(
        name=case.name,
        modality=case_modality(case, volume),
        site=case.site,
        shape=volume.grid.shape,
        spacing_mm=spacing,
        class_voxels=voxels,
        class_thickness_mm=thickness,
        repairs=volume.notes,
    )
    return facts, _foreground_sample(volume, indices)


def _class_measures(
    indices: np.ndarray, labels: LabelSpace, spacing_mm: Vector3
) -> Iterator[tuple[int, float | None]]:
    """Voxels and thickness of each foreground class, with one mask in memory at a time."""
    for row in labels.membership if labels.regions else labels.membership[1:]:
        mask = np.isin(indices, np.flatnonzero(row))
        voxels = int(mask.sum())
        yield voxels, local_thickness_mm(mask, spacing_mm) if voxels else None


def _foreground_sample(volume: Volume, indices: np.ndarray) -> np.ndarray:
    inside: np.ndarray = volume.array[0][(indices > 0) & (indices != IGNORE_INDEX)].astype(np.float32)
    if inside.size <= SAMPLES_PER_CASE:
        return inside
    sample: np.ndarray = inside[np.random.default_rng(0).integers(inside.size, size=SAMPLES_PER_CASE)]
    return sample


def _class_facts(cases: Sequence[CaseFacts], labels: LabelSpace) -> tuple[ClassFacts, ...]:
    facts = []
    for index, name in enumerate(labels.names):
        present = [case for case in cases if case.class_voxels[index]]
        volumes = [case.class_voxels[index] * float(np.prod(case.spacing_mm)) / 1000 for case in present]
        thickness = [t for case in present if (t := case.class_thickness_mm[index]) is not None]
        facts.append(
            ClassFacts(
                name=name,
                cases=len(present),
                volume_ml=round(float(np.median(volumes)), 3) if present else 0.0,
                thickness_mm=round(float(np.median(thickness)), 2) if present else None,
            )
        )
    return tuple(facts)


def _intensity_facts(measured: Sequence[tuple[CaseFacts, np.ndarray]]) -> dict[Modality, IntensityFacts]:
    facts: dict[Modality, IntensityFacts] = {}
    for modality in sorted({case.modality for case, _ in measured}):
        samples = [sample for case, sample in measured if case.modality == modality]
        values = np.concatenate(samples)
        if not values.size:
            continue
        low, middle, high = np.percentile(values, [0.5, 50, 99.5])
        facts[modality] = IntensityFacts(
            cases=len(samples),
            mean=float(values.mean(dtype=np.float64)),
            std=float(values.std(dtype=np.float64)),
            percentile_00_5=float(low),
            median=float(middle),
            percentile_99_5=float(high),
        )
    return facts
