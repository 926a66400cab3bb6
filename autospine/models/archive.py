"""Export and import of models: one file with all that prediction needs, and nothing that can run code.

An archive is a zip whose entries are not compressed, so that nothing in it can grow when it is unpacked.
`manifest.json` names every other entry with its size and SHA-256; entries that it does not name are refused.
Names of cases are not exported: they may tell who the patients were.
"""

import errno
import os
import re
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from autospine import __version__
from autospine.core.errors import AutospineError, FormatError, ModelError, WorkspaceError, first_line, listed
from autospine.evaluation.postprocessing import POSTPROCESSING
from autospine.models.manifest import (
    MANIFEST,
    SCORES,
    Entry,
    Manifest,
    describe,
    parse_manifest,
    training_of,
)
from autospine.models.model_folder import LOCALIZER, ModelFolder, open_model
from autospine.storage.atomic import remove_abandoned, replacing
from autospine.storage.digest import sha256_of, sha256_of_file
from autospine.storage.file_names import folder_name_fault, read_text
from autospine.storage.locks import scratch_folder
from autospine.storage.serialization import parse_json, to_json
from autospine.storage.trained_models import PLAN, WEIGHTS

ENDING = ".autospine"
DESCRIPTION, LICENCE = "dataset.json", "LICENSE"

LARGEST_MANIFEST = 1 << 20
"""Largest manifest in bytes; that of a hundred folds has a tenth of it."""

LONGEST_NAME = 100
"""Most characters of an unfit entry's name in a message."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of the system if a disk, or a user's quota of it, is full."""

_ENTRY = re.compile(
    rf"(?:{LOCALIZER}/)?(?:plan\.json|fold_(?:\d+|full)/{re.escape(WEIGHTS)})"
    rf"|dataset\.json|{re.escape(POSTPROCESSING)}|LICENSE"
)
_NAME = re.compile(r"\w[\w .+-]*")
"""Names that import may make folders of: one part of a path, which leads nowhere else."""

_ENCRYPTED = 1
"""Bit in the flags of a zip's entry."""

_CHUNK = 1 << 20
_SHARED_KEYS = (
    *("name", "description", "reference", "licence", "release"),
    *("channel_names", "labels", "regions_class_order", "file_ending"),
)
"""Keys of dataset.json that are exported."""


