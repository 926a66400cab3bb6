"""A dataset of nnU-Net v2 as a raw dataset of links."""

import shutil
from pathlib import Path

from autospine.dataset.new_dataset import built_aside
from autospine.dataset.raw import load_dataset
from autospine.pipeline.converted_dataset import SPLITS, ConvertedDataset, link
from autospine.storage.atomic import visible

NAME = "nnunet-v2"
"""Word by which such a dataset is called on the command line."""


def link_dataset(source: Path, folder: Path, *, overwrite: bool) -> ConvertedDataset:
    """Write a dataset that has the layout of a raw dataset already under another name.

    Its description and tables are copied, so that they can be changed; images and label maps are links, or
    copies where the file system has no links.

    Args:
        source: Folder of the dataset, with `dataset.json`, `imagesTr` and `labelsTr`.
        folder: The new dataset's folder, such as `raw/Dataset010_Spine`.
        overwrite: Whether to replace a dataset that is there.

    Raises:
        DatasetError: If the folder holds no such dataset, or names of its files do not fit; names all of it.
        WorkspaceError: If the new folder exists and may not be replaced.
    """
    dataset = load_dataset(source)
    with built_aside(folder, overwrite=overwrite) as draft:
        for entry in visible(source):
            if entry.is_file():
                shutil.copyfile(entry, draft / entry.name)
            for image in visible(entry):
                link(image, draft / entry.name / image.name)
        splits = (draft / SPLITS).is_file()
    return ConvertedDataset(
        training=len(dataset.cases),
        test=len(dataset.test_cases),
        splits=splits,
        notes=dataset.notes,
        failed=None,
    )
