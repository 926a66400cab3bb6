"""Prediction of several cases with untrained networks: what is run, kept, recorded and said."""

import errno
import json
import logging
import os
import re
import shutil
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import makers
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from odd_images import META, data_file

import autospine
from autospine.cli import main
from autospine.core.errors import DatasetError, ModelError, WorkspaceError
from autospine.evaluation.stored_scores import CROSS_VALIDATION
from autospine.inference.predictor import Predictor
from autospine.io.images import read_labels, read_volume, write_array
from autospine.models.model_folder import open_model, save_weights
from autospine.plan import build_network
from autospine.prediction import (
    label_maps,
    predict_cases,
    prediction_run,
    probabilities,
    read_ahead,
)
from autospine.prediction.case_log import UsedModel, read_record
from autospine.prediction.prediction_options import PredictionOptions
from autospine.prediction.probabilities import ENDING as PROBABILITIES
from autospine.prediction.vertebra_naming import VertebraNaming
from autospine.storage import arrays, atomic
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import fold_folder


def predicted(models, inputs, output, **options):
    """What a prediction on the CPU gives."""
    return predict_cases.predict(models, inputs, output, PredictionOptions(device="cpu", **options))


def make_model(folder, name, spacing_mm, foreground):
    """A model of one fold whose network finds bone everywhere, or nothing at all."""
    plan = makers.plan(makers.configuration(name=name, spacing_mm=spacing_mm))
    write_json(folder / name / "plan.json", plan)
    torch.manual_seed(0)
    network = build_network(plan, plan.configurations[0])
    last = [module for module in network.modules() if getattr(module, "bias", None) is not None][-1]
    with torch.no_grad():
        last.bias[:] = torch.tensor([0.0, 99.0 if foreground else -99.0, -99.0])
    save_weights(folder / name / "fold_0", network, {"fold": "0"})
    return open_model(folder / name)


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "results", "fullres", (1.5, 1.5, 1.5), foreground=True)


@pytest.fixture
def images(tmp_path):
    """Three CTs of a body in air."""
    for number in range(3):
        rng = np.random.default_rng(number)
        image = rng.normal(-1000, 5, (24, 24, 70)).astype(np.int16)
        image[:, :, :20] = rng.normal(40, 20, (24, 24, 20))
        path = tmp_path / "in" / f"case{number}_0000.nii.gz"
        write_array(path, image, makers.grid(image.shape, (1.5, 1.5, 1.5)))
    return tmp_path / "in"


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, logger="autospine")
    return caplog


def test_every_case_is_announced_predicted_and_recorded(model, images, tmp_path, said):
    result = predicted([model], images, tmp_path / "out")
    assert [case.status for case in result.cases] == ["written"] * 3
    assert [path.name for path in result.written] == [f"case{n}.nii.gz" for n in range(3)]
    line = "case1 (2/3): 24x24x70 voxels; 32 of 32 tiles by 1 network; "
    # On a machine that others keep busy, it takes longer than usual.
    assert re.search(re.escape(line) + r"(less than 10 s|about \d+ (s|min)), ", said.text)
    record = read_record(tmp_path / "out")
    assert list(record.values()) == list(result.cases)
    first = record["case0"]
    assert (first.near, first.tiles_run, first.tiles) == ("body", 32, 32)
    assert first.models == (UsedModel(folder=str(model.path), folds=("0",), digest=model.digest()),)
    assert (read_labels(result.written[0]).array == 3).all()


def test_tiles_of_air_are_left_out_where_the_model_finds_nothing_in_air(tmp_path, images, said):
    finds_nothing = make_model(tmp_path / "results", "fullres", (1.5, 1.5, 1.5), foreground=False)
    result = predicted([finds_nothing], images, tmp_path / "out")
    assert {(case.near, case.tiles_run, case.tiles) for case in result.cases} == {("body", 12, 32)}
    assert "24x24x70 voxels; 12 of 32 tiles (the rest is air) by 1 network; " in said.text
    assert "no tile is left out" not in said.text
    finds_bone = make_model(tmp_path / "results", "fullres", (1.5, 1.5, 1.5), foreground=True)
    result = predicted([finds_bone], images, tmp_path / "out")
    assert {(case.near, case.tiles_run) for case in result.cases} == {("body", 32)}
    assert "no tile is left out, as the networks find something in one that is all air" in said.text


def test_all_tiles_are_run_where_that_is_wished(model, images, tmp_path):
    result = predicted([model], images, tmp_path / "out", region_of_interest=False)
    assert {(case.near, case.tiles_run) for case in result.cases} == {("everything", 32)}
    assert (read_labels(result.written[0]).array == 3).all()


