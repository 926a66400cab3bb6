"""Sizes of the human spine by level, and the sampling of one spine from them.

Bodies' widths, depths, heights, gaps and tilts follow measurements on public masks (CC BY 4.0), smoothed
where the masks were few or coarse; processes are scaled to the measured extent of whole vertebrae. All
lengths in mm, angles in degrees.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from autospine.core.labels import DISC_OFFSET, VERSE
from autospine.phantom.shapes import Frame, rotation

LEVELS_24: tuple[str, ...] = (
    *(f"C{i}" for i in range(1, 8)),
    *(f"T{i}" for i in range(1, 13)),
    *(f"L{i}" for i in range(1, 6)),
)
"""The usual 24 presacral vertebrae, from the head down."""

CANAL = VERSE["canal"]
"""Integer of the spinal canal in the scheme by level."""
SACRUM = VERSE["sacrum"]
"""Integer of the sacrum in the scheme by level."""


BreakKind = Literal["wedge", "biconcave", "burst"]
"""Kinds of fractures."""
LesionKind = Literal["lytic", "sclerotic", "haemangioma", "cement"]
"""Kinds of lesions within bone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VertebraSize:
    """Dimensions of one vertebra; positions are in its own frame, whose origin is the centre of its body."""

    width: float
    """Width of the body at its endplates, mm."""
    depth: float
    """Depth (anterior to posterior) of the body at its endplates, mm."""
    height: float
    """Height of the body, mm."""
    gap: float
    """Height of the disc below, mm."""
    tilt: float
    """Direction of the line from the next centre below to this one; positive leans forward, degrees."""
    canal_width: float
    """Width of the spinal canal, mm."""
    canal_depth: float
    """Depth of the spinal canal, mm."""
    span: float
    """Distance between the tips of the transverse processes, mm."""
    reach: float
    """Distance of the spinous process's tip behind the centre of the body, mm."""
    drop: float
    """Distance of the spinous process's tip below the centre of the body, mm."""


