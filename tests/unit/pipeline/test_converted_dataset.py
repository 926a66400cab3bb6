"""Public datasets in small, in the layouts of their releases."""

import csv
import json
import re
from pathlib import Path

import makers
import nibabel
import numpy as np
import pytest

from autospine.cli import main
from autospine.cli.convert import DATASET_RELEASES
from autospine.core.errors import DatasetError
from autospine.dataset.raw import load_dataset
from autospine.io.images import read_labels, write_array
from autospine.pipeline.converted_dataset import link
from autospine.pipeline.decathlon_dataset import NAMES
from autospine.pipeline.linked_dataset import NAME
from autospine.vertebrae.dataset_releases import RELEASES, find_release
from autospine.vertebrae.schemes import SCHEMES

SHAPE = (6, 5, 4)


def write(path: Path, *values: int, float_voxels: bool = False) -> Path:
    array = np.zeros(SHAPE, dtype=np.float32 if float_voxels else np.int16)
    array.reshape(-1)[: len(values)] = values
    write_array(path, array, makers.grid(SHAPE))
    return path


def write_image(path: Path) -> None:
    values = np.linspace(-1000, 400, np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    write_array(path, values, makers.grid(SHAPE))


def converted(folder: Path, release: str, code: int = 0) -> Path:
    out = folder / "raw" / "Dataset010_Public"
    words = ["convert", "dataset", "-i", str(folder / "release"), "--from", release, "-o", str(out)]
    assert main(words) == code
    return out


def values_of(path: Path) -> list[int]:
    return sorted(set(np.unique(read_labels(path).array).tolist()) - {0})


def rows_of(dataset: Path) -> dict[str, dict[str, str]]:
    with (dataset / "cases.csv").open(encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def verse(folder: Path, part: str, subject: str, *values: int, suffix: str = "") -> Path:
    top = folder / "release" / part
    write_image(top / "rawdata" / subject / f"{subject}{suffix}_ct.nii.gz")
    return write(
        top / "derivatives" / subject / f"{subject}{suffix}_seg-vert_msk.nii.gz", *values, float_voxels=True
    )


def test_verse_keeps_its_parts_and_subjects_and_is_linked(tmp_path: Path, capsys) -> None:
    labels = verse(tmp_path, "dataset-01training", "sub-verse004", 19, 20)
    verse(tmp_path, "dataset-01training", "sub-gl003", 28, 20, suffix="_dir-ax")
    verse(tmp_path, "dataset-02validation", "sub-verse010", 24, 25)
    verse(tmp_path, "dataset-03test", "sub-verse011", 1)
    out = converted(tmp_path, "verse")
    dataset = load_dataset(out)
    assert [case.name for case in dataset.cases] == ["sub-gl003_dir-ax", "sub-verse004", "sub-verse010"]
    assert [case.name for case in dataset.test_cases] == ["sub-verse011"]
    assert {case.subject for case in dataset.cases} == {"sub-gl003", "sub-verse004", "sub-verse010"}
    assert {case.modality for case in dataset.cases} == {"CT"}
    assert (out / "labelsTr" / "sub-verse004.nii.gz").resolve() == labels.resolve()
    assert (out / "imagesTr" / "sub-verse004_0000.nii.gz").is_symlink()
    described = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    levels = {"C1": 1, "T12": 19, "T13": 28, "L1": 20, "L5": 24, "L6": 25}
    assert described["labels"] == {"background": 0, **levels}
    assert list(described["labels"]) == ["background", *levels]
    assert described["numTraining"] == 3
    (fold,) = json.loads((out / "splits_final.json").read_text(encoding="utf-8"))
    assert fold == {"train": ["sub-gl003_dir-ax", "sub-verse004"], "val": ["sub-verse010"]}
    said = " ".join(capsys.readouterr().out.split())
    assert "3 training cases and 1 test case" in said and "plan-and-preprocess -d Dataset010_Public" in said
    assert main(["verify", "-d", out.name, "-w", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("release", "ending", "top"),
    [
        ("verse", "_seg-subreg_ctd.json", "dataset-02validation/derivatives/sub-verse010"),
        ("verse", "_seg-vb_ctd.json", "dataset-02validation/derivatives/sub-verse010"),
        ("verse-challenge", "_ctd.json", "dataset"),
    ],
)
def test_centroids_of_verse_are_linked_and_learnt_nowhere(
    release: str, ending: str, top: str, tmp_path: Path
) -> None:
    if release == "verse":
        verse(tmp_path, "dataset-02validation", "sub-verse010", 24)
    else:
        write_image(tmp_path / "release" / "dataset" / "sub-verse010.nii.gz")
        write(tmp_path / "release" / "dataset" / "sub-verse010_seg.nii.gz", 24)
    centroids = tmp_path / "release" / top / f"sub-verse010{ending}"
    points = [{"direction": ["P", "I", "R"]}, {"label": 24, "X": 1.0, "Y": 2.0, "Z": 3.0}]
    centroids.write_text(json.dumps(points), encoding="utf-8")
    out = converted(tmp_path, release)
    (linked,) = (out / "centroidsTr").iterdir()
    assert linked.name == "sub-verse010_centroids.json" and linked.resolve() == centroids.resolve()
    assert [case.name for case in load_dataset(out).cases] == ["sub-verse010"]
    assert main(["verify", "-d", out.name, "-w", str(tmp_path)]) == 0


def test_the_list_of_ctspine1k_tells_its_parts(tmp_path: Path) -> None:
    """Its last line names an image twice without a space, as in the list that was published."""
    for name in ("1.3.6.0001", "liver_0", "HN_P023", "volume-covid19-A-0319_ct", "unlisted"):
        write_image(tmp_path / "release" / "COVID-19" / f"{name}.nii.gz")
        write(tmp_path / "release" / "COVID-19" / f"{name}_seg.nii.gz", 20)
    (tmp_path / "release" / "data_split.txt").write_text(
        "trainset:\n1.3.6.0001.nii.gz\nliver_0.nii.gz\n\ntest_public:\nHN_P023.nii.gz\n\ntest_private:\n"
        "volume-covid19-A-0319_ct.nii.gzvolume-covid19-A-0319_ct.nii.gz\n",
        encoding="utf-8",
    )
    out = converted(tmp_path, "ctspine1k")
    dataset = load_dataset(out)
    assert [case.name for case in dataset.cases] == ["1.3.6.0001", "liver_0", "unlisted"]
    assert [case.name for case in dataset.test_cases] == ["HN_P023", "volume-covid19-A-0319_ct"]
    assert all(case.labels is not None for case in dataset.test_cases)
    assert json.loads((out / "dataset.json").read_text(encoding="utf-8"))["channel_names"] == {"0": "CT"}
    assert not (out / "splits_final.json").exists()


@pytest.mark.parametrize("release", ["verse-challenge", "ctspine1k"])
def test_pairs_of_names_are_found_wherever_they_lie(release: str, tmp_path: Path) -> None:
    write_image(tmp_path / "release" / "volumes" / "COLONOG" / "1.3.6.nii.gz")
    write(tmp_path / "release" / "labels" / "COLONOG" / "1.3.6_seg.nii.gz", 20)
    out = converted(tmp_path, release)
    assert rows_of(out)["1.3.6"]["site"] == {"ctspine1k": "COLONOG"}.get(release, RELEASES[release].title)
    assert values_of(out / "labelsTr" / "1.3.6.nii.gz") == [20]


def test_spider_counts_from_the_end_that_is_stated(tmp_path: Path, capsys) -> None:
    for name in ("1_t1", "1_t2", "2_t2_SPACE"):
        write_image(tmp_path / "release" / "images" / f"{name}.mha")
        write(tmp_path / "release" / "masks" / f"{name}.mha", 1, 2, 100, 201, 106)
    (tmp_path / "release" / "overview.csv").write_text(
        "new_file_name,sex,subset\n1_t1,F,training\n1_t2,F,training\n2_t2_SPACE,M,validation\n",
        encoding="utf-8",
    )
    out = converted(tmp_path, "spider-from-bottom")
    dataset = load_dataset(out)
    assert [case.subject for case in dataset.cases] == ["1", "1", "2"] and dataset.file_ending == ".mha"
    names = SCHEMES["spineps-instance"].integers
    expected = [names[each] for each in ("T12", "L4", "L5", "canal", "disc_below_L5")]
    assert values_of(out / "labelsTr" / "1_t1.mha") == sorted(expected)
    assert "cut_T12 becomes T12, in 3 of 3 cases" in " ".join(capsys.readouterr().out.split())
    (fold,) = json.loads((out / "splits_final.json").read_text(encoding="utf-8"))
    assert fold["val"] == ["2_t2_SPACE"]
    with pytest.raises(DatasetError, match="spider-from-bottom"):
        find_release("spider")


def test_spider_counted_from_the_other_end_than_was_stated_is_doubted(tmp_path: Path, capsys) -> None:
    for case in "abc":
        as_spider(tmp_path / "release", case)
    converted(tmp_path, "spider-from-top")
    said = " ".join(capsys.readouterr().out.split())
    assert "labels may be of another scheme than spider-from-top, such as" in said
    assert "spider-from-bottom, in 3 of 3 cases" in said
    (tmp_path / "other").mkdir()
    (tmp_path / "release").rename(tmp_path / "other" / "release")
    converted(tmp_path / "other", "spider-from-bottom")
    assert "another scheme" not in capsys.readouterr().out


def test_a_spine_of_spider_with_twenty_five_vertebrae(tmp_path: Path) -> None:
    """One more than usual: 1 is L6 then, counted from the bottom, and C1 is 25."""
    write_image(tmp_path / "release" / "images" / "1_t2.mha")
    write(tmp_path / "release" / "masks" / "1_t2.mha", 1, 2, 25, 201)
    out = converted(tmp_path, "spider-from-bottom")
    names = SCHEMES["spineps-instance"].integers
    expected = [names[each] for each in ("L6", "L5", "C1", "disc_below_L6")]
    assert values_of(out / "labelsTr" / "1_t2.mha") == sorted(expected)


def test_masks_of_totalsegmentator_are_joined(tmp_path: Path) -> None:
    release = tmp_path / "release"
    for case, image in (("s0001", "ct"), ("s0002", "mri")):
        write_image(release / case / f"{image}.nii.gz")
        write(release / case / "segmentations" / "vertebrae_L5.nii.gz", 1, 1)
        write(release / case / "segmentations" / "sacrum.nii.gz", 0, 0, 1, 1)
        write(release / case / "segmentations" / "vertebrae_S1.nii.gz", 0, 0, 0, 1)
        write(release / case / "segmentations" / "rib_left_1.nii.gz", 0, 0, 0, 0, 1)
        write(release / case / "segmentations" / "spleen.nii.gz", *[0] * 5, 1)
    (release / "meta.csv").write_text("image_id;split\ns0001;train\ns0002;test\n", encoding="utf-8")
    out = converted(tmp_path, "totalsegmentator")
    dataset = load_dataset(out)
    assert [(case.name, case.modality) for case in dataset.cases] == [("s0001", "CT")]
    assert json.loads((out / "dataset.json").read_text(encoding="utf-8"))["channel_names"] == {"0": "image"}
    assert [(case.name, case.modality) for case in dataset.test_cases] == [("s0002", "MR")]
    labels = read_labels(out / "labelsTr" / "s0001.nii.gz").array.reshape(-1)
    assert labels[:6].tolist() == [24, 24, 26, 26, 40, 0]


def test_bids_with_labels_of_totalspineseg(tmp_path: Path) -> None:
    release = tmp_path / "release"
    write_image(release / "sub-a" / "anat" / "sub-a_T2w.nii.gz")
    write_image(release / "sub-a" / "anat" / "sub-a_T1w.nii.gz")
    derived = release / "derivatives" / "labels" / "sub-a" / "anat"
    write(derived / "sub-a_T2w_label-spine_dseg.nii.gz", 1, 2, 17, 71, 21)
    out = converted(tmp_path, "totalspineseg")
    names = SCHEMES["spineps-instance"].integers
    expected = [names[each] for each in ("cord", "canal", "C7", "disc_below_C7", "T1")]
    assert values_of(out / "labelsTr" / "sub-a_T2w.nii.gz") == sorted(expected)
    assert list(rows_of(out)) == ["sub-a_T2w"]


def test_a_damaged_case_does_not_stop_the_others(tmp_path: Path, capsys) -> None:
    for name in "abc":
        labels = verse(tmp_path, "", f"sub-{name}", 20)
        if name == "b":
            makers.cut_short(labels)
    out = converted(tmp_path, "verse", code=1)
    said = capsys.readouterr().err
    assert "1 of 3 files failed: sub-b; 2 others are written" in said
    assert [case.name for case in load_dataset(out).cases] == ["sub-a", "sub-c"]


@pytest.mark.parametrize(
    ("release", "files", "said"),
    [
        ("verse", ("images/1_t2.mha",), "rawdata/sub-N/sub-N_ct.nii.gz.*found images/1_t2.mha"),
        ("verse", (), "found no files"),
        ("verse", ("rawdata/sub-a/sub-a_ct.nii.gz",), "expected VerSe in"),
        ("spider", ("images/1_t2.mha",), "spider-from-bottom"),
        ("nonsense", (), "expected a dataset among verse"),
    ],
)
def test_another_folder_is_told_what_is_looked_for(release, files, said, tmp_path, capsys) -> None:
    (tmp_path / "release").mkdir()
    for file in files:
        write(tmp_path / "release" / file, 1)
    out = converted(tmp_path, release, code=1)
    assert re.search(said, capsys.readouterr().err)
    assert not out.exists()


def test_labels_of_another_scheme_are_refused(tmp_path: Path, capsys) -> None:
    verse(tmp_path, "", "sub-a", 99)
    out = converted(tmp_path, "verse", code=1)
    assert "expected labels of VerSe (verse), found 99" in capsys.readouterr().err
    assert not out.exists()


def test_the_help_names_every_release() -> None:
    named = re.sub(r"\([^)]*\)", "", DATASET_RELEASES)
    assert re.findall(r"[\w-]{3,}", named) == [*RELEASES, *NAMES, NAME]


def test_every_release_has_a_scheme() -> None:
    for release in RELEASES.values():
        assert release.scheme in SCHEMES
        assert set(release.masks.values()) <= set(SCHEMES[release.scheme].integers)


def test_segments_of_the_sacrum_are_read_in_maps_of_verse(real_data: Path, tmp_path: Path) -> None:
    """A real map whose sacrum is told apart from one of its segments, 29."""
    source = real_data / "real" / "ct_lumbosacral" / "labels_verse.nii.gz"
    words = ["convert", "labels", "-i", str(source), "--from", "verse", "-o", str(tmp_path / "out")]
    assert main([*words, "--to", "totalsegmentator"]) == 0
    written = read_labels(tmp_path / "out" / source.name).array
    before = read_labels(source).array
    assert np.array_equal(written == 25, np.isin(before, (26, 29)))


def old_layout(folder: Path, *, numbered: bool, names: tuple[str, ...] = ("a", "b", "c")) -> Path:
    """A dataset of nnU-Net v1 (`numbered`) or of the Decathlon."""
    top = folder / "release"
    for name in names:
        write_image(top / "imagesTr" / (f"{name}_0000.nii.gz" if numbered else f"{name}.nii.gz"))
        write(top / "labelsTr" / f"{name}.nii.gz", 1, 2)
    write_image(top / "imagesTs" / ("t_0000.nii.gz" if numbered else "t.nii.gz"))
    (top / "imagesTr" / "._a.nii.gz").write_bytes(b"of another system")
    described = {
        "name": "Spine",
        "modality": {"0": "CT"},
        "labels": {"0": "Background", "1": "L1", "2": "L2"},
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names
        ],
        "test": ["./imagesTs/t.nii.gz"],
    }
    (top / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return top


def rewrite(top: Path, **changes: object) -> None:
    path = top / "dataset.json"
    described = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(described), encoding="utf-8")


@pytest.mark.parametrize(("release", "numbered"), [("msd", False), ("nnunet-v1", True)])
def test_the_layout_of_the_decathlon_and_of_nnunet_v1(release: str, numbered: bool, tmp_path: Path) -> None:
    top = old_layout(tmp_path, numbered=numbered)
    out = converted(tmp_path, release)
    dataset = load_dataset(out)
    assert [case.name for case in dataset.cases] == ["a", "b", "c"]
    assert [case.name for case in dataset.test_cases] == ["t"]
    assert {case.modality for case in dataset.cases} == {"CT"} and dataset.channels == ("CT",)
    described = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    assert described["labels"] == {"background": 0, "L1": 1, "L2": 2}
    assert (out / "labelsTr" / "a.nii.gz").resolve() == (top / "labelsTr" / "a.nii.gz").resolve()
    assert (out / "imagesTs" / "t_0000.nii.gz").is_symlink()
    assert main(["verify", "-d", out.name, "-w", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training": None}, "a dataset of nnU-Net v2 needs no converting"),
        ({"training": [], "test": []}, "expected cases in `training`"),
        ({"training": ["a"]}, "expected an image and a label of each case"),
        ({"training": [{"image": "../a.nii.gz", "label": "b.nii.gz"}]}, r"found '\.\.'"),
        ({"training": [{"image": "/etc/a.nii.gz", "label": "b.nii.gz"}]}, "expected the name of a file"),
        ({"modality": {"1": "CT"}}, "expected `modality` such as"),
        ({"labels": {"L1": 1}}, "expected `labels` such as"),
        ({"labels": {"0": "background", "1": "L1", "2": "L1"}}, "found L1 twice"),
    ],
)
def test_descriptions_that_contradict_themselves_are_refused(changes, said, tmp_path: Path, capsys) -> None:
    rewrite(old_layout(tmp_path, numbered=True), **changes)
    out = converted(tmp_path, "nnunet-v1", code=1)
    assert re.search(said, capsys.readouterr().err)
    assert not out.exists()


def test_cases_of_an_old_layout_that_are_damaged_or_absent_are_named(tmp_path: Path, capsys) -> None:
    top = old_layout(tmp_path, numbered=False)
    makers.cut_short(top / "labelsTr" / "a.nii.gz")
    (top / "imagesTr" / "b.nii.gz").unlink()
    out = converted(tmp_path, "msd", code=1)
    assert "2 of 4 files failed: a, b; 2 others are written" in capsys.readouterr().err
    assert [case.name for case in load_dataset(out).cases] == ["c"]


def test_an_image_of_several_channels_says_what_splits_it(tmp_path: Path, capsys) -> None:
    top = old_layout(tmp_path, numbered=False, names=("a",))
    rewrite(top, modality={"0": "T1w", "1": "T2w"})
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4, 2)), np.eye(4)), top / "imagesTr" / "a.nii.gz")
    converted(tmp_path, "msd", code=1)
    assert "nnUNetv2_convert_MSD_dataset` splits it" in " ".join(capsys.readouterr().err.split())


