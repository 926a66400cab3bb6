"""Everything around the spine: skin, fat, muscles, organs, vessels, gut, lungs, the neck's airway.

Positions are relative to the line through the vertebral bodies: u left, v posterior, z superior (LPS), in mm.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autospine.phantom.anatomy import Spine
from autospine.phantom.picture import Picture
from autospine.phantom.shapes import Array, Frame, Number, Point, smooth_max, smooth_min

_HALF_WIDTH = {
    "top": 72,
    "C1": 70,
    "C4": 60,
    "C7": 85,
    "T2": 165,
    "T6": 168,
    "T12": 152,
    "L3": 148,
    "S": 172,
    "end": 180,
}
_FRONT = {
    "top": -105,
    "C1": -75,
    "C4": -55,
    "C7": -60,
    "T2": -95,
    "T6": -150,
    "T12": -150,
    "L3": -135,
    "S": -130,
    "end": -110,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """What varies from one body to the next."""

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


def sample_build(rng: np.random.Generator) -> Build:
    """Draw a body from slim to stout."""
    stout = float(rng.beta(2, 2.5))
    return Build(
        girth=0.82 + 0.45 * stout,
        fat_mm=6 + 38 * stout * stout + float(rng.uniform(0, 6)),
        wall_mm=float(rng.uniform(7, 15)),
        bulk=float(rng.uniform(0.85, 1.15)),
        seed=int(rng.integers(2**31)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Coordinates around the spine for every voxel, and the means to look up what varies with height."""

    u: Array
    """To the left of the spine, mm."""
    v: Array
    """Behind the centres of the bodies, mm."""
    z: Array
    """Superior coordinate, mm."""
    rows: npt.NDArray[np.int32]
    """Index of each voxel into a table with one entry per half millimetre of height."""
    heights: npt.NDArray[np.float64]
    """Superior coordinate of the table's entries, mm."""
    levels: dict[str, float]
    """Superior coordinate of each level's centre, and of `S`, `top` and `end`, mm."""

    def along(self, values: Mapping[str, Number]) -> Array:
        """Return for every voxel a number that is given at some levels and interpolated between them."""
        known = sorted((self.levels[name], number) for name, number in values.items() if name in self.levels)
        table = np.interp(self.heights, [a for a, _ in known], [b for _, b in known])
        return np.asarray(table.astype(np.float32)[self.rows])

    def ellipse(
        self, centre: tuple[Number | Array, Number | Array], radii: tuple[Number | Array, Number | Array]
    ) -> Array:
        """Return the distance to an upright tube of elliptic cross-section, mm."""
        a, b = np.asarray(radii[0], np.float32), np.asarray(radii[1], np.float32)
        qx = (self.u - np.asarray(centre[0], np.float32)) / a
        qy = (self.v - np.asarray(centre[1], np.float32)) / b
        length = np.sqrt(qx * qx + qy * qy) + np.float32(1e-3)
        slope = np.sqrt((qx / a) ** 2 + (qy / b) ** 2) + np.float32(1e-5)
        return np.asarray(length * (length - 1) / slope, np.float32)

    def ball(self, centre: Point, radii: Point) -> Array:
        """Return the distance to an ellipsoid, mm."""
        q = [
            (w - np.float32(c)) / np.float32(r)
            for w, c, r in zip((self.u, self.v, self.z), centre, radii, strict=True)
        ]
        length = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2]) + np.float32(1e-3)
        return np.asarray((length - 1) * np.float32(min(radii) * 0.5 + max(radii) * 0.5), np.float32)


def space_around(picture: Picture, spine: Spine) -> Space:
    """Compute the coordinates around a spine."""
    world = Frame(origin_mm=np.zeros(3), axes=np.eye(3))
    x, y, z = picture.raster.coordinates(world, picture.raster.everywhere())
    low, high = float(z.min()) - 1, float(z.max()) + 1
    heights = np.arange(low, high + 1, 0.5)
    line_x, line_y = spine.curve(heights)
    rows = ((z - np.float32(low)) * np.float32(2)).astype(np.int32)
    levels = {v.name: float(v.frame.origin_mm[2]) for v in spine.vertebrae}
    levels |= {"S": -15.0, "end": -110.0, "top": levels["C1"] + 60.0}
    return Space(
        u=x - line_x.astype(np.float32)[rows],
        v=y - line_y.astype(np.float32)[rows],
        z=z,
        rows=rows,
        heights=heights,
        levels=levels,
    )


