from dataclasses import replace

import makers
import pytest
import torch

from autospine.core.errors import FormatError, TrainingError, WorkspaceError
from autospine.dataset.splits import Fold, FoldsFile
from autospine.evaluation.stored_scores import CROSS_VALIDATION, FORMAT_VERSION
from autospine.network.unet_plans import UNetPlan
from autospine.pipeline import training
from autospine.pipeline.planned_dataset import FOLDS_FILE, PlannedDataset
from autospine.pipeline.training import (
    choose_settings,
    comparable,
    folds_at_once,
    open_project,
    preprocess,
    sharers_of_cores,
)
from autospine.storage.serialization import write_json
from autospine.storage.trained_models import WEIGHTS
from autospine.storage.workspace import DatasetLocation
from autospine.system.cards import Card
from autospine.system.hardware import default_workers
from trainers.randomness import threads
from trainers.training_options import TrainingOptions

CPU = torch.device("cpu")


@pytest.fixture
def dataset(tmp_path):
    return makers.dataset_of(tmp_path / "raw" / "Dataset001_Test", {name: makers.column() for name in "abc"})


@pytest.fixture
def planned(tmp_path, dataset):
    """A planned dataset of three cases, which is split into as many folds."""
    plan = makers.plan(makers.configuration())
    folders = {name: tmp_path / name for name in ("preprocessed", "results")}
    return PlannedDataset(
        location=DatasetLocation(name=dataset.name, raw=dataset.folder, **folders),
        plan=plan,
        configuration=plan.configurations[0],
        folds_file=FoldsFile(format_version=1, dataset=dataset.name, validation=(("a",), ("b",), ("c",))),
    )


def without_folds(planned: PlannedDataset) -> PlannedDataset:
    return replace(planned, folds_file=None)


def test_folds_go_by_all_their_name_or_full(planned, dataset):
    project = open_project(planned, "all", dataset)
    assert [fold.name for fold in project.folds("all")] == ["0", "1", "2"]
    (one,) = project.folds("1")
    assert (one.training, one.validation) == (("a", "c"), ("b",))
    (full,) = project.folds("full")
    assert (full.training, full.validation) == (("a", "b", "c"), ())
    with pytest.raises(WorkspaceError, match="one of 0, 1, 2"):
        project.folds("3")


def test_a_model_of_every_case_needs_no_folds(planned, dataset):
    project = open_project(without_folds(planned), "full", dataset)
    assert project.split == ()
    assert not (planned.location.preprocessed / FOLDS_FILE).exists()


def test_folds_are_made_only_of_what_was_measured(planned, dataset):
    with pytest.raises(WorkspaceError, match=r"fingerprint.*plan-and-preprocess"):
        open_project(without_folds(planned), "all", dataset)


def test_folds_that_do_not_fit_the_dataset_are_refused(planned, dataset):
    other = FoldsFile(format_version=1, dataset=dataset.name, validation=(("a",), ("b",)))
    with pytest.raises(FormatError, match="case c is in no fold"):
        open_project(replace(planned, folds_file=other), "all", dataset)


def test_settings_are_the_users_choices_and_what_the_machine_has(planned):
    options = TrainingOptions(epochs=3, seed=7)
    settings = choose_settings(options, planned, "0", device=CPU, name="cpu")
    assert (settings.epochs, settings.seed, settings.device) == (3, 7, CPU)
    assert (settings.workers, settings.devices) == (0, ())
    budget = planned.plan.memory_budget_bytes
    assert settings.parallel == folds_at_once(planned.configuration, budget, [CPU])


def test_the_users_numbers_of_processes_count(planned):
    options = TrainingOptions(workers=5, parallel=2)
    settings = choose_settings(options, planned, "all", device=CPU, name="cpu")
    assert (settings.workers, settings.parallel) == (5, 2)