def test_a_coarse_model_beside_it_finds_the_spine(model, images, tmp_path, said):
    make_model(tmp_path / "results", "lowres", (3.0, 3.0, 3.0), foreground=True)
    result = predicted([model], images, tmp_path / "out")
    assert {(case.near, case.finders) for case in result.cases} == {("spine", ("lowres",))}
    assert "lowres locates the spine first" in said.text
    # One that finds nothing leaves it to the body.
    make_model(tmp_path / "results", "lowres", (3.0, 3.0, 3.0), foreground=False)
    result = predicted([model], images, tmp_path / "out")
    assert {(case.near, case.finders) for case in result.cases} == {("body", ())}
    # It does not look for itself.
    result = predicted([open_model(tmp_path / "results" / "lowres")], images, tmp_path / "out")
    assert {case.near for case in result.cases} == {"body"}


def test_a_fast_model_finds_the_spine_once_it_is_good(model, images, tmp_path):
    def near():
        return {case.near for case in predicted([model], images, tmp_path / "out").cases}

    fast = make_model(tmp_path / "results", "fast", (3.0, 3.0, 3.0), foreground=True)
    assert near() == {"body"}, "nobody knows how good it is"
    scores = {"format_version": 3, "folds": {}, "postprocessed": None, "modalities": {}}
    for dice, expected in ((0.49, "body"), (0.5, "spine")):
        write_json(fast.path / CROSS_VALIDATION, scores | {"mean_dice": dice})
        assert near() == {expected}
    make_model(tmp_path / "results", "fast", (1.6, 1.6, 1.6), foreground=True)
    assert near() == {"body"}, "hardly coarser than the model itself"


def test_several_models_are_announced_and_recorded_together(model, images, tmp_path, said):
    other = make_model(tmp_path / "results", "other", (3.0, 3.0, 3.0), foreground=True)
    result = predicted([model, other], images, tmp_path / "out")
    assert [case.status for case in result.cases] == ["written"] * 3
    assert [used.folder for used in result.cases[0].models] == [str(model.path), str(other.path)]
    assert result.cases[0].tiles > 32
    assert said.text.count("case0 (1/3): 24x24x70 voxels") == 2


def test_cases_that_nobody_waits_for_are_left_to_the_next_run(model, images, tmp_path):
    asked = iter((False, False, True))
    options = PredictionOptions(device="cpu")
    with pytest.raises(prediction_run.PredictionUnwantedError, match="waits for case2, found none"):
        predict_cases.predict([model], images, tmp_path / "out", options, unwanted=lambda: next(asked))
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [
        "case0.nii.gz",
        "case1.nii.gz",
    ]
    result = predicted([model], images, tmp_path / "out", overwrite=False)
    assert [case.status for case in result.cases] == ["written"] * 3
    assert result.kept == {"case0", "case1"}


def test_what_is_there_is_kept_and_other_models_are_told_apart(model, images, tmp_path, said):
    first = predicted([model], images / "case0_0000.nii.gz", tmp_path / "out")
    (images.parent / "out" / "case1.nii.gz").write_bytes(first.written[0].read_bytes())
    other = make_model(tmp_path / "results", "other", (1.5, 1.5, 1.5), foreground=False)
    result = predicted([other], images, tmp_path / "out", overwrite=False)
    assert [case.status for case in result.cases] == ["written", "kept", "written"]
    assert result.cases[0] == first.cases[0]
    assert "case0 was predicted by another model" in said.text
    assert set(read_record(tmp_path / "out")) == {"case0", "case2"}


def test_bad_cases_do_not_stop_the_others(model, images, tmp_path, monkeypatch):
    (images / "case0_0000.nii.gz").write_bytes(b"nothing")
    usual = Predictor.predict

    def one_too_large(self, volume, *arguments):
        if not done:
            done.append(1)
            raise MemoryError
        return usual(self, volume, *arguments)

    done: list[int] = []
    monkeypatch.setattr(Predictor, "predict", one_too_large)
    result = predicted([model], images, tmp_path / "out")
    assert [case.status for case in result.cases] == ["failed", "failed", "written"]
    assert "damaged" in result.failed["case0"]
    assert "the memory of this machine is full" in result.failed["case1"]
    assert read_record(tmp_path / "out")["case1"].error == result.failed["case1"]


