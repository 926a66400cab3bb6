"""Stored scores: what `cross_validation.json` says of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autospine.core.errors import FormatError
from autospine.core.types import Modality
from autospine.storage.serialization import read_json

CROSS_VALIDATION = "cross_validation.json"
FORMAT_VERSION = 3
READABLE = (2, FORMAT_VERSION)
"""Versions that can be read; version 2 does not say which weights were scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossValidation:
    """Scores of a model's cross-validation, as `cross_validation.json` holds them."""

    folds: Mapping[str, tuple[str, ...]]
    """Held-out cases of each fold that is complete."""

    weights: Mapping[str, str | None]
    """Digest of the weights of each fold's network; None where it is not known."""

    dice: float | None
    """Dice, 0 to 1: mean over classes of the mean over cases; None if no class occurs."""

    cleaned_dice: float | None
    """The same after the post-processing that the other folds chose; None without other folds."""

    by_modality: Mapping[str, float | None]
    """Dice of each modality's cases."""


def read_cross_validation(folder: Path) -> CrossValidation:
    """Read a model folder's `cross_validation.json`.

    Raises:
        FormatError: If it is missing, damaged or of another version.
    """
    path = folder / CROSS_VALIDATION
    scores: dict[str, Any] = read_json(path, dict)
    again = f"run `autospine train {folder.resolve().name}` again: it keeps the folds and writes the scores"
    if scores.get("format_version") not in READABLE:
        raise FormatError(
            f"expected scores of format_version {' or '.join(map(str, READABLE))} in {path}, found "
            f"{scores.get('format_version')}; {again}"
        )
    try:
        cleaned = scores["postprocessed"]
        return CrossValidation(
            folds={name: tuple(fold["cases"]) for name, fold in scores["folds"].items()},
            weights={name: fold.get("weights") for name, fold in scores["folds"].items()},
            dice=scores["mean_dice"],
            cleaned_dice=None if cleaned is None else cleaned["mean_dice"],
            by_modality={name: group["mean_dice"] for name, group in scores["modalities"].items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"expected complete scores in {path}, found none of {error}; {again}") from None


def unseen_modality(folders: Sequence[Path], modality: Modality) -> str | None:
    """Return a warning if models were cross-validated on cases of other modalities alone, else None.

    Args:
        folders: Folders of the models; those without scores count as if they knew every modality.
        modality: Modality of the case.
    """
    for folder in folders:
        try:
            known = read_json(folder / CROSS_VALIDATION, dict).get("modalities")
        except FormatError:
            continue
        if isinstance(known, dict) and known and modality not in known:
            return (
                f"it is {modality}, and the model has learnt from {' and '.join(sorted(known))} alone: "
                "do not trust its labels"
            )
    return None
