"""Label maps of the bones of a phantom's spine alone, which take no time to draw."""

from collections.abc import Sequence

import numpy as np

from autospine.core.geometry import Grid, triple
from autospine.core.types import LabelArray, Vector3
from autospine.phantom.anatomy import Vertebra
from autospine.phantom.scan import raster_grid
from autospine.phantom.shapes import Raster, render, rotation
from autospine.phantom.vertebra import arch_parts, body_part

AROUND_MM = (30.0, 60.0, 60.0)
"""Distance of the outer bodies' centres from the ends of the map along S, P and L."""


def bone_map(
    vertebrae: Sequence[Vertebra], spacing_mm: Vector3, turned_deg: Vector3 = (0.0, 0.0, 0.0)
) -> tuple[LabelArray, Grid]:
    """Draw vertebrae in the integers of VerSe, axes superior, posterior, left.

    Args:
        vertebrae: Vertebrae from the head down.
        spacing_mm: Voxel size along S, P and L.
        turned_deg: Pitch, roll and yaw of the map against the patient.
    """
    pitch, roll, yaw = turned_deg
    axes = rotation(pitch=pitch, roll=roll, yaw=yaw)[:, ::-1]  # columns superior, posterior, left
    centres = np.array([each.frame.origin_mm for each in vertebrae]) @ axes
    low, high = centres.min(axis=0) - AROUND_MM, centres.max(axis=0) + AROUND_MM
    raster = Raster(
        shape=triple(np.ceil((high - low) / spacing_mm).astype(int)),
        origin_mm=axes @ low,
        steps_mm=axes * np.array(spacing_mm),
    )
    labels = np.zeros(raster.shape, dtype=np.uint8)
    for vertebra in vertebrae:
        drawn = render(raster, vertebra.frame, (body_part(vertebra), *arch_parts(vertebra)), margin_mm=2.0)
        if drawn is not None:
            box, distance = drawn
            labels[box][(distance < 0) & (labels[box] == 0)] = vertebra.label
    return labels, raster_grid(raster)
