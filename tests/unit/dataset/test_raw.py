"""Raw datasets: what is listed, and that every misfit of names is told at once."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autospine.core.errors import DatasetError
from autospine.dataset.checks import ignored_files
from autospine.dataset.raw import inspect_dataset, load_dataset

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


def test_a_table_under_another_name_is_not_passed_over(raw_dataset: RawDataset):
    folder = raw_dataset(cases_csv="case,subject\na,p1\nb,p1\n")
    (folder / "cases.csv").rename(folder / "cases.csv.csv")
    with pytest.raises(DatasetError, match=r"cases\.csv\.csv: .*save it as cases\.csv"):
        load_dataset(folder)


def test_unknown_subjects_are_not_one(raw_dataset: RawDataset):
    folder = raw_dataset(cases_csv="case,modality,site,subject\na,n/a,NA,n/a\nb,-,nan,N/A\n")
    assert [(case.site, case.subject) for case in load_dataset(folder).cases] == [(None, "a"), (None, "b")]


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
    with pytest.raises(DatasetError, match=r"the folder imagesTr in .*, found no folders; put the images"):
        load_dataset(raw_dataset(names=()))


def test_images_under_other_names_are_told_once(raw_dataset: RawDataset):
    folder = raw_dataset(cases_csv="case,modality\na,MR\nb,MR\n")
    (folder / "imagesTr").rename(folder / "imagestr")
    _, faults = inspect_dataset(folder)
    assert faults == (
        f"expected the folder imagesTr in {folder}, found imagestr, labelsTr; put the images there",
    )
    (folder / "imagestr").rename(folder / "imagesTr")
    for name in "ab":
        (folder / f"imagesTr/{name}_0000.nii.gz").rename(folder / f"imagesTr/{name}_0000.mha")
    _, faults = inspect_dataset(folder)
    assert faults == (
        f"expected images CASE_0000.nii.gz in {folder / 'imagesTr'}, found a_0000.mha, b_0000.mha; "
        "put them there",
    )
    for name in "ab":
        (folder / f"imagesTr/{name}_0000.mha").rename(folder / f"imagesTr/{name}.nii.gz")
    _, faults = inspect_dataset(folder)
    assert faults == tuple(
        f"{name}: no channel number in imagesTr/{name}.nii.gz; name it CASE_0000.nii.gz" for name in "ab"
    )


def test_labels_named_as_channels_are_told_their_names(raw_dataset: RawDataset):
    folder = raw_dataset(names=("a", "b"))
    (folder / "labelsTr/a.nii.gz").rename(folder / "labelsTr/a_0000.nii.gz")
    _, faults = inspect_dataset(folder)
    assert faults == (
        "a: expected a label without a channel number, found labelsTr/a_0000.nii.gz; name it a.nii.gz",
    )


def test_a_dataset_in_a_folder_of_its_own_within_is_found(raw_dataset: RawDataset):
    folder = raw_dataset()
    folder.rename(folder.parent / "unpacked")
    folder.mkdir()
    inner = (folder.parent / "unpacked").rename(folder / "unpacked")
    with pytest.raises(DatasetError, match=f"found it in {inner}; move all .* up into {folder}"):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, r"dataset\.json, found none; write channel_names"),
        ("{", r"expected JSON in .*dataset\.json.*mend the file"),
        ("[]", r"expected an object with `labels`"),
        ('{"label": {"v": 1}}', r"expected `labels` .*found label; write them there"),
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


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (
            {"dataset": {"a": {"images": ["/data/a.nii.gz"], "label": "/data/l.nii.gz"}}},
            "others for a, b; put",
        ),
        (
            {"dataset": {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}},
            "for b; put",
        ),
        ({"dataset": {"a": 1, "b": {"images": "\0", "label": ["\0"]}}}, "others for a, b; put"),
    ],
)
def test_files_elsewhere_are_a_fault(more: dict[str, object], fault: str, raw_dataset: RawDataset):
    _, faults = inspect_dataset(raw_dataset(**more))
    assert len(faults) == 1
    assert fault in faults[0]


def test_files_of_the_folders_may_be_named(raw_dataset: RawDataset, tmp_path: Path):
    folder = raw_dataset()
    there = tmp_path / "there.nii.gz"
    (folder / "imagesTr" / "b_0000.nii.gz").rename(there)
    (folder / "imagesTr" / "b_0000.nii.gz").symlink_to(there)
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    described["dataset"] = {
        "a": {"images": ["./imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"},
        "b": {"images": [str(there)], "label": str(folder / "labelsTr" / "b.nii.gz")},
    }
    assert len(load_dataset(described_as(folder, json.dumps(described).encode())).cases) == 2


def test_another_number_of_cases_is_noted(raw_dataset: RawDataset):
    assert load_dataset(raw_dataset(numTraining=200)).notes == (
        "numTraining in dataset.json is 200, and imagesTr has 2 cases",
    )
    assert load_dataset(raw_dataset(names=("c",), numTraining=3)).notes == ()


def test_a_key_that_is_given_twice_is_named(raw_dataset: RawDataset):
    text = b'{"channel_names": {"0": "CT"}, "labels": {"background": 0, "disc": 2, "disc": 1}}'
    with pytest.raises(DatasetError, match=r"dataset\.json, found the key 'disc' 2 times; mend"):
        load_dataset(described_as(raw_dataset(), text))


@pytest.mark.parametrize("table", ["name,modality\na,CT\n", "case,hospital\na,Bern\n", ""])
def test_bad_tables_are_refused(table: str, raw_dataset: RawDataset):
    with pytest.raises(DatasetError, match=r"columns case, modality, site, subject .*cases\.csv"):
        load_dataset(raw_dataset(cases_csv=table))


@pytest.mark.real_data
def test_the_real_dataset(real_data: Path):
    dataset = load_dataset(real_data / "Dataset001_SpineReal")
    assert len(dataset.cases) == 6
    assert [case.modality for case in dataset.cases] == ["CT"] * 4 + ["MR"] * 2
    assert [case.name for case in dataset.test_cases] == ["mr_lumbar"]


def described_as(folder: Path, text: bytes) -> Path:
    (folder / "dataset.json").write_bytes(text)
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("file", ["dataset.json", "cases.csv"])
def test_texts_are_read_in_the_encodings_of_editors(file: str, encoding: str, raw_dataset: RawDataset):
    folder = raw_dataset(
        labels={"background": 0, "Wirbelkörper": 1},
        cases_csv="case,modality,site\na,CT,Zürich\nb,MR,Zürich\n",
    )
    text = (
        json.dumps(json.loads((folder / file).read_text(encoding="utf-8")), ensure_ascii=False)
        if file[0] == "d"
        else None
    )
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    (folder / file).write_bytes(mark + (text or (folder / file).read_text(encoding="utf-8")).encode(encoding))
    dataset = load_dataset(folder)
    assert dataset.labels.names == ("Wirbelkörper",)
    assert [case.site for case in dataset.cases] == ["Zürich", "Zürich"]


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"labels": ' * 5000 + b"1" + b"}" * 5000,
        b"\x00" * 100,
        b"",
        b"NaN",
        b'"labels"',
        b"\xff\xfe\x00\xd8\x00",
        b"caf\xe9",
        b'{"labels": {"a": 1}',
        b'{"labels": {"a": 1e999}}',
        b'{"labels": {"a": NaN}, "channel_names": {"0": "CT"}}',
        b'{"labels": {"a": "1"}, "channel_names": {"0": "CT"}}',
        b'{"labels": ["a"], "channel_names": {"0": "CT"}}',
        b'{"labels": {"a": 1}, "channel_names": ["CT"]}',
        b'{"labels": {"a": 1}, "channel_names": {"1": "CT"}}',
        b'{"labels": {"a": 1}, "channel_names": {"0": "CT"}, "file_ending": 3}',
        b'{"labels": {"a": 1}, "channel_names": {"0": "CT"}, "file_ending": "/../x.nii.gz"}',
        b'{"labels": {"a": [1, 2], "b": 1}, "channel_names": {"0": "CT"}}',
    ],
    ids=lambda text: text[:30],
)
def test_a_description_of_nonsense_is_answered_in_a_sentence(text: bytes, raw_dataset: RawDataset):
    with pytest.raises(DatasetError, match=r"dataset\.json") as caught:
        load_dataset(described_as(raw_dataset(), text))
    assert len(str(caught.value)) < 2000


def test_a_description_in_the_form_of_nnunet_v1_says_how_to_convert(raw_dataset: RawDataset):
    folder = raw_dataset(labels={"0": "background", "1": "vertebra"})
    with pytest.raises(DatasetError, match="convert dataset --from nnunet-v1"):
        load_dataset(folder)


def test_an_ending_without_its_dot_is_understood(raw_dataset: RawDataset):
    folder = raw_dataset()
    described = json.loads((folder / "dataset.json").read_text(encoding="utf-8")) | {"file_ending": "nii.gz"}
    dataset = load_dataset(described_as(folder, json.dumps(described).encode()))
    assert (dataset.file_ending, len(dataset.cases)) == (".nii.gz", 2)


@pytest.mark.parametrize("special", ["ignore", "Ignore", "IGNORE", " ignore "])
@pytest.mark.parametrize("background", ["background", "Background", "BACKGROUND"])
def test_special_labels_are_known_in_any_capitals(special: str, background: str, raw_dataset: RawDataset):
    labels = load_dataset(raw_dataset(labels={background: 0, "vertebra": 1, special: 2})).labels
    assert (labels.names, labels.ignore) == (("vertebra",), 2)


def test_a_special_label_is_given_once(raw_dataset: RawDataset):
    with pytest.raises(DatasetError, match="`ignore` once, found ignore, Ignore"):
        load_dataset(raw_dataset(labels={"background": 0, "a": 1, "ignore": 2, "Ignore": 3}))


def test_empty_rows_of_a_table_are_no_cases(raw_dataset: RawDataset):
    folder = raw_dataset(cases_csv="case,modality,site,subject\na,CT,,\n,,,\n\n  , ,,\nb,MR,,\n")
    assert [case.modality for case in load_dataset(folder).cases] == ["CT", "MR"]


def test_a_row_without_a_case_is_a_fault(raw_dataset: RawDataset):
    with pytest.raises(DatasetError, match=r"row 2 of cases\.csv has no case: MR, Bern"):
        load_dataset(raw_dataset(cases_csv="case,modality,site\na,CT,Bern\n,MR,Bern\n"))


COMPOSED, DECOMPOSED = "Mu\u0308ller", "M\u00fcller"


@pytest.mark.parametrize(
    ("image", "label", "row"),
    [
        (COMPOSED, DECOMPOSED, DECOMPOSED),
        (DECOMPOSED, COMPOSED, DECOMPOSED),
        (DECOMPOSED, DECOMPOSED, COMPOSED),
    ],
)
def test_names_that_look_the_same_are_the_same(image: str, label: str, row: str, raw_dataset: RawDataset):
    folder = raw_dataset(names=(image,), cases_csv=f"case,modality\n{row},MR\n")
    (folder / "labelsTr" / f"{image}.nii.gz").rename(folder / "labelsTr" / f"{label}.nii.gz")
    (case,) = load_dataset(folder).cases
    assert (case.name, case.modality) == (image, "MR")
    assert case.labels is not None


def test_endings_count_in_any_capitals(raw_dataset: RawDataset):
    folder = raw_dataset(names=("a", "b"))
    for file in (folder / "imagesTr" / "a_0000.nii.gz", folder / "labelsTr" / "a.nii.gz"):
        file.rename(file.with_name(file.name.replace(".nii.gz", ".NII.GZ")))
    dataset = load_dataset(folder)
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert ignored_files(dataset) == ()


def test_two_images_whose_names_look_the_same_are_a_fault(raw_dataset: RawDataset):
    folder = raw_dataset(names=(COMPOSED, DECOMPOSED))
    if len(list((folder / "imagesTr").iterdir())) < 2:
        pytest.skip("this file system takes both names for one")
    with pytest.raises(DatasetError, match="names look the same; remove one"):
        load_dataset(folder)


def test_label_maps_of_slicer_stand_beside_images_of_any_format(raw_dataset: RawDataset):
    folder = raw_dataset()
    for name in "ab":
        (folder / "labelsTr" / f"{name}.nii.gz").rename(folder / "labelsTr" / f"{name}.seg.nrrd")
    dataset = load_dataset(folder)
    assert [case.labels.name for case in dataset.cases if case.labels] == ["a.seg.nrrd", "b.seg.nrrd"]
    assert ignored_files(dataset) == ()
    shutil.copy(folder / "imagesTr" / "a_0000.nii.gz", folder / "labelsTr" / "a.nii.gz")
    with pytest.raises(DatasetError, match=r"a: two label maps, a\.nii\.gz and a\.seg\.nrrd; remove one"):
        load_dataset(folder)


TISSUES = {"air": 0, "bone": 1}


def with_map(raw_dataset: RawDataset, write_image: WriteImage, name: str = "a", **described: object) -> Path:
    folder = raw_dataset(**described)
    codes = np.zeros((6, 7, 8), dtype=np.int32)
    codes[2:4, 2:4, 2:4] = 1
    write_image(folder / "tissuesTr" / f"{name}.nii.gz", codes)
    return folder


def test_tissue_maps_belong_to_their_cases(raw_dataset: RawDataset, write_image: WriteImage):
    dataset = load_dataset(with_map(raw_dataset, write_image, tissues=TISSUES))
    a, b = dataset.cases
    assert a.tissues is not None and a.tissues.name == "a.nii.gz"
    assert b.tissues is None
    assert dataset.tissues == {0: "air", 1: "bone"}


@pytest.mark.parametrize("tissues", [None, ["air"], {"air": "0"}, {"air": 0, "gas": 0}, {"air": 300}])
def test_tissue_maps_need_names(raw_dataset: RawDataset, write_image: WriteImage, tissues: object):
    described = {} if tissues is None else {"tissues": tissues}
    with pytest.raises(DatasetError, match=r"`tissues`.*dataset\.json"):
        load_dataset(with_map(raw_dataset, write_image, **described))


def test_a_tissue_map_without_case_is_a_fault(raw_dataset: RawDataset, write_image: WriteImage):
    with pytest.raises(DatasetError, match=r"c\.nii\.gz: tissue map without case"):
        load_dataset(with_map(raw_dataset, write_image, name="c", tissues=TISSUES))
