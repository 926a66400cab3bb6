"""Measure memory and time of prediction, and compare the way back to the image's grid with nnU-Net's.

Run by `make bench-inference`. Needs nnU-Net. Every figure comes from a process of its own, whose
peak is the kernel's `VmHWM`. Prints one JSON object last, and with `--write FILE` puts the tables between
that file's `<!-- measured -->` marks. `--scale 0.5` halves the image's edges, for a try.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

SHAPE = (800, 512, 512)
NATIVE_MM = 0.8
RESAMPLED_MM = 1.0
LABELS = 26
TILE = 128
FOLDS = 5
EXPORT_SHAPE = (300, 200, 200)
EXPORT_RATIO = 1.25
"""Voxels of the prepared image are this much longer than the input's."""
MARK = "<!-- measured -->"
Facts = dict[str, Any]


def status_bytes(name: str) -> int:
    """A line of /proc/self/status; VmHWM is the peak of this program alone, VmRSS what it holds now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def scaled(shape: tuple[int, ...], scale: float) -> tuple[int, ...]:
    return tuple(max(32, round(n * scale)) for n in shape)


def make_image(path: Path, shape: tuple[int, ...]) -> None:
    """A whole-spine CT of this size: a phantom at a quarter of the resolution, enlarged, with noise."""
    from makers import grid

    from autospine.images import write_array
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


def predictor(spacing_mm: float, options: argparse.Namespace, clock: Facts) -> Any:
    """Small networks for the benchmark's labels, which add their time to the clock."""
    import torch
    from makers import configuration, plan

    from autospine.inference import Predictor
    from autospine.labels import parse_labels

    class Timed(torch.nn.Sequential):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            began = time.monotonic()
            logits: torch.Tensor = super().forward(image)
            clock["network"] = clock.get("network", 0.0) + time.monotonic() - began
            return logits

    names = {"background": 0, **{f"v{index}": index for index in range(1, LABELS + 1)}}
    tile = (options.tile,) * 3
    made = plan(configuration(spacing_mm=(spacing_mm,) * 3, patch_size=tile), labels=parse_labels(names))
    torch.manual_seed(0)
    networks = [
        Timed(torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(8, LABELS + 1, 1))
        for _ in range(options.folds)
    ]
    return Predictor(
        plan=made,
        configuration=made.configurations[0],
        networks=networks,
        device=torch.device("cpu"),
        confined=False,
    )


def measure_prediction(options: argparse.Namespace) -> Facts:
    """Read, predict, write; the whole process' peak and the time besides the networks."""
    from autospine.images import read_volume, write_labels

    clock: Facts = {}
    model = predictor(options.spacing, options, clock)
    before = status_bytes("VmHWM")
    began = time.monotonic()
    volume = read_volume(options.image)
    read = status_bytes("VmHWM")
    labels = model.predict(volume, "CT")
    predicted = status_bytes("VmHWM")
    stored, held = volume.stored, volume.array.nbytes + labels.nbytes
    del volume
    write_labels(options.image.with_name("labels.nii.gz"), labels, stored)
    seconds = time.monotonic() - began
    return {
        "peak": status_bytes("VmHWM"),
        "start": before,
        "read": read,
        "predicted": predicted,
        "image_and_labels": held,
        "seconds": seconds,
        "network": clock["network"],
    }


