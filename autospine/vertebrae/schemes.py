"""The label schemes of other tools: which integer stands for which structure of the spine.

Structures have one name in every scheme: a level (`T12`), `disc_below_T12`, `endplate_T12`, `rib_left_12`,
`cut_T12` for a vertebra that the image's border cuts, and single ones such as `sacrum`, `cord` and `canal`.
Their order is anatomical, from the head down, which integers often are not: T13 is 28 in VerSe.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from autospine.core.colours import Colour, class_colours
from autospine.core.errors import DatasetError
from autospine.core.labels import DISC_OFFSET, VERSE, VERTEBRAE, SidePairs, side_pairs
from autospine.vertebrae.levels import INDEX, SACRUM

COMMON = tuple(level for level in VERTEBRAE if level not in ("T13", "L6"))
"""The 24 vertebrae that most people have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScheme:
    """The integers of one tool or dataset."""

    name: str
    """Name on the command line."""

    title: str
    """Tool or dataset that has these labels, in words."""

    integers: Mapping[str, int]
    """Integer of each structure of the spine."""

    with_l6: Mapping[str, int] = field(default_factory=dict)
    """Integers that differ, or are there alone, in a spine with L6."""

    beside: frozenset[int] = frozenset()
    """Integers of structures that are no part of the spine."""

    whole_vertebrae: bool | None = True
    """Whether whole vertebrae are labelled, and not only their bodies; None if it is not known."""

    note: str | None = None
    """Remark about these labels that a user should know; None for none."""

    @property
    def ordered(self) -> tuple[str, ...]:
        """The structures in anatomical order."""
        return tuple(sorted(self.integers, key=anatomical_order))

    @property
    def colours(self) -> Mapping[str, Colour]:
        """A colour for each structure, also of spines with L6; levels and discs have one in every scheme."""
        return class_colours(sorted({**self.integers, **self.with_l6}, key=anatomical_order))

    @property
    def sides(self) -> SidePairs:
        """Left and right of the same structure, as positions in `ordered`."""
        return side_pairs(self.ordered)

    @property
    def tells_levels(self) -> bool:
        """Whether vertebrae are labelled by level, and not with one label for all or for their parts."""
        return any(structure in VERTEBRAE for structure in self.integers)

    def structures(self, present: Collection[int]) -> dict[int, str]:
        """Return the structure that each integer stands for, in a map that holds these integers."""
        plain = set(self.integers.values())
        telling = {self.integers.get(name) for name in _OF_L6} | (set(self.with_l6.values()) - plain)
        has_l6 = not telling.isdisjoint(present)
        return {number: name for name, number in self._integers_of(has_l6).items()}

    def integer_of(self, structure: str, among: Collection[str]) -> int | None:
        """Return the integer of a structure in a map of these structures; None if the scheme has none."""
        return self._integers_of(not _OF_L6.isdisjoint(among)).get(structure)

    def integers_in(self, present: Collection[int]) -> dict[str, int]:
        """Return the integer of each structure in a map that holds these integers."""
        return {name: number for number, name in self.structures(present).items()}

    def _integers_of(self, has_l6: bool) -> Mapping[str, int]:
        return {**self.integers, **self.with_l6} if has_l6 else self.integers


def anatomical_order(structure: str) -> tuple[int, int, str]:
    """Return what structures are sorted by: kind, then level from the head down, then name."""
    kind = next((place for place, prefix in enumerate(_PREFIXES) if structure.startswith(prefix)), None)
    level = structure.rsplit("_", 1)[-1]
    if structure in INDEX:
        return 0, INDEX[structure], structure
    if level in INDEX and kind is not None:
        return 2 + kind, INDEX[level], structure
    if level.isdigit():
        return 2 + len(_PREFIXES), int(level), structure
    return 1, 0, structure


_OF_L6 = frozenset({"L6", "cut_L6", "disc_below_L6"})
"""Structures that only a spine with L6 has."""

_PREFIXES = ("disc_below_", "endplate_", "cut_", "rib_")


def wholes(structure: str) -> tuple[str, ...]:
    """Return what a structure is a part or a kind of, the nearest first.

    The endplate of L5 is an endplate, a part of L5 and so of a vertebra.
    """
    nearest = _nearest_wholes(structure)
    return tuple(dict.fromkeys((*nearest, *(further for each in nearest for further in wholes(each)))))


