"""Datasets of images that are made from the maps of another dataset: `autospine synthesise`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Integer

from autospine.core.errors import DatasetError, WorkspaceError, listed
from autospine.core.geometry import Grid, triple
from autospine.core.labels import LabelSpace
from autospine.core.types import Modality, Vector3
from autospine.data.spatial import draw_deformation, warp_maps
from autospine.data.synthetic import SHARES, draw_scene
from autospine.dataset.map_values import read_tissue_map, unnamed_values
from autospine.dataset.new_dataset import FILE_ENDING, WrittenCase, built_aside, make_cases, write_description
from autospine.dataset.raw import Case, Dataset
from autospine.io.images import read_labels, write_array
from autospine.plan import Augmentation
from autospine.synthesis.appearance import N_CODES, Kind
from autospine.synthesis.scanner import finish_ct, finish_mr
from autospine.synthesis.tissues import tissue_of
from autospine.system.log import get_logger

logger = get_logger(__name__)

UNLABELLED = "unlabelled"
"""Name of what has no label in label maps; it says nothing, so that soft tissue is drawn."""

KINDS: tuple[Kind, ...] = ("CT", "MR", "free")
"""Kinds of images that can be made."""

DEFORMED = Augmentation(
    rotation_deg=(10.0, 10.0, 15.0),
    scale=(0.85, 1.18),
    elastic_mm=2.0,
    spatial_probability=1.0,
    intensity_probability=0.0,
    mirror_axes=(),
    mirror_pairs=(),
    bias_probability=0.0,
    bias_std=0.0,
    metal_probability=0.0,
    metal_hu=0.0,
    window_probability=0.0,
    window_shift=0.0,
)
"""How bodies differ from those of the maps: sizes as far as adults do, never upside down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _MadeCase:
    """One case to make."""

    name: str
    source: Case
    labels: LabelSpace
    """Labels of the dataset."""
    names: Mapping[int, str]
    """Name of each code of the map."""
    kind: Kind
    seed: tuple[int, int]
    folder: Path


