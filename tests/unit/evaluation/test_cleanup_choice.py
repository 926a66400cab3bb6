import numpy as np
from unit.evaluation.specks import LABELS, SPACING, reference, with_specks

from autospine.core.labels import parse_labels
from autospine.evaluation import cleanup_choice
from autospine.evaluation.cleanup_choice import (
    CANDIDATES,
    MOST_TO_BACKGROUND_MM3,
    RIVAL_SHARE,
    CleanupChoice,
    measure,
)
from autospine.evaluation.cleanup_trials import CaseTrial, try_case
from autospine.evaluation.overlap import confusion_table
from autospine.evaluation.postprocessing import Cleanup, Postprocessing


def tried(prediction: np.ndarray, true: np.ndarray | None = None) -> CaseTrial:
    return try_case(prediction, reference() if true is None else true, LABELS, SPACING)


def trials(n: int, integer: int = 7) -> list[CaseTrial]:
    return [tried(with_specks(reference(), integer, seed)) for seed in range(n)]


def choice_of(made: list[CaseTrial]) -> CleanupChoice:
    return CleanupChoice({f"case{i}": trial for i, trial in enumerate(made)}, LABELS)


def choose(made: list[CaseTrial]) -> Postprocessing:
    return choice_of(made).choose()


def test_specks_that_every_case_has_are_dropped_and_nothing_else_is():
    chosen = choose(trials(5))
    vertebra, canal = chosen.classes
    assert vertebra.cleanup == Cleanup()
    assert vertebra.dice_before == vertebra.dice_after == 1
    assert canal.cleanup == Cleanup(least_mm3=30, most_to_background_mm3=MOST_TO_BACKGROUND_MM3)
    assert canal.dice_before < 0.99
    assert canal.dice_after == 1
    assert (canal.name, canal.integer, canal.n_cases) == ("canal", 7, 5)
    assert chosen.foreground_dice_before < chosen.foreground_dice_after == 1
    assert chosen.foreground_recall_before == chosen.foreground_recall_after == 1


def test_a_class_of_several_components_keeps_them():
    """The data say so: two vertebrae of one class."""
    vertebra = choose(trials(5, integer=300)).classes[0]
    assert not vertebra.cleanup.keep_largest
    assert vertebra.dice_after == 1


def test_what_helps_one_case_only_is_noise():
    clean = tried(reference())
    assert choose([*trials(1), *[clean] * 9]).cleaned_classes == ()
    assert choose([*trials(5), *[clean] * 5]).cleaned_classes == ("canal",)


def test_what_spoils_one_case_is_not_done():
    small = reference()
    small[small == 7] = 0
    small[0:4, 10:12, 6:8] = 7
    canal = choose([*trials(9), tried(small, small)]).classes[1]
    assert canal.cleanup == Cleanup(least_mm3=30, most_to_background_mm3=MOST_TO_BACKGROUND_MM3)
    tiny = np.where(small == 300, 300, 0)
    tiny[0, 10, 6] = 7
    largest = Cleanup(
        keep_largest=True, rival_share=RIVAL_SHARE, most_to_background_mm3=MOST_TO_BACKGROUND_MM3
    )
    assert choose([*trials(9), tried(tiny, tiny)]).classes[1].cleanup == largest


def test_a_class_that_should_not_be_there_counts_as_found_when_gone():
    absent = np.where(reference() == 7, 0, reference())
    canal = choose([tried(with_specks(absent, 7, i), absent) for i in range(5)]).classes[1]
    assert (canal.dice_before, canal.dice_after) == (0, 1)


def test_too_few_cases_choose_nothing():
    assert choose(trials(2)).cleaned_classes == ()
    none = choose([])
    assert none.classes[0].dice_before is None
    assert none.foreground_recall_after is None


LEVELS = parse_labels({"background": 0, "L1": 20, "L2": 21, "L3": 22})


def spine() -> np.ndarray:
    """Three vertebrae, one below another, with a gap between them."""
    labels = np.zeros((24, 10, 10), dtype=np.int32)
    for place, integer in enumerate((20, 21, 22)):
        labels[1 + 8 * place : 7 + 8 * place, 2:8, 2:8] = integer
    return labels


def half_misnamed(rows: int = 3) -> np.ndarray:
    """The lower rows of L2 are called L3."""
    labels = spine()
    labels[15 - rows : 15, 2:8, 2:8] = 22
    return labels


