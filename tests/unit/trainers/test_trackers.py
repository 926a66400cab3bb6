"""The protocol, and the real trackers where they are installed; none of them needs a network."""

import asyncio
import importlib
import signal
import sys
from pathlib import Path
from types import ModuleType

import makers
import pytest
from matplotlib.image import imsave

from autospine.core.errors import TrainingError, WorkspaceError
from trainers import trackers
from trainers.settings import TrainingSettings
from trainers.trackers import (
    BUILT_IN,
    TensorBoard,
    TrackedRun,
    Tracker,
    Trackers,
    WandB,
    check_trackers,
    flat,
)


class Written:
    """A third party's tracker, which writes lines."""

    def __init__(self, run: TrackedRun) -> None:
        self.path = run.folder / "written.txt"

    def log_params(self, params) -> None:
        self._add(f"params {params}")

    def log_metrics(self, metrics, step) -> None:
        self._add(f"metrics {step} {metrics}")

    def log_image(self, name, path, step) -> None:
        self._add(f"image {name} {path.name} {step}")

    def close(self) -> None:
        self._add("close")

    def _add(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(line + "\n")


@pytest.fixture
def third_party(tmp_path_factory, monkeypatch):
    """A distribution with a tracker that works and one that ends the process when it is opened."""

    def leave(run):
        raise SystemExit("goodbye")

    site, module = tmp_path_factory.mktemp("site"), ModuleType("others_trackers")
    module.Written, module.leave = Written, leave
    monkeypatch.setitem(sys.modules, "others_trackers", module)
    entries = "[autospine.trackers]\nwritten = others_trackers:Written\nleaving = others_trackers:leave\n"
    makers.install_distribution(site, "others", entries)
    monkeypatch.syspath_prepend(str(site))


def run(folder: Path, **changes) -> TrackedRun:
    given = {"group": "Dataset007_Small fast", "name": "fold 0", "identity": "abc-0", "params": {"seed": 3}}
    return TrackedRun(folder=folder, **{**given, **changes})


def picture(folder: Path) -> Path:
    imsave(folder / "curves.png", [[0.0, 1.0], [1.0, 0.0]])
    return folder / "curves.png"


def test_an_unknown_tracker_is_refused_before_training(third_party):
    known = "leaving, mlflow, tensorboard, wandb, written"
    with pytest.raises(TrainingError, match=f"expected --tracker among {known}, found 'board'"):
        TrainingSettings(trackers=("written", "board"))


def test_a_missing_package_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    for name in BUILT_IN:
        with pytest.raises(TrainingError, match=rf"package {name} .*pip install 'autospine\[{name}\]'"):
            check_trackers([name])


def test_extras_of_the_same_names_install_the_packages():
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    for name, built_in in BUILT_IN.items():
        assert f'{name} = ["{built_in.package}>=' in text


def test_a_tracker_of_another_distribution_is_found(third_party, tmp_path):
    check_trackers(["written"])
    made = Trackers(["written"], run(tmp_path))
    assert not (tmp_path / "written.txt").exists()
    made.log_metrics({"loss": 1.0}, 1)
    made.log_image("curves", tmp_path / "curves.png", 1)
    made.close()
    made.close()
    assert (tmp_path / "written.txt").read_text().splitlines() == [
        "params {'seed': 3}",
        "metrics 1 {'loss': 1.0}",
        "image curves curves.png 1",
        "close",
    ]
    assert isinstance(Written(run(tmp_path)), Tracker)


def test_without_trackers_nothing_happens(tmp_path):
    made = Trackers([])
    made.log_metrics({"loss": 1.0}, 1)
    made.close()
    assert made.failures() == {}


def test_settings_are_flattened_by_dots():
    nested = {"seed": 1, "network": {"name": "x", "fusion": {"kernels": ((2, 2, 2),)}}, "weights": None}
    assert flat(nested) == {
        "seed": 1,
        "network.name": "x",
        "network.fusion.kernels": "((2, 2, 2),)",
        "weights": None,
    }


@pytest.mark.filterwarnings("default")
def test_tensorboard_writes_through_no_link_that_leads_out(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "fold").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "fold" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WorkspaceError, match=r"outside of .*; remove the link"):
        TensorBoard(run(tmp_path / "fold"))
    assert not any((tmp_path / "elsewhere").iterdir())


@pytest.mark.filterwarnings("default")
def test_tensorboard_holds_numbers_settings_and_pictures(tmp_path):
    pytest.importorskip("tensorboard")
    first = Trackers(["tensorboard"], run(tmp_path))
    for epoch in (1, 2, 3):
        first.log_metrics({"loss": 1 / epoch, "gamma/1": 0.5}, epoch)
    again = Trackers(["tensorboard"], run(tmp_path, epoch=1))
    again.log_metrics({"loss": 0.75}, 2)
    again.log_image("curves", picture(tmp_path), 2)
    again.close()
    assert first.failures() == again.failures() == {}
    accumulator = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    # What came after the checkpoint is taken back.
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 1.0), (2, 0.75)]
    assert found.Tags()["images"] == ["curves"]
    assert "configuration/text_summary" in found.Tags()["tensors"]


