"""Prediction of several cases with untrained networks: what is run, kept, recorded and said."""

import logging

import makers
import numpy as np
import pytest
import torch

import autospine
from autospine import inference, pipeline
from autospine.errors import WorkspaceError
from autospine.images import read_labels, write_array
from autospine.inference import PROBABILITIES, UsedModel, open_model, read_record, save_weights
from autospine.network.build import build_network
from autospine.preprocessing import arrays
from autospine.serialization import write_json

CPU = torch.device("cpu")


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
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU)
    assert [case.status for case in result.cases] == ["written"] * 3
    assert [path.name for path in result.written] == [f"case{n}.nii.gz" for n in range(3)]
    assert (
        "case1 (2/3): 24x24x70 voxels; 12 of 32 tiles (the others show air) by 1 network; about" in said.text
    )
    record = read_record(tmp_path / "out")
    assert list(record.values()) == list(result.cases)
    first = record["case0"]
    assert (first.near, first.tiles_run, first.tiles) == ("body", 12, 32)
    assert first.models == (UsedModel(folder=str(model.path), folds=("0",), digest=model.digest()),)
    labels = read_labels(result.written[0]).array[0]
    assert (labels[:, :, :20] == 3).all()
    assert not labels[:, :, -30:].any()


def test_all_tiles_are_run_where_that_is_wished(model, images, tmp_path):
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU, confined=False)
    assert {(case.near, case.tiles_run) for case in result.cases} == {("everything", 32)}
    assert (read_labels(result.written[0]).array == 3).all()


def test_a_coarse_model_beside_it_finds_the_spine(model, images, tmp_path, said):
    make_model(tmp_path / "results", "lowres", (3.0, 3.0, 3.0), foreground=True)
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU)
    assert {case.near for case in result.cases} == {"spine"}
    assert "lowres looks for the spine first" in said.text
    # One that finds nothing leaves it to the body.
    make_model(tmp_path / "results", "lowres", (3.0, 3.0, 3.0), foreground=False)
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU)
    assert {case.near for case in result.cases} == {"body"}
    # It does not look for itself.
    result = pipeline.predict(
        [open_model(tmp_path / "results" / "lowres")], images, tmp_path / "out", device=CPU
    )
    assert {case.near for case in result.cases} == {"body"}


def test_several_models_are_announced_and_recorded_together(model, images, tmp_path, said):
    other = make_model(tmp_path / "results", "other", (3.0, 3.0, 3.0), foreground=True)
    result = pipeline.predict([model, other], images, tmp_path / "out", device=CPU)
    assert [case.status for case in result.cases] == ["written"] * 3
    assert [used.folder for used in result.cases[0].models] == [str(model.path), str(other.path)]
    assert result.cases[0].tiles > 32
    assert said.text.count("case0 (1/3): 24x24x70 voxels") == 2


def test_what_is_there_is_kept_and_other_models_are_told_apart(model, images, tmp_path, said):
    first = pipeline.predict([model], images / "case0_0000.nii.gz", tmp_path / "out", device=CPU)
    (images.parent / "out" / "case1.nii.gz").write_bytes(first.written[0].read_bytes())
    other = make_model(tmp_path / "results", "other", (1.5, 1.5, 1.5), foreground=False)
    result = pipeline.predict([other], images, tmp_path / "out", device=CPU, overwrite=False)
    assert [case.status for case in result.cases] == ["written", "kept", "written"]
    assert result.cases[0] == first.cases[0]
    assert "case0 was predicted by another model" in said.text
    assert set(read_record(tmp_path / "out")) == {"case0", "case2"}


def test_bad_cases_do_not_stop_the_others(model, images, tmp_path, monkeypatch):
    (images / "case0_0000.nii.gz").write_bytes(b"nothing")
    usual = inference.Predictor.predict

    def one_too_large(self, volume, *arguments):
        if not done:
            done.append(1)
            raise MemoryError
        return usual(self, volume, *arguments)

    done: list[int] = []
    monkeypatch.setattr(inference.Predictor, "predict", one_too_large)
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU)
    assert [case.status for case in result.cases] == ["failed", "failed", "written"]
    assert "damaged" in result.failed["case0"]
    assert result.failed["case1"] == "MemoryError"
    assert read_record(tmp_path / "out")["case1"].error == "MemoryError"


def test_a_label_map_that_cannot_be_written_is_a_failed_case(model, images, tmp_path):
    (tmp_path / "out" / "case1.nii.gz").mkdir(parents=True)
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU)
    assert [case.status for case in result.cases] == ["written", "failed", "written"]
    assert "expected to write" in result.failed["case1"]


