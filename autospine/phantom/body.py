"""Everything around the spine: skin, fat, muscles, organs, vessels, gut, lungs, the neck's airway.

Positions are relative to the line through the vertebral bodies: u left, v posterior, z superior (LPS), in mm.
"""

import numpy as np

from autospine.phantom.anatomy import Spine
from autospine.phantom.chest import breasts, diaphragm, paint_chest, paint_chest_wall
from autospine.phantom.foreign_objects import paint_tubes
from autospine.phantom.gut import paint_gut
from autospine.phantom.head import with_head
from autospine.phantom.hips import paint_pelvic_organs, paint_seat_and_thighs, pelvic_cavity, with_thighs
from autospine.phantom.picture import Picture
from autospine.phantom.rib_cage import Cage
from autospine.phantom.shapes import Field, smooth_max, smooth_min
from autospine.phantom.shoulders import arms, paint_arms, with_arms
from autospine.phantom.soft_tissue import Build, Space, Stage

# Half width of the trunk and neck, and position of the front skin behind (positive) or before (negative) the
# line through the vertebral bodies, at some levels of a body of mean girth, mm.
_HALF_WIDTH = {
    "top": 72,
    "C1": 70,
    "C4": 60,
    "C7": 76,
    "T1": 116,
    "T2": 146,
    "T6": 150,
    "T12": 148,
    "L3": 148,
    "S": 172,
    "end": 182,
    "floor": 180,
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
    "S": -128,
    "end": -118,
    "floor": -112,
}


def sample_build(rng: np.random.Generator) -> Build:
    """Draw a body from slim to stout."""
    stout = float(rng.beta(2, 2.5))
    return Build(
        girth=0.82 + 0.45 * stout,
        fat_mm=6 + 38 * stout * stout + float(rng.uniform(0, 6)),
        wall_mm=float(rng.uniform(7, 15)),
        bulk=float(rng.uniform(0.85, 1.15)),
        seed=int(rng.integers(2**31)),
        arms="raised" if rng.random() < 0.4 else "down",
        pillow=bool(rng.random() < 0.6),
        breast_mm=float(rng.uniform(14, 34)) * (0.7 + stout) if rng.random() < 0.5 else 0.0,
    )


def hindmost(spine: Spine, build: Build) -> float:
    """Return how far back the skin of the trunk reaches: LPS y in mm."""
    tips = (
        v.frame.to_world((0.0, v.size.reach, -v.size.drop))[1] for v in spine.vertebrae if v.region != "C"
    )
    return float(max(tips)) + _skin(build)


def _skin(build: Build) -> float:
    """Return the distance from the spinous processes' tips to the skin, mm."""
    return 5 + 0.6 * build.fat_mm


def paint_body(picture: Picture, space: Space, spine: Spine, build: Build, cage: Cage | None) -> None:
    """Paint all soft tissue; the spine itself comes on top later."""
    stage = Stage(picture=picture, space=space, ragged=np.float32(1.3) * picture.cloud)
    outline = _outline(picture, space, spine, build, cage)
    flesh = arms(picture.raster, space, spine, build)
    skin = with_arms(outline, flesh)
    bosom = breasts(picture.raster, space, spine, build)
    if bosom is not None:
        skin = smooth_min(skin, bosom, 12.0)
    stage.tube("skin", skin)
    stage.tube("fat", skin + np.float32(2.0))
    if bosom is not None:
        stage.tube("wall", bosom + np.float32(9) + np.float32(4) * picture.cloud, strength=0.6)
    if flesh is not None:
        paint_arms(stage, flesh, build)
    fat = space.along(
        {"top": 4, "C1": 5, "C7": 8, "T6": 0.6 * build.fat_mm, "L3": build.fat_mm, "end": 1.2 * build.fat_mm}
    )
    inner = outline + fat + np.float32(2.0) + np.float32(0.6) * stage.ragged
    _wall(stage, inner, build)
    paint_seat_and_thighs(stage, inner)
    if cage is not None:
        paint_chest_wall(stage, inner)
    if space.z.max() > space.levels["T2"]:
        _neck(stage, inner)
    if cage is not None:
        paint_chest(stage, cage)
    if space.z.min() < space.levels["T8"]:
        _abdomen(stage, inner, build)
    _back_muscles(stage, spine, build, inner)
    _vessels(stage)
    paint_tubes(stage, np.random.default_rng([build.seed, 2]))


