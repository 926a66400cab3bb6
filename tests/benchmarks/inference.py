"""Measure memory and time of prediction, and its way back to the image's grid side by side with nnU-Net's.

Run by `make bench-inference`; needs nnU-Net, about an hour and a machine with nothing else to do. Figures of
memory and of small networks come from a process of their own each, whose peak is the kernel's `VmHWM`. Prints
one JSON object last, and with `--write FILE` puts the tables between that file's `<!-- measured -->` marks.
`--scale 0.5` halves the image's edges and the minutes of training, for a try.
"""

import argparse
import json
import os
import platform
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import export
import numpy as np
import whole_spine
from processes import Facts, in_fresh_process, peak_bytes
from result_page import write_measured

SHAPE = (800, 512, 512)
NATIVE_MM = 0.8
RESAMPLED_MM = 1.0
LABELS = 26
TILE = 128
FOLDS = 5
REPEATS = 3
BANDS_HU = (-160.0, 1200.0)
"""What the small networks divide among the classes."""

PARTS = ("memory", "export", "commands")


def scaled(shape: tuple[int, ...], scale: float) -> tuple[int, ...]:
    return tuple(max(32, round(n * scale)) for n in shape)


def make_image(path: Path, shape: tuple[int, ...]) -> None:
    """A whole-spine CT of this size: a phantom at a quarter of the resolution, enlarged, with noise."""
    from makers import grid

    from autospine.io.images import write_array
    from autospine.phantom import PhantomSettings, generate

    coarse_mm = 4 * NATIVE_MM
    size = [coarse_mm * -(-n // 4) for n in shape]
    settings = PhantomSettings(
        region="whole",
        modality="CT",
        spacing_mm=(coarse_mm,) * 3,
        size_mm=(size[0], size[1], size[2]),
        orientation="LPS",
        oblique_deg=0.0,
    )
    coarse = generate(settings, seed=1).image
    image = np.empty(shape, dtype=np.int16)
    rng = np.random.default_rng(0)
    for row in range(shape[0]):
        plane = coarse[min(row // 4, len(coarse) - 1)].repeat(4, 0).repeat(4, 1)
        noise = rng.integers(-8, 9, shape[1:])
        height, width = (min(a, b) for a, b in zip(plane.shape, shape[1:], strict=True))
        image[row] = -1000 + noise
        image[row, :height, :width] += (plane[:height, :width] + 1000).astype(np.int16)
    write_array(path, image, grid(shape, (NATIVE_MM,) * 3))


def predictor(options: argparse.Namespace, clock: Facts) -> Any:
    """Small networks that tell the benchmark's labels by their HU, and add their time to the clock."""
    import torch
    from makers import configuration, plan

    from autospine.core.labels import parse_labels
    from autospine.inference.predictor import Predictor

    class Bands(torch.nn.Module):
        """Logits 2 c x - c * c: the class whose centre c is next to the intensity x has the largest."""

        def __init__(self, centres: torch.Tensor) -> None:
            super().__init__()
            self.smooth = torch.nn.AvgPool3d(3, 1, 1)
            self.bands = torch.nn.Conv3d(1, len(centres), 1)
            self.bands.weight.data = (40 * centres).view(-1, 1, 1, 1, 1)
            self.bands.bias.data = -20 * centres**2

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            began = time.monotonic()
            logits: torch.Tensor = self.bands(self.smooth(image))
            clock["network"] = clock.get("network", 0.0) + time.monotonic() - began
            return logits

    names = {"background": 0, **{f"v{index}": index for index in range(1, LABELS + 1)}}
    tile, spacing = (options.tile,) * 3, (options.spacing,) * 3
    made = plan(configuration(spacing_mm=spacing, patch_size=tile), labels=parse_labels(names))
    rule = made.normalisation["CT"]
    lower, upper = ((hu - rule.mean) / rule.std for hu in BANDS_HU)
    return Predictor(
        plan=made,
        configuration=made.configurations[0],
        networks=[Bands(torch.linspace(lower, upper, LABELS + 1)) for _ in range(options.folds)],
        device=torch.device("cpu"),
    )


def measure_prediction(options: argparse.Namespace) -> Facts:
    """Read, predict, write; the whole process' peak and the time besides the networks."""
    from autospine.io.images import read_volume, write_labels
    from autospine.system.allocation import use_huge_pages

    use_huge_pages()  # as `autospine predict` does
    clock: Facts = {}
    model = predictor(options, clock)
    start, began = peak_bytes(), time.monotonic()
    volume = read_volume(options.image)
    read, work = peak_bytes(), []
    labels = model.predict(volume, "CT", on_start=lambda _, todo: work.append(todo))
    predicted = peak_bytes()
    stored, held = volume.stored, volume.array.nbytes + labels.nbytes
    del volume
    write_labels(options.image.with_name("labels.nii.gz"), labels, stored)
    return {
        "seconds": time.monotonic() - began,
        "network": clock["network"],
        "peak": peak_bytes(),
        "start": start,
        "read": read,
        "predicted": predicted,
        "image_and_labels": held,
        "tiles": work[0].tiles,
        "run": len(work[0].run),
        "classes": len(np.unique(labels)),
    }


def measure_memory(options: argparse.Namespace, image: Path) -> tuple[Facts, list[str]]:
    """Small networks over the whole CT, at two spacings, and half as long."""
    shape = scaled(SHAPE, options.scale)
    shorter = image.with_name("half.nii")
    make_image(shorter, (shape[0] // 2, *shape[1:]))
    given = {"tile": options.tile, "folds": options.folds}
    runs = {
        name: in_fresh_process(__file__, "prediction", given | {"image": path, "spacing": spacing})
        for name, path, spacing in (
            ("0.8 mm", image, NATIVE_MM),
            ("1.0 mm", image, RESAMPLED_MM),
            ("0.8 mm, half as long", shorter, NATIVE_MM),
        )
    }
    native, resampled, half = runs.values()
    beside = [run["predicted"] - run["image_and_labels"] for run in (native, half)]
    rows = [
        f"| {name} | {run['run']} of {run['tiles']} | {run['start'] / 1e9:.2f} | {run['read'] / 1e9:.2f} "
        f"| {run['predicted'] / 1e9:.2f} | {run['peak'] / 1e9:.2f} | {run['seconds']:.0f} "
        f"| {run['network']:.0f} | {run['seconds'] - run['network']:.0f} |"
        for name, run in runs.items()
    ]
    return {
        "peak_gb_native": native["peak"] / 1e9,
        "peak_gb_resampled": resampled["peak"] / 1e9,
        "growth_when_doubled": beside[0] / beside[1] - 1,
        "non_network_seconds": native["seconds"] - native["network"],
    }, rows


def measure(options: argparse.Namespace) -> tuple[Facts, str]:
    """Every figure, and the tables."""
    results = whole_spine.train(options) if "commands" in options.parts else None
    image = options.folder / "ct.nii"
    make_image(image, scaled(SHAPE, options.scale))
    figures: Facts = {}
    parts = {}
    if "memory" in options.parts:
        found, parts["memory"] = measure_memory(options, image)
        figures |= found
    if "export" in options.parts:
        found, parts["export"] = export.compare_exports(options)
        figures |= found
    if results is not None:
        found, parts["commands"], parts["roi"] = whole_spine.measure(options, results, image)
        figures |= found
    rounded = {key: round(value, 4) for key, value in figures.items()}
    return rounded, report(rounded, parts, options)


COLUMNS = {
    "memory": (
        "small networks over",
        "tiles run",
        "start",
        "image read",
        "predicted",
        "written",
        "seconds",
        "of these networks",
        "all else",
    ),
    "export": (
        "logits",
        "ours, s",
        "nnU-Net's, s",
        "ratio",
        "ours, MB",
        "nnU-Net's, MB",
        "ratio",
        "other voxels, %",
    ),
    "commands": ("folds", "tiles run", "near", "minutes", "peak, GB"),
    "roi": (
        "phantom",
        "tiles",
        "in the body",
        "near the spine",
        "found",
        "Dice of every tile",
        "and of these",
        "spine lost, %",
    ),
}


def report(figures: Facts, parts: dict[str, list[str]], options: argparse.Namespace) -> str:
    """The page's measured part."""
    shape = "×".join(str(n) for n in scaled(SHAPE, options.scale))
    cores = len(os.sched_getaffinity(0))
    versions = f"torch {version('torch')}, nnunetv2 {version('nnunetv2')}"
    tables = [table(COLUMNS[name], rows) for name, rows in parts.items()]
    tables.append(table(("figure", ""), [f"| `{key}` | {value} |" for key, value in figures.items()]))
    return "\n\n".join(
        [
            f"{date.today().isoformat()}, {platform.machine()}, {cores} cores, {versions}; a CT of {shape} "
            f"voxels of {NATIVE_MM} mm, {LABELS} labels, tiles of {options.tile}³, {options.folds} small "
            "networks. GB of the whole process.",
            *tables,
        ]
    )


def table(columns: tuple[str, ...], rows: list[str]) -> str:
    head = [f"| {' | '.join(columns)} |", f"|---|{'--:|' * (len(columns) - 1)}"]
    return "\n".join(head + rows)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--tile", type=int, default=TILE)
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of the export, in turn with nnU-Net's")
    parser.add_argument(
        "--folder", type=Path, help="where images and models are put, and kept for another run"
    )
    parser.add_argument("--child", choices=["prediction"])
    parser.add_argument("--image", type=Path)
    parser.add_argument("--spacing", type=float)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure_prediction(options)))  # noqa: T201
        return
    with TemporaryDirectory() as scratch:
        options.folder = (options.folder or Path(scratch)).resolve()
        options.folder.mkdir(parents=True, exist_ok=True)
        figures, text = measure(options)
    if options.write:
        write_measured(options.write, text)
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