def test_the_label_map_of_an_earlier_run_is_not_taken_for_that_of_a_failed_case(
    model, images, tmp_path, capsys
):
    for case in (1, 2):
        (images / f"case{case}_0000.nii.gz").unlink()
    words = [
        "predict",
        "-i",
        str(images),
        "-o",
        str(tmp_path / "out"),
        "-m",
        str(model.path),
        "--device",
        "cpu",
    ]
    assert main(words) == 0
    (images / "case0_0000.nii.gz").write_bytes(b"nothing")
    assert main(words) == 1
    said = capsys.readouterr().out
    assert said.count("of an earlier run") == 1
    assert "names: case0.nii.gz; remove them, or predict the cases again" in said


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ValueError("operands"), "ValueError: operands"),
        (KeyError(7), "KeyError: 7"),
        (IndexError(), "IndexError"),
        (
            RuntimeError("CUDA out of memory"),
            "the memory of the GPU is full (CUDA out of memory); end other programs that use it, which "
            "`nvidia-smi` lists, or run the same command with --device cpu",
        ),
    ],
)
def test_no_error_of_a_case_stops_the_others(model, images, tmp_path, monkeypatch, said, error, says):
    """Neither one of the networks nor one of the cleanup and of writing."""
    usual, write = Predictor.predict, label_maps.LabelMaps.write

    def predict(self, volume, modality, description, *arguments):
        if description.startswith("case0"):
            raise error
        return usual(self, volume, modality, description, *arguments)

    def written(self, case, *arguments):
        if case.name == "case1":
            raise error
        write(self, case, *arguments)

    monkeypatch.setattr(Predictor, "predict", predict)
    monkeypatch.setattr(label_maps.LabelMaps, "write", written)
    said.set_level(logging.DEBUG, logger="autospine")
    result = predicted([model], images, tmp_path / "out")
    assert result.failed == {"case0": says, "case1": says}
    assert [case.status for case in read_record(tmp_path / "out").values()] == ["failed", "failed", "written"]
    assert "Traceback" in said.text


def test_vertebrae_that_cannot_be_named_fail_no_case(model, images, tmp_path, monkeypatch, capsys):
    def fail(self, case, *arguments):
        if case == "case1":
            raise ValueError("two sacra")
        raise AssertionError("bodies")

    monkeypatch.setattr(VertebraNaming, "of_labels", lambda _: VertebraNaming(integers={}, names={}))
    monkeypatch.setattr(VertebraNaming, "apply", fail)
    out = tmp_path / "out"
    assert main(["predict", "-i", str(images), "-o", str(out), "-m", str(model.path), "--device", "cpu"]) == 0
    record = read_record(out)
    assert [entry.status for entry in record.values()] == ["written"] * 3
    assert record["case1"].naming_error == "ValueError: two sacra"
    assert all((read_labels(out / f"case{n}.nii.gz").array == 3).all() for n in range(3))
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("written, not named") == 3
    assert "vertebrae were not named in case0, case1, case2; the label maps are as predicted" in said
    assert "its vertebrae could not be named: ValueError: two sacra" in (out / "report.html").read_text(
        "utf-8"
    )


def test_going_on_does_not_keep_what_another_model_wrote_where_this_one_failed(
    model, images, tmp_path, monkeypatch
):
    one, out = images / "case0_0000.nii.gz", tmp_path / "out"
    predicted([model], one, out)
    other = make_model(tmp_path / "results", "other", (1.5, 1.5, 1.5), foreground=False)
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "predict", None)
        assert predicted([other], one, out).failed
    result = predicted([other], one, out, overwrite=False)
    assert [case.status for case in result.cases] == ["written"]
    assert not read_labels(result.written[0]).array.any()


def test_a_label_map_that_cannot_be_written_is_a_failed_case(model, images, tmp_path):
    (tmp_path / "out" / "case1.nii.gz").mkdir(parents=True)
    result = predicted([model], images, tmp_path / "out")
    assert [case.status for case in result.cases] == ["written", "failed", "written"]
    assert "expected to write" in result.failed["case1"]


def test_cases_without_all_of_their_channels_are_reported_with_the_others(model, images, tmp_path):
    shutil.copy(images / "case1_0000.nii.gz", images / "case1_0001.nii.gz")
    (images / "README.txt").write_text("Read me.", encoding="utf-8")
    for continued in (False, True):
        result = predicted([model], images, tmp_path / "out", overwrite=not continued)
        assert [case.case for case in result.cases] == ["case0", "case1", "case2"]
        assert list(result.failed) == ["case1"]
        assert (
            "expected 1 file, case1_0000 (image), found case1_0000.nii.gz, case1_0001"
            in result.failed["case1"]
        )
        assert read_record(tmp_path / "out")["case1"].status == "failed"
    (images / "case1_0001.nii.gz").unlink()
    result = predicted([model], images, tmp_path / "out", overwrite=False)
    assert [case.status for case in result.cases] == ["written"] * 3


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda image: np.zeros((4, 24)), "expected a 3D volume"),
        (lambda image: np.zeros((2, 4, 5, 6)), "expected a 3D volume"),
        (lambda image: np.where(image < -900, np.nan, image), "NaN or infinite"),
        (lambda image: np.where(image < -900, np.inf, image), "NaN or infinite"),
    ],
)
def test_an_image_that_is_none_fails_alone(model, images, tmp_path, spoil, says):
    path = images / "case1_0000.nii.gz"
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    sitk.WriteImage(sitk.GetImageFromArray(spoil(array).astype(np.float32), isVector=False), str(path))
    result = predicted([model], images, tmp_path / "out")
    assert [case.status for case in result.cases] == ["written", "failed", "written"]
    assert says in result.failed["case1"]


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_voxels_in_other_units_fail_alone(model, images, tmp_path, factor):
    """Metres would give background, and micrometres go on for ever."""
    path = images / "case1_0000.nii.gz"
    image = sitk.ReadImage(str(path))
    image.SetSpacing([1.5 * factor] * 3)
    sitk.WriteImage(image, str(path))
    result = predicted([model], images, tmp_path / "out")
    assert [case.status for case in result.cases] == ["written", "failed", "written"]
    assert "expected voxels of 0.05 to 20 mm, found 0.0015" in result.failed["case1"] or factor > 1
    assert f"in {path}; mend the header" in result.failed["case1"]