def of_nnunet_v2(folder: Path) -> Path:
    top = folder / "release"
    for name in ("a", "b"):
        write_image(top / "imagesTr" / f"{name}_0000.nii.gz")
        write(top / "labelsTr" / f"{name}.nii.gz", 1, 2)
    write_image(top / "imagesTs" / "t_0000.nii.gz")
    (top / "imagesTr" / "._a.nii.gz").write_bytes(b"of another system")
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "L1": 1, "L2": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (top / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return top


def test_a_dataset_of_nnunet_v2_is_linked(tmp_path: Path, capsys) -> None:
    top = of_nnunet_v2(tmp_path)
    out = converted(tmp_path, "nnunet-v2")
    dataset = load_dataset(out)
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert [case.name for case in dataset.test_cases] == ["t"]
    assert (out / "labelsTr" / "a.nii.gz").resolve() == (top / "labelsTr" / "a.nii.gz").resolve()
    assert not (out / "dataset.json").is_symlink() and not (out / "imagesTr" / "._a.nii.gz").exists()
    assert "2 training cases and 1 test case" in " ".join(capsys.readouterr().out.split())
    assert main(["verify", "-d", out.name, "-w", str(tmp_path)]) == 0


def test_folders_of_slices_are_linked_or_copied_as_a_whole(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "slices").mkdir()
    (tmp_path / "slices" / "1.dcm").write_bytes(b"a slice")
    link(tmp_path / "slices", tmp_path / "linked" / "a_0000")
    assert (tmp_path / "linked" / "a_0000").is_symlink()

    def no_links(*_: object) -> None:
        raise OSError("the file system has none")

    monkeypatch.setattr(Path, "symlink_to", no_links)
    link(tmp_path / "slices", tmp_path / "copied" / "a_0000")
    assert (tmp_path / "copied" / "a_0000" / "1.dcm").read_bytes() == b"a slice"
    assert not (tmp_path / "copied" / "a_0000").is_symlink()


def test_what_is_wrong_with_a_dataset_of_nnunet_v2_is_said(tmp_path: Path, capsys) -> None:
    top = of_nnunet_v2(tmp_path)
    (top / "labelsTr" / "b.nii.gz").unlink()
    out = converted(tmp_path, "nnunet-v2", code=1)
    assert "expected complete cases in" in capsys.readouterr().err and not out.exists()
    old_layout(tmp_path / "old", numbered=True)
    converted(tmp_path / "old", "nnunet-v2", code=1)
    assert "convert dataset --from nnunet-v1" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["nnunet-v1", "nnunet-v2"])