@pytest.mark.parametrize(
    ("fold", "parallel", "allowed", "number"),
    [
        *(("all", None, 4, 1), ("all", 2, 4, 2), ("all", 1, 4, 4), ("0", None, 4, 4)),
        *(("0", None, 1, 1), ("all", 1, 2, 2), ("0", None, 8, 4)),
    ],
)
def test_threads_of_a_deterministic_training_follow_from_the_command_alone(
    planned, monkeypatch, fold, parallel, allowed, number
):
    """With the number that OMP_NUM_THREADS allows, which PyTorch starts with."""
    monkeypatch.setattr(training, "cores", lambda: 4)
    for memory in (1, 10**12):  # which decides how many folds are trained at once
        monkeypatch.setattr(training, "memory_budget", lambda _, free=memory: (free, "free"))
        options = TrainingOptions(deterministic=True, parallel=parallel)
        with threads(allowed):
            assert choose_settings(options, planned, fold, device=CPU, name="cpu").threads == number
    free = choose_settings(TrainingOptions(parallel=parallel), planned, fold, device=CPU, name="cpu")
    assert free.threads is None


def cards_of(*free_gib: float, capability=(8, 9), supported=True):
    """Look at GPUs with so much free memory."""

    def look(devices):
        return [
            Card(
                device=device,
                name="RTX",
                total_bytes=24 * 1024**3,
                free_bytes=int(gib * 1024**3),
                capability=capability,
                supported=supported,
            )
            for device, gib in zip(devices, free_gib, strict=True)
        ]

    return look


def settings_of(planned, look):
    """Choose settings for all folds on all GPUs."""
    return choose_settings(
        TrainingOptions(), planned, "all", device=torch.device("cuda"), name="auto", look=look
    )


