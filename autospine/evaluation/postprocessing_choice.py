"""Choice of the post-processing of whole label maps and of each class by held-out cases."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from autospine.core.labels import LabelSpace
from autospine.evaluation.cleanup_choice import (
    WORST_FOREGROUND_LOSS,
    WORST_LOSS,
    CleanupChoice,
    trusted_gain,
)
from autospine.evaluation.cleanup_trials import CaseTrial
from autospine.evaluation.components import STRAY_SHARE
from autospine.evaluation.overlap import Confusion
from autospine.evaluation.postprocessing import Postprocessing


class PostprocessingChoice:
    """Chooses by some or all of the held-out cases whether stray pieces go, then what is done to each class.

    Args:
        predicted: Tables of each held-out case as it was predicted, by its name.
        cleared: The same without its stray pieces.
        labels: The label space that they were made with.
    """

    def __init__(
        self, predicted: Mapping[str, CaseTrial], cleared: Mapping[str, CaseTrial], labels: LabelSpace
    ) -> None:
        self._predicted = CleanupChoice(predicted, labels)
        self._cleared = CleanupChoice(cleared, labels, self._predicted)

    def choose(self, left_out: Collection[str] = ()) -> Postprocessing:
        """Choose a post-processing by all cases but those that are left out.

        Stray pieces go if the mean Dice of the foreground gains as much as that of a class has to, the mean
        class Dice does not fall, and no case loses more of either, or of the recall of the foreground, than
        `CleanupChoice.choose` lets it lose. Classes are then chosen for what is left.
        """
        if not self._strays_go(left_out):
            return self._predicted.choose(left_out)
        before, after = self._predicted.unchanged(left_out), self._cleared.choose(left_out)
        by_integer = {each.integer: each for each in before.classes}
        return replace(
            after,
            stray_share=STRAY_SHARE,
            classes=tuple(
                replace(each, dice_before=by_integer[each.integer].dice_before) for each in after.classes
            ),
            foreground_dice_before=before.foreground_dice_before,
            foreground_recall_before=before.foreground_recall_before,
        )

    def confusion(self, name: str, chosen: Postprocessing) -> Confusion:
        """Return the voxels of a case by index in the reference and after a post-processing."""
        choice = self._predicted if chosen.stray_share is None else self._cleared
        return choice.confusion(name, chosen)

    def _strays_go(self, left_out: Collection[str]) -> bool:
        change = np.nan_to_num(self._cleared.measures(left_out) - self._predicted.measures(left_out))
        if not change.any():
            return False
        defined = ~np.isnan(self._predicted.measures(left_out)[:, :-2])
        classes = change[:, :-2].sum(axis=1) / np.maximum(defined.sum(axis=1), 1)
        return bool(
            trusted_gain(change[:, -2]) > 0
            and classes.mean() >= 0
            and classes.min() >= -WORST_LOSS
            and change[:, -2:].min() >= -WORST_FOREGROUND_LOSS
        )


def held_out_confusions(choice: PostprocessingChoice, folds: Iterable[Sequence[str]]) -> dict[str, Confusion]:
    """Return the voxels of each case after the post-processing that the other folds' cases choose.

    A post-processing chosen by the cases that it is then measured on looks better than it is.

    Args:
        choice: Choice among all cases.
        folds: Names of the cases of each fold.
    """
    found: dict[str, Confusion] = {}
    for fold in folds:
        chosen = choice.choose(left_out=fold)
        found |= {name: choice.confusion(name, chosen) for name in fold}
    return found