def of_levels(predictions: list[np.ndarray]) -> CleanupChoice:
    made = {str(i): try_case(map_, spine(), LEVELS, (1.0, 1.0, 1.0)) for i, map_ in enumerate(predictions)}
    return CleanupChoice(made, LEVELS)


def test_bone_of_a_wrong_name_is_given_to_the_vertebra_that_it_belongs_to():
    """Taking it away gains the same for L3, and loses bone that was found."""
    predictions = [half_misnamed(1 + i % 2) for i in range(6)]
    chosen = of_levels(predictions).choose()
    assert chosen.cleaned_classes == ("L3",)
    assert chosen.classes[2].cleanup.removed_to == "neighbour"
    assert [each.dice_after for each in chosen.classes] == [1, 1, 1]
    assert chosen.foreground_recall_before == chosen.foreground_recall_after == 1
    for prediction in predictions:
        np.testing.assert_array_equal(chosen.apply(prediction, (1.0, 1.0, 1.0)).labels, spine())


def with_loose_bone(seed: int) -> np.ndarray:
    """A part of L2 that nothing touches is called L3."""
    labels = spine()
    labels[11 + seed % 2, 2:8, 2:8] = 0
    labels[12 + seed % 2 : 15, 2:8, 2:8] = 22
    return labels


def test_bone_that_was_found_is_not_taken_away():
    """Without it the Dice of L3 would be 1, and a part of L2 would be missing."""
    choice = of_levels([with_loose_bone(i) for i in range(6)])
    assert choice.choose().cleaned_classes == ()
    without = with_loose_bone(0)
    without[:15][without[:15] == 22] = 0
    before, after = (
        measure(confusion_table(LEVELS.encode(labels), LEVELS.encode(spine()), LEVELS))
        for labels in (with_loose_bone(0), without)
    )
    assert after[2] == 1 > before[2], "the class alone would gain"
    assert after[-1] < before[-1], "and the foreground lose"


def test_no_choice_costs_foreground_on_the_cases_that_it_was_made_by():
    rng = np.random.default_rng(3)
    predictions = []
    for i in range(12):
        labels = half_misnamed(int(rng.integers(1, 5))) if i % 2 else with_loose_bone(i)
        places = rng.integers(0, 24, 9), rng.choice((0, 9), 9), rng.integers(0, 10, 9)
        labels[places] = rng.choice((20, 21, 22), 9)
        predictions.append(labels)
    choice = of_levels(predictions)
    chosen = choice.choose()
    assert chosen.cleaned_classes
    names = [str(i) for i in range(12)]
    before, after = (
        np.stack([measure(choice.confusion(name, each)) for name in names])
        for each in (choice.choose(left_out=names), chosen)
    )
    change = after - before
    assert change[:, :3].mean() > 0
    assert change[:, 3:].mean(axis=0).min() >= -1e-12
    assert change[:, 3:].min() >= -cleanup_choice.WORST_FOREGROUND_LOSS
    assert change[:, :3].mean(axis=1).min() >= -cleanup_choice.WORST_LOSS


def test_losses_of_single_cases_add_up():
    """Small components are false in five cases and true in one, where two would be missed more than one."""
    made = {}
    for i in range(5):
        labels = spine()
        labels[4, 5, 5] = labels[20, 5, 5] = 0
        labels[0, 0, 0:2], labels[23, 9, 0:2] = 20, 22
        made[str(i)] = try_case(labels, spine(), LEVELS, (1.0, 1.0, 1.0))
    small = spine()
    small[0, 0, 0], small[23, 9, 9] = 20, 22
    made["small"] = try_case(small, small, LEVELS, (1.0, 1.0, 1.0))
    cleanups = [each.cleanup for each in CleanupChoice(made, LEVELS).choose().classes]
    assert [cleanup.fill_holes for cleanup in cleanups] == [True, False, True]
    assert sorted(cleanup.least_mm3 > 0 or cleanup.keep_largest for cleanup in cleanups) == [
        False,
        False,
        True,
    ]


def test_candidates_are_all_different_and_the_simplest_come_first():
    assert len(set(CANDIDATES)) == len(CANDIDATES)
    assert CANDIDATES[0] == Cleanup()