def synthesise(
    dataset: Dataset,
    folder: Path,
    *,
    cases: int,
    kinds: Sequence[Kind] = KINDS,
    seed: int = 0,
    overwrite: bool = False,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a dataset of images that are made from the tissue maps, or else the label maps, of another.

    The maps take turns. Each is deformed anew, and drawn as an image of one of the kinds. The same arguments
    give the same voxels, whatever the number of workers.

    Args:
        dataset: Dataset whose training cases have the maps.
        folder: The new dataset's folder, such as `raw/Dataset902_Made`.
        cases: Number of cases, at least 1.
        kinds: Kinds of images, at least one, of which each case is drawn as one, in their usual shares.
        seed: Any non-negative integer.
        overwrite: Whether to replace a dataset that is there.
        workers: Processes to share the cases; with more than one the caller must be importable (`spawn`).
        on_progress: Called after each case with the number of cases done and the number in all.

    Returns:
        The folder.

    Raises:
        DatasetError: If no training case has a map, its classes are regions, a map lies on another grid than
            the labels, or maps or labels have values without a name or that cannot be drawn.
        WorkspaceError: If the folder exists and may not be replaced, or there are to be no cases.
    """
    if cases < 1:
        raise WorkspaceError(f"expected at least one case to make, found {cases}; make more")
    sources = _sources(dataset)
    rng = np.random.default_rng((seed, 0))
    shares = np.array([SHARES[kind] for kind in kinds])
    drawn = rng.choice(len(kinds), size=cases, p=shares / shares.sum())
    names = _names(dataset)
    with built_aside(folder, overwrite=overwrite) as draft:
        for part in ("imagesTr", "labelsTr"):
            (draft / part).mkdir()
        jobs = [
            _MadeCase(
                name=f"{sources[index % len(sources)].name}_{index:03d}",
                source=sources[index % len(sources)],
                labels=dataset.labels,
                names=names,
                kind=kinds[int(drawn[index])],
                seed=(seed, index + 1),
                folder=draft,
            )
            for index in range(cases)
        ]
        rows = make_cases(_make, jobs, workers, on_progress)
        write_description(draft, rows, training=cases, labels=_described(dataset.labels), others={})
    return folder


def _sources(dataset: Dataset) -> list[Case]:
    """Return the cases with maps: with tissue maps where any has one, else all."""
    if dataset.labels.regions or any(len(members) != 1 for members in dataset.labels.members):
        raise DatasetError(
            f"expected classes that do not overlap in {dataset.folder}, found regions; give a dataset of "
            "plain labels"
        )
    mapped = [case for case in dataset.cases if case.tissues is not None]
    sources = mapped or [case for case in dataset.cases if case.labels is not None]
    if not sources:
        raise DatasetError(
            f"expected training cases with label maps in {dataset.folder}, found none; add some to labelsTr"
        )
    return sources


def _described(labels: LabelSpace) -> dict[str, int]:
    """Return the entry `labels` of dataset.json."""
    values = (value for (value,) in labels.members)
    ignored = {} if labels.ignore is None else {"ignore": labels.ignore}
    return {"background": 0, **dict(zip(labels.names, values, strict=True)), **ignored}


def _names(dataset: Dataset) -> dict[int, str]:
    """Return the name of each code of the maps, and say what is drawn as plain soft tissue.

    Raises:
        DatasetError: If a label value is none of a tissue map's.
    """
    if dataset.tissues:
        names = dict(dataset.tissues)
    else:
        pairs = zip(dataset.labels.names, dataset.labels.members, strict=True)
        unlabelled = dict.fromkeys(dataset.labels.known, UNLABELLED)
        names = {**unlabelled, **{value: name for name, (value,) in pairs}}
        if wrong := sorted(value for value in names if not 0 <= value < N_CODES):
            raise DatasetError(
                f"expected label values from 0 to {N_CODES - 1} to draw images of the label maps in "
                f"{dataset.folder}, found {listed([str(value) for value in wrong])}; renumber them, or add "
                "tissue maps in tissuesTr"
            )
        if len(dataset.labels.names) == 1:
            logger.warning(
                "%s has one class and no tissue maps: images are of one structure in even tissue, which "
                "teaches little; maps of many structures in tissuesTr make a body of it",
                dataset.name,
            )
    if plain := [name for name in names.values() if tissue_of(name) is None and name != UNLABELLED]:
        logger.info("drawn as soft tissue, since their names say nothing of it: %s", listed(plain))
    return names


def _make(job: _MadeCase) -> WrittenCase:
    """Make and write one case."""
    labels, codes, grid = _maps(job.source, job.labels, job.names)
    rng = np.random.default_rng(job.seed)
    shape, spacing = triple(codes.shape), grid.spacing_mm
    deformation = draw_deformation(rng, DEFORMED, shape, spacing)
    labels, codes = warp_maps([labels, codes], deformation, spacing)
    image, modality, contrast = draw_image(codes, job.names, job.kind, spacing, rng)
    write_array(job.folder / "imagesTr" / f"{job.name}_0000{FILE_ENDING}", image, grid)
    write_array(job.folder / "labelsTr" / f"{job.name}{FILE_ENDING}", labels, grid)
    return WrittenCase(
        case=job.name,
        modality=modality,
        site=f"made_{contrast.lower()}",
        subject=job.source.subject,
        integers=frozenset(int(value) for value in np.unique(labels)),
    )


def draw_image(
    codes: Int32[np.ndarray, "S P L"],
    names: Mapping[int, str],
    kind: Kind,
    spacing_mm: Vector3,
    rng: np.random.Generator,
) -> tuple[Integer[np.ndarray, "S P L"], Modality, str]:
    """Draw an image of a map as a scanner would store it.

    Args:
        codes: Tissue map.
        names: Name of the tissue or structure of each of its codes.
        kind: Kind of the image.
        spacing_mm: Voxel size (S, P, L).
        rng: Random generator.

    Returns:
        HU of CT, arbitrary units otherwise; the modality; and the sequence or kind.
    """
    value, appearance = draw_scene(codes, names, kind, spacing_mm, rng)
    if appearance.modality == "CT":
        return finish_ct(value, appearance, spacing_mm, rng), "CT", appearance.contrast
    return finish_mr(value, appearance, rng), "MR", appearance.contrast


def _maps(
    case: Case, space: LabelSpace, names: Mapping[int, str]
) -> tuple[Integer[np.ndarray, "S P L"], Int32[np.ndarray, "S P L"], Grid]:
    """Read the labels and the tissue map of a case; where it has none, the labels are the map."""
    assert case.labels is not None
    read = read_labels(case.labels, space)
    labels = read.array[0]
    values, counts = np.unique(labels, return_counts=True)
    voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if fault := unnamed_values("expected the labels", voxels, space.known, case.labels):
        raise DatasetError(fault)
    if case.tissues is None:
        return labels, labels.astype(np.int32), read.grid
    return labels, read_tissue_map(case.tissues, read.grid, names), read.grid
