"""Implants: which ones a body has, and their shapes: screws and cages in the spine, hips, fillings, wires."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from autospine.core.geometry import vector
from autospine.core.types import Position
from autospine.phantom.anatomy import Spine, Vertebra
from autospine.phantom.pelvis import HIP_JOINT, pelvis_frame
from autospine.phantom.picture import Picture
from autospine.phantom.rib_cage import front_of_chest
from autospine.phantom.shapes import (
    FAR_MM,
    Capsule,
    Custom,
    Field,
    Frame,
    Number,
    Part,
    Point,
    render,
    smooth_max,
)
from autospine.phantom.skull import head_frame, head_scale, molars
from autospine.phantom.soft_tissue import Build, Space
from autospine.phantom.vertebra import canal_centre

# Share of people with each implant where it is not said.
_SCREWS, _CAGE, _PLATE, _HIP, _FILLINGS, _WIRES = 1 / 30, 0.5, 0.02, 0.04, 0.25, 0.04


@dataclass(frozen=True, kw_only=True, slots=True)
class Implant:
    """A solid of metal."""

    frame: Frame
    """Frame of its parts."""
    parts: tuple[Part, ...]
    """Its parts."""
    liner: Part | None = None
    """Part that takes the place of bone around it, a socket's plastic."""


def sample_implants(
    spine: Spine, space: Space, build: Build, rng: np.random.Generator, *, metal: bool | None
) -> list[Implant]:
    """Draw the implants of a body.

    Args:
        spine: The spine.
        space: Coordinates around it.
        build: The body.
        rng: Random generator.
        metal: True for screws in the spine in any case, False for no metal at all, None by chance.
    """
    chance = rng.random(7)
    if metal is False:
        return []
    found: list[Implant] = []
    if metal or chance[0] < _SCREWS:
        found += _instrumented(spine, rng, cage=bool(chance[1] < _CAGE))
    if chance[2] < _PLATE:
        found += _plate(spine, rng)
    for side, draw in ((1, chance[3]), (-1, chance[4])):
        if draw < _HIP:
            found.append(_hip(spine, side))
    if chance[5] < _FILLINGS:
        found += _fillings(spine, rng)
    if chance[6] < _WIRES:
        found += _wires(spine, space, build)
    return found


def draw_metal(picture: Picture, implants: list[Implant]) -> Field | None:
    """Return the distance in mm to the metal, or None where none is in view; paint plastic liners."""
    result: Field | None = None
    for implant in implants:
        if implant.liner is not None:
            plastic = render(picture.raster, implant.frame, (implant.liner,), margin_mm=2.0)
            if plastic is not None:
                picture.paint("cartilage", plastic[1], plastic[0])
        drawn = render(picture.raster, implant.frame, implant.parts, margin_mm=12.0)
        if drawn is not None:
            if result is None:
                result = np.full(picture.raster.shape, FAR_MM, dtype=np.float32)
            result[drawn[0]] = np.minimum(result[drawn[0]], drawn[1])
    return result


def _rod(start: Point, end: Point, radii: tuple[Number, Number], blend: Number = 0) -> Part:
    """Return a rod."""
    return Part(shape=Capsule(start_mm=start, end_mm=end, radius_mm=radii), blend_mm=blend)


def _instrumented(spine: Spine, rng: np.random.Generator, *, cage: bool) -> list[Implant]:
    """Return pedicle screws and rods at two to five neighbouring levels, and perhaps a cage."""
    low = [v for v in spine.vertebrae if v.region == "L" or v.name in ("T11", "T12")]
    count = int(rng.choice((2, 2, 3, 3, 4, 5)))
    lumbar = sum(v.region == "L" for v in low)
    # Short constructs lie in the loin; long ones reach up into the chest.
    highest = len(low) - max(count, lumbar)
    first = int(rng.integers(highest, len(low) - count + 1))
    chosen = low[first : first + count]
    result = []
    heads: dict[int, list[Position]] = {1: [], -1: []}
    for vertebra in chosen:
        parts = []
        for side in (1, -1):
            tip, head = _screw(vertebra, side)
            parts += [_rod(tip, head, (2.4, 3.0)), _rod(head, head, (6.0, 6.0))]
            heads[side].append(vertebra.frame.to_world(head))
        result.append(Implant(frame=vertebra.frame, parts=tuple(parts)))
    world = Frame(origin_mm=np.zeros(3), axes=np.eye(3))
    rods = tuple(
        _rod(vector(a), vector(b), (2.8, 2.8)) for places in heads.values() for a, b in pairwise(places)
    )
    result.append(Implant(frame=world, parts=rods))
    if cage:
        s = chosen[0].size
        z = -s.height / 2 - s.gap / 2
        half = max(0.36 * s.gap, 2.0)
        bars = tuple(_rod((x, -9.0, z), (x, 9.0, z), (half, half)) for x in (-9.0, 9.0))
        result.append(Implant(frame=chosen[0].frame, parts=bars))
    return result


