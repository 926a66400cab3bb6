"""Public datasets of the spine: where their releases keep images and label maps, in which scheme.

A release is a row of a table: two patterns of paths, and what else is known. Layouts were read in the
descriptions of the datasets and in code that reads them.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from autospine.core.errors import DatasetError, counted, listed
from autospine.core.labels import VERTEBRAE
from autospine.core.types import Modality
from autospine.storage.atomic import visible
from autospine.storage.file_names import read_text
from autospine.vertebrae.levels import SACRUM
from autospine.vertebrae.schemes import find_scheme

ReleasePart = Literal["training", "validation", "test"]
"""Part of a release that a case belongs to."""

SHOWN = 5
"""Most files that a message names."""

_PARTS: Mapping[str, ReleasePart] = {
    "train": "training",
    "training": "training",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}
"""Words by which releases name their parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartTable:
    """Table of a release that says which part each case belongs to."""

    file: str
    """Name of the table in the folder of the release; without it every case is for training."""

    separator: str
    """Character between two columns."""

    case: str
    """Column of the case's name."""

    part: str
    """Column of the part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartList:
    """List of a release that names the images of each part below a heading."""

    file: str
    """Name of the list in the folder of the release; without it every case is for training."""

    headings: Mapping[str, ReleasePart]
    """Part that each heading stands for, without its colon."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetRelease:
    """The layout of a public dataset."""

    name: str
    """Name on the command line."""

    title: str
    """Name of the dataset."""

    scheme: str
    """Scheme of its label maps."""

    image: str
    """Pattern of the path of an image below the folder of the release. Its group `case` names the case, and
    `subject`, `site`, `modality` and `part` say more where there are such groups."""

    labels: str
    """Pattern of the path of a label map; its group `case` is that of the image, and `structure`, if there is
    one, the structure that the file is a mask of."""

    layout: str
    """Both paths in words, for messages."""

    ending: str = ".nii.gz"
    """Ending of images and label maps."""

    modality: Modality | None = None
    """Modality of all images; None where the path tells it."""

    masks: Mapping[str, str] = field(default_factory=dict)
    """Structure that each mask shows, by the name of its file; other masks are passed over."""

    parts: PartTable | PartList | None = None

    points: str | None = None
    """Pattern of the path of a file with the centres of a case's vertebrae; its group `case` is that of the
    image. None if the release has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleasedCase:
    """A case of a release whose files are complete."""

    name: str
    image: Path
    labels: Mapping[str, Path]
    """Its label map, under the empty name, or its masks by the structure that each shows."""

    modality: Modality
    subject: str
    site: str
    part: ReleasePart
    points: Path | None = None
    """File with the centres of its vertebrae, in the form of the release; None for none."""


def find_cases(folder: Path, release: DatasetRelease) -> tuple[tuple[ReleasedCase, ...], tuple[str, ...]]:
    """Return the complete cases of a release in the order of their names, and what is left out, in words.

    Args:
        folder: Folder of the release.
        release: Its layout.

    Raises:
        DatasetError: If the folder holds no case, or two images of one name.
    """
    paths = {path.relative_to(folder).as_posix(): path for path in _files_below(folder)}
    images = {path: match for path in paths if (match := re.fullmatch(release.image, path))}
    labels: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in paths:
        if (match := re.fullmatch(release.labels, path)) and path not in images:
            structure = match.groupdict().get("structure")
            if structure is None or structure in release.masks:
                labels[match["case"]]["" if structure is None else release.masks[structure]] = paths[path]
    points = {
        match["case"]: paths[path]
        for path in paths
        if release.points is not None and (match := re.fullmatch(release.points, path))
    }
    complete = {path: match for path, match in images.items() if match["case"] in labels}
    if not complete:
        raise DatasetError(
            f"expected {release.title} in {folder}, with {release.layout}, found "
            f"{listed(sorted(paths), SHOWN) or 'no files'}; name the folder that holds these, or what it is "
            "with --from"
        )
    names = Counter(match["case"] for match in complete.values())
    if twice := [name for name, times in names.items() if times > 1]:
        raise DatasetError(
            f"expected one image for each case of {release.title} in {folder}, found several for "
            f"{listed(twice, SHOWN)}; name the folder of one release"
        )
    stated = _stated_parts(folder, release.parts)
    cases = [
        replace(_case(paths[path], match, labels, stated, release), points=points.get(match["case"]))
        for path, match in complete.items()
    ]
    bare = sorted(match["case"] for match in images.values() if match["case"] not in labels)
    lone = sorted(labels.keys() - names.keys())
    left = ((bare, "image", "without labels"), (lone, "case", "of labels without an image"))
    notes = tuple(
        f"{counted(len(those), noun)} {fault}, left out: {listed(those, SHOWN)}"
        for those, noun, fault in left
        if those
    )
    return tuple(sorted(cases, key=lambda case: case.name)), notes


def find_release(name: str) -> DatasetRelease:
    """Return the release of a name, whatever its capitals.

    Raises:
        DatasetError: If there is none, or if SPIDER's direction is not stated.
    """
    wanted = name.strip().lower().replace("_", "-")
    if wanted not in RELEASES:
        if wanted == "spider":
            find_scheme(wanted)  # raises, and says what to state
        raise DatasetError(
            f"expected a dataset among {', '.join(RELEASES)}, msd, nnunet-v1, nnunet-v2, found {name!r}"
        )
    return RELEASES[wanted]


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, in order, without hidden ones and links to folders."""
    for path in visible(folder):
        if path.is_dir() and not path.is_symlink():
            yield from _files_below(path)
        elif path.is_file():
            yield path


