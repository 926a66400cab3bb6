"""Time every metric on a whole-spine CT of 512 x 512 x 400 voxels with 26 labels: `make bench-metrics`.

The label map is a phantom's. In the prediction each structure lies a voxel lower, one vertebra has the name
of the next, and one is missing. Each group of metrics is timed in a process of its own, with both maps in
memory. Prints one JSON object last: seconds of each group, seconds of processors that they took, and the peak
of memory beyond both maps.
"""

import argparse
import json
import time
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from processes import Facts, forget_peak, held_bytes, in_fresh_process, peak_bytes
from result_page import measured_on, write_measured

SHAPE = (400, 512, 512)
SPACING_MM = (1.8, 0.8, 0.8)

BLOCK = (2, 2, 2)
"""Voxels that are drawn as one, which makes the surfaces no smaller and the phantom eight times as fast."""

LEVELS, SACRUM, DISC = 24, 25, 26

GROUPS = ("overlap", "surface", "instance", "vertebra", "all")

GOAL_SECONDS = 30.0

Maps = tuple[np.ndarray, np.ndarray]
"""Prediction and reference."""


def spine_maps() -> Maps:
    """Label maps of 24 vertebrae, the sacrum and the discs."""
    from autospine.core.labels import DISC_OFFSET, VERSE
    from autospine.phantom import PhantomSettings, generate

    coarse = tuple(spacing * block for spacing, block in zip(SPACING_MM, BLOCK, strict=True))
    settings = PhantomSettings(
        region="whole",
        modality="CT",
        variant="usual",
        spacing_mm=coarse,
        size_mm=tuple(extent * spacing for extent, spacing in zip(SHAPE, SPACING_MM, strict=True)),
        orientation="LPS",
        oblique_deg=0.0,
        metal=False,
    )
    drawn = generate(settings, seed=1).labels
    labels = np.where(drawn <= LEVELS, drawn, 0).astype(np.uint8)
    labels[drawn == VERSE["sacrum"]] = SACRUM
    labels[drawn > DISC_OFFSET] = DISC
    reference = labels
    for axis, block in enumerate(BLOCK):
        reference = np.repeat(reference, block, axis=axis)
    prediction = np.roll(reference, -1, axis=0)
    prediction[prediction == 12] = 13
    prediction[prediction == 20] = 0
    return prediction, reference


def measure_group(options: Namespace) -> Facts:
    """Time the metrics of a group on the maps that lie in the folder."""
    from autospine.core.labels import parse_labels
    from autospine.evaluation.evaluate_maps import evaluate_case
    from autospine.evaluation.metrics import find_metrics

    names = {"background": 0, **{level(index): index for index in range(1, LEVELS + 1)}}
    labels = parse_labels({**names, "sacrum": SACRUM, "disc": DISC})
    prediction, reference = (
        np.load(options.folder / f"{which}.npy") for which in ("prediction", "reference")
    )
    metrics = find_metrics([options.group])
    small = np.zeros((3, 3, 3), dtype=np.uint8)
    evaluate_case(small, small, labels, case="warm", metrics=metrics, spacing_mm=SPACING_MM)
    forget_peak()
    held, began, processors = held_bytes(), time.monotonic(), time.process_time()
    scores = evaluate_case(
        prediction, reference, labels, case="spine", metrics=metrics, spacing_mm=SPACING_MM
    )
    return {
        "seconds": time.monotonic() - began,
        "processor_seconds": time.process_time() - processors,
        "gigabytes": (peak_bytes() - held) / 1e9,
        "labels": scores.mean.n,
    }


def level(index: int) -> str:
    """Name of a vertebra by its integer."""
    from autospine.core.labels import VERSE

    return next(name for name, integer in VERSE.items() if integer == index)


def page(figures: dict[str, Facts]) -> str:
    """The tables of the page."""
    lines = [
        measured_on(),
        "",
        "| metrics | seconds | processor seconds | GB beyond both maps |",
        "|---|---|---|---|",
        *(
            f"| `{group}` | {facts['seconds']:.1f} | {facts['processor_seconds']:.1f} | "
            f"{facts['gigabytes']:.2f} |"
            for group, facts in figures.items()
        ),
        "",
        f"The goal is at most {GOAL_SECONDS:g} s for all of them together on two cores.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Time all groups and print the figures, or be the process of one of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", type=Path, help="page that gets the table")
    parser.add_argument("--child", choices=["group"], help=argparse.SUPPRESS)
    parser.add_argument("--group", choices=GROUPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure_group(options)))  # noqa: T201 (a script's result)
        return
    with TemporaryDirectory() as folder:
        for which, array in zip(("prediction", "reference"), spine_maps(), strict=True):
            np.save(Path(folder) / f"{which}.npy", array)
        figures = {
            group: in_fresh_process(__file__, "group", {"group": group, "folder": folder}) for group in GROUPS
        }
    if any(facts["labels"] != DISC for facts in figures.values()):
        raise SystemExit(f"expected all {DISC} labels in the phantom, found {figures}")
    text = page(figures)
    if options.write:
        write_measured(options.write, text)
    print(text)  # noqa: T201
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
