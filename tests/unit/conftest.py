"""Files for the tests of reading: images of any geometry, raw datasets, DICOM series."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autospine.core.geometry import IDENTITY


def _write_image(
    path: Path,
    array: np.ndarray,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
    direction: Sequence[float] = IDENTITY,
) -> Path:
    """Write an array in ITK's axis order; spacing in the array's order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(tuple(spacing_mm)[::-1])
    image.SetOrigin(tuple(origin_mm))
    image.SetDirection(tuple(direction))
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


@pytest.fixture(scope="session")
def write_image() -> Callable[..., Path]:
    return _write_image


@pytest.fixture
def raw_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Writes a raw dataset of small cubes, label 1 in the middle; returns its folder."""

    def write(
        names: Sequence[str] = ("a", "b"),
        channels: Mapping[str, str] | None = None,
        labels: Mapping[str, object] | None = None,
        cases_csv: str | None = None,
        **more: object,
    ) -> Path:
        folder = tmp_path / "raw" / "Dataset007_Test"
        channels = channels or {"0": "image"}
        labels = labels or {"background": 0, "vertebra": 1}
        inside = np.zeros((6, 7, 8), dtype=np.uint8)
        inside[2:4, 2:4, 2:4] = 1
        for name in names:
            for index in range(len(channels)):
                image = inside.astype(np.int16) * 300 - 500 + np.arange(6 * 7 * 8).reshape(6, 7, 8) % 97
                _write_image(folder / "imagesTr" / f"{name}_{index:04d}.nii.gz", image)
            _write_image(folder / "labelsTr" / f"{name}.nii.gz", inside)
        described = {
            "channel_names": channels,
            "labels": labels,
            "numTraining": len(names),
            "file_ending": ".nii.gz",
            **more,
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dataset.json").write_text(json.dumps(described))
        if cases_csv is not None:
            (folder / "cases.csv").write_text(cases_csv, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def write_series() -> Callable[..., list[Path]]:
    """Writes slices of a DICOM series at given z positions; returns the files."""

    def write(
        folder: Path,
        array: np.ndarray,
        z_mm: Sequence[float],
        *,
        uid: str = "1.2.3",
        description: str = "spine",
        modality: str = "CT",
        tilt: float = 0.0,
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for index, (pixels, z) in enumerate(zip(array, z_mm, strict=True)):
            # GDCM takes the intercept off on writing and adds it on reading.
            image = sitk.GetImageFromArray(pixels.astype(np.int16)[np.newaxis])
            image.SetSpacing((0.5, 0.7, 1.0))
            tags = {
                "0008|0060": modality,
                "0008|103e": description,
                "0020|000e": uid,
                "0020|000d": "1.2",
                "0020|0052": "1.2.9",
                "0008|0018": f"{uid}.{index + 1}",
                "0020|0013": str(index + 1),
                "0020|0032": f"-10\\{-20 + tilt * index}\\{z}",
                "0020|0037": "1\\0\\0\\0\\1\\0",
            }
            if modality == "CT":
                tags |= {"0028|1052": "-1024", "0028|1053": "1"}
            for key, value in tags.items():
                image.SetMetaData(key, value)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetImageIO("GDCMImageIO")
            # Names say nothing of the order.
            file = folder / f"{uid}_{(index * 7) % 101:03d}.dcm"
            writer.SetFileName(str(file))
            writer.Execute(image)
            files.append(file)
        return files

    return write
