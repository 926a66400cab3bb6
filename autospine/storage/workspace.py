"""The workspace: folders of datasets, preprocessed cases and models.

This is the only module that reads the environment.
"""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autospine.core.errors import WorkspaceError, listed
from autospine.storage.atomic import VISIBLE, visible
from autospine.storage.file_names import same_name
from autospine.storage.trained_models import PLAN, DatasetModels

VARIABLE = "AUTOSPINE_WORKSPACE"
NNUNET_RAW = "nnUNet_raw"
NNUNET_OTHERS = ("nnUNet_preprocessed", "nnUNet_results")
"""Variables of nnU-Net that are not read: those folders lie in the workspace here."""

DESCRIPTION = "dataset.json"

_NAME = re.compile(r"Dataset(\d+)_(.+)")
_NUMBER = re.compile(r"(?:Dataset)?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetLocation:
    """Folders of one dataset; only `raw` needs to exist."""

    name: str
    """Whole name, `Dataset001_SpineReal`."""

    raw: Path
    """Folder of the raw dataset, in the workspace or in nnU-Net's folder."""

    preprocessed: Path
    """Folder of its fingerprint, plan, folds and stored cases."""

    results: Path
    """Folder of its models."""

    @property
    def workspace(self) -> "Workspace":
        """The workspace that it belongs to."""
        return Workspace(root=self.preprocessed.parents[1])

    @property
    def models(self) -> DatasetModels:
        """The dataset's trained models."""
        return DatasetModels(folder=self.results)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """A folder with `raw/`, `preprocessed/` and `results/`."""

    root: Path
    """The folder itself."""

    @classmethod
    def locate(cls, given: Path | None = None) -> "Workspace":
        """Return the workspace: the given folder, else `$AUTOSPINE_WORKSPACE`, else the current folder.

        Raises:
            WorkspaceError: If it is not a folder.
        """
        root = given or Path(os.environ.get(VARIABLE) or ".")
        if not root.is_dir():
            found = "a file" if root.exists() else "none"
            raise WorkspaceError(
                f"expected the workspace folder {root}, found {found}; make it or name another with -w"
                f"{_unread()}"
            )
        return cls(root=root)

    @property
    def option(self) -> tuple[str, ...]:
        """Words of a command that lead to this workspace from here: none, or `-w` and the folder."""
        default = Path(os.environ.get(VARIABLE) or ".")
        return () if self.root.resolve() == default.resolve() else ("-w", str(self.root))

    @property
    def raw(self) -> Path:
        """Folder of the raw datasets."""
        return self.root / "raw"

    @property
    def preprocessed(self) -> Path:
        """Folder of fingerprints, plans and stored cases."""
        return self.root / "preprocessed"

    @property
    def results(self) -> Path:
        """Folder of the trained models."""
        return self.root / "results"

    def datasets(self) -> tuple[DatasetLocation, ...]:
        """Return every dataset by name; those of the workspace hide nnU-Net's of the same name."""
        folders: dict[str, Path] = {}
        for root in self._raw_roots():
            for folder in visible(root):
                if folder.is_dir() and _NAME.fullmatch(folder.name):
                    folders.setdefault(folder.name, folder)
        return tuple(self._location(name, folder) for name, folder in sorted(folders.items()))

    def find_dataset(self, wanted: str) -> DatasetLocation:
        """Find the dataset of this number (`1`, `Dataset001`), name (`Spine`), whole name or folder.

        Raises:
            WorkspaceError: If none or several match; the message lists the candidates.
        """
        wanted = self._without_folder(wanted)
        datasets = self.datasets()
        found = [dataset for dataset in datasets if _matches(dataset.name, wanted)]
        if len(found) == 1:
            return found[0]
        names = ", ".join(dataset.name for dataset in (found or datasets)) or "none"
        looked = " and ".join(str(root) for root in self._raw_roots())
        if found:
            raise WorkspaceError(
                f"expected one dataset {wanted!r} in {looked}, found {names}; give the whole name"
            )
        old = [
            folder.name
            for root in self._raw_roots()
            for folder in (sorted(root.glob("Task*_*")) if root.is_dir() else ())
        ]
        if old:
            raise WorkspaceError(
                f"expected a dataset {wanted!r} in {looked}, found {names}, and {listed(old)} in the "
                "layout of nnU-Net v1; convert it with `autospine convert dataset --from nnunet-v1`"
            )
        raise WorkspaceError(
            f"expected a dataset {wanted!r} in {looked}, found {names}{self.whereabouts(wanted)}"
            f"{'' if datasets else _unread()}"
        )

    def dataset_or_last(self, wanted: str | None) -> DatasetLocation:
        """Find a dataset as `find_dataset` does, or the one planned last where none is named.

        Raises:
            WorkspaceError: If there is none.
        """
        return self.last_planned() if wanted is None else self.find_dataset(wanted)

    def last_planned(self) -> DatasetLocation:
        """Find the dataset planned last.

        Raises:
            WorkspaceError: If none is planned.
        """
        plans = sorted(self.preprocessed.glob(f"{VISIBLE}/{PLAN}"), key=lambda path: path.stat().st_mtime)
        if not plans:
            what = f"expected a planned dataset in {self.preprocessed}, found none"
            datasets = self.datasets()
            if not datasets:
                raise WorkspaceError(f"{what}, and no dataset in {self.raw}{self.whereabouts()}{_unread()}")
            name = datasets[0].name if len(datasets) == 1 else "DATASET"
            raise WorkspaceError(f"{what}; run `autospine plan-and-preprocess -d {name}` first")
        return self.find_dataset(plans[-1].parent.name)

    @property
    def weights(self) -> tuple[Path, ...]:
        """Weights of every complete fold of every model of every dataset."""
        return tuple(
            path for folder in visible(self.results) for path in DatasetModels(folder=folder).weights
        )

    def last_models(self, dataset: str | None = None, configuration: str | None = None) -> tuple[Path, ...]:
        """Find the model folder whose newest fold was completed last, and the others of its dataset.

        Args:
            dataset: Number, name, whole name or folder of the dataset; any if None.
            configuration: Name of the configuration; any if None.

        Returns:
            The folders in the order in which they were completed, the last one first.

        Raises:
            WorkspaceError: If there is none.
        """
        dataset = None if dataset is None else self._without_folder(dataset)
        every = self.weights
        weights = [
            path
            for path in every
            if (dataset is None or _matches(path.parents[2].name, dataset))
            and (configuration is None or path.parents[1].name == configuration)
        ]
        if not weights:
            which = f" {configuration!r}" if configuration else ""
            which += f" of {dataset}" if dataset else ""
            of = f" -d {dataset}" if dataset else ""
            there = sorted({str(path.parents[1]) for path in every})
            raise WorkspaceError(
                f"expected a trained model{which} in {self.results}, found {', '.join(there) or 'none'}; "
                f"run `autospine train {configuration or 0}{of} --fold all` first, or name a model with -m "
                f"or its workspace with -w{_unread()}"
            )
        weights.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        folders = dict.fromkeys(path.parents[1] for path in weights)
        return tuple(folder for folder in folders if folder.parent == weights[0].parents[2])

    def whereabouts(self, wanted: str = "") -> str:
        """Say where a dataset that is missed may be instead, and what to do; continues a sentence."""
        if "/" in wanted and (Path(wanted) / DESCRIPTION).is_file():
            return self._from_elsewhere(Path(wanted))
        for folder in (folder for root in self._raw_roots() for folder in visible(root)):
            if not folder.exists() and _matches(folder.name, wanted or folder.name):
                return f", but {folder} leads to {folder.readlink()}, which is not there; mend this link"
        if misnamed := [str(folder) for root in self._raw_roots() for folder in _misnamed(root)]:
            number = re.search(r"\d+", Path(misnamed[0]).name)
            return (
                f", and {listed(misnamed)} under another name than "
                f"Dataset{number[0] if number else '001'}_NAME; rename it"
            )
        beside = [folder.name for folder in visible(self.root) if _NAME.fullmatch(folder.name)]
        here = self.root.resolve()
        for inside in (here, here.parent):
            if inside.name == self.raw.name and (inside != here or beside):
                return f"; name its workspace, -w {shlex.quote(str(inside.parent))}"
        if beside:
            return (
                f", but {listed(beside)} in {self.root} itself; move datasets into {self.raw}, or set "
                f"{NNUNET_RAW} to {self.root} and name another folder with -w"
            )
        if (self.root / DESCRIPTION).is_file():
            return (
                f", but a dataset.json in {self.root} itself; move the files of the dataset into "
                f"{self.raw / 'Dataset001_NAME'}"
            )
        stored = [folder.name for folder in visible(self.preprocessed) if _matches(folder.name, wanted)]
        if stored:
            return f", but only what was preprocessed of {stored[0]}; put its images and labels back there"
        if self.datasets():
            return "; name one of these, or its workspace with -w"
        return f"; put it there as {_example(wanted)} in nnU-Net's layout, or name its workspace with -w"

    def _from_elsewhere(self, folder: Path) -> str:
        """Say how to take a dataset that was given by a folder outside this workspace."""
        place = folder.resolve().parent
        if place.name == self.raw.name and _NAME.fullmatch(folder.resolve().name):
            return f"; name the workspace of {folder}, -w {shlex.quote(str(place.parent))}"
        own = folder.resolve().name
        return (
            f"; put {folder}, or a link to it, into {self.raw} as "
            f"{own if _NAME.fullmatch(own) else 'Dataset001_NAME'}"
        )

    def _without_folder(self, wanted: str) -> str:
        """Return the name of a dataset that is given by one of its folders in this workspace."""
        path = Path(wanted)
        roots = {root.resolve() for root in (*self._raw_roots(), self.preprocessed, self.results)}
        return path.name if "/" in wanted and path.parent.resolve() in roots else wanted.rstrip("/")

    def _raw_roots(self) -> Iterator[Path]:
        yield self.raw
        if elsewhere := os.environ.get(NNUNET_RAW):
            yield Path(elsewhere)

    def _location(self, name: str, folder: Path) -> DatasetLocation:
        return DatasetLocation(
            name=name, raw=folder, preprocessed=self.preprocessed / name, results=self.results / name
        )


def _unread() -> str:
    """Say which variables that a user of nnU-Net has set are not read; continues a sentence."""
    found = [variable for variable in NNUNET_OTHERS if os.environ.get(variable)]
    if not found:
        return ""
    verb = "is" if len(found) == 1 else "are"
    return f" ({' and '.join(found)} {verb} not read: -w names all folders at once)"


def is_dataset_name(name: str) -> bool:
    """Return whether a folder of this name is a dataset: `Dataset`, a number, an underscore and a name."""
    return _NAME.fullmatch(name) is not None


def check_new_dataset(folder: Path) -> None:
    """Refuse a folder in `raw` for a new dataset under whose name other commands would not find it.

    Raises:
        WorkspaceError: If the name is none of a dataset.
    """
    if folder.parent.name == "raw" and not is_dataset_name(folder.name):
        raise WorkspaceError(
            f"expected a name such as Dataset900_Phantom for a dataset in {folder.parent}, found "
            f"{folder.name!r}; give such a name, by which other commands find it"
        )


def _matches(name: str, wanted: str) -> bool:
    match = _NAME.fullmatch(name)
    if match is None or wanted == name:
        return wanted == name
    number = _NUMBER.fullmatch(wanted)
    if number is not None:
        return int(number[1]) == int(match[1])
    return same_name(wanted).casefold() in {same_name(each).casefold() for each in (name, match[2])}


def _example(wanted: str) -> str:
    """Return a name under which a dataset would be found that was asked for so."""
    if is_dataset_name(wanted):
        return wanted
    if number := _NUMBER.fullmatch(wanted):
        return f"Dataset{int(number[1]):03d}_NAME"
    return f"Dataset001_{wanted if wanted.isidentifier() else 'NAME'}"


def _misnamed(root: Path) -> Iterator[Path]:
    """Yield the folders that hold a dataset, or seem to, under a name that no dataset has."""
    for folder in visible(root):
        seems = re.match(r"dataset[\W_]*\d", folder.name, re.IGNORECASE)
        if (
            folder.is_dir()
            and not _NAME.fullmatch(folder.name)
            and (seems or (folder / DESCRIPTION).is_file())
        ):
            yield folder
