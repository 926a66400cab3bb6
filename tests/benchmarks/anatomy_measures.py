"""How exact measurements are, and how long they take: a part of `make bench-anatomy`."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import spine_truth as truth

from autospine.core.geometry import Grid, canonical_grid, orientation
from autospine.core.labels import VERSE
from autospine.io.images import read_labels, write_array
from autospine.measurements.measure_spine import MeasuredSpine, measure_spine
from autospine.measurements.measured_labels import labels_of_scheme
from autospine.phantom.generate import Phantom, PhantomSettings, generate
from autospine.vertebrae.schemes import find_scheme

SPACINGS_MM = (
    (0.8, 0.8, 0.8),
    (1.0, 1.0, 1.0),
    (1.0, 1.0, 3.0),
    (1.5, 1.5, 1.5),
    (2.0, 1.0, 1.0),
    (2.0, 2.0, 2.0),
    (3.0, 1.0, 1.0),
    (3.0, 3.0, 3.0),
)
"""Voxel sizes along S, P and L; orientation and obliquity are drawn."""

POINTS = {
    "verse004": ("sub-verse004_seg-vert_msk.nii.gz", "sub-verse004_seg-subreg_ctd.json"),
    "verse010": ("labels_verse.nii.gz", "centroids.json"),
    "gl003": ("labels_verse.nii.gz", "centroids.json"),
}

LIMITS = {
    "height_error_mm": "<= 0.5",
    "height_within": "",
    "cobb_error_deg": "<= 2",
    "angle_error_deg": "<= 2",
    "canal_area_error": "<= 0.05",
    "centroid_error_mm": "<= 2",
    "seconds_large": "< 60",
    "gb_large": "< 4",
}


def phantom_errors() -> tuple[dict[str, float], list[str]]:
    """Return the errors on phantoms, and the rows of a table by voxel size."""
    scheme = find_scheme("spineps-instance")
    rows, heights, angles, cobbs, areas, within = [], [], [], [], [], []
    for seed, spacing in enumerate(SPACINGS_MM):
        settings = PhantomSettings(
            region="thoracolumbar",
            modality="CT",
            spacing_mm=spacing,
            size_mm=(300.0, 120.0, 110.0),
            pathology="none",
            metal=False,
            variant="usual",
        )
        phantom = generate(settings, seed)
        turn = orientation(phantom.grid)
        labels, grid = turn.to_canonical(phantom.labels), canonical_grid(phantom.grid)
        known = labels_of_scheme(scheme, set(np.unique(labels).tolist()))
        spine = measure_spine("phantom", labels, grid, known)
        found = _errors(phantom, spine)
        allowed = max(0.5, max(spacing) / 2)
        inside = np.abs(found["heights"]) <= allowed
        size = " x ".join(f"{mm:g}" for mm in spacing)
        rows.append(
            f"| {size} | {len(found['heights']) // 3} | {_mean(found['heights']):.2f} | "
            f"{np.abs(found['heights']).max():.2f} | {_mean(found['angles']):.2f} | {found['cobb'][0]:.2f} | "
            f"{_mean(found['areas']):.3f} |"
        )
        heights.append(found["heights"])
        angles.append(found["angles"])
        cobbs.append(found["cobb"])
        areas.append(found["areas"])
        within.append(inside)
    figures = {
        "height_error_mm": _mean(np.concatenate(heights)),
        "height_within": float(np.concatenate(within).mean()),
        "cobb_error_deg": float(np.concatenate(cobbs).max()),
        "angle_error_deg": _mean(np.concatenate(angles)),
        "canal_area_error": _mean(np.concatenate(areas)),
    }
    return figures, rows


def _mean(errors: np.ndarray) -> float:
    return float(np.abs(errors).mean())


def _errors(phantom: Phantom, spine: MeasuredSpine) -> dict[str, np.ndarray]:
    heights, angles, areas, bodies = [], [], [], []
    for each, found in zip(spine.measurements.vertebrae, spine.bodies, strict=True):
        if found.body is None or found.heights is None:
            continue
        vertebra = truth.vertebra_of(phantom.spine, each.level)
        body = truth.true_body(vertebra)
        bodies.append(body)
        heights += list(np.array(found.heights) - body.heights)
        for cranial, normal in ((True, body.upper), (False, body.lower)):
            own = found.body.endplate(cranial=cranial)[1]
            angles += [
                truth.tilt(own, plane) - truth.tilt(normal, plane) for plane in ("coronal", "sagittal")
            ]
        if each.canal_area_mm2 is not None:
            areas.append(each.canal_area_mm2 / truth.true_canal(vertebra)[0] - 1)
    cobb = next(a.degrees for a in spine.measurements.angles if a.name == "coronal Cobb angle")
    return {
        "heights": np.array(heights),
        "angles": np.array(angles),
        "areas": np.array(areas),
        "cobb": np.abs([cobb - truth.true_cobb(bodies)]),
    }


def centroid_error_mm(data: Path) -> float:
    """Return the largest distance of a centre from the one that VerSe publishes."""
    worst = 0.0
    for name, (mask, points) in POINTS.items():
        volume = read_labels(data / name / mask)
        labels = volume.array[0]
        known = labels_of_scheme(find_scheme("verse"), set(np.unique(labels).tolist()))
        spine = measure_spine(name, labels, volume.grid, known)
        centres = {VERSE[found.level]: found.centre_mm for found in spine.bodies}
        for entry in json.loads((data / name / points).read_text(encoding="utf-8"))[1:]:
            published = volume.stored.physical(np.array([entry["Z"], entry["Y"], entry["X"]]))
            worst = max(worst, float(np.linalg.norm(published - centres[entry["label"]])))
    return worst


def large_map() -> dict[str, float]:
    """Name and measure 26 labels in 512 x 512 x 800 voxels by the commands, each a process of its own."""
    settings = PhantomSettings(
        region="whole",
        modality="CT",
        spacing_mm=(1.8, 1.8, 1.8),
        size_mm=(720.0, 230.0, 230.0),
        orientation="LPS",
        oblique_deg=0.0,
        variant="usual",
        pathology="none",
        metal=False,
    )
    phantom = generate(settings, 1)
    coarse = orientation(phantom.grid).to_canonical(phantom.labels)
    coarse = np.where(coarse > VERSE["canal"], 0, coarse)
    fine = coarse.repeat(2, axis=0).repeat(2, axis=1).repeat(2, axis=2)
    labels = np.zeros((800, 512, 512), dtype=np.uint8)
    labels[: fine.shape[0], 128 : 128 + fine.shape[1], 128 : 128 + fine.shape[2]] = fine[:800]
    grid = Grid(
        shape=labels.shape,
        spacing_mm=(0.9, 0.9, 0.9),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    with tempfile.TemporaryDirectory() as folder:
        maps, named, out = (Path(folder) / name for name in ("maps", "named", "out"))
        write_array(maps / "large.nii.gz", labels, grid)
        start = time.monotonic()
        for words in (["identify", "-i", maps, "-o", named], ["measure", "-i", named, "-o", out]):
            command = [sys.executable, "-m", "autospine", "anatomy", *map(str, words)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024**2
    return {"labels_large": float(len(np.unique(labels)) - 1), "seconds_large": seconds, "gb_large": peak}