def test_images_are_read_ahead_only_where_there_is_room(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.run, "free_memory", lambda: 0)
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU)
    assert [case.status for case in result.cases] == ["written"] * 3


def files(folder) -> list[str]:
    """What lies there beside the record and the names of the classes."""
    return sorted({path.name for path in folder.iterdir()} - {"predictions.json", "labels.txt"})


def test_probabilities_are_saved_beside_the_label_maps(model, images, tmp_path, said):
    plain = pipeline.predict([model], images, tmp_path / "plain", device=CPU)
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU, save_probabilities=True)
    assert "beside the networks; probabilities of up to 1 MB on disk" in said.text
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
    result = pipeline.predict([model, other], images, out, device=CPU, save_probabilities=True)
    assert [case.status for case in result.cases] == ["written"] * 3
    # One is sure of bone and the other of background.
    bone = autospine.read_probabilities(out / "case0_probabilities.b2nd").read("bone", np.s_[:, :, :20])
    np.testing.assert_allclose(bone, 0.5, atol=0.01)


def test_going_on_makes_probabilities_that_are_missing(model, images, tmp_path):
    out = tmp_path / "out"
    pipeline.predict([model], images / "case0_0000.nii.gz", out, device=CPU, save_probabilities=True)
    pipeline.predict([model], images / "case1_0000.nii.gz", out, device=CPU)
    stamps = [(out / f"case{n}.nii.gz").stat().st_mtime_ns for n in range(2)]
    options = {"device": CPU, "overwrite": False, "save_probabilities": True}
    result = pipeline.predict([model], images, out, **options)
    assert all(case.probabilities for case in result.cases)
    assert (out / "case0.nii.gz").stat().st_mtime_ns == stamps[0]
    assert (out / "case1.nii.gz").stat().st_mtime_ns > stamps[1]


def test_a_new_label_map_does_not_stand_beside_old_probabilities(model, images, tmp_path):
    out = tmp_path / "out"
    one = images / "case0_0000.nii.gz"
    pipeline.predict([model], one, out, device=CPU, save_probabilities=True)
    result = pipeline.predict([model], one, out, device=CPU)
    assert files(out) == ["case0.nii.gz"]
    assert result.cases[0].probabilities is None


def test_a_case_whose_probabilities_cannot_be_written_leaves_everything_as_it_was(
    model, images, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    pipeline.predict([model], images / "case1_0000.nii.gz", out, device=CPU, save_probabilities=True)
    before = {name: (out / name).read_bytes() for name in files(out)}
    usual, calls = inference.ProbabilityWriter.finish, []

    def full(writer):
        calls.append(1)
        if len(calls) < 3:
            raise WorkspaceError("expected to write probabilities, found a full disk")
        usual(writer)

    monkeypatch.setattr(inference.ProbabilityWriter, "finish", full)
    result = pipeline.predict([model], images, out, device=CPU, save_probabilities=True)
    assert [case.status for case in result.cases] == ["failed", "failed", "written"]
    assert "full disk" in result.failed["case0"]
    names = [f"case{n}{ending}" for n in (1, 2) for ending in (".nii.gz", PROBABILITIES)]
    assert files(out) == names
    assert {name: (out / name).read_bytes() for name in before} == before


def test_probabilities_of_a_label_map_that_cannot_be_written_are_dropped(model, images, tmp_path):
    out = tmp_path / "out"
    (out / "case1.nii.gz").mkdir(parents=True)
    result = pipeline.predict([model], images, out, device=CPU, save_probabilities=True)
    assert [case.status for case in result.cases] == ["written", "failed", "written"]
    assert "case1_probabilities.b2nd" not in files(out)
    assert not [name for name in files(out) if name.startswith(".")]


def test_a_full_disk_fails_cases_before_a_tile_is_run(model, images, tmp_path, monkeypatch):
    class Full:
        free = 0

    monkeypatch.setattr(inference.probabilities.shutil, "disk_usage", lambda _: Full())
    monkeypatch.setattr(inference.Predictor, "prepare", None)
    result = pipeline.predict([model], images, tmp_path / "out", device=CPU, save_probabilities=True)
    assert all("leave out --save-probabilities" in error for error in result.failed.values())
    assert len(result.failed) == 3


def test_probabilities_need_blosc2(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "blosc2", None)
    with pytest.raises(WorkspaceError, match="pip install blosc2"):
        pipeline.predict([model], images, tmp_path / "out", device=CPU, save_probabilities=True)
