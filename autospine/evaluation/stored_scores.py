"""Stored scores: what `cross_validation.json` says of a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from autospine.core.errors import FormatError, listed_faults
from autospine.storage.file_names import name_fault
from autospine.storage.serialization import read_json

CROSS_VALIDATION = "cross_validation.json"
FORMAT_VERSION = 4
READABLE = (2, 3, FORMAT_VERSION)
"""Versions that can be read. Versions 2 and 3 call the recall `acc`, and 2 does not say which weights were
scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossValidation:
    """The part of `cross_validation.json` that other stages read."""

    folds: Mapping[str, tuple[str, ...]]
    """Held-out cases of each complete fold, by its name."""

    weights: Mapping[str, str | None]
    """Digest of the weights of each fold's network, None if it is unknown."""

    dice: float | None
    """Dice without post-processing, mean over classes of the mean over cases; None if no class occurs."""

    cleaned_dice: float | None
    """Dice after the post-processing that the other folds choose; None if none could be chosen."""

    by_modality: Mapping[str, float | None]
    """Dice of each modality's cases without post-processing."""

    by_case: Mapping[str, float | None]
    """Dice of each held-out case without post-processing, mean over its classes; None if no class occurs.
    Empty where the scores do not list their cases."""


def read_cross_validation(folder: Path) -> CrossValidation:
    """Read a model folder's `cross_validation.json`.

    Raises:
        FormatError: If it is missing, damaged or of another version.
    """
    path = folder / CROSS_VALIDATION
    content: dict[str, Any] = read_json(path, dict)
    again = f"run `autospine train {folder.resolve().name}` again: it keeps the folds and writes the scores"
    if content.get("format_version") not in READABLE:
        raise FormatError(
            f"expected scores of format_version {' or '.join(map(str, READABLE))} in {path}, found "
            f"{content.get('format_version')}; {again}"
        )
    try:
        cleaned = content["postprocessed"]
        folds = {name: tuple(fold["cases"]) for name, fold in content["folds"].items()}
        if odd := [name for name in (*folds, *chain.from_iterable(folds.values())) if name_fault(name)]:
            raise FormatError(
                f"expected folds and cases whose names can be those of files in {path}, found "
                f"{listed_faults([repr(name) for name in odd])}; {again}"
            )
        return CrossValidation(
            folds=folds,
            weights={name: fold.get("weights") for name, fold in content["folds"].items()},
            dice=content["mean_dice"],
            cleaned_dice=None if cleaned is None else cleaned["mean_dice"],
            by_modality={name: group["mean_dice"] for name, group in content["modalities"].items()},
            by_case={name: case["mean_dice"] for name, case in content.get("cases", {}).items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"expected complete scores in {path}, found none of {error}; {again}") from None