def _outline(picture: Picture, space: Space, spine: Spine, build: Build, cage: Cage | None) -> Field:
    """Return the distance to the skin: an oval per height, its back a finger's breadth behind the spine."""
    tips = {v.name: v.frame.to_world((0.0, v.size.reach, -v.size.drop)) for v in spine.vertebrae}
    line = {name: float(tip[1] - spine.curve(np.array([tip[2]]))[1][0]) for name, tip in tips.items()}
    last = spine.vertebrae[-1].name
    rear = {name: value + _skin(build) for name, value in line.items()}
    rear |= {
        "S": rear[last] + 4,
        "brim": rear[last] + 14,
        "end": rear[last] + 12,
        "floor": rear[last] - 2,
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
    if cage is not None:
        # Flesh and fat lie over the ribs, below the neck and down to the lowest ones.
        cover = cage.distance - np.float32(13 + 0.6 * build.fat_mm)
        bounds = np.maximum(space.z - np.float32(space.levels["T2"]), space.levels["L2"] - space.z)
        oval = smooth_min(oval, smooth_max(cover, np.asarray(bounds, np.float32), 20.0), 10.0)
    oval = with_thighs(space, np.asarray(oval, np.float32), build.girth)
    furrow = np.float32(5.0) * np.exp(-((space.u / np.float32(13)) ** 2)) * (space.v > 0)
    return with_head(picture.raster, space, spine, np.asarray(oval + furrow, np.float32))


def _wall(stage: Stage, inner: Field, build: Build) -> None:
    """Paint the ring of muscle under the fat, hollow towards the spine."""
    ring = smooth_max(inner, -(inner + np.float32(build.wall_mm)), 2.0)
    stage.tube("muscle", smooth_max(ring, np.float32(9) - np.abs(stage.space.u), 4.0))


def _abdomen(stage: Stage, inner: Field, build: Build) -> None:
    """Paint the abdominal cavity: liver, spleen, kidneys, gut with gas, bladder and rectum."""
    space = stage.space
    k, z = build.girth, space.levels
    cavity = smooth_max(inner + np.float32(build.wall_mm), space.v - np.float32(24), 8.0)
    cavity = smooth_max(cavity, np.float32(4) - diaphragm(space), 4.0)
    cavity = pelvic_cavity(space, cavity)
    stage.tube("fat", cavity)
    _strands(stage, cavity)
    inside = cavity + np.float32(4)
    stage.organ([("liver", 0)], (-78 * k, -45, z["T11"] + 8), (84 * k, 84, 84), inside)
    stage.organ([("liver", 0)], (-8 * k, -86, z["T10"] - 8), (70 * k, 42, 36), inside)
    stage.organ([("liver", 0)], (104 * k, 0, z["T12"]), (28, 42, 48), inside)
    for side in (1, -1):
        u, height = side * (62 * k + 4), z["L2"] + (12 if side > 0 else 2)
        stage.organ([("kidney", 0)], (u, 2, height), (27, 24, 52), inside)
        stage.organ([("fat", 0), ("fluid", 5)], (u - side * 8, -6, height), (12, 10, 24), inside)
    paint_gut(stage, inside, build)
    paint_pelvic_organs(stage, inside, build)


def _strands(stage: Stage, cavity: Field) -> None:
    """Paint the small vessels and folds that run through the fat of the belly."""
    picture = stage.picture
    sheet = np.clip(1 - np.abs(picture.cloud + 0.25 * picture.grain - 0.9) / np.float32(0.16), 0, 0.75)
    share = np.asarray(sheet * np.clip(-cavity / 3, 0, 1), np.float32)
    picture.mix("wall", share, picture.raster.everywhere())


def _neck(stage: Stage, inner: Field) -> None:
    """Paint the neck: muscles with fat between them, airway, great vessels."""
    space = stage.space
    here = np.asarray(np.float32(space.levels["T2"]) - space.z, np.float32)
    stage.tube("muscle", smooth_max(inner, here, 14.0), strength=0.92)
    for side in (1, -1):
        # The fat of the triangle behind the sternomastoid muscle, and that beside the jaw's glands.
        for u, v, a, b in ((50, 20, 9, 15), (38, -34, 9, 12)):
            pad = space.ellipse((side * u, v), (a, b)) + np.float32(2.5) * stage.ragged
            stage.tube("fat", smooth_max(smooth_max(pad, here, 6.0), inner + 2, 2.0))
    centre = space.along({"T4": -40, "C7": -34, "C4": -26, "C1": -28, "top": -30})
    airway = smooth_max(space.ellipse((0, centre), (12.5, 11.5)), here, 2.0) + np.float32(0.7) * stage.ragged
    airway = smooth_max(airway, space.z - np.float32(space.levels["C1"] + 8), 4.0)
    stage.tube("wall", airway)
    stage.tube("gas", airway + np.float32(3))
    for side in (1, -1):
        for u, v, r in ((26, -22, 4.0), (32, -17, 6.0)):
            stage.tube("blood", smooth_max(space.ellipse((side * u, v), (r, r)), here, 2.0))
        for u, v, a, b in ((26, 38, 24, 26), (16, 30, 13, 15), (44, 2, 15, 24), (24, 48, 26, 13)):
            septum = np.abs(space.ellipse((side * u, v), (a, b)) + np.float32(2) * stage.ragged) - np.float32(
                1.0
            )
            stage.tube("fat", smooth_max(smooth_max(septum, here, 1.0), inner + 1, 1.0), strength=0.7)
        stage.tube("muscle", smooth_max(space.ellipse((side * 8, -12), (7, 4)), here, 2.0))
    strip = smooth_max(np.abs(space.u) - np.float32(1.6), np.float32(30) - space.v, 2.0)
    stage.tube("fat", smooth_max(smooth_max(strip, here, 1.0), inner, 1.0), strength=0.7)


def _back_muscles(stage: Stage, spine: Spine, build: Build, inner: Field) -> None:
    """Paint psoas, quadratus and the long muscles of the back, with septa of fat and fatty streaks."""
    space = stage.space
    neck = np.asarray(space.z - np.float32(space.levels["T2"]), np.float32)
    size = spine.scale * build.bulk
    limit = smooth_max(inner + 1, neck, 2.0)
    for side in (1, -1):
        for muscle in (*_front_muscles(space, size, side), *_rear_muscles(space, size, side, limit)):
            _muscle(stage, muscle + np.float32(1.2) * stage.ragged)
        deepest = space.ellipse((side * 13, space.along({"T2": 42, "L1": 46, "L4": 49, "S": 55})), (11, 19))
        septum = np.abs(deepest + np.float32(2.2) * stage.ragged) - np.float32(0.6)
        stage.tube("fat", smooth_max(septum, limit + 1, 1.0), strength=0.6)
    # Between the spinous processes: ligament, held in a sheet of fat.
    sheet = smooth_max(np.abs(space.u) - np.float32(2.2), np.float32(22) - space.v, 2.0)
    stage.tube("ligament", smooth_max(sheet, limit + 1, 2.0), strength=0.5)


def _front_muscles(space: Space, size: float, side: int) -> tuple[Field, ...]:
    """Return psoas and quadratus lumborum of one side."""
    lumbar = np.asarray(space.z - np.float32(space.levels["T12"]), np.float32)
    radius = space.along({"T12": 3, "L1": 8, "L3": 16, "L5": 21, "S": 20, "end": 16}) * np.float32(size)
    u = space.along({"T12": 26, "L1": 30, "L3": 38, "L5": 48, "S": 56, "end": 78})
    v = space.along({"L1": 4, "L4": -2, "S": -22, "end": -45})
    psoas = smooth_max(space.ellipse((side * u, v), (radius, np.float32(1.2) * radius)), lumbar, 4.0)
    ends = smooth_max(lumbar, -space.z - np.float32(5), 3.0)
    return psoas, smooth_max(space.ellipse((side * 63, 25), (19 * size, 9 * size)), ends, 3.0)


def _rear_muscles(space: Space, size: float, side: int, limit: Field) -> tuple[Field, ...]:
    """Return erector spinae and multifidus of one side."""
    wide = space.along({"C7": 16, "T2": 18, "T10": 22, "L1": 29, "L4": 31, "S": 27, "end": 8}) * np.float32(
        size
    )
    deep = space.along({"C7": 13, "T2": 12, "T10": 15, "L1": 20, "L4": 22, "S": 14, "end": 5}) * np.float32(
        size
    )
    behind = space.along({"C7": 40, "T2": 44, "T10": 46, "L1": 49, "L4": 52, "S": 58, "end": 50})
    long = space.ellipse((side * (wide * 0.52 + 17), behind), (wide, deep))
    deepest = space.ellipse((side * 13, behind - 3), (10.5, deep * np.float32(0.95)))
    return (
        smooth_max(long, limit, 2.0),
        smooth_max(deepest, limit, 2.0),
    )


def _muscle(stage: Stage, distance: Field) -> None:
    """Paint one muscle and the fat in it."""
    stage.tube("muscle", distance)
    share = np.asarray(np.clip(-distance / 3, 0, 1), np.float32)
    stage.picture.marble(share, stage.picture.raster.everywhere())


def _vessels(stage: Stage) -> None:
    """Paint aorta and inferior vena cava down to their forks in front of L4."""
    space = stage.space
    z = space.levels
    floor = np.asarray(np.float32(z["L4"]) - space.z, np.float32)
    left = space.along({"T5": 22, "T9": 16, "T12": 8, "L4": 7})
    front = space.along({"T5": -14, "T9": -24, "T12": -31, "L4": -35})
    span = smooth_max(floor, space.z - np.float32(z["T5"]), 2.0)
    aorta = smooth_max(space.ellipse((left, front), (10.5, 10.5)), span, 3.0) + np.float32(0.4) * stage.ragged
    stage.tube("wall", aorta)
    stage.tube("blood", aorta + np.float32(1.5))
    # Calcium lies in patches in the wall, more of it in worn bodies: where the coarse texture is high.
    patch = np.clip(2 * (stage.picture.cloud - np.float32(2.4 - stage.picture.infiltration)), 0, 1)
    stage.tube("calcium", np.abs(aorta + np.float32(0.8)) - np.float32(0.9) * patch + np.float32(1 - patch))
    span = smooth_max(floor, space.z - np.float32(z["T9"]), 2.0)
    cava = smooth_max(space.ellipse((-19, front + 3), (12, 9)), span, 3.0)
    stage.tube("blood", cava + np.float32(0.8) * stage.ragged)
    for side in (1, -1):
        u = space.along({"L4": 8, "S": 34, "end": 60, "thigh": 52})
        v = space.along({"L4": -33, "S": -36, "brim": -46, "end": -72, "floor": -62, "thigh": -30})
        for shift, tissue in ((0, "blood"), (-11, "blood")):
            iliac = space.ellipse((side * (u + shift), v - 0.5 * shift), (6, 6))
            stage.tube(tissue, smooth_max(iliac, -floor, 3.0))