def export_scores(options: argparse.Namespace) -> Any:
    """Logits on the prepared grid, smooth as a network's are."""
    import torch

    native = scaled(EXPORT_SHAPE, options.scale)
    prepared = [round(n / EXPORT_RATIO) for n in native]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((1, LABELS, *(max(2, n // 8) for n in prepared)), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=prepared, mode="trilinear")[0], native


def measure_export(options: argparse.Namespace, label: Callable[[Any, tuple[int, ...]], Any]) -> Facts:
    """Time, and peak above what is held with the scores in memory."""
    scores, native = export_scores(options)
    before = status_bytes("VmRSS")
    began = time.monotonic()
    labels = label(scores, native)
    seconds = time.monotonic() - began
    return {
        "seconds": seconds,
        "bytes": status_bytes("VmHWM") - before,
        "checksum": int(np.sum(labels, dtype=np.int64)),
    }


def export_ours(scores: Any, native: tuple[int, ...]) -> np.ndarray:
    """Pieces of 64 rows and columns, as a slab gives them."""
    from autospine.geometry import Box
    from autospine.inference.native import NativeGrid
    from autospine.inference.slab import Piece

    shape = tuple(scores.shape[1:])
    whole = np.empty(native, dtype=np.uint8)
    grid = NativeGrid(shape, native, Box(start=(0, 0, 0), stop=shape))
    for row in range(0, shape[0], 64):
        for column in range(0, shape[1], 64):
            stop = (min(row + 64, shape[0]), min(column + 64, shape[1]), shape[2])
            box = Box(start=(row, column, 0), stop=stop)
            piece = grid.refine(Piece(box=box, scores=scores[:, *box.slices]))
            whole[piece.box.slices] = piece.winners().numpy()
    return whole


def export_nnunet(scores: Any, native: tuple[int, ...]) -> np.ndarray:
    """What nnU-Net's export does with logits: its default resampling, then argmax."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    spacing = [EXPORT_RATIO] * 3
    fine = resample_data_or_seg_to_shape(
        scores.numpy(), native, spacing, [1.0] * 3, is_seg=False, order=1, order_z=0, force_separate_z=None
    )
    return np.asarray(fine).argmax(0).astype(np.uint8)


def measure_roi(options: argparse.Namespace) -> Facts:
    """Tiles run and Dice lost where a coarse model looks for the spine first; networks know classes by HU."""
    from dataclasses import replace

    import torch
    from makers import configuration, grid, plan

    from autospine.images import Volume
    from autospine.inference import Predictor
    from autospine.labels import parse_labels
    from autospine.phantom import PhantomSettings, by_structure, generate

    class Dense(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            bone = 10 * image
            return torch.cat([-bone, bone], dim=1)

    def by_density(spacing_mm: float, tile: int) -> Predictor:
        made = plan(
            configuration(spacing_mm=(spacing_mm,) * 3, patch_size=(tile,) * 3),
            labels=parse_labels({"background": 0, "bone": 1}),
        )
        return Predictor(
            plan=made, configuration=made.configurations[0], networks=[Dense()], device=torch.device("cpu")
        )

    spacing, run, tiles, deltas = 2.0, 0, 0, []
    for seed in range(3):
        settings = PhantomSettings(
            region="whole",
            modality="CT",
            spacing_mm=(spacing,) * 3,
            size_mm=(640.0, 410.0, 410.0),
            metal=False,
        )
        phantom = generate(settings, seed=seed)
        truth = by_structure(phantom.labels) == 1
        lattice = grid(phantom.image.shape, (spacing,) * 3)
        volume = Volume(array=phantom.image[None], grid=lattice, stored=lattice)
        guided = replace(by_density(spacing, 48), finder=by_density(6.0, 32))
        work = guided.prepare(volume, "CT")
        run, tiles = run + len(work.run), tiles + work.tiles
        full = replace(guided, confined=False, finder=None)
        dice = []
        for model in (guided, full):
            found = model.predict(volume, "CT") == 1
            dice.append(2 * np.sum(found & truth) / (found.sum() + truth.sum()))
        deltas.append(abs(dice[0] - dice[1]))
    return {"run": run, "tiles": tiles, "dice_delta": max(deltas)}


def measure_network(options: argparse.Namespace) -> Facts:
    """Seconds of a planned network for one tile."""
    import torch

    from autospine.allocation import reuse_freed_memory
    from autospine.hardware import bfloat16_pays
    from autospine.network import AdaptiveSwinUNETR

    reuse_freed_memory()
    network = AdaptiveSwinUNETR(1, LABELS + 1, feature_size=24).eval()
    image = torch.randn(1, 1, *(options.tile,) * 3)
    seconds = []
    fast = bfloat16_pays(torch.device("cpu"))
    for _ in range(3):
        began = time.monotonic()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=fast):
            network(image)
        seconds.append(time.monotonic() - began)
    return {"seconds": min(seconds), "bfloat16": fast}


CHILDREN: dict[str, Callable[[argparse.Namespace], Facts]] = {
    "prediction": measure_prediction,
    "ours": lambda options: measure_export(options, export_ours),
    "nnunet": lambda options: measure_export(options, export_nnunet),
    "roi": measure_roi,
    "network": measure_network,
}


def in_fresh_process(child: str, options: argparse.Namespace, **changes: Any) -> Facts:
    """Measure in a new interpreter."""
    given = {"scale": options.scale, "tile": options.tile, "folds": options.folds, **changes}
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, __file__, "--child", child, *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    facts: Facts = json.loads(done.stdout.splitlines()[-1])
    print(child, changes, facts, file=sys.stderr)  # noqa: T201
    return facts


def measure(options: argparse.Namespace) -> tuple[Facts, list[str]]:
    """Every figure, and the rows of the table."""
    shape = scaled(SHAPE, options.scale)
    with TemporaryDirectory(dir=options.folder) as folder:
        runs: dict[str, Facts] = {}
        for name, length, spacing in (
            ("native", shape[0], NATIVE_MM),
            ("resampled", shape[0], RESAMPLED_MM),
            ("half", shape[0] // 2, NATIVE_MM),
        ):
            image = Path(folder) / f"{length}.nii"
            if not image.exists():
                make_image(image, (length, *shape[1:]))
            runs[name] = in_fresh_process("prediction", options, image=image, spacing=spacing)
    ours, nnunet = (in_fresh_process(child, options) for child in ("ours", "nnunet"))
    roi, network = (in_fresh_process(child, options) for child in ("roi", "network"))
    beside = {name: run["predicted"] - run["image_and_labels"] for name, run in runs.items()}
    from autospine.inference import count_tiles

    tiles = count_tiles(shape, (options.tile,) * 3)
    figures = {
        "peak_gb_native": runs["native"]["peak"] / 1e9,
        "peak_gb_resampled": runs["resampled"]["peak"] / 1e9,
        "growth_when_doubled": beside["native"] / beside["half"] - 1,
        "non_network_seconds": runs["native"]["seconds"] - runs["native"]["network"],
        "export_vs_nnunet": nnunet["seconds"] / ours["seconds"],
        "export_memory_vs_nnunet": ours["bytes"] / nnunet["bytes"],
        "roi_tile_ratio": roi["run"] / roi["tiles"],
        "roi_dice_delta": roi["dice_delta"],
        "cpu_minutes_one_fold": tiles * network["seconds"] / 60,
    }
    rows = [
        f"| {name} | {run['start'] / 1e9:.2f} | {run['read'] / 1e9:.2f} | {run['predicted'] / 1e9:.2f} "
        f"| {run['peak'] / 1e9:.2f} | {run['seconds']:.0f} | {run['network']:.0f} |"
        for name, run in runs.items()
    ]
    return {key: round(value, 4) for key, value in figures.items()}, rows


def report(figures: Facts, rows: list[str], options: argparse.Namespace) -> str:
    """The page's measured part."""
    shape = "×".join(str(n) for n in scaled(SHAPE, options.scale))
    cores = len(os.sched_getaffinity(0))
    lines = [
        f"{date.today().isoformat()}, {platform.machine()}, {cores} cores, a CT of {shape} voxels of "
        f"{NATIVE_MM} mm, {LABELS} labels, tiles of {options.tile}³, {options.folds} small networks, every "
        "tile run. GB of the whole process.",
        "",
        "| run | start | image read | predicted | written | seconds | of these networks |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *rows,
        "",
        "| | |",
        "|---|--:|",
        *(f"| `{key}` | {value} |" for key, value in figures.items()),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--tile", type=int, default=TILE)
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--folder", type=Path, help="where the images are put while it runs")
    parser.add_argument("--child", choices=CHILDREN)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--spacing", type=float)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options)))  # noqa: T201
        return
    figures, rows = measure(options)
    if options.write:
        before, _, after = options.write.read_text(encoding="utf-8").split(MARK)
        text = f"{before}{MARK}\n\n{report(figures, rows, options)}\n\n{MARK}{after}"
        options.write.write_text(text, encoding="utf-8")
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
