"""The measured facts of a dataset, as they are stored."""

from dataclasses import dataclass

import numpy as np

from autospine.core.geometry import triple
from autospine.core.labels import side_pairs
from autospine.core.types import Modality, Shape3, Vector3

FORMAT_VERSION = 2
"""Of `fingerprint.json`. Raised whenever something else is measured, so that older files are made anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Percentiles:
    """Local thickness over the voxels of a structure, in mm.

    A voxel's local thickness is the diameter of the largest ball that contains it and lies inside.
    """

    p10: float
    """A tenth of the structure is thinner."""

    p50: float
    """Half of the structure is thinner."""

    p90: float
    """Nine tenths of the structure are thinner."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StructureFacts:
    """One class where it occurs in a case."""

    voxels: int
    """More than none."""

    components: int
    """Pieces that do not touch, not even by a corner (26-neighbourhood)."""

    extent_mm: Vector3
    """Edges of its bounding box."""

    thickness_mm: float
    """Four times the mean distance to its surface: the thickness of a plate, two thirds of the diameter of a
    rod, half of that of a ball."""

    local_thickness_mm: Percentiles
    """The diameter of a rod or a ball, the thickness of a plate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseFacts:
    """One training case."""

    name: str
    modality: Modality
    site: str | None
    subject: str
    """Cases of one subject never lie on both sides of a split."""

    shape: Shape3
    """Voxels along S, P, L."""

    spacing_mm: Vector3
    structures: tuple[StructureFacts | None, ...]
    """Each foreground class in order, None where it is absent."""

    spine_mm: float
    """Extent along S of everything that is labelled; 0 where nothing is."""

    noise: float | None
    """Standard deviation of the noise around the spine: in HU for CT, for MR as a share of the labelled
    voxels' median. None where it cannot be told."""

    repairs: tuple[str, ...]
    """What had to be mended in the header on reading."""

    @property
    def size_mm(self) -> Vector3:
        """Field of view."""
        return triple(n * d for n, d in zip(self.shape, self.spacing_mm, strict=True))

    @property
    def anisotropy(self) -> float:
        """Coarsest over finest spacing."""
        return max(self.spacing_mm) / min(self.spacing_mm)

    @property
    def class_voxels(self) -> tuple[int, ...]:
        """Voxels of each foreground class."""
        return tuple(found.voxels if found else 0 for found in self.structures)


@dataclass(frozen=True, kw_only=True, slots=True)
class IntensityFacts:
    """Foreground intensities over several cases (HU for CT), each of which weighs the same."""

    cases: int
    """With any foreground."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_05: float
    percentile_25: float
    median: float
    percentile_75: float
    percentile_95: float
    percentile_99_5: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteFacts:
    """The intensities of one modality at one site."""

    modality: Modality
    site: str
    intensities: IntensityFacts
    """First channel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFacts:
    """One foreground class over all cases: medians over those in which it occurs, None if it never does."""

    name: str
    cases: int
    """Cases in which it occurs."""

    volume_ml: float
    """0 if it never occurs."""

    components: float | None
    """1 for a class that is one piece in most cases."""

    extent_mm: Vector3 | None
    """Edges of its bounding box."""

    thickness_mm: float | None
    """Four times the mean distance to its surface: see `StructureFacts`."""

    local_thickness_mm: Percentiles | None
    """The median of each percentile."""


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

    sites: tuple[SiteFacts, ...]
    """The same for each modality and site, of the cases whose site is known."""

    duplicates: tuple[tuple[str, ...], ...]
    """Cases that show the same image, or nearly so."""

    @property
    def foreground_fraction(self) -> float:
        """Share of all voxels that belong to any class."""
        voxels = sum(int(np.prod(case.shape)) for case in self.cases)
        return sum(sum(case.class_voxels) for case in self.cases) / voxels

    @property
    def side_pairs(self) -> tuple[tuple[str, str], ...]:
        """Classes of the left side, each with its counterpart, by their names."""
        names = [one.name for one in self.classes]
        return tuple((names[left], names[right]) for left, right in side_pairs(names).pairs)