def test_folds_go_only_to_gpus_that_can_hold_them(planned, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    configuration = replace(planned.configuration, memory_bytes=6 * 1024**3)
    planned = replace(planned, configuration=configuration)
    found = settings_of(planned, cards_of(3, 9, 5.8))
    assert found.devices == (torch.device("cuda", 1), torch.device("cuda", 2))
    assert found.parallel == 2
    assert "cuda:0 (RTX) has 3.0 GiB free, and 6.0 are needed: the other GPUs train the folds" in caplog.text
    found = settings_of(planned, cards_of(1, 1, 1))
    assert (found.devices, found.device, found.parallel) == ((), torch.device("cuda"), 1)
    assert "folds train one after the other" in caplog.text
    found = settings_of(planned, cards_of(1, 1, 20))
    assert (found.devices, found.device, found.parallel) == ((), torch.device("cuda", 2), 1)


def test_a_gpu_without_kernels_gets_no_fold(planned, monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings_of(planned, cards_of(20, 20, supported=False))
    assert "PyTorch has no kernels for cuda:1 (RTX)" in caplog.text


def never(_):
    raise AssertionError("a look takes memory of each GPU")


def test_a_single_fold_looks_at_no_other_gpu(planned, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    gpu = torch.device("cuda")
    assert choose_settings(TrainingOptions(), planned, "0", device=gpu, name="auto", look=never).device == gpu


@pytest.mark.parametrize(
    ("network", "precision", "device", "cudnn", "warned"),
    [
        ("unet3d", "bfloat16", "cuda", 91002, True),
        ("unet3d", "bfloat16", "cuda", 91501, False),
        ("unet3d", "bfloat16", "cuda", None, False),
        ("unet3d", "float32", "cuda", 91002, False),
        ("unet3d", "bfloat16", "cpu", 91002, False),
        ("adaptive_swin_unetr", "bfloat16", "cuda", 91002, False),
        ("stem", "float16", "cuda", 90800, True),
    ],
)
def test_a_cudnn_that_is_slow_for_a_network_is_named(caplog, network, precision, device, cudnn, warned):
    plan = makers.network_plan()
    if network == "unet3d":
        levels = {"features": (8, 16), "strides": ((1, 1, 1), (2, 2, 2)), "kernels": ((3, 3, 3),) * 2}
        plan = UNetPlan(name="unet3d", checkpointing=False, **levels)
    elif network == "stem":
        plan = replace(plan, fusion=replace(plan.fusion, placement="stem"))
    configuration = makers.configuration(network=plan, training={"precision": precision})
    training.warn_of_slow_convolutions(configuration, torch.device(device), cudnn)
    assert ("nvidia-cudnn-cu12>=9.15" in caplog.text) == warned


def test_folds_are_dealt_out_to_every_gpu(planned, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings = settings_of(planned, cards_of(8, 9))
    assert settings.devices == (torch.device("cuda", 0), torch.device("cuda", 1))
    assert (settings.parallel, settings.workers) == (2, default_workers(2))


def test_choices_that_contradict_each_other_are_refused():
    with pytest.raises(TrainingError, match="--epochs or --extend"):
        TrainingOptions(epochs=1, extend=1)


@pytest.mark.parametrize(
    ("fold", "at_once", "processes", "sharers"),
    [
        ("all", 1, 1, 1),
        ("all", 2, 1, 2),
        ("all", 8, 1, 5),  # eight GPUs, five folds
        ("0", 8, 1, 1),
        ("full", 8, 1, 1),
        ("all", 1, 4, 4),
        ("0", 1, 4, 4),
    ],
)
def test_cores_are_shared_by_what_trains_at_the_same_time(fold, at_once, processes, sharers):
    assert sharers_of_cores(fold, at_once, processes) == sharers


def test_models_that_were_validated_on_every_case_can_be_compared(tmp_path):
    results = tmp_path / "results"
    location = DatasetLocation(
        name="raw", raw=tmp_path / "raw", preprocessed=tmp_path / "preprocessed", results=results
    )
    both = (
        Fold(name="0", training=("b",), validation=("a",)),
        Fold(name="1", training=("a",), validation=("b",)),
    )
    assert comparable(location, both) == ()
    folds = {"whole": ("a", "b"), "more": ("a", "b", "c"), "part": ("a",), "scores": None, "none": ("a", "b")}
    for name, cases in folds.items():
        for fold in ("0", "1"):
            (results / name / f"fold_{fold}").mkdir(parents=True)
            if name != "none":
                (results / name / f"fold_{fold}" / WEIGHTS).touch()
        if cases is not None:
            scores = {str(fold): {"cases": [case]} for fold, case in enumerate(cases)}
            found = {"mean_dice": 0.5, "postprocessed": None, "modalities": {}, "folds": scores}
            write_json(results / name / CROSS_VALIDATION, {"format_version": FORMAT_VERSION, **found})
    assert comparable(location, both) == ("more", "whole")
    assert comparable(location, both[:1]) == ("more", "part", "whole")


def victim_of(folder):
    folder.mkdir()
    for name in ("a.json", "a_image.b2nd", "a_locations.npy", ".abcdefgh.tmp.json", "preprocess.lock"):
        (folder / name).write_text("somebody's own")
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("cases", ["../../victim", "/victim", "..", "x/../../../victim"])
def test_a_plan_stores_no_cases_outside_of_its_folder(cases, planned, dataset, tmp_path):
    before = victim_of(tmp_path / "victim")
    configuration = replace(planned.configuration, cases=cases.replace("/victim", f"{tmp_path}/victim"))
    with pytest.raises(WorkspaceError, match="expected the name of a file or folder"):
        preprocess(planned.location, dataset, planned.plan, configuration, 1)
    assert {path.name: path.read_text() for path in (tmp_path / "victim").iterdir()} == before


def test_cases_are_not_stored_through_a_link(planned, dataset, tmp_path):
    before = victim_of(tmp_path / "victim")
    planned.location.preprocessed.mkdir()
    (planned.location.preprocessed / planned.configuration.cases).symlink_to(tmp_path / "victim")
    with pytest.raises(WorkspaceError, match="remove the link"):
        preprocess(planned.location, dataset, planned.plan, planned.configuration, 1)
    assert {path.name: path.read_text() for path in (tmp_path / "victim").iterdir()} == before