_COLUMNS = ("width", "depth", "height", "gap", "tilt", "canal_width", "canal_depth", "span", "reach", "drop")
# Mean dimensions of each level in the order of `_COLUMNS`; the module's docstring has their source.
_TABLE: dict[str, tuple[float, ...]] = {
    "C1": (20, 10, 10, 5.0, 6, 27, 18, 75, 34, 2),
    "C2": (19, 15, 21, 4.5, 12, 25, 17, 52, 40, 10),
    "C3": (22, 16, 12.5, 4.5, 13, 24, 14, 52, 38, 8),
    "C4": (23, 16, 12.2, 4.5, 12, 24, 13.5, 53, 38, 9),
    "C5": (24, 16.5, 12, 4.5, 12, 24.5, 13.5, 54, 39, 10),
    "C6": (26, 17, 12.2, 4.5, 13, 25, 13.5, 57, 43, 12),
    "C7": (28, 17, 13.5, 4.5, 18, 24.5, 14, 65, 51, 14),
    "T1": (29, 18, 16, 4.0, 24, 21, 15, 74, 54, 16),
    "T2": (28, 20, 17.5, 3.8, 24, 18, 15, 66, 54, 20),
    "T3": (26, 23, 18, 3.8, 22, 17, 15.5, 63, 52, 25),
    "T4": (25.5, 25, 18.4, 4.0, 18, 16.5, 16, 62, 51, 31),
    "T5": (27, 26, 18.8, 4.2, 13, 16.5, 16, 62, 50, 36),
    "T6": (28.5, 28, 19, 4.4, 8, 16.5, 16, 64, 51, 38),
    "T7": (31, 29.5, 19.2, 4.8, 2, 16.5, 16, 63, 52, 38),
    "T8": (32.5, 30, 19.6, 5.2, -4, 16.5, 16, 63, 53, 35),
    "T9": (34, 30, 20.2, 5.8, -7, 16.5, 16, 62, 55, 30),
    "T10": (35.5, 30, 21.4, 6.4, -9, 17, 16, 60, 58, 25),
    "T11": (37.5, 31, 22.8, 7.0, -9, 18.5, 16, 54, 60, 19),
    "T12": (39.5, 32, 24.4, 7.6, -9, 21, 16.5, 53, 63, 16),
    "L1": (40, 32, 26, 8.4, -9, 22, 17, 72, 66, 15),
    "L2": (42, 33.5, 27, 9.2, -5, 22.5, 16.5, 82, 69, 16),
    "L3": (45, 35, 27, 9.8, 0, 23, 16, 94, 72, 16),
    "L4": (48, 36, 27.4, 10.2, 10, 24.5, 16, 92, 71, 16),
    "L5": (50.5, 36.5, 28, 10.4, 23, 27, 16.5, 98, 65, 15),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Dent:
    """A node of Schmorl: the disc has sunk into an endplate."""

    x_mm: float
    """Place of its middle to the left, mm."""
    y_mm: float
    """Place of its middle to the back, mm."""
    radius_mm: float
    """Radius on the endplate, mm."""
    depth_mm: float
    """Depth, mm."""
    cranial: bool
    """Whether it lies in the upper endplate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lesion:
    """Something other than marrow within a vertebra."""

    kind: LesionKind
    """Tumour without or with new bone, haemangioma, or the cement of a kyphoplasty."""
    centre_mm: tuple[float, float, float]
    """Centre in the vertebra's frame, mm."""
    radii_mm: tuple[float, float, float]
    """Half axes, mm."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vertebra:
    """One vertebra of a sampled spine."""

    name: str
    """Level, C1 to L6."""
    size: VertebraSize
    """Its dimensions."""
    frame: Frame
    """Its frame: origin at the centre of the body."""
    wedge: float
    """Height of the posterior edge of the body minus that of the anterior one, mm."""
    crush: float = 1.0
    """Share of the height that is left where a fracture has taken most of it; 1 without a fracture."""
    break_kind: BreakKind = "wedge"
    """How a fracture looks: low in front, in the middle, or everywhere and bulging."""
    dents: tuple[Dent, ...] = ()
    """Schmorl's nodes."""
    spur: float = 0.0
    """Size of the spurs at the rims of the body, 0 to 1."""
    bridge: bool = False
    """Whether a spur in front bridges the disc below."""
    fused: bool = False
    """Whether it is fused with the body below."""
    sacralised: bool = False
    """Whether its transverse processes are as broad as the sacrum's wings and meet them."""
    lesions: tuple[Lesion, ...] = ()
    """Tumours, haemangiomas and cement."""

    @property
    def label(self) -> int:
        """Integer in the scheme by level."""
        return VERSE[self.name]

    @property
    def disc_label(self) -> int:
        """Integer of the disc below in the scheme by level."""
        return DISC_OFFSET + self.label

    @property
    def region(self) -> str:
        """First letter of its name: C, T or L."""
        return self.name[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spine:
    """A sampled spine; the origin of LPS space is the centre of the first sacral endplate."""

    vertebrae: tuple[Vertebra, ...]
    """From the head down."""
    sacrum: Frame
    """Frame at the centre of the sacral endplate, its superior axis normal to it."""
    scale: float
    """VertebraSize relative to the table."""
    sacral_bend: float
    """Curvature of the sacrum from its first to its last segment, degrees."""
    degeneration: tuple[float, ...]
    """Wear of the disc below each vertebra, from 0 (healthy) to 1 (dry and low)."""

    def curve(
        self, heights_mm: Float64[np.ndarray, "heights"]
    ) -> tuple[Float64[np.ndarray, "heights"], Float64[np.ndarray, "heights"]]:
        """Return x and y of the line through the bodies' centres at given superior coordinates, mm.

        Below the sacrum and above the atlas the line goes on straight.
        """
        points = np.array([v.frame.origin_mm for v in self.vertebrae])[::-1]
        tail = self.sacrum.to_world((0.0, 2.0, -14.0))
        end = tail + np.array([0.0, 12.0, -120.0])
        top = points[-1] + np.array([0.0, 4.0, 80.0])
        points = np.vstack([end, tail, points, top])
        x, y = (np.interp(heights_mm, points[:, 2], points[:, axis]) for axis in (0, 1))
        return x, y


@dataclass(frozen=True, kw_only=True, slots=True)
class Posture:
    """Parameters that vary from one spine to the next."""

    scale: float
    """VertebraSize relative to the table, about 0.85 to 1.15."""
    lordosis: float
    """Gain on the lumbar tilts."""
    kyphosis: float
    """Gain on the thoracic tilts."""
    neck: float
    """Gain on the cervical tilts."""
    lean: float
    """Tilt of the whole spine, degrees, positive forward."""
    scoliosis_mm: float
    """Amplitude of the sideways curve, mm."""
    scoliosis_phase: float
    """Phase of the sideways curve, radians."""
    degeneration: float
    """Mean wear of the discs, 0 to 1."""
    fracture: float
    """Chance that a vertebra has a wedge fracture."""


def sample_posture(rng: np.random.Generator) -> Posture:
    """Draw the posture of a spine; about one in ten has a marked scoliosis."""
    marked = rng.random() < 0.1
    return Posture(
        scale=float(np.clip(rng.normal(1.0, 0.06), 0.85, 1.16)),
        lordosis=float(rng.uniform(0.5, 1.45)),
        kyphosis=float(rng.uniform(0.6, 1.35)),
        neck=float(rng.uniform(-0.2, 1.0)),
        lean=float(rng.normal(0, 3.5)),
        scoliosis_mm=float(rng.uniform(10, 30) if marked else abs(rng.normal(0, 3.5))),
        scoliosis_phase=float(rng.uniform(0, 2 * np.pi)),
        degeneration=float(rng.beta(1.6, 2.4)),
        fracture=0.02 if rng.random() < 0.85 else 0.12,
    )


def level_names(variant: str) -> tuple[str, ...]:
    """Return the presacral levels of a variant: `usual`, `T13`, `L6` or `four_lumbar`."""
    if variant == "T13":
        return (*LEVELS_24[:19], "T13", *LEVELS_24[19:])
    if variant == "L6":
        return (*LEVELS_24, "L6")
    if variant == "four_lumbar":
        return LEVELS_24[:-1]
    return LEVELS_24


def table_size(name: str) -> VertebraSize:
    """Return the table's size of a level; T13 is between T12 and L1, L6 is like L5."""
    if name == "T13":
        mean = [(a + b) / 2 for a, b in zip(_TABLE["T12"], _TABLE["L1"], strict=True)]
        return VertebraSize(**dict(zip(_COLUMNS, mean, strict=True)))
    row = (float(value) for value in _TABLE["L5" if name == "L6" else name])
    return VertebraSize(**dict(zip(_COLUMNS, row, strict=True)))


def sample_spine(rng: np.random.Generator, posture: Posture, variant: str = "usual") -> Spine:
    """Build one spine from the sacrum upwards.

    Args:
        rng: Source of the differences between levels.
        posture: Parameters that all levels share.
        variant: `usual`, `T13`, `L6` or `four_lumbar`.

    Returns:
        The spine in LPS space, the centre of the sacral endplate at the origin.
    """
    names = level_names(variant)
    wear = np.clip(posture.degeneration + rng.normal(0, 0.25, len(names)), 0, 1)
    sizes = [
        _individual(rng, table_size(name), posture.scale, float(w))
        for name, w in zip(names, wear, strict=True)
    ]
    tilts = _tilts(names, posture) + rng.normal(0, 0.8, len(names))
    # The mean slope of the sacral endplate of upright adults is about 40 degrees (Legaye et al., 1998).
    slope = 38 * (0.55 + 0.45 * posture.lordosis) + float(rng.normal(0, 4)) + posture.lean
    centres, turns = _stack(sizes, tilts, slope)
    side, roll = _sideways(centres[:, 2], posture)
    centres[:, 0] += side
    yaw = roll * 0.35 + rng.normal(0, 1.0, len(names))
    vertebrae = []
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        axes = rotation(pitch=float(turns[i]), roll=float(roll[i]), yaw=float(yaw[i]))
        crushed = name[0] != "C" and rng.random() < posture.fracture
        below = slope if i + 1 == len(names) else float(turns[i + 1])
        above = float(turns[i - 1]) if i else float(turns[i])
        # The wedge shape of the body accounts for 35 % of the angle between its neighbours, the discs for the
        # rest.
        wedge = float(np.tan(np.deg2rad((above - below) / 2 * 0.35)) * size.depth)
        vertebrae.append(
            Vertebra(
                name=name,
                size=size,
                frame=Frame(origin_mm=centres[i], axes=axes),
                wedge=float(np.clip(wedge, -4, 4)),
                crush=float(rng.uniform(0.55, 0.85)) if crushed else 1.0,
            )
        )
    sacrum = Frame(origin_mm=np.zeros(3), axes=rotation(pitch=slope))
    return Spine(
        vertebrae=tuple(vertebrae),
        sacrum=sacrum,
        scale=posture.scale,
        sacral_bend=float(rng.uniform(45, 80)),
        degeneration=tuple(float(w) for w in wear),
    )


def _individual(rng: np.random.Generator, size: VertebraSize, scale: float, wear: float) -> VertebraSize:
    """Return a level's size in one person: scaled, each measure off by a few per cent, a worn disc lower."""
    factor = dict(zip(_COLUMNS, np.exp(rng.normal(0, 0.035, len(_COLUMNS))), strict=True))
    values = {name: getattr(size, name) * scale * factor[name] for name in _COLUMNS}
    values["tilt"] = size.tilt
    values["gap"] *= 1.08 - 0.45 * max(0.0, wear - 0.35)
    return VertebraSize(**values)


def _tilts(names: tuple[str, ...], posture: Posture) -> Float64[np.ndarray, "levels"]:
    """Return each level's tilt after the gains of its region."""
    gains = {"C": posture.neck, "T": posture.kyphosis, "L": posture.lordosis}
    tilt = np.array([table_size(name).tilt * gains[name[0]] for name in names])
    smooth = np.convolve(np.pad(tilt, 1, mode="edge"), [0.2, 0.6, 0.2], mode="valid")
    result: np.ndarray = smooth + posture.lean
    return result


def _stack(
    sizes: list[VertebraSize], tilts: Float64[np.ndarray, "levels"], slope: float
) -> tuple[Float64[np.ndarray, "levels 3"], Float64[np.ndarray, "levels"]]:
    """Return centres in LPS mm and each body's tilt in degrees, stacking up from the sacral endplate."""
    count = len(sizes)
    centres = np.zeros((count, 3))
    turns = np.zeros(count)
    below = np.zeros(3)
    links = np.append(tilts, slope)
    for i in range(count - 1, -1, -1):
        under = sizes[i + 1].height / 2 if i + 1 < count else 0.0
        step = under + sizes[i].gap + sizes[i].height / 2
        # The link to the sacrum starts along the endplate's normal and ends along L5's own tilt.
        angle = np.deg2rad(tilts[i] if i + 1 < count else 0.5 * (tilts[i] + slope))
        below = below + step * np.array([0.0, -np.sin(angle), np.cos(angle)])
        centres[i] = below
        upper = tilts[i - 1] if i else tilts[i]
        turns[i] = (
            (upper + tilts[i]) / 2 if i + 1 < count else 0.35 * upper + 0.4 * tilts[i] + 0.25 * links[-1]
        )
    return centres, turns


def _sideways(
    heights: Float64[np.ndarray, "levels"], posture: Posture
) -> tuple[Float64[np.ndarray, "levels"], Float64[np.ndarray, "levels"]]:
    """Return displacement in mm and tilt in degrees to the left at heights in mm above the sacrum."""
    length = 300.0 * posture.scale
    phase = posture.scoliosis_phase
    rise = 1 - np.exp(-np.maximum(heights, 0) / 60.0)
    angle = 2 * np.pi * heights / length + phase
    side = posture.scoliosis_mm * rise * (np.sin(angle) - np.sin(phase)) / 1.5
    slope = np.gradient(side, heights)
    return side, np.rad2deg(np.arctan(slope))
