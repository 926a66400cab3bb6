"""A skeleton that tests draw on: any box around any point of a spine, without the rest of the phantom."""

import numpy as np

from autospine.phantom.anatomy import Spine, sample_posture, sample_spine
from autospine.phantom.canal import draw_canal
from autospine.phantom.picture import new_picture
from autospine.phantom.sacrum import sacral_segments
from autospine.phantom.shapes import FAR_MM, Raster
from autospine.phantom.skeleton import Skeleton
from autospine.synthesis.tissues import TISSUES


def a_spine(seed: int = 0) -> Spine:
    rng = np.random.default_rng(seed)
    return sample_spine(rng, sample_posture(rng))


def a_skeleton(
    spine: Spine,
    centre_mm: tuple[float, float, float],
    size_mm: tuple[float, float, float],
    step: float = 2.5,
) -> Skeleton:
    """Return an empty picture in CT, axes S, P, L, around a point x, y, z in LPS."""
    rng = np.random.default_rng(0)
    shape = tuple(round(extent / step) for extent in size_mm)
    steps = np.array([[0, 0, step], [0, step, 0], [step, 0, 0]])
    raster = Raster(
        shape=shape,
        origin_mm=np.asarray(centre_mm) - steps @ ((np.asarray(shape) - 1) / 2),
        steps_mm=steps,
    )
    picture = new_picture(raster, 0.3, rng)
    return Skeleton(
        picture=picture,
        labels=np.zeros(shape, dtype=np.uint8),
        canal=draw_canal(raster, spine, sacral_segments(spine), rng),
        bone=np.full(shape, FAR_MM, dtype=np.float32),
        shell_mm=(0.7, 1.0),
    )


def depth(skeleton: Skeleton, place: np.ndarray) -> float:
    """Return the distance to bone in mm at a point in LPS, negative inside."""
    raster = skeleton.picture.raster
    index = np.linalg.inv(raster.steps_mm) @ (place - raster.origin_mm)
    return float(skeleton.bone[tuple(np.round(index).astype(int))])


def tissue(skeleton: Skeleton, place: np.ndarray) -> str:
    """Return the name of the tissue that has the larger share at a point in LPS."""
    raster, mixture = skeleton.picture.raster, skeleton.picture.mixture
    index = np.linalg.inv(raster.steps_mm) @ (place - raster.origin_mm)
    at = tuple(np.round(index).astype(int))
    code = int(mixture.first[at] if mixture.share[at] <= 0.5 else mixture.second[at])
    return list(TISSUES)[code]