@pytest.mark.parametrize("output", [".", ".."])
def test_a_dataset_is_not_replaced_by_itself(release: str, output: str, tmp_path: Path, capsys) -> None:
    top = of_nnunet_v2(tmp_path)
    (tmp_path / "dataset.json").write_text("{}", encoding="utf-8")
    words = ["convert", "dataset", "-i", str(top), "--from", release, "-o", str(top / output)]
    assert main([*words, "--overwrite"]) == 1
    assert "which holds the one that is converted" in " ".join(capsys.readouterr().err.split())
    assert (top / "imagesTr" / "a_0000.nii.gz").is_file()


LARGE = (64, 40, 40)


def body(path: Path, *values: int) -> None:
    """Bodies one above the other with these labels, the first at the feet; an image without labels."""
    array = np.full(LARGE, -900 if not values else 0, dtype=np.int16)
    rng = np.random.default_rng(len(path.name))
    if not values:
        array[:, 4:36, 4:36] = rng.normal(40, 20, (64, 32, 32)).astype(np.int16)
    for place, value in enumerate(values or (300, 300, 300)):
        array[4 + 20 * place : 18 + 20 * place, 10:30, 10:30] = value
    write_array(path, array, makers.grid(LARGE, spacing_mm=(2.0, 2.0, 2.0)))