def test_ct_with_water_at_1024_is_told(model, images, tmp_path):
    path = images / "case1_0000.nii.gz"
    array = np.zeros((24, 24, 70), np.int16)
    array[:, :, :40] = np.random.default_rng(0).normal(1060, 30, (24, 24, 40))
    write_array(path, array, makers.grid(array.shape, (1.5, 1.5, 1.5)))
    result = predicted([model], images, tmp_path / "out")
    assert [case.case for case in result.cases if any("1024" in note for note in case.warnings)] == ["case1"]


def test_a_link_to_nothing_is_not_passed_over(model, images, tmp_path):
    (images / "case1_0000.nii.gz").unlink()
    (images / "case1_0000.nii.gz").symlink_to("elsewhere.nii.gz")
    result = predicted([model], images, tmp_path / "out")
    assert "found a link to elsewhere.nii.gz" in result.failed["case1"]
    assert len(result.written) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_entries_that_are_no_files_stop_nothing(model, images, tmp_path):
    """Neither waited for nor followed, and the sound images beside them are predicted."""
    (images / "itself_0000.nii.gz").symlink_to("itself_0000.nii.gz")
    (images / "device_0000.mha").symlink_to("/dev/zero")
    os.mkfifo(images / "pipe_0000.nii.gz")
    os.mkfifo(images / "data.raw")
    (images / "named_0000.mhd").write_text(data_file(META, "data.raw"))
    (images / "outside_0000.mhd").write_text(data_file(META, "/etc/passwd"))
    result = predicted([model], images, tmp_path / "out")
    assert {name: reason.split("found ")[1].split(";")[0] for name, reason in result.failed.items()} == {
        "itself": "a link that leads back to itself",
        "device": "a device instead of a file",
        "pipe": "a named pipe instead of a file",
        "named": "'data.raw' named as its data file, and there a named pipe instead of a file",
        "outside": "'/etc/passwd' named as its data file, which is not in its folder",
    }
    assert len(result.written) == 3


@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize("shape", [(1, 24, 70), (24, 1, 70), (1, 1, 70), (3, 5, 4), (17, 16, 16)])
def test_images_of_any_size_are_predicted(model, tmp_path, shape, confined):
    """One slice, one line, less than a tile and hardly more."""
    image = np.random.default_rng(0).normal(40, 20, shape).astype(np.int16)
    write_array(tmp_path / "in" / "a.nii.gz", image, makers.grid(shape, (1.5, 1.5, 1.5)))
    result = predicted([model], tmp_path / "in", tmp_path / "out", region_of_interest=confined)
    assert result.failed == {}
    np.testing.assert_array_equal(read_labels(result.written[0]).array[0], np.full(shape, 3))


@pytest.mark.parametrize("confined", [True, False])
@pytest.mark.parametrize("value", [-1000, 0])
def test_an_image_of_air_gives_a_label_map_of_background_and_it_is_said(tmp_path, said, value, confined):
    model = make_model(tmp_path / "results", "fullres", (1.5, 1.5, 1.5), foreground=False)
    image = np.random.default_rng(0).integers(value - 9, value, (20, 24, 30)).astype(np.int16)
    write_array(tmp_path / "in" / "a.nii.gz", image, makers.grid(image.shape, (1.5, 1.5, 1.5)))
    result = predicted([model], tmp_path / "in", tmp_path / "out", region_of_interest=confined)
    labels = read_labels(result.written[0]).array[0]
    assert labels.shape == image.shape
    assert not labels.any()
    assert any("no spine was found" in warning for warning in result.cases[0].warnings)
    assert "a: no spine was found" in said.text
    assert "12 of 12 tiles by 1 network" in said.text


