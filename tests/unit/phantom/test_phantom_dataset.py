import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autospine.core.errors import WorkspaceError
from autospine.phantom import PhantomSettings, label_names, write_dataset

SMALL = PhantomSettings(spacing_mm=(3.0, 3.0, 3.0), size_mm=(120.0, 100.0, 60.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("raw") / "Dataset900_Phantom"
    return write_dataset(target, cases=3, test_cases=2, scheme="structures", settings=SMALL)


def test_layout(folder: Path) -> None:
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert described["channel_names"] == {"0": "image"}
    assert described["numTraining"] == 3
    assert described["file_ending"] == ".nii.gz"
    images = sorted(path.name for path in (folder / "imagesTr").iterdir())
    labels = sorted(path.name for path in (folder / "labelsTr").iterdir())
    assert [name.replace("_0000", "") for name in images] == labels
    assert len(list((folder / "imagesTs").iterdir())) == len(list((folder / "labelsTs").iterdir())) == 2
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}


def test_cases_table_names_every_case(folder: Path) -> None:
    with (folder / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    stored = {
        path.name.removesuffix("_0000.nii.gz")
        for part in ("imagesTr", "imagesTs")
        for path in (folder / part).iterdir()
    }
    assert {row["case"] for row in rows} == stored
    assert {row["modality"] for row in rows} == {"CT", "MR"}
    assert all(row["site"] and row["subject"] for row in rows)


def test_labels_are_those_described_and_lie_on_the_image(folder: Path) -> None:
    known = set(json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["labels"].values())
    for path in (folder / "labelsTr").iterdir():
        labels = sitk.ReadImage(str(path))
        image = sitk.ReadImage(str(folder / "imagesTr" / path.name.replace(".nii.gz", "_0000.nii.gz")))
        assert set(np.unique(sitk.GetArrayViewFromImage(labels)).tolist()) <= known
        assert labels.GetSize() == image.GetSize()
        assert np.allclose(labels.GetOrigin(), image.GetOrigin(), atol=1e-4)
        assert np.allclose(labels.GetDirection(), image.GetDirection(), atol=1e-6)


def test_hospitals_take_turns_within_each_modality(tmp_path: Path) -> None:
    tiny = replace(SMALL, spacing_mm=(6.0, 6.0, 6.0))
    folder = write_dataset(tmp_path / "hospitals", cases=4, test_cases=1, settings=tiny, shifts=True)
    with (folder / "cases.csv").open() as file:
        sites = [row["site"] for row in csv.DictReader(file)]
    assert sites[::2] == ["phantom_ct", "ct_sharp_kernel", "phantom_ct"]
    assert sites[1].startswith("phantom_")
    assert sites[3] == "mr_low_field"


def test_workers_change_nothing(tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "one", cases=2, settings=SMALL, seed=5)
    two = write_dataset(tmp_path / "two", cases=2, settings=SMALL, seed=5, workers=2)
    for path in (one / "imagesTr").iterdir():
        a, b = (sitk.GetArrayFromImage(sitk.ReadImage(str(f / "imagesTr" / path.name))) for f in (one, two))
        assert np.array_equal(a, b)


def test_progress_is_reported(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_dataset(
        tmp_path / "d", cases=2, settings=SMALL, on_progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(1, 2), (2, 2)]


def test_refuses_to_overwrite_unless_told(folder: Path, tmp_path: Path) -> None:
    target = write_dataset(tmp_path / "d", cases=1, settings=SMALL)
    before = (target / "cases.csv").read_bytes()
    with pytest.raises(WorkspaceError, match="overwrite"):
        write_dataset(target, cases=2, settings=SMALL)
    assert (target / "cases.csv").read_bytes() == before
    write_dataset(target, cases=2, settings=SMALL, overwrite=True)
    assert len(list((target / "imagesTr").iterdir())) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"d"}


def test_refuses_foreign_folders_and_files(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="other files"):
        write_dataset(tmp_path / "notes", cases=1, settings=SMALL, overwrite=True)
    with pytest.raises(WorkspaceError, match="a file"):
        write_dataset(tmp_path / "notes" / "text.txt", cases=1, settings=SMALL)
    with pytest.raises(WorkspaceError, match="at least one training case"):
        write_dataset(tmp_path / "d", cases=0)


def test_nothing_is_left_when_a_case_fails(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_dataset(tmp_path / "d", cases=2, settings=SMALL, on_progress=fail)
    assert not list(tmp_path.iterdir())


def test_label_names_are_distinct() -> None:
    for scheme in ("levels", "structures"):
        names = label_names(scheme)
        assert len(set(names.values())) == len(names)
        assert max(names.values()) < 255
