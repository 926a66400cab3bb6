"""Raw datasets: what is listed, and that every misfit of names is told at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from autospine.core.errors import DatasetError
from autospine.dataset.raw import ignored_files, inspect_dataset, load_dataset

RawDataset = Callable[..., Path]
WriteImage = Callable[..., Path]


def test_cases_are_listed_with_defaults(raw_dataset: RawDataset):
    dataset = load_dataset(raw_dataset())
    assert dataset.name == "Dataset007_Test"
    assert dataset.channels == ("image",)
    assert dataset.labels.names == ("vertebra",)
    first = dataset.cases[0]
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert (first.subject, first.modality, first.site) == ("a", None, None)
    assert [path.name for path in first.images] == ["a_0000.nii.gz"]
    assert first.labels is not None
    assert first.labels.name == "a.nii.gz"
    assert dataset.test_cases == ()


def test_facts_come_from_cases_csv(raw_dataset: RawDataset):
    folder = raw_dataset(cases_csv="case,modality,site,subject\na,mr,Bern,p1\nb,,,p1\n", channels={"0": "CT"})
    a, b = load_dataset(folder).cases
    assert (a.modality, a.site, a.subject) == ("MR", "Bern", "p1")
    assert (b.modality, b.site, b.subject) == ("CT", None, "p1")


def test_columns_may_be_left_out(raw_dataset: RawDataset):
    folder = raw_dataset(cases_csv="case,subject\na,p1\n")
    assert [case.subject for case in load_dataset(folder).cases] == ["p1", "b"]


def test_the_legacy_name_of_channels_is_read(raw_dataset: RawDataset):
    folder = raw_dataset()
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    described["modality"] = described.pop("channel_names")
    (folder / "dataset.json").write_text(json.dumps(described))
    assert load_dataset(folder).channels == ("image",)


def test_channels_are_ordered_by_number(raw_dataset: RawDataset):
    names = {str(index): f"channel{index}" for index in reversed(range(12))}
    dataset = load_dataset(raw_dataset(names=("a",), channels=names))
    assert dataset.channels == tuple(f"channel{index}" for index in range(12))
    assert [path.name[2:6] for path in dataset.cases[0].images] == [f"{i:04d}" for i in range(12)]


def test_test_cases_need_no_labels(raw_dataset: RawDataset):
    folder = raw_dataset()
    shutil.copytree(folder / "imagesTr", folder / "imagesTs")
    (folder / "labelsTs").mkdir()
    shutil.copy(folder / "labelsTr" / "b.nii.gz", folder / "labelsTs")
    test_cases = load_dataset(folder).test_cases
    assert [case.labels is None for case in test_cases] == [True, False]


def test_every_misfit_of_names_is_told_at_once(raw_dataset: RawDataset):
    folder = raw_dataset(
        names=("a", "b", "c", "d"),
        channels={"0": "T1", "1": "T2"},
        cases_csv="case,modality\na,MR\na,MR\nb,xray\nnobody,CT\n",
    )
    (folder / "labelsTr" / "a.nii.gz").unlink()
    (folder / "imagesTr" / "b_0001.nii.gz").unlink()
    for file in (folder / "imagesTr").glob("c_*"):
        file.unlink()
    shutil.copy(folder / "imagesTr" / "d_0000.nii.gz", folder / "imagesTr" / "plain.nii.gz")
    with pytest.raises(DatasetError) as raised:
        load_dataset(folder)
    message = str(raised.value)
    for expected in (
        "found 7 faults",
        "a: image without label; add labelsTr/a.nii.gz",
        "b: expected 2 channels (0000, 0001), found 0000",
        "c: label without image; add imagesTr/c_0000.nii.gz",
        "plain: no channel number in imagesTr/plain.nii.gz; name it CASE_0000.nii.gz",
        "a: 2 times in cases.csv",
        "b: modality 'xray' in cases.csv is neither CT nor MR",
        "nobody: in cases.csv but without image",
    ):
        assert expected in message
    dataset, faults = inspect_dataset(folder)
    assert [case.name for case in dataset.cases] == ["d"]
    assert len(faults) == 7


def test_a_dataset_without_images_says_where_they_should_be(raw_dataset: RawDataset):
    with pytest.raises(DatasetError, match=r"no images CASE_0000\.nii\.gz in .*imagesTr"):
        load_dataset(raw_dataset(names=()))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, r"dataset\.json, found none; write channel_names"),
        ("{", r"expected JSON in .*dataset\.json.*mend the file"),
        ("[]", r"expected `labels`"),
        ('{"labels": {"background": 0}}', r"`channel_names` such as"),
        ('{"labels": {"v": 1}, "channel_names": {"1": "CT"}}', r"`channel_names` such as"),
        ('{"labels": {"v": 1}, "channel_names": {"0": "CT"}, "file_ending": ".png"}', r"found '\.png'"),
        ('{"labels": {"v": "1"}, "channel_names": {"0": "CT"}}', r"`labels` .*found \{'v': '1'\}"),
        ('{"labels": {"v": null}, "channel_names": {"0": "CT"}}', r"`labels` .*found"),
        (
            '{"labels": {"v": [1, 2]}, "channel_names": {"0": "CT"}, "regions_class_order": "1"}',
            "regions_class_order",
        ),
    ],
)
def test_bad_descriptions_are_refused(text: str | None, expected: str, raw_dataset: RawDataset):
    path = raw_dataset() / "dataset.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(DatasetError, match=expected):
        load_dataset(path.parent)


@pytest.mark.parametrize("table", ["name,modality\na,CT\n", "case,hospital\na,Bern\n", ""])
def test_bad_tables_are_refused(table: str, raw_dataset: RawDataset):
    with pytest.raises(DatasetError, match=r"columns case, modality, site, subject .*cases\.csv"):
        load_dataset(raw_dataset(cases_csv=table))


def test_ignored_files_are_listed(raw_dataset: RawDataset):
    folder = raw_dataset()
    (folder / "imagesTr" / "a_0000.json").write_text("{}")
    (folder / "labelsTr" / ".hidden").write_text("")
    assert ignored_files(load_dataset(folder)) == ("imagesTr/a_0000.json",)


@pytest.mark.real_data
def test_the_real_dataset(real_data: Path):
    dataset = load_dataset(real_data / "Dataset001_SpineReal")
    assert len(dataset.cases) == 6
    assert [case.modality for case in dataset.cases] == ["CT"] * 4 + ["MR"] * 2
    assert [case.name for case in dataset.test_cases] == ["mr_lumbar"]