@pytest.mark.parametrize("confined", [True, False])
def test_nothing_is_found_in_an_image_of_one_value_whatever_a_network_makes_of_it(
    model, tmp_path, said, confined
):
    image = np.zeros((20, 24, 30), np.int16)
    write_array(tmp_path / "in" / "a.nii.gz", image, makers.grid(image.shape, (1.5, 1.5, 1.5)))
    result = predicted([model], tmp_path / "in", tmp_path / "out", region_of_interest=confined)
    assert not read_labels(result.written[0]).array.any()
    assert "has the value 0 in every voxel" in said.text
    assert "a: no spine was found" in said.text


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("Frau Müller, L5 (2).nii.gz", "Frau Müller, L5 (2).nii.gz"),
        ("A_0000.NII.GZ", "A.nii.gz"),
        ("b.1.MHA", "b.1.nii.gz"),
    ],
)
def test_names_as_people_give_them(model, images, tmp_path, file, written):
    path = images / file
    shutil.move(images / "case1_0000.nii.gz", path)
    if path.suffix == ".MHA":
        sitk.WriteImage(sitk.ReadImage(str(images / "case0_0000.nii.gz")), str(tmp_path / "x.mha"))
        shutil.move(tmp_path / "x.mha", path)
    result = predicted([model], images, tmp_path / "out")
    assert result.failed == {}
    assert written in files(tmp_path / "out")


def test_a_name_that_is_not_utf8_fails_alone(model, images, tmp_path):
    strange = os.fsdecode("Müller".encode("latin-1"))
    shutil.copy(images / "case0_0000.nii.gz", images / f"{strange}.nii.gz")
    (images / f"{strange}2").mkdir()
    (images / f"{strange}2" / "slice.dcm").write_bytes(bytes(128) + b"DICM")
    result = predicted([model], images, tmp_path / "out")
    assert list(result.failed) == ["M\\udcfcller", "M\\udcfcller2"]
    assert "UTF-8, found" in result.failed["M\\udcfcller"]
    assert len(result.written) == 3
    assert set(read_record(tmp_path / "out")) == {*result.failed, "case0", "case1", "case2"}


def test_a_label_map_among_the_images_is_told(model, images, tmp_path, said):
    labels = np.random.default_rng(0).integers(0, 5, (20, 20, 20)).astype(np.uint8)
    write_array(images / "case1_0000.nii.gz", labels, makers.grid(labels.shape, (1.5, 1.5, 1.5)))
    result = predicted([model], images, tmp_path / "out")
    told = [warning for case in result.cases for warning in case.warnings if "is it a label map" in warning]
    assert told == ["has 5 different values; is it a label map?"]
    assert "case1: has 5 different values" in said.text


class FullDisk:
    """From the second label map on there is no room, not even for the record, until some is made."""

    def __init__(self, monkeypatch):
        self.full = self.mended = False
        self._write, self._open = sitk.WriteImage, tempfile.mkstemp
        monkeypatch.setattr(sitk, "WriteImage", self.write)
        monkeypatch.setattr(tempfile, "mkstemp", self.open)

    def write(self, image, name, **options):
        self.check()
        self.full = not self.mended
        self._write(image, name, **options)

    def open(self, *arguments, **options):
        self.check()
        return self._open(*arguments, **options)

    def check(self):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_becomes_full_costs_the_cases_that_do_not_fit(model, images, tmp_path, monkeypatch, said):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        disk = FullDisk(patch)
        with pytest.raises(WorkspaceError, match=r"expected to write .*predictions\.json.*use --continue"):
            predicted([model], images, out)
    assert files(out) == ["case0.nii.gz"]
    assert "case2: expected to write" in said.text
    kept = (out / "case0.nii.gz").read_bytes()
    result = predicted([model], images, out, overwrite=False)
    assert [case.status for case in result.cases] == ["kept", "written", "written"]
    assert (out / "case0.nii.gz").read_bytes() == kept
    assert files(out) == [f"case{n}.nii.gz" for n in range(3)]
    assert disk.full


def test_a_disk_that_has_room_again_has_a_whole_record(model, images, tmp_path, monkeypatch):
    disk = FullDisk(monkeypatch)
    usual = label_maps.LabelMaps.write

    def write(maps, case, *arguments):
        if case.name == "case2":
            disk.full, disk.mended = False, True
        usual(maps, case, *arguments)

    monkeypatch.setattr(label_maps.LabelMaps, "write", write)
    result = predicted([model], images, tmp_path / "out")
    assert [case.status for case in result.cases] == ["written", "failed", "written"]
    assert "No space left" in result.failed["case1"]
    assert list(read_record(tmp_path / "out").values()) == list(result.cases)


def test_tiles_are_run_mirrored_too_where_that_is_asked_for(model, images, tmp_path, said):
    result = predicted([model], images, tmp_path / "out", mirror=True)
    assert "by 1 network, mirrored too; " in said.text
    assert {case.mirrored for case in result.cases} == {True}
    predicted([model], images, tmp_path / "out", overwrite=False)
    assert "case0 was predicted with other --mirror, --postprocessing or --count-with" in said.text


