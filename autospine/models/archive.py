"""Archives of models: one file with all that prediction needs, and nothing that can run code.

An archive is a zip whose entries are not compressed, so that nothing in it can grow when it is unpacked.
`manifest.json` names every other entry with its size and SHA-256; entries that it does not name are refused.
"""

import re
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from autospine.core.errors import AutospineError, FormatError, ModelError, WorkspaceError, listed
from autospine.evaluation.postprocessing import POSTPROCESSING
from autospine.models.manifest import (
    MANIFEST,
    SCORES,
    Entry,
    Manifest,
    parse_manifest,
)
from autospine.models.model_folder import LOCALIZER, ModelFolder, open_model
from autospine.storage.atomic import DISK_FULL, remove_abandoned
from autospine.storage.digest import sha256_of
from autospine.storage.file_names import folder_name_fault, open_file
from autospine.storage.locks import scratch_folder
from autospine.storage.serialization import to_json
from autospine.storage.trained_models import PLAN, STARTER_FILE, WEIGHTS

ENDING = ".autospine"
DESCRIPTION, LICENCE = "dataset.json", "LICENSE"

LARGEST_MANIFEST = 1 << 20
"""Largest manifest in bytes; that of a hundred folds has a tenth of it."""

LONGEST_NAME = 100
"""Most characters of an unfit entry's name in a message."""


_ENTRY = re.compile(
    rf"(?:{LOCALIZER}/)?(?:plan\.json|fold_(?:\d+|full)/{re.escape(WEIGHTS)})"
    rf"|dataset\.json|{re.escape(POSTPROCESSING)}|LICENSE"
)
_NAME = re.compile(r"\w[\w .+-]*")
"""Names that import may make folders of: one part of a path, which leads nowhere else."""

_ENCRYPTED = 1
"""Bit in the flags of a zip's entry."""

_CHUNK = 1 << 20


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
    with writing(folder):
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
            with writing(folder):
                for name, entry in manifest.files.items():
                    _extract(archive, name, entry, temporary / name, bundle)
        with _named(temporary, bundle):
            for model in _checked_models(temporary, manifest):
                if loading:
                    model.check_weights()
        with writing(folder):
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
        try:
            unpack(path, scratch / "model", loading=False)
        except FormatError as error:
            if path != STARTER_FILE:
                raise
            raise FormatError(
                f"expected the model that comes with AutoSpine in {path} as it was installed, found it "
                "damaged; install AutoSpine again, or name another model"
            ) from error
        yield replace(open_model(scratch / "model"), bundle=path)


@contextmanager
def _scratch(parent: Path, target: Path) -> Iterator[Path]:
    """Open a scratch folder; what stands in the way of making it is said of `target`."""
    with ExitStack() as stack:
        with writing(target):
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


@contextmanager
def _opened(bundle: Path) -> Iterator[zipfile.ZipFile]:
    with _reading(bundle), open_file(bundle) as file, zipfile.ZipFile(file) as archive:
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
def writing(target: Path) -> Iterator[None]:
    """Say of what cannot be written how to mend it.

    Raises:
        WorkspaceError: If the system refuses to write.
    """
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
    if unfit := unfit_names(manifest.dataset, manifest.configuration):
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


def unfit_names(*names: str) -> str:
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