def paint_body(picture: Picture, space: Space, spine: Spine, build: Build) -> None:
    """Paint all soft tissue; the spine itself comes on top later."""
    box = picture.raster.everywhere()
    outline = _outline(space, spine, build)
    picture.paint("skin", outline, box)
    picture.paint("fat", outline + np.float32(2.0), box)
    fat = space.along(
        {"top": 4, "C1": 5, "C7": 8, "T6": 0.6 * build.fat_mm, "L3": build.fat_mm, "end": 1.2 * build.fat_mm}
    )
    inner = outline + fat + np.float32(2.0)
    _wall(picture, space, inner, build)
    if space.z.max() > space.levels["T12"]:
        _chest(picture, space, inner)
    if space.z.min() < space.levels["T10"]:
        _abdomen(picture, space, inner, build)
    if space.z.max() > space.levels["T2"]:
        _neck(picture, space, inner)
    _back_muscles(picture, space, spine, build, inner)
    _vessels(picture, space)


def _outline(space: Space, spine: Spine, build: Build) -> Array:
    """Return the distance to the skin: an oval per height, its back a finger's breadth behind the spine."""
    tips = {v.name: v.frame.to_world((0.0, v.size.reach, -v.size.drop)) for v in spine.vertebrae}
    line = {name: float(tip[1] - spine.curve(np.array([tip[2]]))[1][0]) for name, tip in tips.items()}
    last = spine.vertebrae[-1].name
    rear = {name: value + 5 + 0.6 * build.fat_mm for name, value in line.items()}
    rear |= {
        "S": rear[last] + 4,
        "end": rear[last] - 10,
        "top": rear["C1"] + 35,
        "C1": rear["C1"] + 14,
        "C4": rear["C4"] + 10,
    }
    back = space.along(rear)
    width = space.along({name: value * build.girth for name, value in _HALF_WIDTH.items()})
    front = space.along({name: value * build.girth - 0.4 * build.fat_mm for name, value in _FRONT.items()})
    a, b = width, (back - front) / 2
    qx, qy = space.u / a, (space.v - (back + front) / 2) / b
    length = np.sqrt(qx * qx + qy * qy) + np.float32(1e-3)
    fuller = 1 - 0.10 * (2 * qx * qy / (length * length)) ** 2
    slope = np.sqrt((qx / a) ** 2 + (qy / b) ** 2) / length
    oval = (length * fuller - 1) / (slope + np.float32(1e-4))
    furrow = np.float32(5.0) * np.exp(-((space.u / np.float32(13)) ** 2)) * (space.v > 0)
    return np.asarray(oval + furrow, np.float32)


def _wall(picture: Picture, space: Space, inner: Array, build: Build) -> None:
    """Paint the ring of muscle under the fat, hollow towards the spine."""
    box = picture.raster.everywhere()
    thick = np.float32(build.wall_mm)
    ring = smooth_max(inner, -(inner + thick), 2.0)
    midline = np.float32(9) - np.abs(space.u)
    picture.paint("muscle", smooth_max(ring, midline, 4.0), box)


def _chest(picture: Picture, space: Space, inner: Array) -> None:
    """Paint lungs with vessels, mediastinum and the beginning of the diaphragm's dome."""
    box = picture.raster.everywhere()
    dome = (
        space.levels["T10"]
        + 14 * np.cos(space.u / np.float32(60))
        - np.float32(0.55) * np.maximum(space.v + 20, 0)
    )
    chest = smooth_max(inner + np.float32(17), dome.astype(np.float32) - space.z, 4.0)
    apex = space.z - np.float32(space.levels["T2"] + 12 if "T2" in space.levels else 1e4)
    chest = smooth_max(chest, apex, 20.0)
    picture.paint("muscle", smooth_max(inner, apex, 10.0), box, strength=0.75)
    picture.paint("fat", chest, box)
    spine_bed = smooth_min(space.ellipse((0, -2), (27, 26)), space.ellipse((0, 34), (44, 30)), 8.0)
    middle = smooth_min(spine_bed, space.ellipse((6, -66), (44, 44)), 14.0)
    lungs = smooth_max(chest, -middle, 6.0)
    picture.paint("lung", lungs, box)
    vessels = 2.1 - picture.grain - 0.6 * picture.cloud
    picture.mix(
        np.asarray(np.clip(-lungs / 3, 0, 1) * np.clip(0.5 - vessels, 0, 0.9), np.float32),
        *picture.palette.tissues["blood"],
        box,
    )
    heart = space.ball((20, -78, space.levels["T8"]), (42, 36, 48))
    picture.paint("blood", heart, box)
    oesophagus = space.ellipse((4, -34), (8, 5.5))
    picture.paint("wall", smooth_max(oesophagus, np.float32(space.levels["T10"]) - space.z, 1.0), box)