def test_a_model_without_mirrored_training_is_refused_before_the_work(model, images, tmp_path):
    strength = replace(model.configuration.augmentation, mirror_axes=())
    configuration = replace(model.configuration, augmentation=strength)
    write_json(model.path / "plan.json", replace(model.plan, configurations=(configuration,)))
    with pytest.raises(ModelError, match="leave --mirror out"):
        predicted([open_model(model.path)], images, tmp_path / "out", mirror=True)
    assert not (tmp_path / "out").exists()


def test_the_same_weights_twice_are_refused(model, images, tmp_path):
    copied = open_model(shutil.copytree(model.path, tmp_path / "copy"))
    with pytest.raises(ModelError, match="found the same weights in"):
        predicted([model, copied], images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_record_has_the_voxels_size_as_people_write_it(model, images, tmp_path):
    image = sitk.ReadImage(str(images / "case0_0000.nii.gz"))
    image.SetSpacing([0.800000011920929, 0.800000011920929, 1.2])
    sitk.WriteImage(image, str(images / "case0_0000.nii.gz"))
    predicted([model], images / "case0_0000.nii.gz", tmp_path / "out")
    assert set(read_record(tmp_path / "out")["case0"].spacing_mm) == {0.8, 1.2}


def test_two_runs_into_one_folder_share_its_record(model, images, tmp_path):
    out = tmp_path / "out"
    for name in ("case0", "case1", "case2"):
        (tmp_path / name).mkdir()
        shutil.move(images / f"{name}_0000.nii.gz", tmp_path / name)
    cases = [tmp_path / name for name in ("case0", "case1", "case2")]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda case: predicted([model], case, out), cases))
    assert {case.status for case in read_record(out).values()} == {"written"}
    assert set(read_record(out)) == {"case0", "case1", "case2"}