def _case(
    image: Path,
    match: re.Match[str],
    labels: Mapping[str, Mapping[str, Path]],
    stated: Mapping[str, ReleasePart],
    release: DatasetRelease,
) -> ReleasedCase:
    """Return a case by what the path of its image says."""
    said, name = match.groupdict(), match["case"]
    modality: Modality = release.modality or ("CT" if said["modality"] == "ct" else "MR")
    word = re.search("|".join(sorted(_PARTS, key=len, reverse=True)), (said.get("part") or "").lower())
    return ReleasedCase(
        name=name,
        image=image,
        labels=labels[name],
        modality=modality,
        subject=said.get("subject") or name,
        site=said.get("site") or release.title,
        part=stated.get(name) or (_PARTS[word[0]] if word else "training"),
    )


def _stated_parts(folder: Path, table: PartTable | PartList | None) -> dict[str, ReleasePart]:
    """Read which part each case belongs to; what the table or list does not say is not in it."""
    if table is None or not (folder / table.file).is_file():
        return {}
    text = read_text(folder / table.file)
    if isinstance(table, PartList):
        return _listed_parts(text, table)
    rows = csv.DictReader(text.splitlines(), delimiter=table.separator)
    known = ((row.get(table.case) or "", _PARTS.get((row.get(table.part) or "").lower())) for row in rows)
    return {case: part for case, part in known if part is not None}


def _listed_parts(text: str, parts: PartList) -> dict[str, ReleasePart]:
    """Return the part of each case that a list names; several names may stand in one line."""
    found: dict[str, ReleasePart] = {}
    part: ReleasePart | None = None
    for line in text.splitlines():
        if line.strip().endswith(":"):
            part = parts.headings.get(line.strip().removesuffix(":").lower())
        elif part is not None:
            found |= dict.fromkeys(re.findall(r"(\S+?)\.nii\.gz", line), part)
    return found


def _masks() -> dict[str, str]:
    """Return the structures of TotalSegmentator's masks by their names."""
    sided = [f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)]
    vertebrae = {f"vertebrae_{level}": level for level in VERTEBRAE if level not in ("T13", "L6")}
    return {**vertebrae, SACRUM: SACRUM, "vertebrae_S1": "S1", "spinal_cord": "cord", **{n: n for n in sided}}


def _spider(scheme: str, title: str) -> DatasetRelease:
    # Van der Graaf et al. 2024, doi 10.5281/zenodo.10159290: images.zip, masks.zip and overview.csv.
    return DatasetRelease(
        name=scheme,
        title=title,
        scheme=scheme,
        modality="MR",
        ending=".mha",
        image=r"(?:.*/)?images/(?P<case>(?P<subject>\d+)_[^/]+)\.mha",
        labels=r"(?:.*/)?masks/(?P<case>\d+_[^/]+)\.mha",
        layout="images/N_t2.mha and masks/N_t2.mha",
        parts=PartTable(file="overview.csv", separator=",", case="new_file_name", part="subset"),
    )


