"""The sacrum: wedge-shaped and curved, with wings, foramina, crest and canal."""

from dataclasses import dataclass

import numpy as np

from autospine.core.geometry import vector
from autospine.phantom.anatomy import Spine
from autospine.phantom.shapes import Capsule, Custom, Ellipsoid, Field, Frame, Part, Plate, Point

# Sizes of the segments S1 to S5 at scale 1, mm: height, width and depth of the body, half width of the whole
# segment, and width and depth of the sacral canal.
_HEIGHTS = (30.0, 26.0, 22.0, 18.0, 15.0)
_WIDTHS = (50.0, 38.0, 31.0, 26.0, 22.0)
_DEPTHS = (33.0, 23.0, 16.0, 12.0, 9.0)
_WINGS = (53.0, 50.0, 42.0, 32.0, 22.0)
_CANALS = ((30.0, 15.0), (25.0, 11.0), (19.0, 8.0), (13.0, 5.5), (9.0, 4.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class SacralSegment:
    """One of the five fused sacral vertebrae."""

    frame: Frame
    """Frame at the centre of its body."""
    height: float
    """Height, mm."""
    width: float
    """Width of the body, mm."""
    depth: float
    """Depth of the body, mm."""
    wing: float
    """Half of the whole sacrum's width at this segment, mm."""
    canal: tuple[float, float]
    """Width and depth of the sacral canal, mm."""

    def canal_centre(self) -> Point:
        """Return the centre of the canal in the segment's frame."""
        return (0.0, self.depth / 2 + self.canal[1] / 2 - 0.5, 0.0)


def sacral_segments(spine: Spine) -> tuple[SacralSegment, ...]:
    """Return the five segments: a chain along the hollow front of the sacrum, each turned further forward."""
    scale = spine.scale
    turns = np.array([0.0, 0.10, 0.36, 0.70, 1.0]) * spine.sacral_bend
    edge = spine.sacrum.moved((0.0, -_DEPTHS[0] * scale / 2, 0.0))
    result = []
    for i in range(5):
        frame = Frame(origin_mm=edge.origin_mm, axes=spine.sacrum.axes).pitched(-float(turns[i]))
        height, depth = _HEIGHTS[i] * scale, _DEPTHS[i] * scale
        centre = frame.moved((0.0, depth / 2, -height / 2))
        result.append(
            SacralSegment(
                frame=centre,
                height=height,
                width=_WIDTHS[i] * scale,
                depth=depth,
                wing=_WINGS[i] * scale,
                canal=(_CANALS[i][0] * scale, _CANALS[i][1] * scale),
            )
        )
        edge = frame.moved((0.0, 0.0, -height))
    return tuple(result)


def segment_parts(chain: tuple[SacralSegment, ...], index: int) -> tuple[Part, ...]:
    """Return the solids of one segment in its own frame; foramina are carved by `foramina`."""
    s = chain[index]
    parts = [Part(shape=_block(s, first=index == 0), blend_mm=3), *_wings(chain, index)]
    roof = s.depth / 2 + s.canal[1] + 2.0
    half = s.canal[0] / 2
    if index < 4:
        low, high = -s.height / 2 - 1, s.height / 2 + (1 if index else -8)
        crest = (6.5, 5.5, 4.5, 2.5)[index]
        for side in (1, -1):
            start, end = (side * (half + 2), roof - 4.5, 0.0), (0.0, roof + 0.5, 0.0)
            tall = (high - low) / 2 / 2.6
            parts.append(
                Part(
                    shape=Capsule(start_mm=start, end_mm=end, radius_mm=(2.6, 2.6), stretch=(1, 1, tall)),
                    blend_mm=3,
                )
            )
        corners = (
            (roof - 2, low + 2),
            (roof + crest, low + 4),
            (roof + crest, high - 5),
            (roof - 2, high - 1),
        )
        parts.append(Part(shape=Plate(corners_mm=corners, half_thickness_mm=(2.5, 2.8)), blend_mm=3))
    if index == 0:
        for side in (1, -1):
            start, end = (side * (half + 6), roof - 6, 6.0), (side * (half + 8.5), roof - 2.0, 17.0)
            parts.append(Part(shape=Capsule(start_mm=start, end_mm=end, radius_mm=(6.0, 4.2)), blend_mm=4))
    return tuple(parts)


def _block(s: SacralSegment, *, first: bool) -> Custom:
    """Return a segment's body: an oval prism, the first one with a concave endplate and a promontory."""
    half = s.height / 2 + (0.0 if first else 2.0)

    def distance(x: Field, y: Field, z: Field) -> Field:
        """Return about the distance to the surface in mm, negative inside."""
        a, b = np.float32(s.width / 2), np.float32(s.depth / 2)
        qx, qy = x / a, y / b
        length = np.sqrt(qx * qx + qy * qy) + np.float32(1e-3)
        slope = np.sqrt((qx / a) ** 2 + (qy / b) ** 2) / length
        fuller = 1 - 0.07 * (2 * qx * qy / (length * length)) ** 2
        wall = (length * fuller - 1) / (slope + np.float32(1e-4))
        dish = np.float32(2.0 if first else 0.0) * np.clip(1 - qx * qx - qy * qy, 0, 1)
        ends = np.maximum(z - half + dish, -z - np.float32(s.height / 2 + 2))
        return np.asarray(np.maximum(wall, ends), np.float32)

    reach = (s.width / 2 + 2, s.depth / 2 + 2, s.height / 2 + 4)
    return Custom(low_mm=(-reach[0], -reach[1], -reach[2]), high_mm=reach, function=distance)


def _wings(chain: tuple[SacralSegment, ...], index: int) -> list[Part]:
    """Return the lateral parts: broad alae on top, then masses that join into one edge."""
    s = chain[index]
    scale = s.depth / _DEPTHS[index]
    thick = (12.0, 10.0, 7.5, 5.5, 4.0)[index] * scale
    tall = s.height / 2 / thick
    rear = s.depth / 2 + 0.6 * s.canal[1]
    parts = []
    for side in (1, -1):
        start = (side * 0.30 * s.width, 1.0, -2.0)
        end = (side * (s.wing - thick * 0.8), 0.12 * s.wing, -6.0 if index == 0 else -2.0)
        ala = Capsule(
            start_mm=start,
            end_mm=end,
            radius_mm=(thick * 0.95, thick),
            stretch=(0.8, 1.0, max(tall * (0.86 if index == 0 else 1.05), 0.8)),
        )
        pillar = Capsule(
            start_mm=(side * (s.canal[0] / 2 + 5), rear, 0.0),
            end_mm=(side * 0.40 * s.width, 0.0, 0.0),
            radius_mm=(4.5 * scale, 5.5 * scale),
            stretch=(1, 1, 0.9),
        )
        parts += [Part(shape=ala, blend_mm=4), Part(shape=pillar, blend_mm=4)]
        if index < 4:
            below = chain[index + 1]
            edge = s.frame.axes.T @ (
                below.frame.to_world((side * (below.wing - 9 * scale), 0.12 * below.wing, 0.0))
                - s.frame.origin_mm
            )
            seam = Capsule(
                start_mm=(side * (s.wing - 10 * scale), 0.12 * s.wing, -4.0),
                end_mm=vector(edge),
                radius_mm=(9.5 * scale * (1 - 0.12 * index), 8.0 * scale * (1 - 0.15 * index)),
                stretch=(0.85, 1.1, 1),
            )
            parts.append(Part(shape=seam, blend_mm=5))
    return parts


def foramina(chain: tuple[SacralSegment, ...], index: int) -> tuple[Part, ...]:
    """Return the pair of openings below a segment, running from front to back."""
    s = chain[index]
    radius = (5.0, 4.6, 3.8, 3.0)[index] * s.depth / _DEPTHS[index]
    parts = []
    for side in (1, -1):
        x = side * (0.5 * s.width * 0.74)
        front, back = (x * 1.25, -0.9 * s.depth, -s.height / 2 + 1), (x, s.depth / 2 + 16, -s.height / 2 + 2)
        parts.append(
            Part(
                shape=Capsule(start_mm=front, end_mm=back, radius_mm=(radius * 1.3, radius * 0.55)),
                blend_mm=2,
                carve=True,
            )
        )
    return tuple(parts)


def disc_remnant(s: SacralSegment) -> Ellipsoid:
    """Return the remnant of the disc below the first segments: seen in the picture, part of the sacrum."""
    return Ellipsoid(
        centre_mm=(0.0, 0.0, -s.height / 2), radii_mm=(0.33 * s.width, 0.34 * s.depth, 0.05 * s.height)
    )
