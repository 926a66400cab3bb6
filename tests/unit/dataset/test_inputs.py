"""Inputs to predict: every way to name and to arrange them."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_makers import write_frames, write_slices

from autospine.core.errors import DatasetError
from autospine.dataset.inputs import find_inputs

WriteImage = Callable[..., Path]

PIXELS = np.zeros((5, 8, 9), np.int16)
POSITIONS = [(0, 0, 2.0 * n) for n in range(5)]


def set_series(header: Any, uid: str) -> None:
    header.SeriesInstanceUID = uid


def as_segmentation(header: Any) -> None:
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"


class TestInputs:
    """What there is to predict."""

    @pytest.fixture
    def image(self, write_image: WriteImage) -> Callable[[Path], Path]:
        return lambda path: write_image(path, np.zeros((2, 3, 4), np.int16))

    def test_a_file(self, image: Callable[[Path], Path], tmp_path: Path):
        (case,), _ = find_inputs(image(tmp_path / "mine.mha"), ["CT"])
        assert (case.name, case.modality, case.labels) == ("mine", "CT", None)

    def test_a_folder_of_either_way_to_name(self, image: Callable[[Path], Path], tmp_path: Path):
        for name in ("x_0000.nii.gz", "scan_2024.nii.gz", "scan_2025.nii.gz", ".hidden.nii.gz"):
            image(tmp_path / name)
        (tmp_path / "README.txt").write_text("x")
        cases, faults = find_inputs(tmp_path, ["image"])
        assert [case.name for case in cases] == ["scan_2024", "scan_2025", "x"]
        assert faults == {}

    @pytest.mark.parametrize("name", [".nii.gz", "..nii.gz", ".scan.nii.gz"])
    def test_a_label_map_would_not_be_hidden(self, name: str, image: Callable[[Path], Path], tmp_path: Path):
        with pytest.raises(DatasetError, match=r"does not begin with a dot, .*\.nii\.gz; rename the image"):
            find_inputs(image(tmp_path / name), ["CT"])

    def test_rows_of_a_table_that_seem_to_mean_a_case_are_named(
        self, image: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        image(tmp_path / "scan.nii.gz")
        (tmp_path / "cases.csv").write_text("case,modality\nScan,MR\nother,CT\n")
        find_inputs(tmp_path, ["image"])
        assert "the row Scan of cases.csv belongs to no image: write scan" in caplog.text
        assert "other" not in caplog.text

    def test_folders_of_images_are_not_passed_over_in_silence(
        self, image: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        image(tmp_path / "a.nii.gz")
        (tmp_path / "notes").mkdir()
        for name in ("ct", "mr"):
            (tmp_path / name).mkdir()
            image(tmp_path / name / "b.nii.gz")
        find_inputs(tmp_path, ["image"])
        assert f"images in folders of {tmp_path} are not looked at: ct, mr" in caplog.text

    @pytest.mark.parametrize(
        ("file", "name"),
        [
            ("Frau Müller, L5 (2).nii.gz", "Frau Müller, L5 (2)"),
            ("A.NII.GZ", "A"),
            ("a.b.c.MHA", "a.b.c"),
            ("CASE_0000.Nrrd", "CASE"),
        ],
    )
    def test_names_as_people_give_them(
        self, file: str, name: str, image: Callable[[Path], Path], tmp_path: Path
    ):
        image(tmp_path / "plain.nii.gz").rename(tmp_path / file)
        (case,), _ = find_inputs(tmp_path, ["CT"])
        assert (case.name, case.images) == (name, (tmp_path / file,))

    def test_a_link_to_nothing_is_a_case(self, tmp_path: Path):
        """Its image is missed later on, rather than left out without a word."""
        (tmp_path / "a_0000.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
        (case,), _ = find_inputs(tmp_path, ["CT"])
        assert case.name == "a"

    def test_channels_are_grouped(self, image: Callable[[Path], Path], tmp_path: Path):
        for name in ("x_0001.nii.gz", "x_0000.nii.gz", "y_0000.nii.gz", "y_0001.nii.gz"):
            image(tmp_path / name)
        (first, second), _ = find_inputs(tmp_path, ["T1", "T2"])
        assert [path.name for path in first.images] == ["x_0000.nii.gz", "x_0001.nii.gz"]
        assert (second.name, second.modality) == ("y", "MR")

    def test_cases_that_lack_channels_or_have_too_many_are_told_apart(
        self, image: Callable[[Path], Path], tmp_path: Path
    ):
        for name in ("v_0000", "v_0001", "v_0002", "w_0000", "w_0001", "x_0001", "y", "z_0000"):
            image(tmp_path / f"{name}.nii.gz")
        image(tmp_path / "z_0000.mha")
        cases, faults = find_inputs(tmp_path, ["T1", "T2"])
        assert [case.name for case in cases] == ["w"]
        assert list(faults) == ["v", "x", "y", "z"]
        assert faults["x"] == (
            "expected 2 files, x_0000 (T1), x_0001 (T2), found x_0001.nii.gz; add, rename or remove files"
        )
        assert "found v_0000.nii.gz, v_0001.nii.gz, v_0002.nii.gz;" in faults["v"]
        assert "found z_0000.mha, z_0000.nii.gz;" in faults["z"]

    def test_a_case_with_more_channels_than_the_model_is_one_case(
        self, image: Callable[[Path], Path], tmp_path: Path
    ):
        for name in ("x_0000", "x_0001", "scan_2024", "y_0000"):
            image(tmp_path / f"{name}.nii.gz")
        cases, faults = find_inputs(tmp_path, ["CT"])
        assert [case.name for case in cases] == ["scan_2024", "y"]
        assert list(faults) == ["x"]

    def test_without_a_complete_case_there_is_nothing_to_predict(
        self, image: Callable[[Path], Path], tmp_path: Path
    ):
        for name in ("x_0001", "w_0000"):
            image(tmp_path / f"{name}.nii.gz")
        with pytest.raises(
            DatasetError, match=r"complete case in .*\n  w: .* found w_0.*\n  x: .* found x_0"
        ):
            find_inputs(tmp_path, ["T1", "T2"])
        with pytest.raises(DatasetError, match=r"complete case in .*w_0000\.nii\.gz, found none:\n  w: "):
            find_inputs(tmp_path / "w_0000.nii.gz", ["T1", "T2"])

    def test_dicom_folders(self, write_series: Callable[..., list[Path]], tmp_path: Path):
        for name, modality in (("p1", "MR"), ("p2", "CT")):
            write_series(tmp_path / name, np.zeros((2, 8, 9), np.int16), range(2), modality=modality)
        (case,), _ = find_inputs(tmp_path / "p1", ["image"])
        assert (case.name, case.images, case.modality) == ("p1", (tmp_path / "p1",), "MR")
        assert [case.modality for case in find_inputs(tmp_path, ["image"])[0]] == ["MR", "CT"]

    def test_a_dicom_file_with_frames(self, tmp_path: Path):
        file = write_frames(tmp_path / "spine.dcm", PIXELS, POSITIONS, kind="enhanced MR")
        for path, name in ((file, "spine"), (tmp_path, tmp_path.name)):
            (case,), _ = find_inputs(path, ["image"])
            assert (case.name, case.images, case.modality) == (name, (path,), "MR")

    def test_dicom_files_with_frames_and_a_series_each_are_cases(self, tmp_path: Path):
        """A study of enhanced files in one folder; two files of one series are one volume, or refused."""
        for number, name in enumerate(("t1.dcm", "t2.dcm")):
            write_frames(
                tmp_path / name, PIXELS, POSITIONS, change=lambda h, n=number: set_series(h, f"1.2.{n}")
            )
        assert [case.name for case in find_inputs(tmp_path, ["CT"])[0]] == ["t1", "t2"]
        write_frames(tmp_path / "t3.dcm", PIXELS, POSITIONS, change=lambda h: set_series(h, "1.2.1"))
        (case,), _ = find_inputs(tmp_path, ["CT"])
        assert case.images == (tmp_path,)

    def test_a_single_slice_is_no_volume(self, tmp_path: Path):
        file = write_slices(tmp_path, PIXELS, POSITIONS)[0]
        with pytest.raises(DatasetError, match=r"single slice in .*; name the folder"):
            find_inputs(file, ["image"])

    @pytest.mark.parametrize("beside", ["a folder", "an image", "an image of frames"])
    def test_slices_beside_what_else_may_be_meant_are_refused(
        self, beside: str, image: Callable[[Path], Path], tmp_path: Path
    ):
        """Of a localizer in a folder beside the slices, "1 of 1 label maps" is no answer."""
        files = write_slices(tmp_path, PIXELS, POSITIONS)
        if beside == "an image":
            other = image(tmp_path / "ct.nii.gz")
        else:
            other = tmp_path / "localizer"
            if beside == "a folder":
                write_slices(other, PIXELS, POSITIONS)
            else:
                write_frames(other / "mf.dcm", PIXELS, POSITIONS)
        with pytest.raises(DatasetError, match=rf"found both: {min(files).name}.* beside {other.name}; give"):
            find_inputs(tmp_path, ["image"])

    def test_frames_beside_a_folder_of_slices_are_refused(self, tmp_path: Path):
        write_frames(tmp_path / "mf.dcm", PIXELS, POSITIONS)
        write_slices(tmp_path / "p1", PIXELS, POSITIONS)
        with pytest.raises(DatasetError, match=r"found both: mf\.dcm beside p1; give"):
            find_inputs(tmp_path, ["image"])

    def test_slices_without_positions_beside_a_folder_are_refused(self, tmp_path: Path):
        """They may be what was meant all the same."""
        write_slices(tmp_path, PIXELS, POSITIONS, change=lambda h: delattr(h, "ImagePositionPatient"))
        write_slices(tmp_path / "p1", PIXELS, POSITIONS)
        with pytest.raises(DatasetError, match=r"found both: IM003, .* beside p1; give"):
            find_inputs(tmp_path, ["image"])

    def test_what_is_not_read_is_named(
        self, image: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        image(tmp_path / "a.nii.gz")
        write_frames(tmp_path / "seg", PIXELS, POSITIONS, change=as_segmentation)
        write_frames(tmp_path / "segs" / "seg", PIXELS, POSITIONS, change=as_segmentation)
        for name in ("b.mgz", "c.nii.gz.part", "notes.txt", "a.json", ".hidden", "cases.csv"):
            (tmp_path / name).write_text("case,modality\n")
        (case,), _ = find_inputs(tmp_path, ["CT"])
        assert case.name == "a"
        assert "no slices are left out: seg (a segmentation)" in caplog.text
        assert "are not looked at: segs" in caplog.text
        assert "AutoSpine reads are left out: c.nii.gz.part, b.mgz" in caplog.text
        assert "notes" not in caplog.text

    def test_a_folder_with_other_dicom_says_what_it_is(self, tmp_path: Path):
        write_frames(tmp_path / "seg", PIXELS, POSITIONS, change=as_segmentation)
        with pytest.raises(
            DatasetError, match=r"DICOM slices in .*, found only seg \(a segmentation\); check"
        ):
            find_inputs(tmp_path, ["CT"])
        with pytest.raises(DatasetError, match=r"an image at .*, found a segmentation; check"):
            find_inputs(tmp_path / "seg", ["CT"])

    def test_a_folder_of_images_that_cannot_be_read_is_a_case(self, tmp_path: Path):
        """Reading it says why, which "found none" would not."""
        write_slices(tmp_path / "p1", PIXELS, POSITIONS, change=lambda h: delattr(h, "PixelSpacing"))
        (case,), _ = find_inputs(tmp_path, ["CT"])
        assert case.images == (tmp_path / "p1",)

    @pytest.mark.parametrize("below", ["study/series", "a/b/c/d"])
    def test_images_further_below_are_pointed_at(
        self, below: str, image: Callable[[Path], Path], tmp_path: Path
    ):
        image(tmp_path / below / "x.nii.gz")
        with pytest.raises(DatasetError, match=rf"none there but in folders below: {below}; check"):
            find_inputs(tmp_path, ["CT"])

    def test_images_far_below_are_named_beside_sound_ones(
        self, image: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        write_slices(tmp_path / "good", PIXELS, POSITIONS)
        write_slices(tmp_path / "nested" / "a" / "b" / "c", PIXELS, POSITIONS)
        image(tmp_path / "other" / "d" / "x.nii.gz")
        (case,), _ = find_inputs(tmp_path, ["CT"])
        assert case.name == "good"
        assert f"images in folders of {tmp_path} are not looked at: nested/a/b/c, other/d" in caplog.text

    def test_a_folder_of_damaged_slices_is_a_case(self, tmp_path: Path):
        """Else it would be missed beside the others without a word."""
        write_slices(tmp_path / "good", PIXELS, POSITIONS)
        (tmp_path / "bad").mkdir()
        for number in range(3):
            (tmp_path / "bad" / f"{number}.dcm").touch()
        assert [case.name for case in find_inputs(tmp_path, ["CT"])[0]] == ["bad", "good"]

    def test_names_that_look_the_same_are_one_case(self, image: Callable[[Path], Path], tmp_path: Path):
        for stem, spelling in (("Müller_0000", "NFC"), ("Müller_0001", "NFD")):
            image(tmp_path / f"{unicodedata.normalize(spelling, stem)}.nii.gz")
        (case,), faults = find_inputs(tmp_path, ["T1", "T2"])
        assert [path.name[-11:] for path in case.images] == ["0000.nii.gz", "0001.nii.gz"]
        assert faults == {}

    def test_two_images_whose_names_look_the_same_are_refused(
        self, image: Callable[[Path], Path], tmp_path: Path
    ):
        image(tmp_path / "a.nii.gz")
        for spelling in ("NFC", "NFD"):
            image(tmp_path / f"{unicodedata.normalize(spelling, 'Müller')}.nii.gz")
        cases, faults = find_inputs(tmp_path, ["CT"])
        assert [case.name for case in cases] == ["a"]
        assert len(faults) == 1

    def test_what_looks_like_an_image_is_named_first(
        self, image: Callable[[Path], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ):
        image(tmp_path / "x.nii.gz")
        for name in (
            "Thumbs.db",
            "desktop.ini",
            ".DS_Store",
            "aa.exe",
            "ab.dll",
            "b.mgz",
            "c.hdr",
            "z.nii.zip",
        ):
            (tmp_path / name).touch()
        (tmp_path / "y.nii.gz").mkdir()
        find_inputs(tmp_path, ["CT"])
        assert "AutoSpine reads are left out: y.nii.gz, z.nii.zip, b.mgz and 3 more" in caplog.text

    def test_other_modalities_fail_unless_they_are_stated(self, tmp_path: Path):
        for name, stated in (("ct", "CT"), ("pet", "PT"), ("us", "US")):
            write_slices(
                tmp_path / name, PIXELS, POSITIONS, change=lambda h, m=stated: setattr(h, "Modality", m)
            )
        (tmp_path / "cases.csv").write_text("case,modality\nus,CT\n")
        cases, faults = find_inputs(tmp_path, ["image"])
        assert [(case.name, case.modality) for case in cases] == [("ct", "CT"), ("us", "CT")]
        assert "found images of Modality PT (positron emission tomography)" in faults["pet"]

    def test_nothing_to_predict(self, tmp_path: Path):
        with pytest.raises(DatasetError, match=r"images .* or DICOM slices in .*, found none; check -i"):
            find_inputs(tmp_path, ["CT"])
        with pytest.raises(DatasetError, match=r"nowhere, found nothing; check -i"):
            find_inputs(tmp_path / "nowhere", ["CT"])
        (tmp_path / "a.png").write_bytes(b"x")
        with pytest.raises(DatasetError, match=r"a\.png, found another kind of file; convert it"):
            find_inputs(tmp_path / "a.png", ["CT"])

    def test_several_inputs_are_taken_together(self, image, tmp_path):
        """Files and folders, also the channels of one case, each with the cases.csv beside it."""
        for name in ("a/x_0000", "a/x_0001", "b/y_0000", "b/y_0001", "c/z_0000", "d/z_0001"):
            image(tmp_path / f"{name}.nii.gz")
        (tmp_path / "b" / "cases.csv").write_text("case,modality\ny,MR\nx,CT\n")
        given = [
            tmp_path / name for name in ("a", "b", "c/z_0000.nii.gz", "d/z_0001.nii.gz", "a/x_0000.nii.gz")
        ]
        cases, faults = find_inputs(given, ["one", "two"])
        assert [(case.name, case.modality) for case in cases] == [("x", None), ("y", "MR"), ("z", None)]
        assert [file.parent.name for file in cases[2].images] == ["c", "d"]
        assert faults == {}

    def test_cases_of_one_name_in_two_inputs_are_refused_and_both_named(self, image, tmp_path):
        for name in ("a/x.nii.gz", "b/x.mha", "b/y.mha"):
            image(tmp_path / name)
        with pytest.raises(DatasetError, match=r"every case once.* rename(?s:.*)x: .*a/x.nii.gz, .*b/x.mha"):
            find_inputs([tmp_path / "a" / "x.nii.gz", tmp_path / "b"], ["CT"])

    def test_series_of_one_name_in_two_inputs_are_refused(self, write_series, tmp_path):
        for patient in ("p1", "p2"):
            write_series(tmp_path / patient / "spine", np.zeros((3, 5, 6)), (0, 2, 4))
        with pytest.raises(DatasetError, match=r"spine: .*p1.spine, .*p2.spine"):
            find_inputs([tmp_path / "p1", tmp_path / "p2"], ["CT"])
