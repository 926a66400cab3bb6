"""A dataset in the layout of the Medical Segmentation Decathlon and of nnU-Net v1, as a raw dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from autospine.core.errors import DatasetError, FailedCasesError, ImageError, listed, shortened
from autospine.core.types import Modality
from autospine.dataset.new_dataset import FILE_ENDING, WrittenCase, built_aside, write_description
from autospine.io.images import open_image
from autospine.pipeline.converted_dataset import ConvertedDataset, link
from autospine.storage.file_names import path_below, read_text
from autospine.storage.serialization import parse_json
from autospine.vertebrae.label_files import write_each

NAMES = ("msd", "nnunet-v1")
"""What such a dataset is called on the command line."""

DESCRIPTION = "dataset.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class _ListedCase:
    name: str
    images: tuple[Path, ...]
    """One file for each channel."""

    labels: Path | None
    """None for test cases."""


def convert_decathlon(source: Path, folder: Path, *, overwrite: bool) -> ConvertedDataset:
    """Write a dataset of the Decathlon or of nnU-Net v1 as a raw dataset; cases that fail are left out.

    Its `dataset.json` lists the cases, and says what integers and channels mean. Images are one file for each
    channel, `CASE_0000.nii.gz`, or a single file `CASE.nii.gz` of one channel. All files are linked, or
    copied where the file system has no links; they keep their integers.

    Args:
        source: Folder of the dataset, such as `Task03_Spine`.
        folder: The new dataset's folder, such as `raw/Dataset003_Spine`.
        overwrite: Whether to replace a dataset that is there.

    Raises:
        DatasetError: If the folder holds no such dataset, or its description contradicts itself.
        FailedCasesError: If every case has failed.
        WorkspaceError: If the new folder exists and may not be replaced.
    """
    described = _described(source)
    channels, labels = _channels(described, source), _labels(described, source)
    cases = {case.name: case for case in _cases(described, source, len(channels))}
    rows: list[WrittenCase] = []
    failed = None
    with built_aside(folder, overwrite=overwrite) as draft:

        def add(name: str, _: Path) -> Path:
            """Link the files of a case once all of them are checked, and return its first image."""
            case = cases[name]
            images = [_checked(path, len(channels)) for path in case.images]
            labels = None if case.labels is None else _checked(case.labels, 1)
            part = "Ts" if case.labels is None else "Tr"
            for number, image in enumerate(images):
                link(image, draft / f"images{part}" / f"{name}_{number:04d}{FILE_ENDING}")
            if labels is not None:
                link(labels, draft / "labelsTr" / f"{name}{FILE_ENDING}")
            modality: Modality = "CT" if channels["0"].strip().upper() == "CT" else "MR"
            rows.append(
                WrittenCase(
                    case=name, modality=modality, site=source.name, subject=name, integers=frozenset()
                )
            )
            return images[0]

        try:
            write_each({name: case.images[0] for name, case in cases.items()}, "converting", add)
        except FailedCasesError as error:
            if not rows:
                raise
            failed = error
        training = sum(cases[row.case].labels is not None for row in rows)
        write_description(
            draft,
            rows,
            training=training,
            labels=labels,
            others={"channel_names": channels, "reference": str(described.get("name", source.name))},
        )
    return ConvertedDataset(
        training=training, test=len(rows) - training, splits=False, notes=(), failed=failed
    )


def _described(source: Path) -> Mapping[str, Any]:
    path = source / DESCRIPTION
    try:
        described: Any = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        found = "none" if not path.is_file() else str(error)
        raise DatasetError(
            f"expected the dataset.json of a Decathlon or nnU-Net v1 dataset in {source}, found {found}; "
            "name the folder that holds it"
        ) from None
    if not isinstance(described, dict) or not isinstance(described.get("training"), list):
        raise DatasetError(
            f"expected `labels`, `modality` and `training` in {path}, as nnU-Net v1 has them, found "
            f"{shortened(str(described))}; a dataset of nnU-Net v2 needs no converting"
        )
    return described


def _channels(described: Mapping[str, Any], source: Path) -> dict[str, str]:
    """Return the names of the channels by their numbers."""
    named = described.get("modality")
    numbers = [] if not isinstance(named, dict) else [str(number) for number in range(len(named))]
    if not isinstance(named, dict) or not named or sorted(named) != sorted(numbers):
        raise DatasetError(
            f'expected `modality` such as {{"0": "CT"}} in {source / DESCRIPTION}, found '
            f"{shortened(str(named))}; mend it"
        )
    return {number: str(named[number]) for number in numbers}


def _labels(described: Mapping[str, Any], source: Path) -> dict[str, int]:
    """Return the integer of each label by its name."""
    stated = described.get("labels")
    if not isinstance(stated, dict) or not all(str(key).isdigit() for key in stated):
        raise DatasetError(
            f'expected `labels` such as {{"0": "background", "1": "L1"}} in {source / DESCRIPTION}, found '
            f"{shortened(str(stated))}; mend them"
        )
    names = [str(name) for name in stated.values()]
    if twice := {name for name in names if names.count(name) > 1}:
        raise DatasetError(
            f"expected a name for each label in {source / DESCRIPTION}, found {listed(sorted(twice))} twice; "
            "mend them"
        )
    named = {str(name): int(integer) for integer, name in stated.items()}
    return {("background" if integer == 0 else name): integer for name, integer in named.items()}


def _cases(described: Mapping[str, Any], source: Path, channels: int) -> list[_ListedCase]:
    """Return the cases that are listed, with the files that are there under their names."""
    cases = []
    for entry in described["training"]:
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            raise DatasetError(
                f"expected an image and a label of each case in `training` of {source / DESCRIPTION}, found "
                f"{shortened(str(entry))}; mend it"
            )
        image, labels = (_below(source, str(entry[key])) for key in ("image", "label"))
        cases.append(_case(image, labels, channels))
    cases += [_case(_below(source, str(image)), None, channels) for image in described.get("test") or ()]
    if not cases:
        raise DatasetError(f"expected cases in `training` of {source / DESCRIPTION}, found none; list them")
    return cases


def _below(source: Path, stated: str) -> Path:
    """Return a file of the dataset, which may not lie elsewhere."""
    return path_below(source, *PurePosixPath(stated).parts)


def _case(image: Path, labels: Path | None, channels: int) -> _ListedCase:
    name = image.name.removesuffix(FILE_ENDING)
    numbered = tuple(image.with_name(f"{name}_{number:04d}{FILE_ENDING}") for number in range(channels))
    images = numbered if any(path.is_file() for path in numbered) else (image,)
    return _ListedCase(name=name, images=images, labels=labels)


def _checked(path: Path, channels: int) -> Path:
    """Return a file whose header is that of one 3D image.

    Raises:
        ImageError: If it is damaged or holds several channels.
    """
    try:
        open_image(path)
    except ImageError as error:
        if channels == 1:
            raise
        raise ImageError(
            f"{error}; where one file holds all channels, nnU-Net's `nnUNetv2_convert_MSD_dataset` splits it"
        ) from None
    return path
