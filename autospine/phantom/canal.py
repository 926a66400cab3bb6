"""The spinal canal: a tube through all vertebrae and the sacrum, with sac, cord and epidural fat in it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.interpolate import PchipInterpolator

from autospine.phantom.anatomy import Spine
from autospine.phantom.picture import Picture
from autospine.phantom.sacrum import SacralSegment
from autospine.phantom.shapes import FAR_MM, Field, Frame, Raster, smooth_max
from autospine.phantom.vertebra import canal_centre

_STEP_MM = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Canal:
    """Signed distances in mm of the canal and what it holds, over the whole raster."""

    wall: Field
    """Distance to the canal's wall."""
    sac: Field
    """Distance to the thecal sac."""
    cord: Field
    """Distance to the spinal cord."""
    roots: Field
    """Pattern of the cauda equina, 0 to 1."""


def draw_canal(
    raster: Raster, spine: Spine, chain: tuple[SacralSegment, ...], rng: np.random.Generator
) -> Canal:
    """Compute the canal as a chain of short elliptic tubes along a smooth curve."""
    points, radii, names = _stations(spine, chain)
    length = np.append(0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1)))
    at = np.arange(0, length[-1], _STEP_MM)
    curve = PchipInterpolator(length, np.hstack([points, radii]))(at)
    fatness = float(rng.uniform(0.70, 0.90))
    conus = float(length[names.index("L1")] + rng.normal(8, 9))
    sac_end = float(length[names.index("S2")] + rng.normal(2, 8))
    far = [np.full(raster.shape, FAR_MM, dtype=np.float32) for _ in range(3)]
    canal = Canal(wall=far[0], sac=far[1], cord=far[2], roots=np.zeros(raster.shape, dtype=np.float32))
    phase = rng.uniform(0, 2 * np.pi, 4)
    for k in range(len(at) - 1):
        here = _Link(
            start=curve[k],
            end=curve[k + 1],
            cord=_cord_radii(float(at[k]), length, names, conus, spine.scale),
            sac=fatness * float(np.clip((sac_end - at[k]) / 12, 0, 1)) ** 0.5,
            phase=phase if at[k] > conus - 20 else None,
        )
        _draw_link(raster, canal, here)
    return canal


@dataclass(frozen=True, kw_only=True, slots=True)
class _Link:
    start: Float64[np.ndarray, "5"]
    end: Float64[np.ndarray, "5"]
    cord: tuple[float, float]
    sac: float
    phase: Float64[np.ndarray, "4"] | None


def _stations(
    spine: Spine, chain: tuple[SacralSegment, ...]
) -> tuple[Float64[np.ndarray, "stations 3"], Float64[np.ndarray, "stations 2"], list[str]]:
    """Return centres (LPS), half width and depth in mm, and names, from the head to S4."""
    first = spine.vertebrae[0]
    above = first.frame.to_world((0.0, canal_centre(first)[1] - 1, 17.0))
    centres = [above] + [v.frame.to_world(canal_centre(v)) for v in spine.vertebrae]
    radii = [(15.0, 14.0)] + [(v.size.canal_width / 2, v.size.canal_depth / 2) for v in spine.vertebrae]
    for segment in chain[:4]:
        centres.append(segment.frame.to_world(segment.canal_centre()))
        radii.append((segment.canal[0] / 2, segment.canal[1] / 2))
    names = ["skull", *(v.name for v in spine.vertebrae), "S1", "S2", "S3", "S4"]
    return np.array(centres), np.array(radii), names


def _cord_radii(
    at: float, length: Float64[np.ndarray, "stations"], names: list[str], conus: float, scale: float
) -> tuple[float, float]:
    """Return the cord's half width and depth in mm: thicker in the neck and above its tip, gone below it."""
    if at > conus:
        return 0.0, 0.0
    known = [float(length[names.index(name)]) for name in ("C2", "C5", "T2", "T10")] + [conus - 30, conus]
    wide = float(np.interp(at, known, [6.0, 6.8, 4.8, 4.5, 4.6, 0.9])) * scale
    deep = float(np.interp(at, known, [4.2, 4.0, 3.6, 3.6, 3.8, 0.9])) * scale
    return wide, deep


