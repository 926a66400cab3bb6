"""How exact measurements are, and how long they take: a part of `make bench-anatomy`."""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import spine_truth as truth
from bone_maps import bone_map

from autospine.core.geometry import Grid, canonical_grid, orientation
from autospine.core.labels import VERSE
from autospine.core.types import Vector3
from autospine.io.images import read_labels, write_array
from autospine.measurements.body_lengths import BodyHeights
from autospine.measurements.fracture_grades import grade_fractures
from autospine.measurements.measure_spine import MeasuredSpine, measure_spine
from autospine.measurements.measured_labels import SpineLabels, labels_of_scheme
from autospine.phantom.anatomy import BreakKind, Vertebra, sample_posture, sample_spine
from autospine.phantom.generate import PhantomSettings, generate
from autospine.phantom.pathology import with_findings
from autospine.vertebrae.levels import INDEX
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
"""Voxel sizes along S, P and L; orientation and obliquity of whole images are drawn."""

TURNED_DEG = (6.0, -5.0, 8.0)
"""Pitch, roll and yaw of the maps of bones alone."""

CURVES_MM = (14.0, 20.0, 27.0)
"""Amplitudes of the sideways curves: coronal Cobb angles of about 20 to 40 degrees."""

REGIONS = (("T8", "L5", 1.0), ("T4", "T12", 1.0), ("L1", "L5", 2.0))
"""Uppermost and lowest vertebra of the spines that are drawn as bones alone, and factor of their amplitude: a
short spine holds a part of the curve."""

LEFT = (0.85, 0.75, 0.68, 0.55)
"""Shares of the height that fractures leave."""

BREAKS: tuple[BreakKind, ...] = ("wedge", "biconcave", "burst")

POINTS = {
    "verse004": ("sub-verse004_seg-vert_msk.nii.gz", "sub-verse004_seg-subreg_ctd.json"),
    "verse010": ("labels_verse.nii.gz", "centroids.json"),
    "gl003": ("labels_verse.nii.gz", "centroids.json"),
}

LIMITS = {
    "height_error_mm": "<= 0.5",
    "height_within": ">= 0.99",
    "height_worst": "<= 1",
    "cobb_error_deg": "<= 2",
    "angle_error_deg": "<= 2",
    "angle_error_worst_size_deg": "<= 2",
    "canal_area_error": "<= 0.05",
    "canal_area_error_worst_size": "<= 0.05",
    "genant_agreement": ">= 0.9",
    "centroid_error_mm": "<= 2",
    "seconds_large": "< 60",
    "gb_large": "< 4",
}


@dataclass(frozen=True, kw_only=True)
class MapErrors:
    """Errors of the measurements of one map."""

    name: str
    heights_mm: np.ndarray
    angles_deg: np.ndarray
    """Of endplates, in both planes."""
    cobb_deg: float
    areas: np.ndarray
    """Of the canal, in parts of it; empty where none is drawn."""
    allowed_mm: float
    """Error that a height may have: half a millimetre, or half of the longest voxel edge."""
    graded: tuple[tuple[int | None, int | None], ...]
    """Genant's grade of each body as measured, and by its true heights."""

    @property
    def row(self) -> str:
        """A row of the table by voxel size."""
        area = f"{_mean(self.areas):.3f}" if len(self.areas) else "–"
        return (
            f"| {self.name} | {len(self.heights_mm) // 3} | {_mean(self.heights_mm):.2f} | "
            f"{np.abs(self.heights_mm).max():.2f} | {_mean(self.angles_deg):.2f} | {self.cobb_deg:.2f} | "
            f"{area} |"
        )


def phantom_errors() -> tuple[dict[str, float], list[str]]:
    """Return the errors on phantoms, and the rows of a table by voxel size.

    - `height_error_mm`: mean error of the heights of phantoms of whole images, `height_within` the share that
      is within 0.5 mm or half of the longest voxel edge, and `height_worst` the largest in parts of that;
    - `angle_error_deg` and `canal_area_error`: mean errors, and `..._worst_size` that of the worst size of
      voxels;
    - `cobb_error_deg`: largest error of the coronal Cobb angle, on these and on curves of 20 to 40 degrees of
      lumbar, thoracic and thoracolumbar spines;
    - `genant_agreement`: share of the bodies of spines with fractures of each kind that have the grade which
      their true heights have.
    """
    whole = [_whole_image(seed, spacing) for seed, spacing in enumerate(SPACINGS_MM)]
    curved = [_curved(seed, spacing) for seed, spacing in enumerate(SPACINGS_MM)]
    broken = [_broken(seed, spacing) for seed, spacing in enumerate(SPACINGS_MM)]
    heights = np.concatenate([each.heights_mm for each in whole])
    parts = np.concatenate([np.abs(each.heights_mm) / each.allowed_mm for each in whole])
    grades = [pair for each in broken for pair in each.graded]
    figures = {
        "height_error_mm": _mean(heights),
        "height_within": float((parts <= 1).mean()),
        "height_worst": float(parts.max()),
        "cobb_error_deg": max(each.cobb_deg for each in (*whole, *curved)),
        "angle_error_deg": _mean(np.concatenate([each.angles_deg for each in whole])),
        "angle_error_worst_size_deg": max(_mean(each.angles_deg) for each in (*whole, *curved)),
        "canal_area_error": _mean(np.concatenate([each.areas for each in whole])),
        "canal_area_error_worst_size": max(_mean(each.areas) for each in whole),
        "genant_agreement": float(np.mean([found == true for found, true in grades])),
    }
    return figures, [each.row for each in (*whole, *curved, *broken)]


