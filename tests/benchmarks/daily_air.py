"""Compare predictions that leave out tiles of air with those that run every tile."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from autospine.core.types import LabelArray, Modality, Shape3
from autospine.dataset.inputs import find_inputs
from autospine.dataset.raw import case_modality
from autospine.inference.predictor import Predictor, TileJob
from autospine.inference.tiles import TileGrid
from autospine.io.images import Volume, read_volume
from autospine.models.model_folder import open_model
from autospine.prediction.build_predictor import build_predictor

Row = dict[str, int | float | str]


def air_figures(models: Sequence[Path], images: Sequence[Path]) -> dict[str, int | float]:
    """Predict each image with each model, with air left out and with every tile; no localizer takes part.

    Args:
        models: Model folders; the first fold of each predicts.
        images: Images or folders of images or DICOM slices.

    Returns:
        `air_voxels_changed` and `air_voxels`, of the label maps; `air_tiles_left_out` and `air_tiles`;
        `air_time_ratio`, the seconds with air left out over those of every tile, and `air_best_time_ratio`,
        that of the case that gained most.
    """
    rows = list(air_rows(models, images))
    seconds, every = (sum(float(row[name]) for row in rows) for name in ("seconds", "seconds_every"))
    return {
        "air_voxels_changed": sum(int(row["changed"]) for row in rows),
        "air_voxels": sum(int(row["voxels"]) for row in rows),
        "air_tiles_left_out": sum(int(row["tiles"]) - int(row["run"]) for row in rows),
        "air_tiles": sum(int(row["tiles"]) for row in rows),
        "air_time_ratio": round(seconds / every, 3),
        "air_best_time_ratio": round(
            min(float(row["seconds"]) / float(row["seconds_every"]) for row in rows), 3
        ),
    }


def air_rows(models: Sequence[Path], images: Sequence[Path]) -> Iterator[Row]:
    """Yield the numbers of each model and image."""
    for folder in models:
        model = open_model(folder)
        some = build_predictor([model], torch.device("cpu"), model.folds[:1], use_localizer=False)
        assert isinstance(some, Predictor)
        every = replace(some, region_of_interest=False)
        cases, _ = find_inputs(images, model.plan.channels)
        for case in cases:
            volume = read_volume(case.images)
            modality = case_modality(case, volume)
            job, labels, seconds = _predicted(some, volume, modality)
            expected, seconds_every = labels, seconds
            if _tiles_of(every.prepare(volume, modality)) != _tiles_of(job):  # else it is the same work
                _, expected, seconds_every = _predicted(every, volume, modality)
            yield {
                "model": str(folder),
                "case": case.name,
                "run": len(job.run),
                "tiles": job.tiles,
                "changed": int((labels != expected).sum()),
                "labelled": int((expected != 0).sum()),
                "voxels": labels.size,
                "seconds": round(seconds, 2),
                "seconds_every": round(seconds_every, 2),
            }


def _predicted(predictor: Predictor, volume: Volume, modality: Modality) -> tuple[TileJob, LabelArray, float]:
    """Return the work, the labels and the seconds."""
    jobs: list[TileJob] = []
    began = time.monotonic()
    labels = predictor.predict(volume, modality, on_start=lambda _, job: jobs.append(job))
    return jobs[0], labels, time.monotonic() - began


def _tiles_of(job: TileJob) -> tuple[TileGrid, frozenset[Shape3]]:
    return job.tile_grid, job.run