def _screw(vertebra: Vertebra, side: int) -> tuple[Point, Point]:
    """Return the tip in the body and the head behind the pedicle, in the vertebra's frame."""
    s = vertebra.size
    x = side * (s.canal_width / 2 + 4.5)
    y = canal_centre(vertebra)[1] + s.canal_depth / 2
    return (0.55 * x, -0.18 * s.depth, 0.14 * s.height), (1.25 * x, y + 13.0, 0.16 * s.height)


def _plate(spine: Spine, rng: np.random.Generator) -> list[Implant]:
    """Return a plate in front of two or three cervical bodies, with its screws."""
    first, count = int(rng.integers(3, 5)), int(rng.integers(2, 4))
    chosen = spine.vertebrae[first : first + count]
    world = Frame(origin_mm=np.zeros(3), axes=np.eye(3))
    places = [v.frame.to_world((0.0, -v.size.depth / 2 - 1.5, 0.0)) for v in chosen]
    parts = [
        _rod(vector(a + np.array([x, 0, 0])), vector(b + np.array([x, 0, 0])), (1.4, 1.4), 1.0)
        for a, b in pairwise(places)
        for x in (-5.0, 0.0, 5.0)
    ]
    result = [Implant(frame=world, parts=tuple(parts))]
    for vertebra in chosen:
        depth = vertebra.size.depth
        pair = tuple(
            _rod((x, -depth / 2 - 1.5, 0.0), (0.8 * x, 0.22 * depth, 0.0), (1.8, 1.4)) for x in (-6.0, 6.0)
        )
        result.append(Implant(frame=vertebra.frame, parts=pair))
    return result


def _hip(spine: Spine, side: int) -> Implant:
    """Return a total hip: cup, head, neck and stem, with the cup's liner."""
    k = spine.scale
    x, y, z = (value * k for value in HIP_JOINT)
    x *= side

    def cup(u: Field, v: Field, w: Field) -> Field:
        """Return the signed distance to the shell of the socket, mm."""
        q = (u - np.float32(x), v - np.float32(y), w - np.float32(z))
        radius = np.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2])
        shell = np.abs(radius - np.float32(25.5 * k)) - np.float32(1.8)
        outside = np.float32(side * 0.68) * q[0] - np.float32(0.70) * q[2] - np.float32(0.2) * q[1]
        return smooth_max(np.asarray(shell, np.float32), np.asarray(outside, np.float32), 1.0)

    reach = 30 * k
    shell = Custom(
        low_mm=(x - reach, y - reach, z - reach), high_mm=(x + reach, y + reach, z + reach), function=cup
    )
    bend = (x + side * 34 * k, y + 6 * k, z - 24 * k)
    tip = (x + side * 36 * k, y + 1 * k, z - 165 * k)
    return Implant(
        frame=pelvis_frame(spine),
        parts=(
            Part(shape=shell, blend_mm=0),
            _rod((x, y, z), (x, y, z), (16.0 * k, 16.0 * k)),
            _rod((x, y, z), bend, (6.0, 9.5)),
            _rod(bend, tip, (9.5, 5.0), 3.0),
        ),
        liner=_rod((x, y, z), (x + side * 16 * k, y + 2 * k, z - 12 * k), (25.0 * k, 17.0 * k)),
    )


def _fillings(spine: Spine, rng: np.random.Generator) -> list[Implant]:
    """Return fillings and crowns of some of the molars."""
    k = head_scale(spine)
    parts = tuple(_rod(place, place, (radius, radius)) for place, radius in molars(k) if rng.random() < 0.35)
    return [Implant(frame=head_frame(spine), parts=parts)] if parts else []


def _wires(spine: Spine, space: Space, build: Build) -> list[Implant]:
    """Return the wires that hold a sternum together after an operation on the heart."""
    result = []
    top, bottom = space.levels["T2"] - 24, space.levels["T8"]
    for height in np.linspace(top, bottom, 6):
        v = front_of_chest(space, spine, build, float(height))
        corners = ((-15, v + 7), (15, v + 7), (15, v - 7), (-15, v - 7), (-15, v + 7))
        parts = tuple(_rod((*a, 0.0), (*b, 0.0), (0.9, 0.9)) for a, b in pairwise(corners))
        result.append(Implant(frame=space.world((0.0, 0.0, float(height))), parts=parts))
    return result
