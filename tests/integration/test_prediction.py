"""Prediction of several cases with untrained networks: what is run, kept, recorded and said."""

import logging

import makers
import numpy as np
import pytest
import torch

from autospine import inference, pipeline
from autospine.images import read_labels, write_array
from autospine.inference import UsedModel, open_model, read_record, save_weights
from autospine.network.build import build_network
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