def is_sacral(structure: str) -> bool:
    """Tell whether a structure is the sacrum or a segment of it."""
    return SACRUM in (structure, *wholes(structure))


def is_beside_body(structure: str) -> bool:
    """Tell whether a structure is a part of a vertebra, but none of its body."""
    return "vertebra" in wholes(structure) and "corpus" not in (structure, *wholes(structure))


def _nearest_wholes(structure: str) -> tuple[str, ...]:
    """Return what a structure is a part or a kind of without anything between."""
    prefix, _, last = structure.rpartition("_")
    if structure in _WHOLE:
        return (_WHOLE[structure],)
    if prefix in ("rib_left", "rib_right"):
        return (f"rib_T{last}",)
    if last not in INDEX or last == SACRUM:
        return ()
    by_prefix = {"": ("vertebra",), "cut": (last,), "disc_below": ("disc",), "endplate": ("endplate", last)}
    return by_prefix.get(prefix, ())


_WHOLE: Mapping[str, str] = {
    **{f"S{i}": SACRUM for i in range(1, 7)},
    "cord": "canal",
    "corpus_border": "corpus",
    **dict.fromkeys(("corpus", "arch", "dens", "endplate", "spinous"), "vertebra"),
    **{
        f"{part}_{side}": "vertebra"
        for part in ("transverse", "superior_articular", "inferior_articular")
        for side in ("left", "right")
    },
}
"""What single structures are a part of: the cord lies in the canal, whose voxels a scheme without it would
otherwise lose."""


def find_scheme(name: str) -> LabelScheme:
    """Return the scheme of a name, whatever its capitals.

    Raises:
        DatasetError: If there is none, or if SPIDER's direction is not stated.
    """
    wanted = name.strip().lower().replace("_", "-")
    if wanted == "spider":
        raise DatasetError(
            "expected the direction of SPIDER's numbers, found none: give spider-from-bottom if the lowest "
            "vertebra is 1, as in the public dataset, or spider-from-top if L5 is 24"
        )
    if wanted not in SCHEMES:
        raise DatasetError(f"expected a label scheme among {', '.join(SCHEMES)}, found {name!r}")
    return SCHEMES[wanted]


def _discs(integers: Mapping[str, int], offset: int) -> dict[str, int]:
    return {f"disc_below_{level}": offset + n for level, n in integers.items() if level != "C1"}


def _vertebrae(levels: Collection[str] = VERTEBRAE) -> dict[str, int]:
    return {level: VERSE[level] for level in levels}


def _sacral_segments() -> dict[str, int]:
    return {f"S{i}": 27 + i for i in range(2, 7)}


def _spineps_instances() -> dict[str, int]:
    vertebrae = _vertebrae()
    ribs = {f"rib_{level}": 32 + vertebrae[level] for level in COMMON if level[0] == "T"}
    return {
        **vertebrae,
        SACRUM: 26,
        "coccyx": 27,
        "cord": 60,
        "canal": 61,
        "rib_T13": 53,
        **_sacral_segments(),
        **ribs,
        **_discs(vertebrae, DISC_OFFSET),
        **{f"endplate_{level}": 200 + n for level, n in vertebrae.items()},
    }


def _spineps_subregions() -> dict[str, int]:
    sided = {
        f"{part}_{side}": integer + (side == "right")
        for part, integer in (("transverse", 43), ("superior_articular", 45), ("inferior_articular", 47))
        for side in ("left", "right")
    }
    return {
        SACRUM: 26,
        "arch": 41,
        "spinous": 42,
        **sided,
        "corpus_border": 49,
        "corpus": 50,
        "dens": 51,
        "cord": 60,
        "canal": 61,
        "endplate": 62,
        "disc": 100,
    }


def _total() -> dict[str, int]:
    ribs = {
        f"rib_{side}_{i}": first + i for side, first in (("left", 91), ("right", 103)) for i in range(1, 13)
    }
    bones = {"hip_left": 77, "hip_right": 78, "skull": 91, "sternum": 116, "costal_cartilages": 117}
    vertebrae = {level: 50 - place for place, level in enumerate(COMMON)}
    return {**vertebrae, SACRUM: 25, "S1": 26, "cord": 79, **ribs, **bones}


