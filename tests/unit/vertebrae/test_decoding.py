import numpy as np
import pytest

from autospine.vertebrae.decoding import FoundVertebrae, decode
from autospine.vertebrae.levels import INDEX, LEVELS, VARIANTS
from autospine.vertebrae.proportions import PEDICLES_MM, STEPS_MM, by_variant, places_mm
from autospine.vertebrae.spine_curve import order_from_head

REGIONS = np.array([{"C": 0, "T": 1, "L": 2}.get(level[0], 2) for level in LEVELS])


def chain(levels, evidence=None, *, variant=("T12", "L5"), drop=(), **more) -> FoundVertebrae:
    """Vertebrae of these levels in a spine of mean size, seen as cervical, thoracic or lumbar."""
    kind = next(v for v in VARIANTS if v.levels[-2] == variant[1] and variant[0] in v.levels[-8:])
    places = places_mm(kind, by_variant(STEPS_MM)[VARIANTS.index(kind)])
    kept = [level for level in levels if level not in drop]
    positions = np.array([[0.0, 0.0, -places[INDEX[level]]] for level in kept])
    seen = np.array([np.where(REGIONS[INDEX[level]] == REGIONS, 4.0, -4.0) for level in kept])
    seen[:, INDEX["sacrum"]] = -4.0
    return FoundVertebrae(
        positions_mm=positions,
        evidence=(seen if evidence is None else evidence)[:, None],
        extents_mm=np.full(len(kept), np.nan),
        expected_mm=by_variant(PEDICLES_MM),
        **more,
    )


def between(first: str, last: str) -> list[str]:
    usual = [level for level in LEVELS if level not in ("T13", "L6")]
    return usual[usual.index(first) : usual.index(last) + 1]


@pytest.mark.parametrize(("first", "last"), [("C1", "L5"), ("T8", "L5"), ("C5", "T6"), ("T10", "L2")])
def test_a_border_between_regions_names_all_vertebrae(first: str, last: str) -> None:
    decoded = decode(chain(between(first, last)))
    assert list(decoded.levels) == between(first, last)
    named = [decoded.probability[i, INDEX[level]] for i, level in enumerate(between(first, last))]
    assert min(named) > 0.8
    assert decoded.variant.levels[-2] == "L5"


def test_probabilities_add_up_to_one_at_most() -> None:
    probability = decode(chain(between("T8", "L5"))).probability
    assert np.all(probability >= 0) and np.all(probability.sum(axis=1) <= 1 + 1e-9)


def test_a_vertebra_that_was_missed_leaves_a_gap() -> None:
    decoded = decode(chain(between("T8", "L5"), drop=("T11",)))
    assert list(decoded.levels) == [level for level in between("T8", "L5") if level != "T11"]


def test_a_false_hit_is_no_vertebra() -> None:
    whole = chain(between("T8", "L5"))
    extra = whole.positions_mm[3] + (60.0, -40.0, -9.0)
    evidence = np.insert(whole.evidence, 4, -2.0, axis=0)
    found = FoundVertebrae(
        positions_mm=np.insert(whole.positions_mm, 4, extra, axis=0),
        evidence=evidence,
        extents_mm=np.full(len(evidence), np.nan),
        expected_mm=whole.expected_mm,
    )
    levels = list(decode(found).levels)
    assert levels.pop(4) is None
    assert levels == between("T8", "L5")


def test_six_lumbar_vertebrae_are_possible() -> None:
    levels = [*between("T8", "L5"), "L6"]
    decoded = decode(chain(levels, variant=("T12", "L6")))
    assert list(decoded.levels) == levels
    assert decoded.variant.levels[-2] == "L6"


def test_without_an_anchor_no_level_is_probable() -> None:
    levels = between("T4", "T8")
    decoded = decode(chain(levels, cut=(0.95, 0.95)))
    order = [INDEX[level] for level in decoded.levels if level]
    assert order == sorted(order) and len(order) == len(levels)
    assert decoded.probability.max() < 0.5


def test_one_wrong_region_has_no_veto() -> None:
    whole = chain(between("T6", "L5"))
    evidence = whole.evidence.copy()
    lumbar = np.array([level[0] == "L" for level in LEVELS])
    evidence[2] = np.where(lumbar, 4.0, -4.0)
    decoded = decode(
        FoundVertebrae(
            positions_mm=whole.positions_mm,
            evidence=evidence,
            extents_mm=whole.extents_mm,
            expected_mm=whole.expected_mm,
        )
    )
    assert [level for level in decoded.levels if level][-3:] == ["L3", "L4", "L5"]
    assert decoded.levels[2] in ("T8", None)


def test_one_vertebra_alone_is_decoded() -> None:
    assert len(decode(chain(["L3"])).levels) == 1


def test_a_bent_spine_keeps_its_order() -> None:
    angle = np.linspace(0, 2.2, 17)
    points = np.stack([np.zeros(17), -250 * (1 - np.cos(angle)), -250 * np.sin(angle)], axis=1)
    shuffled = np.random.default_rng(0).permutation(17)
    order = order_from_head(points[shuffled])
    assert shuffled[order].tolist() == list(range(17))
