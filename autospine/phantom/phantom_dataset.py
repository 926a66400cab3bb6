"""A whole dataset of phantoms in the nnU-Net v2 raw layout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autospine.core.errors import WorkspaceError
from autospine.core.labels import DISC_OFFSET, VERSE, VERTEBRAE
from autospine.core.types import Modality
from autospine.dataset.new_dataset import (
    FILE_ENDING,
    WrittenCase,
    built_aside,
    make_cases,
    write_description,
)
from autospine.io.images import write_array
from autospine.phantom.generate import STRUCTURES, PhantomSettings, Region, Scheme, by_structure, generate
from autospine.phantom.shifts import SHIFTS
from autospine.synthesis.tissues import CODES


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """One case to make."""

    name: str
    settings: PhantomSettings
    seed: int
    scheme: Scheme
    image: Path
    labels: Path
    tissues: Path | None
    """Where the tissue map is written; None leaves it out."""


def write_dataset(
    folder: Path,
    *,
    cases: int,
    test_cases: int = 0,
    region: Region = "lumbar",
    modalities: Sequence[Modality] = ("CT", "MR"),
    scheme: Scheme = "levels",
    seed: int = 0,
    settings: PhantomSettings | None = None,
    tissues: bool = False,
    shifts: bool = False,
    workers: int = 1,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a dataset of phantoms: images, labels, `dataset.json`, `cases.csv`; the whole folder or nothing.

    Held-out cases lie in `imagesTs`, their labels in `labelsTs`. The same arguments give the same voxels,
    whatever the number of workers.

    Args:
        folder: The dataset's folder, such as `raw/Dataset900_Phantom`.
        cases: Number of training cases, at least 1.
        test_cases: Number of held-out cases.
        region: The part of the spine in the field of view.
        modalities: Modalities of the cases, in turn.
        scheme: `levels` (each vertebra and disc by level) or `structures` (vertebra, disc, canal, sacrum).
        seed: Any non-negative integer.
        tissues: Whether the tissue map of each training case is written to `tissuesTr`, so that training
            makes images from it.
        shifts: Whether the cases of each modality come from several hospitals in turn: one as usual, and one
            for each of its `SHIFTS`. Each is a site of its own in `cases.csv`.
        settings: Further settings; its region and modality are replaced by the arguments above.
        workers: Processes to share the cases; with more than one the caller must be importable (`spawn`).
        overwrite: Whether to replace a dataset that is there.
        on_progress: Called after each case with the number of cases done and the number in all.

    Returns:
        The folder.

    Raises:
        WorkspaceError: If the numbers make no dataset, or the folder exists and may not be replaced.
    """
    if cases < 1 or test_cases < 0 or not modalities:
        raise WorkspaceError(
            f"expected at least one training case, zero or more held-out ones and at least one modality, "
            f"found {cases}, {test_cases} and {len(modalities)}; change these numbers"
        )
    folder = Path(folder)
    base = replace(settings or PhantomSettings(), region=region)
    with built_aside(folder, overwrite=overwrite) as draft:
        drawn = _drawn_settings(base, cases, test_cases, modalities, shifts=shifts)
        jobs = _jobs(draft, drawn, cases, scheme, seed, tissues=tissues)
        rows = make_cases(_make, jobs, workers, on_progress)
        seen = frozenset().union(*(row.integers for row in rows))
        occurring = {name: value for name, value in label_names(scheme).items() if value in seen}
        others = {"tissues": CODES} if tissues else {}
        write_description(draft, rows, training=cases, labels={"background": 0, **occurring}, others=others)
    return folder


def _drawn_settings(
    base: PhantomSettings, cases: int, test_cases: int, modalities: Sequence[Modality], *, shifts: bool
) -> list[PhantomSettings]:
    """Return the settings of each case.

    Modalities take turns among the training and the held-out cases, and hospitals among those of a modality.
    """
    drawn = []
    for index in [*range(cases), *range(test_cases)]:
        turn, which = divmod(index, len(modalities))
        modality = modalities[which]
        hospitals = (None, *SHIFTS[modality]) if shifts else (base.shift,)
        drawn.append(replace(base, modality=modality, shift=hospitals[turn % len(hospitals)]))
    return drawn


def _jobs(
    folder: Path,
    drawn: Sequence[PhantomSettings],
    cases: int,
    scheme: Scheme,
    seed: int,
    *,
    tissues: bool,
) -> list[_Job]:
    """Return what is to be made; the first `cases` are for training."""
    jobs = []
    for index, settings in enumerate(drawn):
        held_out = index >= cases
        assert settings.modality is not None  # `_drawn_settings` has given each one
        name = f"{settings.region}_{settings.modality.lower()}_{index:03d}"
        images, labels = ("imagesTs", "labelsTs") if held_out else ("imagesTr", "labelsTr")
        mapped = tissues and not held_out
        for part in (images, labels, *(["tissuesTr"] if mapped else [])):
            (folder / part).mkdir(exist_ok=True)
        jobs.append(
            _Job(
                name=name,
                settings=settings,
                seed=int(np.random.SeedSequence([seed, index]).generate_state(1)[0]),
                scheme=scheme,
                image=folder / images / f"{name}_0000{FILE_ENDING}",
                labels=folder / labels / f"{name}{FILE_ENDING}",
                tissues=folder / "tissuesTr" / f"{name}{FILE_ENDING}" if mapped else None,
            )
        )
    return jobs


def _make(job: _Job) -> WrittenCase:
    """Generate and write one case."""
    phantom = generate(job.settings, job.seed)
    labels = by_structure(phantom.labels) if job.scheme == "structures" else phantom.labels
    write_array(job.image, phantom.image, phantom.grid)
    write_array(job.labels, labels, phantom.grid)
    if job.tissues is not None:
        write_array(job.tissues, phantom.tissues, phantom.grid)
    return WrittenCase(
        case=job.name,
        modality=phantom.modality,
        site=_site(phantom.contrast, job.settings),
        subject=job.name,
        integers=frozenset(int(value) for value in np.unique(labels)),
    )


def _site(contrast: str, settings: PhantomSettings) -> str:
    """Return the site of a case: its kind of picture, or what its hospital changes."""
    if settings.shift is None:
        return f"phantom_{contrast.lower()}"
    return f"{settings.modality}_{settings.shift}".lower()


def label_names(scheme: Scheme) -> dict[str, int]:
    """Return every foreground name of a scheme and its integer, in anatomical order.

    `levels`: vertebrae, sacrum and canal as in VerSe, a disc 100 + the vertebra above it.
    `structures`: vertebra 1, disc 2, canal 3, sacrum 4.
    """
    if scheme == "structures":
        return dict(STRUCTURES)
    vertebrae = {name: VERSE[name] for name in VERTEBRAE}
    discs = {f"disc_below_{name}": DISC_OFFSET + VERSE[name] for name in VERTEBRAE if name != "C1"}
    return {**vertebrae, "sacrum": VERSE["sacrum"], **discs, "canal": VERSE["canal"]}