def _draw_link(raster: Raster, canal: Canal, link: _Link) -> None:
    """Draw one short tube in place."""
    axis = link.start[:3] - link.end[:3]
    up = axis / np.linalg.norm(axis)
    back = np.cross(up, [1.0, 0.0, 0.0])
    back /= np.linalg.norm(back)
    frame = Frame(origin_mm=link.end[:3], axes=np.column_stack([np.cross(back, up), back, up]))
    size = float(np.linalg.norm(axis))
    reach = float(max(link.start[3:5].max(), link.end[3:5].max()))
    box = raster.near(frame, (-reach, -reach, 0), (reach, reach, size), 5.0)
    if box is None:
        return
    x, y, z = raster.coordinates(frame, box)
    t = np.clip(z / np.float32(size), 0, 1)
    half_width = np.float32(link.end[3]) + t * np.float32(link.start[3] - link.end[3])
    half_depth = np.float32(link.end[4]) + t * np.float32(link.start[4] - link.end[4])
    ends = np.maximum(z - np.float32(size + 0.6), -z - np.float32(0.6))
    # Wider in front than behind, as the laminae meet at an angle.
    skew = 1 - np.float32(0.16) * np.clip(y / half_depth, -1, 1)
    wall = np.maximum(_oval(x, y, half_width * skew, half_depth, corners=0.10), ends)
    canal.wall[box] = np.minimum(canal.wall[box], wall)
    if link.sac > 0.05:
        wide, deep = half_width * np.float32(link.sac), half_depth * np.float32(min(0.95, link.sac * 1.08))
        sac = np.maximum(_oval(x, y + 0.06 * half_depth, wide, deep), ends)
        canal.sac[box] = np.minimum(canal.sac[box], sac)
    if link.cord[0] > 0:
        cord = np.maximum(_oval(x, y, np.float32(link.cord[0]), np.float32(link.cord[1])), ends)
        canal.cord[box] = np.minimum(canal.cord[box], cord)
    if link.phase is not None:
        a, b, c, d = (np.float32(v) for v in link.phase)
        weave = (
            np.sin(1.9 * x + a) * np.sin(2.2 * y + b)
            + 0.6 * np.sin(1.2 * x - 1.5 * y + c)
            + 0.15 * np.sin(0.2 * z + d)
        )
        low = np.clip(0.55 + y / half_depth, 0, 1)
        roots = np.clip(weave * 0.9, 0, 1) * low * (ends < 0)
        canal.roots[box] = np.maximum(canal.roots[box], roots)


def _oval(x: Field, y: Field, a: Field | np.float32, b: Field | np.float32, corners: float = 0.0) -> Field:
    """Return the first-order distance to an ellipse in mm, its four corners filled to a given degree."""
    qx, qy = x / a, y / b
    length = np.sqrt(qx * qx + qy * qy) + np.float32(1e-3)
    fuller = 1 - np.float32(corners) * (2 * qx * qy / (length * length)) ** 2
    slope = np.sqrt((qx / a) ** 2 + (qy / b) ** 2) + np.float32(1e-5)
    return np.asarray(length * (length * fuller - 1) / slope, np.float32)


def paint_canal(picture: Picture, canal: Canal) -> None:
    """Paint ligaments around the canal, the fat in it, the fluid, the roots and the cord."""
    box = picture.raster.everywhere()
    near = canal.wall < FAR_MM
    if not near.any():
        return
    picture.paint("ligament", np.where(near, canal.wall - np.float32(1.2), FAR_MM), box, strength=0.8)
    picture.paint("epidural", canal.wall, box)
    picture.paint("csf", canal.sac, box)
    share = canal.roots * np.clip(np.float32(0.3) - canal.sac, 0, 1) * np.float32(0.75)
    picture.mix("cord", np.asarray(share, np.float32), box)
    picture.paint("cord", smooth_max(canal.cord, canal.sac, 0.5), box)