def _abdomen(picture: Picture, space: Space, inner: Array, build: Build) -> None:
    """Paint the abdominal cavity: liver, spleen, kidneys, gut with gas, bladder and rectum."""
    box = picture.raster.everywhere()
    k = build.girth
    top = space.z - np.float32(space.levels["T10"] + 6)
    cavity = smooth_max(inner + np.float32(build.wall_mm), space.v - np.float32(24), 8.0)
    cavity = smooth_max(
        cavity, np.asarray(top + np.float32(0.35) * np.maximum(space.v + 20, 0), np.float32), 4.0
    )
    picture.paint("fat", cavity, box)
    z = space.levels
    liver = smooth_max(space.ball((-85 * k, -45, z["T12"] + 8), (72 * k, 78, 72)), cavity + 4, 6.0)
    spleen = smooth_max(space.ball((100 * k, 0, z["T12"]), (30, 42, 48)), cavity + 4, 4.0)
    picture.paint("liver", liver, box)
    picture.paint("liver", spleen, box)
    for side in (1, -1):
        centre = (side * (62 * k + 4), 2.0, z["L2"] + (12 if side > 0 else 2))
        picture.paint("kidney", space.ball(centre, (27, 24, 52)), box)
        picture.paint("fat", space.ball((centre[0] - side * 8, centre[1] - 8, centre[2]), (11, 10, 26)), box)
    _gut(picture, space, cavity, build)


def _gut(picture: Picture, space: Space, cavity: Array, build: Build) -> None:
    """Paint loops of bowel in front of the great vessels: wall, contents and gas."""
    box = picture.raster.everywhere()
    rng = np.random.default_rng(build.seed)
    k = build.girth
    low, high = float(space.heights[0]), min(float(space.heights[-1]), space.levels["T12"] + 10)
    # Drawn for the whole belly whatever the field of view, so that a crop shows the same body.
    for _ in range(46):
        centre = (
            float(rng.uniform(-95, 95)) * k,
            float(rng.uniform(-120, -48)) * k,
            float(rng.uniform(-100, space.levels["T12"] + 10)),
        )
        radii = (float(rng.uniform(12, 26)), float(rng.uniform(10, 17)), float(rng.uniform(11, 28)))
        kind = rng.random()
        if centre[2] + radii[2] < low or centre[2] - radii[2] > high or _outside(space, centre, radii):
            continue
        loop = smooth_max(space.ball(centre, radii), cavity + 3, 4.0)
        picture.paint("wall", loop, box)
        picture.paint("bowel", loop + np.float32(2.2), box)
        if kind < 0.3:
            level = space.v - np.float32(centre[1] - 0.15 * radii[1])
            picture.paint("gas", smooth_max(loop + np.float32(2.2), level, 1.0), box)
    rectum = smooth_max(space.ellipse((0, -38), (15, 12)), space.z + np.float32(34), 6.0)
    if space.z.min() < -30:
        picture.paint("wall", rectum, box)
        picture.paint("bowel", rectum + np.float32(3), box)
        bladder = space.ball((0, -92 * k, -108), (38, 26, 30))
        picture.paint("fluid", bladder, box)


