"""From the same logits to labels on the image's grid, ours and nnU-Net's: time and memory, in turn.

Part of `make bench-inference`. Each run is a process of its own. Its memory is what its peak lies above what
it holds with the logits and every library loaded.
"""

import statistics
import time
from argparse import Namespace
from collections.abc import Callable

import numpy as np
import torch
from processes import Facts, forget_peak, held_bytes, in_fresh_process, peak_bytes

SHAPE = (300, 200, 200)
RATIO = 1.25
"""Voxels of the prepared image are this much longer than the image's."""

CLASSES = 26
PIECE = 64
"""Rows and columns that a slab of tiles of 128 voxels finishes at a time."""

Export = Callable[[torch.Tensor, tuple[int, ...]], np.ndarray]


def prepared_shape(scale: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Voxels of the image and of the prepared image."""
    native = tuple(round(n * scale) for n in SHAPE)
    return native, tuple(round(n / RATIO) for n in native)


def spine_logits(scale: float) -> torch.Tensor:
    """What a network that knows a phantom's structures gives: sure inside, soft and wavy at their edges."""
    from autospine.phantom import PhantomSettings, generate

    _, shape = prepared_shape(scale)
    spacing = 640 / shape[0]
    size = (spacing * shape[0], spacing * shape[1], spacing * shape[2])
    settings = PhantomSettings(
        region="whole",
        modality="CT",
        spacing_mm=(spacing,) * 3,
        size_mm=size,
        orientation="LPS",
        oblique_deg=0.0,
    )
    labels = torch.from_numpy(generate(settings, seed=1).labels)
    found, counts = labels[labels > 0].unique(return_counts=True)
    largest = found[counts.argsort(descending=True)][: CLASSES - 1].tolist()
    logits = _waves(shape)
    rest = torch.ones(shape, dtype=torch.bool)
    for channel, label in enumerate(largest, start=1):
        here = labels == label
        rest &= ~here
        logits[channel] += 12 * torch.nn.functional.avg_pool3d(here[None].float(), 3, 1, 1)[0]
    logits[0] += 12 * torch.nn.functional.avg_pool3d(rest[None].float(), 3, 1, 1)[0]
    return logits


def random_logits(scale: float) -> torch.Tensor:
    """Every class as likely everywhere, which no trained network gives: half of all voxels lie at an edge."""
    return _waves(prepared_shape(scale)[1])


def _waves(shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((1, CLASSES, *(max(2, n // 8) for n in shape)), generator=generator)
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0]


LOGITS = {"spine": spine_logits, "random": random_logits}


def export_ours(logits: torch.Tensor, native: tuple[int, ...]) -> np.ndarray:
    """Softmax of pieces as a slab finishes them, interpolation and argmax."""
    from autospine.core.geometry import Box
    from autospine.inference.slab import Piece
    from autospine.inference.to_native import NativeGrid

    s, p, left = logits.shape[1:]
    whole = np.zeros(native, dtype=np.uint8)
    grid = NativeGrid((s, p, left), native, Box(start=(0, 0, 0), stop=(s, p, left)))
    for row in range(0, s, PIECE):
        for column in range(0, p, PIECE):
            box = Box(start=(row, column, 0), stop=(min(row + PIECE, s), min(column + PIECE, p), left))
            scores = logits[:, *box.slices].softmax(0)
            piece = grid.resample(Piece(box=box, scores=scores))
            whole[piece.box.slices] = piece.argmax().numpy()
    return whole


def export_nnunet(logits: torch.Tensor, native: tuple[int, ...]) -> np.ndarray:
    """What nnU-Net's export does: its default resampling of the logits, then argmax."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    spacing = [RATIO] * 3
    fine = resample_data_or_seg_to_shape(
        logits.numpy(), native, spacing, [1.0] * 3, is_seg=False, order=1, order_z=0, force_separate_z=None
    )
    return np.asarray(fine).argmax(0).astype(np.uint8)


EXPORTS: dict[str, Export] = {"ours": export_ours, "nnunet": export_nnunet}


def measure_export(options: Namespace) -> Facts:
    """Time, and peak above what is held with logits and libraries in memory."""
    export = EXPORTS[options.by]
    export(torch.randn((CLASSES, 8, 8, 8)), (10, 10, 10))
    logits = LOGITS[options.logits](options.scale)
    native, _ = prepared_shape(options.scale)
    forget_peak()
    before, began = held_bytes(), time.monotonic()
    labels = export(logits, native)
    seconds = time.monotonic() - began
    taken = peak_bytes() - before
    np.save(options.labels, labels)
    return {"seconds": seconds, "bytes": taken}


def compare_exports(options: Namespace) -> tuple[Facts, list[str]]:
    """Ratios for a spine's logits, and rows for both kinds."""
    figures, rows = {}, []
    for kind in LOGITS:
        runs: dict[str, list[Facts]] = {name: [] for name in EXPORTS}
        for _ in range(options.repeats):
            for name, done in runs.items():
                given = {"logits": kind, "by": name, "scale": options.scale}
                given["labels"] = options.folder / f"{name}.npy"
                done.append(in_fresh_process(__file__, "export", given))
        seconds = {name: statistics.median(run["seconds"] for run in done) for name, done in runs.items()}
        taken = {name: statistics.median(run["bytes"] for run in done) for name, done in runs.items()}
        ours, theirs = (np.load(options.folder / f"{name}.npy") for name in EXPORTS)
        time_ratio, memory_ratio = (
            seconds["nnunet"] / seconds["ours"],
            taken["ours"] / taken["nnunet"],
        )
        if kind == "spine":
            figures = {"export_vs_nnunet": time_ratio, "export_memory_vs_nnunet": memory_ratio}
        rows.append(
            f"| {kind} | {seconds['ours']:.2f} | {seconds['nnunet']:.2f} | {time_ratio:.1f} "
            f"| {taken['ours'] / 1e6:.0f} | {taken['nnunet'] / 1e6:.0f} | {memory_ratio:.3f} "
            f"| {100 * np.mean(ours != theirs):.2f} |"
        )
    return figures, rows


def main() -> None:
    """One run."""
    import argparse
    import json
    from pathlib import Path

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", choices=["export"], required=True)
    parser.add_argument("--logits", choices=LOGITS)
    parser.add_argument("--by", choices=EXPORTS)
    parser.add_argument("--scale", type=float)
    parser.add_argument("--labels", type=Path)
    print(json.dumps(measure_export(parser.parse_args())))  # noqa: T201


if __name__ == "__main__":
    main()
