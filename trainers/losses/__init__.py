"""Losses by name. A new one is a file with a `Loss` and a row of `BUILT_IN`, or an entry point."""

from collections.abc import Callable

from autospine.core.errors import TrainingError
from autospine.core.labels import LabelSpace
from autospine.core.plugins import warn_if_hidden
from autospine.plan import TrainingPlan
from trainers.losses.dice_ce import DiceCE
from trainers.losses.external_loss import GROUP, external_loss_names, find_external_loss
from trainers.losses.loss import Loss, LossResult

__all__ = ["BUILT_IN", "Loss", "LossResult", "check_loss", "loss_names", "make_loss"]

BUILT_IN: dict[str, Callable[[LabelSpace, TrainingPlan], Loss]] = {
    "dice_ce": lambda labels, recipe: DiceCE(labels, lambda_ce=recipe.lambda_ce, **recipe.loss_settings),
}
"""Functions by name that make the built-in losses from label space and recipe."""


def loss_names() -> tuple[str, ...]:
    """Return the names of all losses: the built-in ones, then those of other distributions."""
    return (*BUILT_IN, *(name for name in external_loss_names() if name not in BUILT_IN))


def check_loss(name: str) -> None:
    """Refuse the name of a loss that cannot be loaded.

    Raises:
        TrainingError: If the name is unknown, or the loss of another distribution cannot be imported.
    """
    if name not in loss_names():
        raise TrainingError(f"expected --loss among {', '.join(loss_names())}, found {name!r}")
    if name not in BUILT_IN:
        find_external_loss(name).load()


def make_loss(labels: LabelSpace, recipe: TrainingPlan) -> Loss:
    """Make the loss that a recipe names.

    Args:
        labels: Label space of the plan.
        recipe: Recipe with the name of the loss and its settings.

    Raises:
        TrainingError: If there is no such loss, or it cannot be made with these settings.
    """
    if recipe.loss not in BUILT_IN:
        return find_external_loss(recipe.loss).make(labels, recipe.loss_settings)
    warn_if_hidden(GROUP, recipe.loss, "loss")
    try:
        return BUILT_IN[recipe.loss](labels, recipe)
    except TypeError as error:
        raise TrainingError(
            f"the loss {recipe.loss!r} cannot be made with the loss_settings {recipe.loss_settings}: "
            f"{error}; mend them in the configuration's training in plan.json"
        ) from None
