import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autospine.core.errors import DatasetError
from autospine.core.labels import parse_labels
from autospine.evaluation.cleanup_choice import CANDIDATES
from autospine.evaluation.cleanup_trials import CleanupRules, try_case
from autospine.evaluation.overlap import confusion_table
from autospine.evaluation.postprocessing import ClassCleanup, Cleanup, Postprocessing

LABELS = parse_labels({"background": 0, "L2": 300, "L3": 7, "disc": 12, "ignore": 9})
VALUES = (300, 7, 12)
SPACING = (1.5, 3.0, 3.0)


def shells(values: list[int]) -> np.ndarray:
    """One in another, from the outside in, with background between them and within."""
    labels = np.zeros((4 * len(values) + 1,) * 3, dtype=np.int32)
    for depth, value in enumerate(values):
        outer, inner = slice(2 * depth, -2 * depth or None), slice(2 * depth + 1, -2 * depth - 1)
        labels[outer, outer, outer] = value
        labels[inner, inner, inner] = 0
    return labels


def blobs(rng: np.random.Generator, density: float) -> np.ndarray:
    """Random voxels of random labels, in cubes of two voxels and one by one, so that many touch."""
    coarse = rng.choice((0, *VALUES), (5, 4, 5)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    fine = rng.choice((0, *VALUES), coarse.shape)
    return np.where(rng.random(coarse.shape) < density, fine, coarse).astype(np.int32)


@st.composite
def maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A prediction with many components that touch, with holes and what lies in them, and its reference."""
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    if draw(st.booleans()):
        prediction = blobs(rng, draw(st.sampled_from([0.0, 0.1, 0.5])))
    else:
        prediction = shells(draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)))
        leaks = rng.random(prediction.shape) < draw(st.sampled_from([0.0, 0.01, 0.1]))
        prediction[leaks] = rng.choice((0, *VALUES), np.count_nonzero(leaks))
    true = np.where(rng.random(prediction.shape) < 0.5, prediction, 0)
    noise = rng.random(prediction.shape) < 0.3
    true[noise] = rng.choice((0, *VALUES, 9), np.count_nonzero(noise))
    return prediction, true


CLEANUPS = st.one_of(
    st.sampled_from(CANDIDATES),
    st.builds(
        Cleanup,
        fill_holes=st.booleans(),
        keep_largest=st.booleans(),
        least_mm3=st.sampled_from([0.0, 20.0, 60.0, 200.0]),
        removed_to=st.sampled_from(["background", "neighbour"]),
        most_to_background_mm3=st.sampled_from([None, 0.0, 30.0, 100.0]),
    ),
)


def postprocessing(cleanups: dict[int, Cleanup]) -> Postprocessing:
    classes = tuple(
        ClassCleanup(
            name=name, integer=value, cleanup=cleanups[value], n_cases=0, dice_before=None, dice_after=None
        )
        for name, value in zip(LABELS.names, LABELS.painted, strict=True)
    )
    return Postprocessing(format_version=2, n_cases=0, classes=classes)


@settings(max_examples=300, deadline=None)
@given(maps=maps(), chosen=st.tuples(*[CLEANUPS] * 3))
def test_every_combination_counts_what_the_cleaned_map_shows(maps, chosen):
    """Whatever is filled, removed, and given to neighbours, in any combination of classes."""
    prediction, true = maps
    cleanups = dict(zip(VALUES, chosen, strict=True))
    cleaned = postprocessing(cleanups).apply(prediction, SPACING).labels
    expected = confusion_table(LABELS.encode(cleaned), LABELS.encode(true), LABELS)
    rules = CleanupRules.of([cleanups[value] for value in LABELS.integers])
    np.testing.assert_array_equal(try_case(prediction, true, LABELS, SPACING).confusion(rules), expected)


@settings(max_examples=100, deadline=None)
@given(maps=maps(), value=st.sampled_from(VALUES), one=CLEANUPS, other=CLEANUPS)
def test_equal_effects_leave_equal_maps_and_none_changes_nothing(maps, value, one, other):
    prediction, true = maps
    trial = try_case(prediction, true, LABELS, SPACING)
    cleaned = []
    for cleanup in (Cleanup(), one, other):
        cleanups = {each: cleanup if each == value else Cleanup() for each in VALUES}
        effect = trial.effect(LABELS.integers.index(value) + 1, cleanup)
        cleaned.append((effect, postprocessing(cleanups).apply(prediction, SPACING).labels))
    assert cleaned[0][0] is None
    for first, second in ((0, 1), (0, 2), (1, 2)):
        if cleaned[first][0] == cleaned[second][0]:
            np.testing.assert_array_equal(cleaned[first][1], cleaned[second][1])


def test_the_effect_tells_what_is_too_large_to_become_background():
    """Two cleanups that remove the same components, of which one gives up and one keeps them."""
    prediction = np.zeros((6, 6, 6), dtype=np.int32)
    prediction[:2], prediction[4:, :2, :2] = 300, 300
    trial = try_case(prediction, prediction, LABELS, SPACING)
    position = LABELS.integers.index(300) + 1
    strict = Cleanup(keep_largest=True)
    lenient = Cleanup(keep_largest=True, most_to_background_mm3=0.0)
    assert trial.effect(position, strict) != trial.effect(position, lenient)


@settings(max_examples=100, deadline=None)
@given(maps=maps(), value=st.sampled_from(VALUES), one=CLEANUPS, other=CLEANUPS, others=CLEANUPS)
def test_equal_effects_count_equally_beside_any_cleanup_of_the_others(maps, value, one, other, others):
    trial = try_case(*maps, LABELS, SPACING)
    position = LABELS.integers.index(value) + 1
    counted = []
    for cleanup in (one, other):
        rules = CleanupRules.of([cleanup if each == value else others for each in LABELS.integers])
        counted.append(trial.confusion(rules))
    if trial.effect(position, one) == trial.effect(position, other):
        np.testing.assert_array_equal(counted[0], counted[1])


def test_a_label_that_is_not_known_is_refused():
    true = np.zeros((2, 2, 2), dtype=np.int32)
    with pytest.raises(DatasetError, match="expected labels among"):
        try_case(true + 5, true, LABELS, SPACING)
