"""A small raw dataset of one CT and one MR case, written as NIfTI."""

import json
from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import pytest
import SimpleITK

from autospine.core.labels import parse_labels
from autospine.plan import Plan

SPACING = (2.0, 1.5, 1.0)


def write_image(path: Path, array: np.ndarray, spacing_mm=SPACING) -> Path:
    """(S, P, L) array -> a file in LPS."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    SimpleITK.WriteImage(image, str(path))
    return path


def column(shape=(24, 32, 40)) -> np.ndarray:
    """Three stacked bodies with label 5 and a canal with label 9."""
    labels = np.zeros(shape, dtype=np.uint8)
    for start in (2, 9, 16):
        labels[start : start + 6, 6:18, 12:28] = 5
    labels[:, 19:24, 17:23] = 9
    return labels


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "Dataset001_Tiny"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = column()
    ct = np.where(labels == 5, 400, 30) + rng.normal(0, 20, labels.shape)
    mr = np.where(labels == 9, 900, 300) + rng.normal(0, 20, labels.shape)
    for name, image in (("ct_a", ct), ("mr_b", mr)):
        write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", image.astype(np.int16))
        write_image(folder / "labelsTr" / f"{name}.nii.gz", labels)
    description = {
        "channel_names": {"0": "image"},
        "labels": {"background": 0, "vertebra": 5, "canal": 9},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "cases.csv").write_text("case,modality,site,subject\nct_a,CT,x,one\nmr_b,MR,y,two\n")
    return folder


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    def make(spacing_mm=(1.5, 1.5, 1.5), ct_mean=100.0) -> Plan:
        return makers.plan(
            makers.configuration(spacing_mm=spacing_mm, patch_size=(32, 32, 32)),
            dataset="Dataset001_Tiny",
            labels=parse_labels({"background": 0, "vertebra": 5, "canal": 9}),
            normalisation=makers.normalisation(ct_mean),
        )

    return make
