"""The space around the spine, and the stage on which the body's soft tissue is painted.

Positions are relative to the line through the vertebral bodies: u left, v posterior, z superior (LPS), in mm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int32
from scipy import ndimage

from autospine.core.geometry import vector
from autospine.phantom.anatomy import Spine
from autospine.phantom.picture import Picture
from autospine.phantom.shapes import Capsule, Ellipsoid, Field, Frame, Number, Part, Point, render, smooth_max


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """Parameters that vary from one body to the next."""

    girth: float
    """Width and depth relative to the mean."""
    fat_mm: float
    """Thickness of the fat under the skin in the back, mm."""
    wall_mm: float
    """Thickness of the abdominal wall's muscle, mm."""
    bulk: float
    """Size of the muscles relative to the mean."""
    seed: int
    """Seed of the arrangement of the gut."""
    arms: Literal["down", "raised"]
    """How the arms are held: beside the body or above the head."""
    pillow: bool
    """Whether the head lies on a pillow."""
    breast_mm: float
    """How far the breasts rise from the chest, mm; 0 for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Coordinates around the spine for every voxel, and interpolation of values that vary with height."""

    u: Field
    """To the left of the spine, mm."""
    v: Field
    """Behind the centres of the bodies, mm."""
    z: Field
    """Superior coordinate, mm."""
    rows: Int32[np.ndarray, "S P L"]
    """Index of each voxel into a table with one entry per half millimetre of height."""
    heights: Float64[np.ndarray, "heights"]
    """Superior coordinate of the table's entries, mm."""
    line: tuple[Float64[np.ndarray, "heights"], Float64[np.ndarray, "heights"]]
    """x and y of the line through the bodies' centres at those heights, mm."""
    levels: dict[str, float]
    """Superior coordinate of each level's centre and of landmarks such as `S` and `end`, mm."""

    def along(self, values: Mapping[str, Number]) -> Field:
        """Return for every voxel a number that is given at some levels and interpolated between them."""
        known = sorted((self.levels[name], number) for name, number in values.items() if name in self.levels)
        # Skin and muscles have no kinks: the table is smoothed over about two centimetres.
        reach = np.arange(self.heights[0] - 40, self.heights[-1] + 40, 0.5)
        table = np.interp(reach, [a for a, _ in known], [b for _, b in known])
        table = ndimage.gaussian_filter1d(table, 24.0)[80 : 80 + len(self.heights)]
        return np.asarray(table.astype(np.float32)[self.rows])

    def ellipse(
        self, centre: tuple[Number | Field, Number | Field], radii: tuple[Number | Field, Number | Field]
    ) -> Field:
        """Return the distance to an upright tube of elliptic cross-section, mm."""
        a, b = np.asarray(radii[0], np.float32), np.asarray(radii[1], np.float32)
        qx = (self.u - np.asarray(centre[0], np.float32)) / a
        qy = (self.v - np.asarray(centre[1], np.float32)) / b
        length = np.sqrt(qx * qx + qy * qy) + np.float32(1e-3)
        slope = np.sqrt((qx / a) ** 2 + (qy / b) ** 2) + np.float32(1e-5)
        return np.asarray(length * (length - 1) / slope, np.float32)

    def world(self, centre: Point) -> Frame:
        """Return a frame in LPS space at a point given as u, v and superior coordinate, mm."""
        x, y = (np.interp(float(centre[2]), self.heights, line) for line in self.line)
        return Frame(origin_mm=np.array([x + centre[0], y + centre[1], centre[2]]), axes=np.eye(3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """The picture, the coordinates in it, and the ragged edge that all soft tissue shares."""

    picture: Picture
    """The image being painted."""
    space: Space
    """Coordinates around the spine."""
    ragged: Field
    """Displacement of edges in mm, so that no muscle or organ is a plain ellipse."""

    def tube(self, tissue: str, distance: Field, *, strength: float = 1.0) -> None:
        """Paint a tissue whose distance is known everywhere."""
        self.picture.paint(tissue, distance, self.picture.raster.everywhere(), strength=strength)

    def organ(
        self, tissues: Sequence[tuple[str, Number]], centre: Point, radii: Point, within: Field
    ) -> None:
        """Paint an egg-shaped organ in layers.

        Args:
            tissues: Names with the depth in mm at which each begins; the outermost first.
            centre: U, v and superior coordinate, mm.
            radii: Half axes to the left, back and top, mm.
            within: Distance to the cavity that the organ does not leave, over the whole raster.
        """
        egg = Part(shape=Ellipsoid(centre_mm=(0, 0, 0), radii_mm=radii))
        drawn = render(self.picture.raster, self.space.world(centre), (egg,), margin_mm=4.0)
        if drawn is None:
            return
        box, distance = drawn
        distance = smooth_max(distance + self.ragged[box], within[box], 4.0)
        for tissue, depth in tissues:
            self.picture.paint(tissue, distance + np.float32(depth), box)

    def rod(
        self,
        tissues: Sequence[tuple[str, Number]],
        line: Sequence[tuple[Number, Number, Number, Number]],
        *,
        within: Field | None = None,
    ) -> None:
        """Paint a vessel or airway in layers.

        Args:
            tissues: Names with the depth in mm at which each begins; the outermost first.
            line: Points that it passes through, as u, v and superior coordinate and its radius there, mm.
            within: Distance to the cavity that it does not leave, over the whole raster.
        """
        world = Frame(origin_mm=np.zeros(3), axes=np.eye(3))
        places = [vector(self.space.world((u, v, z)).origin_mm) for u, v, z, _ in line]
        parts = tuple(
            Part(shape=Capsule(start_mm=a, end_mm=b, radius_mm=(line[i][3], line[i + 1][3])), blend_mm=2.0)
            for i, (a, b) in enumerate(pairwise(places))
        )
        drawn = render(self.picture.raster, world, parts, margin_mm=3.0)
        if drawn is None:
            return
        box, distance = drawn
        distance = distance + np.float32(0.3) * self.ragged[box]
        if within is not None:
            distance = np.maximum(distance, within[box])
        for tissue, depth in tissues:
            self.picture.paint(tissue, distance + np.float32(depth), box)


def space_around(picture: Picture, spine: Spine) -> Space:
    """Compute the coordinates around a spine."""
    world = Frame(origin_mm=np.zeros(3), axes=np.eye(3))
    x, y, z = picture.raster.coordinates(world, picture.raster.everywhere())
    low, high = float(z.min()) - 1, float(z.max()) + 1
    heights = np.arange(low, high + 1, 0.5)
    line_x, line_y = spine.curve(heights)
    rows = ((z - np.float32(low)) * np.float32(2)).astype(np.int32)
    levels = {v.name: float(v.frame.origin_mm[2]) for v in spine.vertebrae}
    # Landmarks below and above the spine: pelvic brim, hip joints (`end`), pelvic floor, mid-thigh; crown.
    below = {"S": -15.0, "brim": -60.0, "end": -110.0, "floor": -165.0, "thigh": -300.0}
    levels |= {name: height * spine.scale for name, height in below.items()}
    levels |= {"top": levels["C1"] + 60.0, "crown": levels["C1"] + 155.0 * spine.scale}
    return Space(
        u=x - line_x.astype(np.float32)[rows],
        v=y - line_y.astype(np.float32)[rows],
        z=z,
        rows=rows,
        heights=heights,
        line=(line_x, line_y),
        levels=levels,
    )
