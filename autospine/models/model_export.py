"""Export of a trained model as an archive, with all that prediction needs and no name of a case.

Names of cases may tell who the patients were; so may the reasons of a plan, which are left out.
"""

import os
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from autospine import __version__
from autospine.core.errors import FormatError, ModelError, first_line
from autospine.evaluation.postprocessing import POSTPROCESSING
from autospine.models.archive import DESCRIPTION, ENDING, LICENCE, unfit_names, writing
from autospine.models.manifest import MANIFEST, Entry, Manifest, Training, describe, training_of
from autospine.models.model_folder import LOCALIZER, ModelFolder
from autospine.storage.atomic import replacing
from autospine.storage.digest import sha256_of, sha256_of_file
from autospine.storage.file_names import read_text
from autospine.storage.locks import scratch_folder
from autospine.storage.serialization import parse_json, to_json
from autospine.storage.tensors import load_tensors, save_tensors
from autospine.storage.trained_models import PLAN, WEIGHTS

_SHARED_KEYS = (
    *("name", "description", "reference", "licence", "release"),
    *("channel_names", "labels", "regions_class_order", "file_ending"),
)
"""Keys of dataset.json that are exported."""

LONGEST_LICENCE = 200
"""Most characters of the licence's first line in the manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """The files of an archive but for its manifest, by their names in it."""

    texts: Mapping[str, str]
    """Small files, as they are written."""

    weights: Mapping[str, Path]
    """Weights of the folds, which are copied from these files."""

    @property
    def entries(self) -> dict[str, Entry]:
        """Size and hash of every file."""
        texts = {name: text.encode() for name, text in self.texts.items()}
        return {
            **{name: Entry(bytes=len(data), sha256=sha256_of([data])) for name, data in texts.items()},
            **{
                name: Entry(bytes=path.stat().st_size, sha256=sha256_of_file(path))
                for name, path in self.weights.items()
            },
        }


def export_model(
    model: ModelFolder,
    target: Path,
    *,
    folds: Sequence[str] | None = None,
    localizer: ModelFolder | None = None,
    licence: str | None = None,
    intended_use: str | None = None,
    sites: bool = True,
    half: bool = False,
) -> Manifest:
    """Write a model folder as one file, which is complete or not there.

    Args:
        model: An opened model folder.
        target: File that ends in `.autospine`.
        folds: Names of the folds to export; by default those that predict together.
        localizer: Coarse model whose first fold is exported as well, to locate the spine.
        licence: Name such as `CC-BY-4.0`, or the text itself; by default that of a model that was imported,
            else `not stated`.
        intended_use: A few words; by default those of a model that was imported, else research alone.
        sites: Whether scores by site, which have the sites' names, are exported as well.
        half: Whether weights are stored in 16 bits, which halves the file; networks compute as before.

    Raises:
        ModelError: If a fold is not there, the licence is empty, the target has another ending, import would
            refuse the names of dataset and configuration, or a weight is too large for 16 bits.
        WorkspaceError: If the file cannot be written.
    """
    _check_names(model, target)
    known = describe(model)
    licence = _licence(model, known) if licence is None else licence
    if not licence.strip():
        raise ModelError(
            "expected a licence's name or text, found an empty one; leave it out where none is stated"
        )
    weights = {f"{path.parent.name}/{WEIGHTS}": path for path in model.weights(folds)}
    content = _with_localizer(_Content(texts=_texts(model, licence), weights=weights), localizer)
    with ExitStack() as stack:
        if half:
            with writing(target):
                scratch = stack.enter_context(scratch_folder(target.parent))
            content = replace(content, weights=_halved(content.weights, scratch))
        described = replace(
            known,
            autospine=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            licence=licence.strip().splitlines()[0][:LONGEST_LICENCE],
            intended_use=known.intended_use if intended_use is None else intended_use,
            scores=known.scores if sites or known.scores is None else replace(known.scores, sites={}),
            training=_trained(weights),
            finder=None if localizer is None else localizer.configuration.name,
            files=content.entries,
        )
        _write(target, described, content)
    return described


def _check_names(model: ModelFolder, target: Path) -> None:
    """Refuse a target of another ending, and names that import would refuse."""
    if target.suffix != ENDING:
        raise ModelError(f"expected a file that ends in {ENDING} to write, found {target}; name it so")
    if unfit := unfit_names(model.plan.dataset, model.configuration.name):
        raise ModelError(
            f"expected a dataset and a configuration named with letters, digits, spaces and _ . + - alone in "
            f"{model.name}, found {unfit}; rename them in its {PLAN}"
        )


def _trained(weights: Mapping[str, Path]) -> dict[str, Training]:
    """Return how each fold was trained, by its name."""
    return {path.parent.name.removeprefix("fold_"): training_of(path) for path in weights.values()}


def _with_localizer(content: _Content, localizer: ModelFolder | None) -> _Content:
    """Add the plan and the first fold of the coarse model, if there is one."""
    if localizer is None:
        return content
    (path,) = localizer.weights(localizer.ensemble[:1])
    return _Content(
        texts={**content.texts, f"{LOCALIZER}/{PLAN}": _shared_plan(localizer)},
        weights={**content.weights, f"{LOCALIZER}/{path.parent.name}/{WEIGHTS}": path},
    )


def _halved(weights: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Write weights in 16 bits into a folder; return the new files by their names in the archive."""
    halved = {}
    for number, (name, path) in enumerate(weights.items()):
        tensors, facts = load_tensors(path)
        short = {key: t.half() if t.dtype == torch.float32 else t for key, t in tensors.items()}
        if large := [key for key, tensor in short.items() if not tensor.isfinite().all()]:
            raise ModelError(
                f"expected weights below 65504 in {path} to store in 16 bits, found larger ones in "
                f"{large[0]}; export without --half"
            )
        halved[name] = folder / f"{number}.safetensors"
        save_tensors(halved[name], short, facts)
    return halved


def _write(target: Path, described: Manifest, content: _Content) -> None:
    with (
        writing(target),
        replacing(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr(MANIFEST, to_json(described))
        for name, text in content.texts.items():
            archive.writestr(name, text)
        for name, path in content.weights.items():
            archive.write(path, name)


def _licence(model: ModelFolder, known: Manifest) -> str:
    """Return the licence's whole text if an imported model has it, else its name."""
    text = model.path / LICENCE
    return _text_of(text) if os.path.lexists(text) else known.licence


def _shared_plan(model: ModelFolder) -> str:
    """Return the plan of this configuration alone, and without reasons, which may name cases."""
    return to_json(replace(model.plan, configurations=(model.configuration,), rationale=()))


def _texts(model: ModelFolder, licence: str) -> dict[str, str]:
    """Return the small files of an archive by name."""
    texts = {PLAN: _shared_plan(model), LICENCE: licence.rstrip() + "\n"}
    description = model.path / DESCRIPTION
    if os.path.lexists(description):
        try:
            content = parse_json(_text_of(description))
            texts[DESCRIPTION] = to_json({key: content[key] for key in _SHARED_KEYS if key in content})
        except (TypeError, ValueError) as error:
            raise FormatError(
                f"expected a description as JSON in {description}, found {first_line(error)}; restore it"
            ) from None
    post_processing = model.path / POSTPROCESSING
    if os.path.lexists(post_processing):
        texts[POSTPROCESSING] = _text_of(post_processing)
    return texts


def _text_of(path: Path) -> str:
    """Read a small file of a model.

    Raises:
        FormatError: If it cannot be read.
    """
    try:
        return read_text(path)
    except OSError as error:
        raise FormatError(f"expected a text at {path}, found {error}; restore it or export again") from None