def as_verse(top: Path, case: str) -> None:
    body(top / "rawdata" / f"sub-{case}" / f"sub-{case}_ct.nii.gz")
    body(top / "derivatives" / f"sub-{case}" / f"sub-{case}_seg-vert_msk.nii.gz", 24, 23, 22)


def as_pairs(top: Path, case: str) -> None:
    body(top / f"{case}.nii.gz")
    body(top / f"{case}_seg.nii.gz", 24, 23, 22)


def as_spider(top: Path, case: str) -> None:
    number = ord(case) - ord("a")
    body(top / "images" / f"{number}_t2.mha")
    body(top / "masks" / f"{number}_t2.mha", 1, 2, 3)


def as_totalsegmentator(top: Path, case: str) -> None:
    body(top / case / "ct.nii.gz")
    for place, level in enumerate(("L5", "L4", "L3")):
        values = [0, 0, 0]
        values[place] = 1
        body(top / case / "segmentations" / f"vertebrae_{level}.nii.gz", *values)


def as_bids(top: Path, case: str) -> None:
    body(top / f"sub-{case}" / "anat" / f"sub-{case}_T2w.nii.gz")
    labels = top / "derivatives" / "labels" / f"sub-{case}" / "anat"
    body(labels / f"sub-{case}_T2w_label-spine_dseg.nii.gz", 45, 44, 43)