def _releases() -> Sequence[DatasetRelease]:
    return (
        # Sekuboyina et al. 2021, doi 10.17605/osf.io/t98fz and nqjyw: the layout since its restructuring.
        DatasetRelease(
            name="verse",
            title="VerSe",
            scheme="verse",
            modality="CT",
            image=r"(?:(?P<part>.*)/)?rawdata/(?P<subject>[^/]+)/(?P<case>[^/]+)_ct\.nii\.gz",
            labels=r"(?:.*/)?derivatives/[^/]+/(?P<case>[^/]+)_seg-vert_msk\.nii\.gz",
            layout="rawdata/sub-N/sub-N_ct.nii.gz and derivatives/sub-N/sub-N_seg-vert_msk.nii.gz",
            points=r"(?:.*/)?derivatives/[^/]+/(?P<case>[^/]+)_seg-(?:subreg|vb)_ctd\.json",
        ),
        # The same images as the challenges gave them out.
        DatasetRelease(
            name="verse-challenge",
            title="VerSe, as in its challenges",
            scheme="verse",
            modality="CT",
            image=r"(?:(?P<part>.*)/)?(?P<case>(?P<subject>[^/]+)(?<!_seg))\.nii\.gz",
            labels=r"(?:.*/)?(?P<case>[^/]+)_seg\.nii\.gz",
            layout="verseN.nii.gz and verseN_seg.nii.gz",
            points=r"(?:.*/)?(?P<case>[^/]+)_ctd\.json",
        ),
        # Deng et al. 2021, arXiv 2105.14711: one folder for each collection that the images are from.
        DatasetRelease(
            name="ctspine1k",
            title="CTSpine1K",
            scheme="ctspine1k",
            modality="CT",
            image=r"(?:(?:.*/)?(?P<site>[^/]+)/)?(?P<case>[^/]+(?<!_seg))\.nii\.gz",
            labels=r"(?:.*/)?(?P<case>[^/]+)_seg\.nii\.gz",
            layout="COLLECTION/NAME.nii.gz and COLLECTION/NAME_seg.nii.gz, in folders of any name",
            # The list that its authors publish beside the paper; both of its test sets are for testing.
            parts=PartList(
                file="data_split.txt",
                headings={"trainset": "training", "test_public": "test", "test_private": "test"},
            ),
        ),
        _spider("spider-from-bottom", "SPIDER, L5 is 1"),
        _spider("spider-from-top", "SPIDER, L5 is 24"),
        # Wasserthal et al. 2023, doi 10.5281/zenodo.10047292 (CT), and D'Antonoli et al. 2025 (MR).
        DatasetRelease(
            name="totalsegmentator",
            title="TotalSegmentator",
            scheme="totalsegmentator",
            image=r"(?:.*/)?(?P<case>[^/]+)/(?P<modality>ct|mri)\.nii\.gz",
            labels=r"(?:.*/)?(?P<case>[^/]+)/segmentations/(?P<structure>[^/]+)\.nii\.gz",
            layout="sN/ct.nii.gz (or mri.nii.gz) and sN/segmentations/vertebrae_L5.nii.gz",
            masks=_masks(),
            parts=PartTable(file="meta.csv", separator=";", case="image_id", part="split"),
        ),
        # Datasets as TotalSpineSeg is trained on, such as the Spine Generic Public Database.
        DatasetRelease(
            name="totalspineseg",
            title="BIDS with labels of TotalSpineSeg",
            scheme="totalspineseg",
            modality="MR",
            image=r"(?!.*derivatives/)(?:.*/)?(?P<subject>sub-[^/]+)/(?:[^/]+/)?anat/(?P<case>sub-[^/]+)\.nii\.gz",
            labels=r"(?:.*/)?derivatives/labels/(?:.*/)?anat/(?P<case>sub-[^/]+)_label-spine_dseg\.nii\.gz",
            layout="sub-N/anat/sub-N_T2w.nii.gz and "
            "derivatives/labels/sub-N/anat/sub-N_T2w_label-spine_dseg.nii.gz",
        ),
    )


RELEASES: Mapping[str, DatasetRelease] = {release.name: release for release in _releases()}
"""Every release by its name."""