@pytest.mark.filterwarnings("default")
def test_wandb_offline_keeps_a_run_of_each_fold_in_its_folder(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for fold in ("0", "1"):
        folder = tmp_path / f"fold_{fold}"
        folder.mkdir()
        made = Trackers(["wandb"], run(folder, name=f"fold {fold}", identity=f"abc-{fold}"))
        made.log_metrics({"loss": 1.0, "pseudo_dice/disc": 0.5}, 1)
        made.log_image("curves", picture(folder), 1)
        made.close()
        assert made.failures() == {}
        assert len(list((folder / "wandb").glob(f"offline-run-*abc-{fold}/*.wandb"))) == 1


class FakeWandB:
    """Notes what runs are begun with."""

    def __init__(self) -> None:
        self.begun = []

    def init(self, **words):
        self.begun.append(words)

    def Settings(self, **_):  # noqa: N802
        return None


def test_wandb_goes_on_in_its_run_and_begins_another_for_a_fold_trained_anew(tmp_path, monkeypatch):
    fake = FakeWandB()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    folder = tmp_path / "fold_0"
    folder.mkdir()
    for epoch in (0, 3, 5):
        WandB(run(folder, epoch=epoch))
    folder.rename(tmp_path / "away")
    folder.mkdir()
    for epoch in (0, 2):
        WandB(run(folder, epoch=epoch))
    first, *same, anew, again = [words["id"] for words in fake.begun]
    assert same == [first, first]
    assert anew == again != first
    assert first.endswith("-abc-0")
    assert anew.endswith("-abc-0")


@pytest.mark.filterwarnings("default")
def test_mlflow_keeps_the_folds_of_a_group_together(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)  # where its artifacts go
    client_class = importlib.import_module("mlflow.tracking").MlflowClient
    requests, send = [], client_class.log_batch
    monkeypatch.setattr(
        client_class,
        "log_batch",
        lambda self, *words, **parts: (requests.append(parts), send(self, *words, **parts)),
    )
    params = {"seed": 3, **{f"setting {number}": number for number in range(149)}}
    for fold in ("0", "1"):
        made = Trackers(["mlflow"], run(tmp_path, name=f"fold {fold}", identity=f"abc-{fold}", params=params))
        made.log_metrics({"loss": 1.0, "pseudo_dice/T1 (left)": 0.5}, 1)
        made.log_image("curves", picture(tmp_path), 1)
        made.close()
        assert made.failures() == {}
    again = Trackers(["mlflow"], run(tmp_path, identity="abc-0", epoch=1, params={"seed": 4}))
    again.log_metrics({"loss": 0.5}, 2)
    again.close()
    assert again.failures() == {}
    sent = [len(found) for parts in requests for found in parts.values()]
    assert sent == [100, 50, 2, 100, 50, 2, 1]
    client = client_class()
    experiment = client.get_experiment_by_name("autospine Dataset007_Small fast")
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"fold 0", "fold 1"}
    assert runs["fold 0"].data.metrics == {"loss": 0.5, "pseudo_dice/T1 _left_": 0.5}
    assert runs["fold 0"].data.params == {name: str(value) for name, value in params.items()}
    assert runs["fold 1"].info.status == "FINISHED"
    assert [a.path for a in client.list_artifacts(runs["fold 1"].info.run_id)] == ["curves.png"]


def test_a_tracker_that_ends_the_process_is_left_out_and_named(third_party, tmp_path):
    made = Trackers(["leaving"], run(tmp_path))
    made.log_metrics({}, 1)
    assert "leaving could not be opened (SystemExit: goodbye)" in made.failures()["tracker_leaving"]


class NoInterrupt(KeyboardInterrupt):
    """An error of somebody's own that looks like Ctrl-C."""


@pytest.mark.parametrize(
    "error",
    [
        SystemExit("text"),
        SystemExit(0),
        NoInterrupt("not pressed"),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseException("odd"),
        MemoryError(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("when", ["opened", "sent the configuration", "sent the metrics", "closed"])
def test_whatever_a_tracker_raises_training_goes_on(tmp_path, error, when):
    class Raising:
        def __init__(self, _: TrackedRun) -> None:
            self._raise("opened")

        def _raise(self, now: str) -> None:
            if now == when:
                raise error

        def log_params(self, _: object) -> None:
            self._raise("sent the configuration")

        def log_metrics(self, *_: object) -> None:
            self._raise("sent the metrics")

        def close(self) -> None:
            self._raise("closed")

    made = Trackers(["x"], run(tmp_path), lambda name: Raising)
    made.log_metrics({}, 1)
    made.close()
    assert f"x could not be {when} ({type(error).__name__}" in made.failures()["tracker_x"]


def test_ctrl_c_within_a_tracker_ends_training(tmp_path):
    def slow(_: TrackedRun) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Trackers(["x"], run(tmp_path), lambda name: slow).log_metrics({}, 1)


def test_long_reasons_are_cut_to_their_first_line(tmp_path):
    def broken(run):
        raise OSError("locked\n[SQL: CREATE TABLE ...]")

    made = Trackers(["x"], run(tmp_path), lambda name: broken)
    made.log_metrics({}, 1)
    assert "opened (OSError: locked) and is not used" in made.failures()["tracker_x"]