def export_model(
    model: ModelFolder,
    target: Path,
    *,
    folds: Sequence[str] | None = None,
    localizer: ModelFolder | None = None,
    licence: str | None = None,
    intended_use: str | None = None,
    sites: bool = True,
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

    Raises:
        ModelError: If a fold is not there, the licence is empty, the target has another ending, or import
            would refuse the names of dataset and configuration.
        WorkspaceError: If the file cannot be written.
    """
    if target.suffix != ENDING:
        raise ModelError(f"expected a file that ends in {ENDING} to write, found {target}; name it so")
    if odd := _odd_names(model.plan.dataset, model.configuration.name):
        raise ModelError(
            f"expected a dataset and a configuration named with letters, digits, spaces and _ . + - alone in "
            f"{model.name}, found {odd}; rename them in its {PLAN}"
        )
    known = describe(model)
    licence = _licence(model, known) if licence is None else licence
    if not licence.strip():
        raise ModelError(
            "expected a licence's name or text, found an empty one; leave it out where none is stated"
        )
    weights = {f"{path.parent.name}/{WEIGHTS}": path for path in model.weights(folds)}
    texts = _texts(model, licence)
    trained = {path.parent.name.removeprefix("fold_"): training_of(path) for path in weights.values()}
    if localizer is not None:
        (path,) = localizer.weights(localizer.ensemble[:1])
        weights |= {f"{LOCALIZER}/{path.parent.name}/{WEIGHTS}": path}
        texts |= {f"{LOCALIZER}/{PLAN}": _shared_plan(localizer)}
    described = replace(
        known,
        autospine=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=licence.strip().splitlines()[0][:200],
        intended_use=known.intended_use if intended_use is None else intended_use,
        scores=known.scores if sites or known.scores is None else replace(known.scores, sites={}),
        training=trained,
        finder=None if localizer is None else localizer.configuration.name,
        files={
            **{name: _entry_of_text(text) for name, text in texts.items()},
            **{name: _entry_of_file(path) for name, path in weights.items()},
        },
    )
    with (
        _writing(target),
        replacing(target) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr(MANIFEST, to_json(described))
        for name, text in texts.items():
            archive.writestr(name, text)
        for name, path in weights.items():
            archive.write(path, name)
    return described


def read_manifest(bundle: Path) -> Manifest:
    """Read the manifest of an archive; its table of contents is checked, but not its bytes.

    Raises:
        FormatError: If it is no archive, of another version, or holds what no archive may hold.
    """
    with _opened(bundle) as archive:
        return _checked(archive, bundle)


def unpack(bundle: Path, folder: Path, *, loading: bool = True) -> Manifest:
    """Unpack an archive into a new folder; all is checked before the folder takes its name.

    Args:
        bundle: The archive.
        folder: Folder to make.
        loading: Whether to see that the weights can be loaded; who predicts with them loads them anyway.

    Raises:
        FormatError: As `read_manifest`, and if a hash differs or the plan is another's.
        ModelError: If the folder is there already, the archive has no fold, or its weights cannot be loaded.
        WorkspaceError: If nothing can be written there, or the disk is full.
    """
    with _writing(folder):
        if folder.exists():
            raise ModelError(
                f"expected no model at {folder} yet, found one; move it away or name another place"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder.parent)
    with _scratch(folder.parent, folder) as scratch:
        temporary = scratch / folder.name
        with _opened(bundle) as archive:
            manifest = _checked(archive, bundle)
            with _writing(folder):
                for name, entry in manifest.files.items():
                    _extract(archive, name, entry, temporary / name, bundle)
        with _named(temporary, bundle):
            for model in _checked_models(temporary, manifest):
                if loading:
                    model.check_weights()
        with _writing(folder):
            (temporary / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
            if manifest.scores is not None:
                (temporary / SCORES).write_text(to_json(manifest.scores), encoding="utf-8")
            temporary.replace(folder)
    return manifest


@contextmanager
def opened_model(path: Path) -> Iterator[ModelFolder]:
    """Open a model folder, or an archive that is unpacked for as long as the context lasts.

    Raises:
        FormatError: If it is a damaged archive.
        ModelError: As `open_model`.
    """
    if not path.is_file():
        yield open_model(path)
        return
    with (
        _scratch(Path(tempfile.gettempdir()), Path("a temporary folder")) as scratch,
        _named(scratch / "model", path),
    ):
        unpack(path, scratch / "model", loading=False)
        yield replace(open_model(scratch / "model"), bundle=path)


@contextmanager
def _scratch(parent: Path, target: Path) -> Iterator[Path]:
    """Open a scratch folder; what stands in the way of making it is said of `target`."""
    with ExitStack() as stack:
        with _writing(target):
            scratch = stack.enter_context(scratch_folder(parent))
        yield scratch


@contextmanager
def _named(folder: Path, bundle: Path) -> Iterator[None]:
    """Have errors name the archive: the folder is gone when they are read."""
    try:
        yield
    except AutospineError as error:
        raise type(error)(str(error).replace(str(folder), str(bundle))) from error.__cause__


def _checked_models(folder: Path, manifest: Manifest) -> list[ModelFolder]:
    """Open the model and its localizer, whose plans have to be those of the manifest."""
    model = open_model(folder)
    found = (model.plan.dataset, *(configuration.name for configuration in model.plan.configurations))
    if found != (manifest.dataset, manifest.configuration):
        raise FormatError(
            f"expected the plan of {manifest.dataset}, {manifest.configuration} in {folder}, found that of "
            f"{', '.join(found)}; export the model again"
        )
    coarse = open_model(folder / LOCALIZER) if (folder / LOCALIZER).exists() else None
    name = None if coarse is None else coarse.configuration.name
    if name != manifest.finder:
        raise FormatError(
            f"expected {manifest.finder or 'no model'} as the localizer in {folder}, found {name}; "
            "export the model again"
        )
    return [model] if coarse is None else [model, coarse]


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


def _entry_of_text(text: str) -> Entry:
    data = text.encode()
    return Entry(bytes=len(data), sha256=sha256_of([data]))


def _entry_of_file(path: Path) -> Entry:
    return Entry(bytes=path.stat().st_size, sha256=sha256_of_file(path))


@contextmanager
def _opened(bundle: Path) -> Iterator[zipfile.ZipFile]:
    with _reading(bundle), zipfile.ZipFile(bundle) as archive:
        yield archive


@contextmanager
def _reading(bundle: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FormatError(f"expected to read {bundle}, found {error}; mend that or copy it again") from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError):
        raise FormatError(
            f"expected a model in {bundle}, found no whole {ENDING} file there; copy or export it again"
        ) from None


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise WorkspaceError(
                f"expected room to write {target}, found {error}; free some space, or name a folder with "
                "more of it: for predictions in TMPDIR"
            ) from None
        raise WorkspaceError(
            f"expected to write {target}, found {error}; mend the folder's permissions, or name another one: "
            "for predictions in TMPDIR"
        ) from None


def _checked(archive: zipfile.ZipFile, bundle: Path) -> Manifest:
    """Return the manifest once the table of contents is found to be what it says and nothing else."""
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if MANIFEST not in names or len(set(names)) != len(names):
        raise FormatError(
            f"expected one {MANIFEST} and every name once in {bundle}, found "
            f"{_first(sorted(name for name, n in Counter(names).items() if n > 1)) or 'none'}; "
            "copy or export the model again"
        )
    odd = [info.filename for info in infos if not _is_plain(info)]
    if odd or sum(info.file_size for info in infos) > bundle.stat().st_size:
        found = _first(odd) or "entries larger than the file itself"
        raise FormatError(
            f"expected plain uncompressed files of a model alone in {bundle}, found {found}; "
            "do not use it, and ask whoever made it"
        )
    if archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
        raise FormatError(
            f"expected a manifest of at most {LARGEST_MANIFEST} bytes in {bundle}, found "
            f"{archive.getinfo(MANIFEST).file_size}; do not use it, and ask whoever made it"
        )
    manifest = parse_manifest(archive.read(MANIFEST), bundle)
    if unfit := _odd_names(manifest.dataset, manifest.configuration):
        raise FormatError(
            f"expected a dataset and a configuration whose names can be folders' in {bundle}, found {unfit}; "
            "do not use it, and ask whoever made it"
        )
    sizes = {info.filename: info.file_size for info in infos if info.filename != MANIFEST}
    stated = {name: entry.bytes for name, entry in manifest.files.items()}
    if sizes != stated or PLAN not in stated:
        different = sorted(set(sizes.items()) ^ set(stated.items()))
        named = _first(sorted({name for name, _ in different})) or f"no {PLAN}"
        raise FormatError(
            f"expected the files of the manifest in {bundle}, found a difference in {named}; "
            "copy or export it again"
        )
    return manifest


def _odd_names(*names: str) -> str:
    """Return the names that are no plain name of a folder, for messages."""
    return _first([repr(name) for name in names if not _NAME.fullmatch(name) or folder_name_fault(name)])


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Return whether an entry has an allowed name, is not compressed, and is a file."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    named = info.filename == MANIFEST or _ENTRY.fullmatch(info.filename) is not None
    stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & _ENCRYPTED
    return named and stored and kind in (0, stat.S_IFREG)


def _first(names: Sequence[str]) -> str:
    """Return the first few names; a file made in bad faith may have millions, each of any length."""
    return listed(names, longest=LONGEST_NAME)


def _extract(archive: zipfile.ZipFile, name: str, entry: Entry, target: Path, bundle: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:

        def written() -> Iterator[bytes]:
            for chunk in _chunks(archive, name, entry.bytes, bundle):
                file.write(chunk)
                yield chunk

        digest = sha256_of(written())
    if digest != entry.sha256:
        raise FormatError(
            f"expected {name} in {bundle} as it was exported, found other bytes; copy or export it again"
        )


def _chunks(archive: zipfile.ZipFile, name: str, size: int, bundle: Path) -> Iterator[bytes]:
    """Yield an entry's bytes, at most `size`; an error here is the archive's fault, not the target's."""
    with _reading(bundle), archive.open(name) as source:
        while size > 0 and (chunk := source.read(min(_CHUNK, size))):
            yield chunk
            size -= len(chunk)
