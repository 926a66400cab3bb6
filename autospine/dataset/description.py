"""`dataset.json`: labels, channels, ending of the files and tissues, as nnU-Net v2 describes a dataset."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autospine.core.errors import DatasetError, listed, shortened
from autospine.core.labels import LabelSpace, parse_labels
from autospine.io.formats import ENDINGS
from autospine.storage.file_names import read_text
from autospine.storage.serialization import check_keys, parse_json


def load_labels(path: Path) -> LabelSpace:
    """Read the labels that a dataset.json describes, whatever the file is called.

    Raises:
        DatasetError: If the file is missing or contradicts itself.
    """
    described = read_description(path)
    return parse_labels(described["labels"], described.get("regions_class_order"))


def read_description(path: Path) -> dict[str, Any]:
    """Return the object of a dataset.json, whose labels are an object of integers.

    Raises:
        DatasetError: If the file is missing, is no JSON, or has no such labels.
    """
    try:
        text = read_text(path)
        described: Any = parse_json(text)
        check_keys(text)
    except (OSError, ValueError) as error:
        if not os.path.lexists(path):
            if below := sorted(path.parent.glob(f"*/{path.name}")):
                raise DatasetError(
                    f"expected {path}, found it in {below[0].parent}; move all that is in there up into "
                    f"{path.parent}"
                ) from None
            raise DatasetError(
                f"expected {path}, found none; write channel_names, labels and file_ending into it "
                "as nnU-Net v2 does"
            ) from None
        raise DatasetError(f"expected JSON in {path}, found {error}; mend the file") from None
    if not isinstance(described, dict):
        raise DatasetError(
            f"expected an object with `labels` in {path}, found {shortened(str(described))}; write "
            "channel_names, labels and file_ending into it as nnU-Net v2 does"
        )
    labels = described.get("labels")
    if labels is None:
        raise DatasetError(
            f"expected `labels` (name -> integer, or integers for regions) in {path}, found "
            f"{listed(list(described)) or 'nothing'}; write them there"
        )
    if isinstance(labels, dict) and labels and all(key.isdigit() for key in labels):
        raise DatasetError(
            f"expected `labels` as name -> integer in {path}, found integer -> name, as nnU-Net v1 has them; "
            "convert the dataset with `autospine convert dataset --from nnunet-v1`"
        )
    if not isinstance(labels, dict) or not all(map(_is_label, labels.values())):
        raise DatasetError(
            f"expected `labels` (name -> integer, or integers for regions) in {path}, "
            f"found {shortened(str(labels))}; mend them"
        )
    order = described.get("regions_class_order")
    if order is not None and not _is_label(order):
        raise DatasetError(
            f"expected integers as `regions_class_order` in {path}, found {shortened(str(order))}; mend them"
        )
    return described


def channel_names(described: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """Return the names of the channels in order.

    Args:
        described: Content of the dataset.json.
        folder: Folder that it lies in.

    Raises:
        DatasetError: If they are not numbered from 0.
    """
    names = described.get("channel_names") or described.get("modality")
    if not isinstance(names, dict) or set(names) != {str(i) for i in range(len(names))}:
        raise DatasetError(
            f'expected `channel_names` such as {{"0": "CT"}} in {folder / "dataset.json"}, found '
            f"{shortened(str(names))}; mend the file"
        )
    return tuple(str(names[str(i)]) for i in range(len(names)))


def file_ending(described: Mapping[str, Any], folder: Path) -> str:
    """Return the ending of a dataset's files, with its dot; `.nii.gz` if none is stated.

    Raises:
        DatasetError: If no image has this ending.
    """
    stated = described.get("file_ending", ".nii.gz")
    ending = f".{stated}".replace("..", ".") if isinstance(stated, str) else ""
    if ending not in ENDINGS:
        raise DatasetError(
            f"expected file_ending in {folder / 'dataset.json'} among {', '.join(ENDINGS)}, found "
            f"{shortened(repr(stated))}; write the ending of the images, or convert them"
        )
    return ending


def tissue_names(described: Mapping[str, Any]) -> dict[int, str]:
    """Return the name of each code in a dataset's tissue maps, from `tissues` (name -> integer).

    Raises:
        DatasetError: If it is not such an object, or an integer does not fit or has two names.
    """
    stated = described.get("tissues")
    if not isinstance(stated, dict) or not all(type(code) is int for code in stated.values()):
        raise DatasetError(
            "expected `tissues` (name -> integer) in dataset.json for the maps in tissuesTr, found "
            f"{shortened(str(stated))}; name each integer of the maps"
        )
    found: dict[int, str] = {}
    for name, code in stated.items():
        if not 0 <= code <= 255 or code in found:
            raise DatasetError(
                "expected one name for each integer from 0 to 255 as `tissues` of dataset.json, found "
                f"{code} for {name}{f' and {found[code]}' if code in found else ''}; mend it"
            )
        found[code] = name
    return found


def _is_label(value: object) -> bool:
    return type(value) is int or (isinstance(value, list) and all(type(each) is int for each in value))
