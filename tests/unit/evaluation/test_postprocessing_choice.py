import numpy as np
from unit.evaluation.specks import LABELS, SPACING, reference, with_specks

from autospine.evaluation.cleanup_choice import CleanupChoice
from autospine.evaluation.cleanup_trials import try_case
from autospine.evaluation.components import STRAY_SHARE, without_strays
from autospine.evaluation.overlap import confusion_table
from autospine.evaluation.postprocessing import Postprocessing
from autospine.evaluation.postprocessing_choice import PostprocessingChoice, held_out_confusions

WIDE = (8.0, 8.0, 8.0)
"""Voxels so large that pieces which do not touch are apart."""


def choice_of(predictions: list[np.ndarray], true: np.ndarray | None = None) -> PostprocessingChoice:
    truth = reference() if true is None else true
    predicted, cleared = (
        {f"case{i}": try_case(map_, truth, LABELS, WIDE) for i, map_ in enumerate(maps)}
        for maps in (predictions, [without_strays(each, WIDE) for each in predictions])
    )
    return PostprocessingChoice(predicted, cleared, LABELS)


def joined() -> np.ndarray:
    """The reference with its gaps filled, so that it is one piece."""
    labels = reference()
    labels[:, 8:10, 6:10] = 7
    return labels


def with_strays(seed: int) -> np.ndarray:
    return with_specks(with_specks(joined(), 7, seed), 300, seed + 100)


def test_strays_go_where_every_case_gains():
    chosen = choice_of([with_strays(i) for i in range(5)], joined()).choose()
    assert chosen.stray_share == STRAY_SHARE
    assert chosen.cleaned_classes == ("vertebra", "canal")
    assert chosen.foreground_dice_before < chosen.foreground_dice_after == 1
    assert all(each.dice_before < each.dice_after == 1 for each in chosen.classes)
    cleaned = chosen.apply(with_strays(7), WIDE)
    np.testing.assert_array_equal(cleaned.labels, joined())
    assert {change.to_label for change in cleaned.changes} == {"background"}


def test_strays_stay_where_one_case_loses_bone():
    lost = joined()
    lost[2:6, 15, 0:3] = 300  # bone that is apart from the rest in the reference as well
    predictions = [with_strays(i) for i in range(5)]
    predicted, cleared = (
        {str(i): try_case(map_, joined(), LABELS, WIDE) for i, map_ in enumerate(maps)}
        | {"lost": try_case(last, lost, LABELS, WIDE)}
        for maps, last in (
            (predictions, lost),
            ([without_strays(each, WIDE) for each in predictions], without_strays(lost, WIDE)),
        )
    )
    choice = PostprocessingChoice(predicted, cleared, LABELS)
    assert choice.choose().stray_share is None
    assert choice.choose(left_out=("lost",)).stray_share == STRAY_SHARE


def test_what_helps_one_case_only_is_noise():
    assert choice_of([with_strays(0), *[joined()] * 9], joined()).choose().stray_share is None


def test_without_strays_the_choice_is_that_of_the_classes():
    maps = [reference() for _ in range(4)]
    trials = {str(i): try_case(map_, reference(), LABELS, SPACING) for i, map_ in enumerate(maps)}
    assert PostprocessingChoice(trials, trials, LABELS).choose() == CleanupChoice(trials, LABELS).choose()


def test_a_class_that_is_nothing_but_strays_counts_as_found_when_gone():
    absent = np.where(joined() == 7, 0, joined())
    absent[8:11, 2:8, 4:12] = 300
    chosen = choice_of([with_specks(absent, 7, i) for i in range(5)], absent).choose()
    canal: Postprocessing = chosen.classes[1]
    assert (canal.dice_before, canal.dice_after) == (0, 1)


def test_the_confusion_is_that_of_the_map_which_is_written():
    choice = choice_of([with_strays(i) for i in range(5)], joined())
    chosen = choice.choose()
    written = chosen.apply(with_strays(3), WIDE).labels
    expected = confusion_table(LABELS.encode(written), LABELS.encode(joined()), LABELS)
    np.testing.assert_array_equal(choice.confusion("case3", chosen), expected)


def test_a_fold_is_cleaned_by_what_the_others_choose():
    maps = [*(with_specks(reference(), 7, seed) for seed in range(3)), *[reference()] * 3]
    made = {f"case{i}": try_case(map_, reference(), LABELS, SPACING) for i, map_ in enumerate(maps)}
    choice = PostprocessingChoice(made, made, LABELS)
    spoilt, clean = tuple(made)[:3], tuple(made)[3:]
    nothing = choice.choose(left_out=tuple(made))
    found = held_out_confusions(choice, [spoilt, clean])
    assert set(found) == set(made)
    np.testing.assert_array_equal(found["case0"], choice.confusion("case0", nothing))
    chosen = choice.choose(left_out=clean)
    assert chosen.cleaned_classes == ("canal",)
    np.testing.assert_array_equal(found["case3"], choice.confusion("case3", chosen))