def as_decathlon(top: Path, case: str) -> None:
    body(top / "imagesTr" / f"{case}.nii.gz")
    body(top / "labelsTr" / f"{case}.nii.gz", 1, 2, 3)
    listed = [
        {"image": f"./imagesTr/{path.name}", "label": f"./labelsTr/{path.name}"}
        for path in sorted((top / "imagesTr").iterdir())
    ]
    described = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "L5", "2": "L4", "3": "L3"},
        "training": listed,
    }
    (top / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


def as_nnunet_v2(top: Path, case: str) -> None:
    body(top / "imagesTr" / f"{case}_0000.nii.gz")
    body(top / "labelsTr" / f"{case}.nii.gz", 1, 2, 3)
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "L5": 1, "L4": 2, "L3": 3},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (top / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


@pytest.mark.parametrize(
    ("release", "lay"),
    [
        ("verse", as_verse),
        ("verse-challenge", as_pairs),
        ("ctspine1k", as_pairs),
        ("spider-from-bottom", as_spider),
        ("totalsegmentator", as_totalsegmentator),
        ("totalspineseg", as_bids),
        ("msd", as_decathlon),
        ("nnunet-v2", as_nnunet_v2),
    ],
)
def test_what_was_converted_is_planned_preprocessed_and_trained_as_it_is(
    release, lay, tmp_path: Path
) -> None:
    for case in "abcde":
        lay(tmp_path / "release", case)
    out = converted(tmp_path, release)
    assert len(load_dataset(out).cases) == 5
    small = ("--patch", "16", "16", "16", "--feature-size", "8", "--memory", "2GB", "--no-report")
    assert main(["plan-and-preprocess", "-d", "10", "-w", str(tmp_path), *small]) == 0
    short = ("--fold", "full", "--epochs", "1", "--iterations", "1", "--device", "cpu", "--no-report")
    assert main(["train", "0", "-d", "10", "-w", str(tmp_path), *short]) == 0
    assert (tmp_path / "results" / out.name / "fast" / "fold_full" / "model.safetensors").is_file()