def _total_spine_seg() -> dict[str, int]:
    first = {"C": 10, "T": 20, "L": 40}
    vertebrae = {level: first[level[0]] + int(level[1:]) for level in COMMON}
    below = {
        **{f"C{i}": 61 + i for i in range(2, 7)},
        "C7": 71,
        "T12": 91,
        "L5": 100,
        **{f"T{i}": 71 + i for i in range(1, 12)},
        **{f"L{i}": 91 + i for i in range(1, 5)},
    }
    discs = {f"disc_below_{level}": n for level, n in below.items()}
    return {"cord": 1, "canal": 2, **vertebrae, "L6": 46, SACRUM: 50, **discs}


def _spider(levels: Sequence[str], *, from_bottom: bool) -> dict[str, int]:
    count = len(levels)
    numbers = {level: count - i if from_bottom else i + 1 for i, level in enumerate(levels)}
    cut = {f"cut_{level}": 100 + n for level, n in numbers.items()}
    return {**numbers, **cut, "canal": 100, **_discs(numbers, 200)}


def _schemes() -> tuple[LabelScheme, ...]:
    total = _total()
    counted = "numbers are counts: a spine with L6 or T13 has other levels than are written"
    return (
        LabelScheme(
            name="verse",
            title="VerSe",
            # TPTBox goes on in VerSe's numbers: 26 is S1 where the segments of the sacrum are told apart.
            integers={**VERSE, **_sacral_segments()},
        ),
        LabelScheme(
            name="spineps-instance", title="SPINEPS and TPTBox, instances", integers=_spineps_instances()
        ),
        LabelScheme(
            name="spineps-subregion", title="SPINEPS and TPTBox, subregions", integers=_spineps_subregions()
        ),
        LabelScheme(
            name="totalsegmentator",
            title="TotalSegmentator 2, total",
            integers=total,
            beside=frozenset(range(1, 118)) - frozenset(total.values()),
        ),
        LabelScheme(
            name="totalsegmentator-vertebrae-mr",
            title="TotalSegmentator, vertebrae_mr",
            integers={SACRUM: 1, **{level: 25 - place for place, level in enumerate(COMMON)}},
        ),
        LabelScheme(
            name="totalsegmentator-vertebrae-body",
            title="TotalSegmentator, vertebrae_body",
            integers={"corpus": 1, "disc": 2},
        ),
        LabelScheme(
            name="totalsegmentator-vertebrae-pp",
            title="TotalSegmentator, vertebrae_pp",
            integers={level: 1 + place for place, level in enumerate(COMMON)},
            whole_vertebrae=False,
            note="only the bodies of vertebrae are labelled",
        ),
        LabelScheme(
            name="totalspineseg",
            title="TotalSpineSeg",
            integers=_total_spine_seg(),
            with_l6={"disc_below_L5": 96, "disc_below_L6": 100},
        ),
        LabelScheme(
            name="spider-from-bottom",
            title="SPIDER, L5 is 1",
            integers=_spider(COMMON, from_bottom=True),
            # A 25th vertebra tells of one more than usual, most often L6, which is 1 then.
            with_l6=_spider((*COMMON, "L6"), from_bottom=True),
            note=counted,
        ),
        LabelScheme(
            name="spider-from-top",
            title="SPIDER, L5 is 24",
            integers=_spider((*COMMON, "L6"), from_bottom=False),
            note=counted,
        ),
        LabelScheme(
            name="structures",
            title="AutoSpine, structures",
            integers={"vertebra": 1, "disc": 2, "canal": 3, SACRUM: 4},
        ),
        LabelScheme(
            name="ctspine1k",
            title="CTSpine1K",
            integers=_vertebrae((*COMMON, "L6")),
            note="vertebrae that the border cuts are labelled as whole ones",
        ),
    )


SCHEMES: Mapping[str, LabelScheme] = {scheme.name: scheme for scheme in _schemes()}
"""Every scheme by its name."""

UNNAMED = LabelScheme(
    name="unnamed",
    title="vertebrae that are not told apart",
    integers={"vertebra": 1, "disc": 2, "canal": 3, SACRUM: 4, "cord": 5},
)
"""Scheme that maps without levels are brought to before their vertebrae are named; no file has it."""
