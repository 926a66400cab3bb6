"""The measured facts of a dataset, as `fingerprint.json` stores them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from autospine.core.errors import FormatError
from autospine.core.geometry import triple
from autospine.core.labels import side_pairs
from autospine.core.types import Modality, Shape3, Vector3
from autospine.storage.file_names import read_text
from autospine.storage.serialization import from_json, many, parse_json, stored_as

FORMAT_VERSION = 3
"""Version of `fingerprint.json`; version 2 is read too."""

LARGEST = 256 * 2**20
"""Most bytes of a fingerprint; a thousand cases of a hundred classes have a twentieth of it."""

MEASURES = 2
"""Part of a dataset's key: raised whenever something is measured in another way, or more is measured, so that
older fingerprints are made anew."""

FORMER_KEYS = frozenset(
    {
        *("noise", "repairs", "components", "extent_mm", "local_thickness_mm"),
        *("percentile_05", "percentile_95"),
    }
)
"""Keys of version 2 that nothing used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StructureFacts:
    """One class in a case in which it occurs."""

    voxels: int
    """Number of its voxels, at least 1."""

    thickness_mm: float
    """Four times the mean distance to its surface: the thickness of a plate, two thirds of the diameter of a
    rod, half of the diameter of a ball."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseFacts:
    """One training case."""

    name: str
    modality: Modality
    site: str | None
    subject: str
    """Person or specimen; cases of one subject never lie on both sides of a split."""

    shape: Shape3
    """Voxels along S, P, L."""

    spacing_mm: Vector3
    """Voxel size along S, P, L."""

    structures: tuple[StructureFacts | None, ...]
    """Each foreground class in order, None where it is absent."""

    spine_mm: float
    """Extent along S of everything that is labelled; 0 if nothing is."""

    @property
    def size_mm(self) -> Vector3:
        """Field of view along S, P, L."""
        return triple(n * d for n, d in zip(self.shape, self.spacing_mm, strict=True))

    @property
    def anisotropy(self) -> float:
        """Coarsest over finest spacing."""
        return max(self.spacing_mm) / min(self.spacing_mm)

    @property
    def class_voxels(self) -> tuple[int, ...]:
        """Number of voxels of each foreground class."""
        return tuple(found.voxels if found else 0 for found in self.structures)


@dataclass(frozen=True, kw_only=True, slots=True)
class IntensityFacts:
    """Foreground intensities over several cases (HU for CT), each of which weighs the same."""

    cases: int
    """Number of cases with any foreground."""

    mean: float
    std: float
    percentile_00_5: float
    percentile_25: float
    median: float
    percentile_75: float
    percentile_99_5: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteFacts:
    """The intensities of one modality at one site."""

    modality: Modality
    site: str
    intensities: IntensityFacts
    """Foreground intensities of the first channel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFacts:
    """One foreground class over all cases."""

    name: str
    cases: int
    """Number of cases in which it occurs."""

    volume_ml: float
    """Median over the cases in which it occurs; 0 if it never does."""

    thickness_mm: float | None
    """Median of `StructureFacts.thickness_mm` over the cases in which it occurs; None if it never does."""


@stored_as("the fingerprint of a dataset", largest=LARGEST)
@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """The measured facts of a dataset."""

    format_version: int
    dataset: str
    key: str
    """Digest of the files and labels that were measured; see `dataset_key`."""

    cases: Annotated[tuple[CaseFacts, ...], many()]
    classes: tuple[ClassFacts, ...]
    intensities: dict[Modality, IntensityFacts]
    """Foreground intensities of the first channel by modality."""

    sites: tuple[SiteFacts, ...]
    """The same for each modality and site, over the cases whose site is known."""

    duplicates: tuple[tuple[str, ...], ...]
    """Groups of cases that show the same image, or nearly so."""

    @property
    def side_pairs(self) -> tuple[tuple[str, str], ...]:
        """Names of the classes of the left side, each with its counterpart on the right."""
        names = [facts.name for facts in self.classes]
        return tuple((names[left], names[right]) for left, right in side_pairs(names).pairs)


def read_fingerprint(path: Path) -> Fingerprint:
    """Read `fingerprint.json`; of version 2, only what is still used.

    Raises:
        FormatError: If the file is missing, damaged or of another version.
    """
    try:
        described = parse_json(read_text(path, LARGEST))
        if isinstance(described, dict) and described.get("format_version") == 2:
            described = _without_former_keys(described) | {"format_version": FORMAT_VERSION}
    except (OSError, ValueError) as error:
        raise FormatError(f"expected a readable fingerprint at {path}, found {error}") from None
    measured = from_json(json.dumps(described), Fingerprint, str(path))
    if measured.format_version != FORMAT_VERSION:
        raise FormatError(
            f"expected format_version {FORMAT_VERSION} or 2 in {path}, found {measured.format_version}; "
            "delete the file and run `autospine fingerprint` again"
        )
    return measured


def _without_former_keys(value: Any) -> Any:
    """Return JSON without the keys in `FORMER_KEYS`, at any depth."""
    if isinstance(value, dict):
        return {key: _without_former_keys(v) for key, v in value.items() if key not in FORMER_KEYS}
    return [_without_former_keys(v) for v in value] if isinstance(value, list) else value
