"""Tables of trained models: of one, and of those that were compared."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from autospine.cli.screen import console, show_table, table_of
from autospine.core.errors import counted
from autospine.system.hardware import GIB

if TYPE_CHECKING:
    from autospine.models.best import Best
    from autospine.models.manifest import ClassScores, Manifest, ModelScores, Training
    from autospine.models.model_folder import ModelFolder


def show_comparison(best: "Best") -> None:
    """Print models and ensembles, the best first, with their time, size and memory."""
    modalities = sorted({name for candidate in best.candidates for name in candidate.modality_dice})
    # With one modality its column would repeat the total.
    modalities = modalities if len(modalities) > 1 else []
    title = f"{best.dataset}, Dice of {counted(best.n_cases, 'held-out case')}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for column in ("Dice", "p", "cleaned", *modalities, "minutes", "M weights", "GiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for candidate in best.candidates:
        dice = (
            candidate.dice,
            candidate.p_value,
            candidate.cleaned_dice,
            *(candidate.modality_dice.get(name) for name in modalities),
        )
        table.add_row(
            escape(candidate.name),
            *("–" if value is None else f"{value:.3f}" for value in dice),
            f"{candidate.minutes:.1f}",
            f"{candidate.parameters / 1e6:.2f}",
            f"{candidate.memory_bytes / GIB:.2f}",
        )
    show_table(table)


def show_model(model: "ModelFolder", facts: "Manifest") -> None:
    """Print the classes of a model, its network, training data, scores and intended use."""
    plan, chosen = model.plan, model.configuration
    rows = [
        ("dataset", facts.dataset),
        ("configuration", f"{facts.configuration}, {chosen.network.name}"),
        ("channels", ", ".join(plan.channels)),
        ("voxels", f"{' x '.join(f'{d:g}' for d in chosen.spacing_mm)} mm"),
        ("tiles", " x ".join(map(str, chosen.patch_size))),
        ("spine found by", facts.finder or ""),
        ("trained", "; ".join(_trained(fold, of) for fold, of in facts.training.items())),
        ("trained by", "; ".join(dict.fromkeys(filter(None, map(_trainer, facts.training.values()))))),
        ("training images", _training_images(model)),
        ("cross-validated", _scored(facts.scores)),
        ("intended use", facts.intended_use),
        ("licence", facts.licence),
        ("exported", f"{_moment(facts.created)}, AutoSpine {facts.autospine}" if facts.created else "no"),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value:  # models of earlier versions do not say who trained them
            table.add_row(name, _cell(value))
    console().print(table)
    console().print()
    of_class = {} if facts.scores is None else facts.scores.classes
    classes = table_of("class", "integer", *(("Dice", "cases") if of_class else ()))
    for name, integer in zip(plan.labels.names, plan.labels.painted, strict=True):
        classes.add_row(_cell(name), str(integer), *(_class_scores(of_class.get(name)) if of_class else ()))
    show_table(classes)


def _cell(text: str) -> str:
    """Prepare somebody else's text for the cell of a table."""
    return escape(text)


def _trained(fold: str, facts: "Training") -> str:
    """Describe how long a fold was trained."""
    parts = [f"fold {fold}", "? steps" if facts.steps is None else counted(facts.steps, "step")]
    parts += [] if facts.minutes is None else [f"{facts.minutes:g} minutes"]
    parts += [] if facts.seed is None else [f"seed {facts.seed}"]
    return ", ".join(parts)


def _trainer(facts: "Training") -> str:
    """Describe the software and the device that trained a fold; empty if they are not known."""
    if None in (facts.autospine, facts.torch, facts.device):
        return ""
    return f"AutoSpine {facts.autospine}, PyTorch {facts.torch}, {facts.device}"


def _training_images(model: "ModelFolder") -> str:
    """Say whether the model recognises the images that it was trained on, which an exported one does not."""
    if known := len(model.training_images()):
        return f"{known} known; predictions of them are warned of"
    return "not known, as in every exported model; predictions of them are not warned of"


def _moment(created: str) -> str:
    """Write a bundle's date and time as people do, or unchanged if it is none."""
    try:
        return f"{datetime.fromisoformat(created).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return created


def _scored(scores: "ModelScores | None") -> str:
    """Describe mean Dice in total and by modality."""
    if scores is None or scores.mean_dice is None:
        return "no"
    parts = [f"Dice {scores.mean_dice:.3f} over {counted(scores.n_cases, 'held-out case')}"]
    parts += [
        f"{name} {of.mean_dice:.3f} ({of.n_cases})"
        for name, of in scores.modalities.items()
        if of.mean_dice is not None
    ]
    return ", ".join(parts)


def _class_scores(scores: "ClassScores | None") -> tuple[str, str]:
    """Return Dice and number of cases of a class; empty texts if they are not known."""
    if scores is None:
        return "", ""
    dice, cases = scores.dice, scores.n_cases
    return "" if dice is None else f"{dice:.3f}", "" if cases is None else str(cases)