def _outside(space: Space, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> bool:
    """Return whether a ball lies beyond the field of view."""
    for values, c, r in zip((space.u, space.v), centre[:2], radii[:2], strict=True):
        if c + r < float(values.min()) or c - r > float(values.max()):
            return True
    return False


def _neck(picture: Picture, space: Space, inner: Array) -> None:
    """Paint the neck: muscles, airway, great vessels; higher up the floor of the skull stays soft tissue."""
    box = picture.raster.everywhere()
    z = space.levels
    here = np.float32(z["T2"]) - space.z
    muscle = smooth_max(inner, here, 8.0)
    picture.paint("muscle", muscle, box, strength=0.92)
    centre = space.along({"T4": -40, "C7": -34, "C4": -26, "C1": -28, "top": -30})
    picture.paint("wall", smooth_max(space.ellipse((0, centre), (12.5, 11.5)), here, 2.0), box)
    picture.paint("gas", smooth_max(space.ellipse((0, centre), (9, 8.5)), here, 2.0), box)
    for side in (1, -1):
        for u, v, r in ((26, -22, 4.0), (32, -17, 6.0)):
            picture.paint("blood", smooth_max(space.ellipse((side * u, v), (r, r)), here, 2.0), box)
        septum = np.abs(space.ellipse((side * 26, 38), (24, 26))) - np.float32(1.6)
        picture.paint("fat", smooth_max(septum, here, 1.0), box, strength=0.8)
        longus = smooth_max(space.ellipse((side * 8, -12), (7, 4)), here, 2.0)
        picture.paint("muscle", longus, box)
    strip = smooth_max(np.abs(space.u) - np.float32(1.6), np.float32(30) - space.v, 2.0)
    picture.paint("fat", smooth_max(smooth_max(strip, here, 1.0), inner, 1.0), box, strength=0.7)


def _back_muscles(picture: Picture, space: Space, spine: Spine, build: Build, inner: Array) -> None:
    """Paint psoas, quadratus and the long muscles of the back, with septa of fat and fatty streaks."""
    box = picture.raster.everywhere()
    z = space.levels
    size = spine.scale * build.bulk
    neck = space.z - np.float32(z["T2"])
    wide = space.along({"C7": 16, "T2": 18, "T10": 22, "L1": 29, "L4": 31, "S": 27, "end": 8})
    deep = space.along({"C7": 13, "T2": 12, "T10": 15, "L1": 20, "L4": 22, "S": 14, "end": 5})
    behind = space.along({"C7": 40, "T2": 44, "T10": 46, "L1": 49, "L4": 52, "S": 58, "end": 50})
    for side in (1, -1):
        psoas_r = space.along({"T12": 3, "L1": 8, "L3": 16, "L5": 21, "S": 20, "end": 16})
        psoas_u = space.along({"T12": 26, "L1": 30, "L3": 39, "L5": 48, "S": 56, "end": 78})
        psoas = space.ellipse(
            (side * psoas_u, space.along({"L1": 4, "L4": -4, "S": -22, "end": -45})),
            (psoas_r * size, psoas_r * 1.15 * size),
        )
        lumbar = space.z - np.float32(z["T12"])
        quadratus = smooth_max(
            space.ellipse((side * 63, 25), (19 * size, 9 * size)), smooth_max(lumbar, -space.z - 5, 3.0), 3.0
        )
        long = space.ellipse((side * (wide * 0.52 + 17), behind), (wide * size, deep * size))
        deepest = space.ellipse((side * 13, behind - 3), (10.5, deep * 0.95))
        muscles = smooth_max(smooth_min(long, deepest, 1.0), smooth_max(inner + 1, neck, 2.0), 2.0)
        glutei = smooth_max(
            space.ellipse((side * 92, 62), (62, 34)), smooth_max(space.z + 18, inner + 1, 2.0), 8.0
        )
        for muscle in (smooth_max(psoas, lumbar, 4.0), quadratus, muscles, glutei):
            picture.paint("muscle", np.asarray(muscle, np.float32), box)
            picture.marble(np.asarray(np.clip(-muscle / 3, 0, 1), np.float32), box)
        septum = np.abs(deepest) - np.float32(0.7)
        picture.paint("fat", smooth_max(septum, muscles + 1, 1.0), box, strength=0.6)
    # Between the spinous processes: ligament, held in a sheet of fat.
    sheet = smooth_max(np.abs(space.u) - np.float32(2.2), np.float32(22) - space.v, 2.0)
    sheet = smooth_max(sheet, smooth_max(inner + 2, neck, 2.0), 2.0)
    picture.paint("ligament", sheet, box, strength=0.55)


def _vessels(picture: Picture, space: Space) -> None:
    """Paint aorta and inferior vena cava down to their forks in front of L4."""
    box = picture.raster.everywhere()
    z = space.levels
    floor = np.float32(z["L4"]) - space.z
    roof = space.z - np.float32(z["T5"])
    left = space.along({"T5": 22, "T9": 16, "T12": 8, "L4": 7})
    front = space.along({"T5": -14, "T9": -24, "T12": -31, "L4": -35})
    aorta = smooth_max(space.ellipse((left, front), (10.5, 10.5)), smooth_max(floor, roof, 2.0), 3.0)
    picture.paint("wall", aorta, box)
    picture.paint("blood", aorta + np.float32(1.5), box)
    cava = smooth_max(
        space.ellipse((-19, front + 3), (12, 9)), smooth_max(floor, space.z - np.float32(z["T9"]), 2.0), 3.0
    )
    picture.paint("blood", cava, box)
    for side in (1, -1):
        u = space.along({"L4": 8, "S": 34, "end": 62})
        v = space.along({"L4": -33, "S": -36, "end": -58})
        branch = smooth_max(space.ellipse((side * u, v), (7, 7)), -floor, 3.0)
        picture.paint("blood", branch, box)