def test_leftovers_of_a_killed_run_are_removed_once_they_are_old(model, images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in (".abcd12_x.tmp.nii.gz", ".efgh34_y.tmp.nii.gz", ".mine.tmp.nii.gz"):
        (out / name).write_text("half")
    for name in (".abcd12_x.tmp.nii.gz", ".mine.tmp.nii.gz"):
        os.utime(out / name, (0, 0))
    predicted([model], images / "case0_0000.nii.gz", out)
    assert files(out) == [".efgh34_y.tmp.nii.gz", ".mine.tmp.nii.gz", "case0.nii.gz"]


def test_a_folder_that_cannot_be_written_to_is_told_before_the_work(model, images, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(WorkspaceError, match=r"that can be written to, found .*file/out \(Not a directory\)"):
        predicted([model], images, tmp_path / "file" / "out")

    def refused(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(atomic.tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(predict_cases, "build_predictor", None)
    with pytest.raises(
        WorkspaceError, match=r"found .*out \(Permission denied\); mend its permissions or nam"
    ):
        predicted([model], images, tmp_path / "out")


def test_an_output_folder_within_the_inputs_is_not_taken_for_one(model, images, tmp_path):
    for _ in range(2):
        result = predicted([model], images, images / "out")
        assert [case.case for case in result.cases] == ["case0", "case1", "case2"]
    with pytest.raises(WorkspaceError, match="other than that of the images"):
        predicted([model], images, images / "out" / "..")


@pytest.mark.parametrize("free", [0, 1 << 60])
def test_images_are_read_ahead_only_where_there_is_room(model, images, tmp_path, monkeypatch, free):
    done, predict, second = [], Predictor.predict, threading.Event()

    def reads(paths):
        done.append(paths[0].name[:5])
        if len(done) > 1:
            second.set()
        return read_volume(paths)

    def predicts(predictor, *arguments):
        labels = predict(predictor, *arguments)
        assert not free or second.wait(60), "the next image is read while the networks run"
        done.append("predicted")
        return labels

    monkeypatch.setattr(read_ahead, "free_memory", lambda: free)
    monkeypatch.setattr(prediction_run, "read_volume", reads)
    monkeypatch.setattr(Predictor, "predict", predicts)
    result = predicted([model], images, tmp_path / "out")
    assert [case.status for case in result.cases] == ["written"] * 3
    first = done.index("predicted")
    assert done[:first] == (["case0", "case1"] if free else ["case0"])


def files(folder) -> list[str]:
    """What lies there beside the record, the names of the classes and the report."""
    beside = {"predictions.json", "labels.txt", "report.html"}
    beside |= {"statistics.json", "statistics.csv"}
    return sorted({path.name for path in folder.iterdir()} - beside)


def test_probabilities_are_saved_beside_the_label_maps(model, images, tmp_path, said):
    plain = predicted([model], images, tmp_path / "plain")
    result = predicted([model], images, tmp_path / "out", save_probabilities=True)
    assert "of memory; probabilities of up to 1 MB on disk" in said.text
    assert [case.probabilities for case in result.cases] == [f"case{n}_probabilities.b2nd" for n in range(3)]
    assert [case.probabilities for case in plain.cases] == [None] * 3
    for before, after in zip(plain.written, result.written, strict=True):
        labels = read_labels(after).array[0]
        np.testing.assert_array_equal(labels, read_labels(before).array[0])
        saved = autospine.read_probabilities(after.parent / after.name.replace(".nii.gz", PROBABILITIES))
        assert saved.grid.shape == labels.shape
        scores = np.stack([saved.read(name) for name in saved.classes])
        np.testing.assert_allclose(scores.sum(0), 1, atol=0.01)
        np.testing.assert_array_equal(np.asarray(saved.integers)[scores.argmax(0)], labels)
    assert len(files(tmp_path / "out")) == 6


def test_probabilities_of_several_models_together(model, images, tmp_path):
    other = make_model(tmp_path / "results", "other", (3.0, 3.0, 3.0), foreground=False)
    out = tmp_path / "out"
    result = predicted([model, other], images, out, save_probabilities=True)
    assert [case.status for case in result.cases] == ["written"] * 3
    # One is sure of bone and the other of background.
    bone = autospine.read_probabilities(out / "case0_probabilities.b2nd").read("bone", np.s_[:, :, :20])
    np.testing.assert_allclose(bone, 0.5, atol=0.01)


def test_going_on_makes_probabilities_that_are_missing(model, images, tmp_path):
    out = tmp_path / "out"
    predicted([model], images / "case0_0000.nii.gz", out, save_probabilities=True)
    predicted([model], images / "case1_0000.nii.gz", out)
    stamps = [(out / f"case{n}.nii.gz").stat().st_mtime_ns for n in range(2)]
    options = {"overwrite": False, "save_probabilities": True}
    result = predicted([model], images, out, **options)
    assert all(case.probabilities for case in result.cases)
    assert (out / "case0.nii.gz").stat().st_mtime_ns == stamps[0]
    assert (out / "case1.nii.gz").stat().st_mtime_ns > stamps[1]


def test_a_new_label_map_does_not_stand_beside_old_probabilities(model, images, tmp_path):
    out = tmp_path / "out"
    one = images / "case0_0000.nii.gz"
    predicted([model], one, out, save_probabilities=True)
    result = predicted([model], one, out)
    assert files(out) == ["case0.nii.gz"]
    assert result.cases[0].probabilities is None


def test_a_case_whose_probabilities_cannot_be_written_leaves_everything_as_it_was(
    model, images, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    predicted([model], images / "case1_0000.nii.gz", out, save_probabilities=True)
    before = {name: (out / name).read_bytes() for name in files(out)}
    usual, calls = probabilities.ProbabilityWriter.finish, []

    def full(writer):
        calls.append(1)
        if len(calls) < 3:
            raise WorkspaceError("expected to write probabilities, found a full disk")
        usual(writer)

    monkeypatch.setattr(probabilities.ProbabilityWriter, "finish", full)
    result = predicted([model], images, out, save_probabilities=True)
    assert [case.status for case in result.cases] == ["failed", "failed", "written"]
    assert "full disk" in result.failed["case0"]
    names = [f"case{n}{ending}" for n in (1, 2) for ending in (".nii.gz", PROBABILITIES)]
    assert files(out) == names
    assert {name: (out / name).read_bytes() for name in before} == before


def test_probabilities_of_a_label_map_that_cannot_be_written_are_dropped(model, images, tmp_path):
    out = tmp_path / "out"
    (out / "case1.nii.gz").mkdir(parents=True)
    result = predicted([model], images, out, save_probabilities=True)
    assert [case.status for case in result.cases] == ["written", "failed", "written"]
    assert "case1_probabilities.b2nd" not in files(out)
    assert not [name for name in files(out) if name.startswith(".")]


def test_a_full_disk_fails_cases_before_a_tile_is_run(model, images, tmp_path, monkeypatch):
    class Full:
        free = 0

    monkeypatch.setattr(probabilities.shutil, "disk_usage", lambda _: Full())
    monkeypatch.setattr(Predictor, "prepare", None)
    result = predicted([model], images, tmp_path / "out", save_probabilities=True)
    assert all("leave out --save-probabilities" in error for error in result.failed.values())
    assert len(result.failed) == 3


def test_probabilities_need_blosc2(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "blosc2", None)
    with pytest.raises(WorkspaceError, match="pip install blosc2"):
        predicted([model], images, tmp_path / "out", save_probabilities=True)


def test_an_interrupted_batch_leaves_whole_cases_and_goes_on(model, images, tmp_path, monkeypatch, capsys):
    usual, calls = Predictor.predict, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return usual(self, *arguments)

    monkeypatch.setattr(Predictor, "predict", interrupted)
    out = tmp_path / "out"
    words = ["predict", "-i", str(images), "-o", str(out), "-m", str(model.path), "--device", "cpu"]
    assert main(words) == 130
    assert "run the same command with --continue to go on" in capsys.readouterr().err
    assert files(out) == ["case0.nii.gz"]
    assert list(read_record(out)) == ["case0"]
    assert main([*words, "--continue", "--fold", "all", "--fold", "0"]) == 0
    assert len(calls) == 4
    assert files(out) == [f"case{n}.nii.gz" for n in range(3)]


def test_a_modality_that_the_model_has_not_learnt_from_is_warned_of(model, images, tmp_path, said):
    network = model.networks()[0]
    for known, warned in ((("CT",), False), (("CT", "MR"), False), (("MR",), True)):
        save_weights(fold_folder(model.path, "0"), network, {"modalities": known})
        result = predicted([model], images, tmp_path / "-".join(known))
        warning = "it is CT, and the model has learnt from MR alone: do not trust its labels"
        assert all((warning in case.warnings) == warned for case in result.cases)
        assert (f"case0: {warning}" in said.text) == warned


@pytest.mark.parametrize(("folds", "warned"), [(1, False), (4, False), (5, True)])
def test_held_out_cases_tell_what_earlier_models_have_learnt_from_if_every_case_was(
    model, images, tmp_path, folds, warned
):
    """Of the cases of a few folds alone, all may be MR while the model has learnt from CT."""
    scores = {"format_version": 3, "postprocessed": None, "mean_dice": 0.9}
    held_out = {str(fold): {"cases": [f"mr{fold}"]} for fold in range(folds)}
    write_json(
        model.path / CROSS_VALIDATION,
        scores | {"folds": held_out, "modalities": {"MR": {"mean_dice": 0.9}}},
    )
    result = predicted([model], images, tmp_path / "out")
    warning = "it is CT, and the model has learnt from MR alone: do not trust its labels"
    assert all((warning in case.warnings) == warned for case in result.cases)


def test_what_was_kept_is_not_counted_as_written(model, images, tmp_path):
    predicted([model], images, tmp_path / "out")
    (tmp_path / "out" / "case1.nii.gz").unlink()
    again = predicted([model], images, tmp_path / "out", overwrite=False)
    assert again.kept == {"case0", "case2"}
    assert len(again.written) == 3


def test_failed_cases_alone_are_predicted_again(model, images, tmp_path, said):
    result = predict_cases.predict(
        [model], images, tmp_path / "out", PredictionOptions(device="cpu"), only=("case1", "gone")
    )
    assert [case.case for case in result.cases] == ["case1"]
    assert "1 case to predict, but not among the inputs: gone" in said.text
    with pytest.raises(DatasetError, match="expected gone among the inputs, found case0, case1, case2"):
        predict_cases.predict(
            [model], images, tmp_path / "out", PredictionOptions(device="cpu"), only=("gone",)
        )


def test_the_command_takes_the_marks_of_a_report_and_writes_the_next_one(model, images, tmp_path, capsys):
    mark = {"mark": "fail", "grade": None, "note": ""}
    content = {"format_version": 1, "kind": "autospine marks", "report": "", "folder": "", "cases": {}}
    (tmp_path / "marks.json").write_text(json.dumps({**content, "cases": {"case2": mark}}), encoding="utf-8")
    words = ["predict", "-i", str(images), "-o", str(tmp_path / "out"), "-m", str(model.path)]
    assert main([*words, "--device", "cpu", "--only-failed", str(tmp_path / "marks.json")]) == 0
    assert f"report: {tmp_path / 'out/report.html'}" in capsys.readouterr().out
    (entry,) = read_record(tmp_path / "out").values()
    assert entry.images == (str(images / "case2_0000.nii.gz"),)
    assert '"image": "data:image/webp' in (tmp_path / "out/report.html").read_text(encoding="utf-8")


def test_previews_lie_beside_the_label_maps(model, images, tmp_path, said):
    from autospine.report.preview import write_preview

    options = PredictionOptions(device="cpu")
    predict_cases.predict([model], images / "case0_0000.nii.gz", tmp_path / "out", options, write_preview)
    assert (tmp_path / "out" / "case0_preview.png").stat().st_size > 1000

    def broken(*_):
        raise OSError("no space left")

    result = predict_cases.predict([model], images / "case1_0000.nii.gz", tmp_path / "out", options, broken)
    assert result.failed == {}
    assert "case1: its preview cannot be drawn (no space left)" in said.text
    predict_cases.predict([model], images / "case0_0000.nii.gz", tmp_path / "out", options)
    assert not (tmp_path / "out" / "case0_preview.png").exists(), "it belongs to another label map"
    kept = PredictionOptions(device="cpu", overwrite=False)
    predict_cases.predict([model], images / "case0_0000.nii.gz", tmp_path / "out", kept, write_preview)
    assert (tmp_path / "out" / "case0_preview.png").is_file(), (
        "a label map without its preview is not complete"
    )