def _mean(errors: np.ndarray) -> float:
    return float(np.abs(errors).mean())


def _whole_image(seed: int, spacing: Vector3) -> MapErrors:
    """Measure a phantom of a whole image, with canal and discs, obliquely."""
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
    labels, grid = orientation(phantom.grid).to_canonical(phantom.labels), canonical_grid(phantom.grid)
    known = labels_of_scheme(find_scheme("spineps-instance"), set(np.unique(labels).tolist()))
    return _errors("", phantom.spine.vertebrae, measure_spine("phantom", labels, grid, known))


def _curved(seed: int, spacing: Vector3) -> MapErrors:
    """Measure a spine with a curve to the side, of which the bones alone are drawn."""
    first, last, factor = REGIONS[seed // len(CURVES_MM) % len(REGIONS)]
    vertebrae = _drawn_spine(seed, (first, last), factor * CURVES_MM[seed % len(CURVES_MM)])
    return _bone_errors("curve", vertebrae, spacing)


def _broken(seed: int, spacing: Vector3) -> MapErrors:
    """Measure a spine of which every third vertebra is broken."""
    vertebrae = [
        replace(
            each, crush=LEFT[(seed + place) % len(LEFT)], break_kind=BREAKS[(seed + place // 3) % len(BREAKS)]
        )
        if place % 3 == seed % 3
        else each
        for place, each in enumerate(_drawn_spine(seed, REGIONS[0][:2], 0.0))
    ]
    return _bone_errors("fractures", vertebrae, spacing)


def _drawn_spine(seed: int, ends: tuple[str, str], curve_mm: float) -> list[Vertebra]:
    """Return the vertebrae of a healthy spine from one level to another."""
    random = np.random.default_rng(700 + seed)
    posture = replace(sample_posture(random), scoliosis_mm=curve_mm)
    spine = with_findings(sample_spine(random, posture), random, "none")
    first, last = (INDEX[level] for level in ends)
    return [each for each in spine.vertebrae if first <= INDEX[each.name] <= last]


def _bone_errors(name: str, vertebrae: Sequence[Vertebra], spacing: Vector3) -> MapErrors:
    labels, grid = bone_map(vertebrae, spacing, TURNED_DEG)
    known = SpineLabels(levels={each.name: each.label for each in vertebrae})
    return _errors(name, vertebrae, measure_spine(name, labels, grid, known))


def _errors(name: str, vertebrae: Sequence[Vertebra], spine: MeasuredSpine) -> MapErrors:
    by_level = {each.name: each for each in vertebrae}
    measured = [
        pair for pair in zip(spine.measurements.vertebrae, spine.bodies, strict=True) if pair[1].heights
    ]
    bodies = {each.level: truth.true_body(by_level[each.level]) for each, _ in measured}
    true_heights = {level: BodyHeights(*body.heights) for level, body in bodies.items()}
    grades = grade_fractures(true_heights, list(bodies))
    heights, angles, areas, graded = [], [], [], []
    for each, found in measured:
        body = bodies[each.level]
        heights += list(np.array(found.heights) - body.heights)
        for cranial, normal in ((True, body.upper), (False, body.lower)):
            own = found.body.endplate(cranial=cranial)[1]
            angles += [
                truth.tilt(own, plane) - truth.tilt(normal, plane) for plane in ("coronal", "sagittal")
            ]
        if each.canal_area_mm2 is not None:
            areas.append(each.canal_area_mm2 / truth.true_canal(by_level[each.level])[0] - 1)
        if each.level in grades:
            graded.append((each.genant_grade, grades[each.level].grade))
    cobb = next(a.degrees for a in spine.measurements.angles if a.name == "coronal Cobb angle")
    spacing = spine.measurements.spacing_mm
    size = " x ".join(f"{mm:g}" for mm in spacing)
    return MapErrors(
        name=f"{size}{', ' if name else ''}{name}",
        heights_mm=np.array(heights),
        angles_deg=np.array(angles),
        cobb_deg=abs(cobb - truth.true_cobb(list(bodies.values()))),
        areas=np.array(areas),
        allowed_mm=max(0.5, max(spacing) / 2),
        graded=tuple(graded),
    )


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
