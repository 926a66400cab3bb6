"""The commands, one after the other, on a tiny dataset; and what they say to input that is wrong."""

import contextlib
import io
import json
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import checkpoints
import makers
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from autospine.cli import main
from autospine.core.errors import TrainingError
from autospine.dataset.raw import load_dataset
from autospine.evaluation.statistics_files import read_statistics
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.inference.multi_model import JointPredictor
from autospine.inference.predictor import Predictor
from autospine.io.images import read_volume
from autospine.models.best import Best
from autospine.models.imported_weights import load_imported
from autospine.models.model_folder import open_model
from autospine.phantom import PhantomSettings, write_dataset
from autospine.plan import Plan
from autospine.prediction.case_log import read_record
from autospine.storage.locks import heartbeat_lock
from autospine.storage.serialization import read_json, write_json
from autospine.storage.trained_models import STARTER_LIMITS
from trainers.fold_run import TRAINING_LOCK
from trainers.learner import Learner

NAME = "Dataset001_Tiny"
SMALL = ("--memory", "2GB", "--patch", "16", "16", "16", "--feature-size", "8")
SHORT = ("--epochs", "1", "--iterations", "2", "--parallel", "1")


@dataclass(frozen=True)
class Said:
    """What a command did."""

    code: int
    out: str
    err: str


class Place:
    """A workspace in which commands are run, as if it were the current folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw = root / "raw" / NAME
        self.preprocessed = root / "preprocessed" / NAME
        self.results = root / "results" / NAME / "fullres"

    def run(self, *words: object) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.root), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(word) for word in words])
        return Said(code, out.getvalue(), err.getvalue())

    def prepare(self) -> None:
        assert self.run("plan-and-preprocess", "-d", "1", *SMALL).code == 0

    def state(self) -> dict[Path, tuple[int, int]]:
        """Every file with its size and time of change."""
        files = (path for path in self.root.rglob("*") if path.is_file())
        return {path.relative_to(self.root): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """A raw dataset of five coarse phantoms, and two held-out ones."""
    settings = PhantomSettings(spacing_mm=(4.0, 4.0, 4.0), size_mm=(76.0, 72.0, 64.0), metal=False)
    folder = tmp_path_factory.mktemp("phantoms") / NAME
    return write_dataset(folder, cases=5, test_cases=2, scheme="structures", settings=settings, seed=1)


@pytest.fixture
def place(tmp_path, phantoms) -> Place:
    """A workspace with a raw dataset of its own, to be spoilt."""
    shutil.copytree(phantoms, tmp_path / "raw" / NAME)
    return Place(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, phantoms) -> Place:
    """A workspace in which the three commands have run exactly as the README says, apart from speed."""
    root = tmp_path_factory.mktemp("workspace")
    shutil.copytree(phantoms, root / "raw" / NAME)
    place = Place(root)
    for words in (
        ("plan-and-preprocess", "-d", "Dataset001", *SMALL),
        ("train", "0", "--fold", "all", *SHORT),
        ("predict", "-i", place.raw / "imagesTs", "-o", "out"),
    ):
        said = place.run(*words)
        assert said.code == 0, said.err
    return place


@pytest.fixture
def spoilt(trained, tmp_path) -> Place:
    """A copy of the trained workspace."""
    shutil.copytree(trained.root, tmp_path / "copy")
    return Place(tmp_path / "copy")


def expect_refusal(
    place: Place, *words: object, says: tuple[str, ...], may_write: tuple[str, ...] = ()
) -> None:
    """Exit code 1, one message with all these words, no traceback, and nothing written but what may be."""
    before = place.state()
    said = place.run(*words)
    assert said.code == 1, said.err
    for word in says:
        assert word in said.err
    assert "Traceback" not in said.err
    assert "autospine: " in said.err
    after = place.state()
    written = {path for path in after if after[path] != before.get(path)}
    assert {path for path in written if path.name not in may_write} == set()
    assert set(before) <= set(after), "a file has gone"


# The chain.


def test_every_stage_leaves_its_files(trained):
    assert {path.name for path in trained.preprocessed.iterdir()} == {
        "fingerprint.json",
        "costs.json",
        "plan.json",
        "folds.json",
        "fullres",
        "report.html",
    }
    for fold in range(5):
        names = {path.name for path in (trained.results / f"fold_{fold}").iterdir()}
        assert names == {
            *("model.safetensors", "metrics.jsonl", "curves.png", "mechanisms.png", "trained_on.json"),
            *("validation", "validation.json", "validation.png"),
        }
    summary = json.loads((trained.results / "cross_validation.json").read_text(encoding="utf-8"))
    assert len(summary["cases"]) == 5
    assert set(summary["modalities"]) == {"CT", "MR"}
    assert set(summary["folds"]) == {"0", "1", "2", "3", "4"}
    assert summary["postprocessed"]["n_cases"] == 5
    assert (trained.results / "postprocessing.json").is_file()
    for folder in (trained.results, trained.root / "out"):
        assert '"image": "data:image/webp' in (folder / "report.html").read_text(encoding="utf-8")
    hidden = {path.name for path in trained.root.rglob("*") if path.name.startswith(".")}
    assert hidden == set()
    assert not list(trained.root.rglob("*.lock"))


def test_predictions_lie_on_the_grids_of_their_images(trained):
    images = sorted((trained.raw / "imagesTs").iterdir())
    assert len(images) == 2
    for path in images:
        image = sitk.ReadImage(str(path))
        labels = sitk.ReadImage(str(trained.root / "out" / path.name.replace("_0000", "")))
        assert labels.GetSize() == image.GetSize()
        for get in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(labels, get)(), getattr(image, get)(), rtol=0, atol=1e-4)
        values = sitk.GetArrayFromImage(labels)
        assert np.issubdtype(values.dtype, np.integer)
        assert set(np.unique(values)) <= {0, 1, 2, 3, 4}


def test_predictions_are_evaluated(trained):
    said = trained.run("evaluate", "out", trained.raw / "labelsTs", "-o", "scores")
    assert said.code == 0, said.err
    assert {path.name for path in (trained.root / "scores").glob("[!.]*")} == {
        *("evaluation.csv", "evaluation_means.csv", "evaluation.json", "confusion.csv"),
        *("statistics.csv", "statistics.json", "report.html"),
    }
    for case, found in read_statistics(trained.root / "scores").items():
        assert found == read_statistics(trained.root / "out")[case], "predict has measured the same"
    scores = json.loads((trained.root / "scores" / "evaluation.json").read_text(encoding="utf-8"))
    assert set(scores["classes"]) == {"vertebra", "disc", "canal", "sacrum"}
    assert "vertebra" in said.out


def test_images_that_the_model_has_learnt_from_are_named(trained, tmp_path):
    """Under another name too, and held out by one of the folds that predict together."""
    learnt, new = (
        sorted((trained.raw / folder).glob("*_0000.nii.gz"))[0] for folder in ("imagesTr", "imagesTs")
    )
    labels = trained.raw / "labelsTr" / learnt.name.replace("_0000", "")
    for path, target in (
        (learnt, "in/copy_0000.nii.gz"),
        (new, "in/new_0000.nii.gz"),
        (labels, "true/copy.nii.gz"),
    ):
        (tmp_path / target).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / target)
    said = trained.run("predict", "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert "the model has learnt from 1 of these 2 images (copy)" in said.err
    record = read_record(tmp_path / "out")
    assert record["copy"].training_case == labels.name.removesuffix(".nii.gz")
    assert record["new"].training_case is None
    described = trained.raw / "dataset.json"
    said = trained.run("evaluate", tmp_path / "out", tmp_path / "true", "--labels", described)
    assert "the model has learnt from this case (copy): the mean says nothing" in said.out
    holds_out = next(trained.results.glob(f"fold_*/validation/{labels.name}")).parents[1].name
    words = ("-o", tmp_path / "one", "-f", holds_out.removeprefix("fold_"))
    said = trained.run("predict", "-i", tmp_path / "in", *words)
    assert said.code == 0
    assert read_record(tmp_path / "one")["copy"].training_case is None


def test_a_model_whose_folds_are_in_training_is_named(spoilt):
    (spoilt.results / "fold_3" / "model.safetensors").rename(
        spoilt.results / "fold_3" / "checkpoint.safetensors"
    )
    line = "is incomplete: folds 0, 1, 2, 4 are complete, fold 3 is not trained to the end"
    (image,) = sorted((spoilt.raw / "imagesTs").glob("*_0000.nii.gz"))[:1]
    assert line in spoilt.run("predict", "-i", image, "-o", "some").err
    assert line not in spoilt.run("predict", "-i", image, "-o", "some", "-f", "0").err
    assert line in spoilt.run("model", "export", "-m", spoilt.results, "-o", "m.autospine").out
    assert line in spoilt.run("model", "info", spoilt.results).out
    assert line in spoilt.run("info").out
    assert line not in spoilt.run("model", "info", "m.autospine").out


def test_running_again_keeps_what_is_finished(trained):
    before = trained.state()
    for words in (("preprocess", "-d", "1"), ("train", "0", "--fold", "all", *SHORT)):
        said = trained.run(*words)
        assert said.code == 0
    assert said.err.count("is complete already") == 5
    changed = {path.name for path, state in trained.state().items() if before.get(path) != state}
    assert changed <= {
        "plan.json",
        "dataset.json",
        "cross_validation.json",
        "confusion.csv",
        "postprocessing.json",
        "report.html",
    }
    assert "5 of 5 cases are preprocessed already" in said.err


def test_plan_dataset_and_folds_are_read_once(trained):
    """Each file is opened once by a command; dataset.json a second time, to be copied beside the model."""
    opened: list[str] = []
    watching = [True]

    def note(event: str, facts: tuple[object, ...]) -> None:
        if watching and event == "open":
            opened.append(str(facts[0]))

    sys.addaudithook(note)  # hooks stay for as long as the process; this one rests after the command
    said = trained.run("train", "0", "--fold", "all", *SHORT)
    watching.clear()
    assert said.code == 0, said.err
    counts = Counter(path for path in opened if Path(path).suffix == ".json")
    assert counts[f"preprocessed/{NAME}/plan.json"] == 1
    assert counts[f"preprocessed/{NAME}/folds.json"] == 1
    assert counts[f"raw/{NAME}/dataset.json"] == 2


def test_a_single_image_is_predicted_as_in_its_folder(trained):
    image = sorted((trained.raw / "imagesTs").iterdir())[0]
    options = ("-m", "results/Dataset001_Tiny/fullres", "--save-probabilities")
    said = trained.run("predict", "-i", image, "-o", "single", *options)
    assert said.code == 0, said.err
    (single,) = (trained.root / "single").glob("*.nii.gz")
    together = sitk.ReadImage(str(trained.root / "out" / single.name))
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(single))), sitk.GetArrayFromImage(together)
    )


def test_predictions_are_cleaned_as_the_model_says(spoilt):
    """A rule that drops every piece of every class leaves nothing."""
    path = spoilt.results / "postprocessing.json"
    text = path.read_text(encoding="utf-8")
    for key, value in (
        ("least_mm3", "1e12"),
        ("fill_holes", "false"),
        ("removed_to", '"background"'),
        ("most_to_background_mm3", "null"),
    ):
        text = re.sub(rf'"{key}": [^,\s}}]+', f'"{key}": {value}', text)
    path.write_text(text, encoding="utf-8")
    inputs = ("-i", spoilt.raw / "imagesTs", "-f", "0", "-o")
    said = spoilt.run("predict", *inputs, "cleaned")
    assert said.code == 0, said.err
    assert "label maps are post-processed: vertebra, disc, canal, sacrum" in said.err
    record = read_record(spoilt.root / "cleaned").values()
    assert {case.cleaned for case in record} == {("vertebra", "disc", "canal", "sacrum")}
    for case in record:
        assert {change.to_label for change in case.changes} == {"background"}
        assert f"{case.case}: post-processing changed" in said.err
    assert spoilt.run("predict", *inputs, "raw_out", "--no-postprocessing").code == 0
    path.unlink()
    assert spoilt.run("predict", *inputs, "never").code == 0
    for written in (spoilt.root / "never").glob("*.nii.gz"):
        assert not sitk.GetArrayFromImage(sitk.ReadImage(str(spoilt.root / "cleaned" / written.name))).any()
        raw = sitk.GetArrayFromImage(sitk.ReadImage(str(spoilt.root / "raw_out" / written.name)))
        np.testing.assert_array_equal(raw, sitk.GetArrayFromImage(sitk.ReadImage(str(written))))


@pytest.mark.slow
@pytest.mark.real_data
def test_predictions_of_real_images_lie_on_their_grids(trained, real_data, tmp_path):
    dataset = real_data / "Dataset001_SpineReal"
    inputs = [*sorted((dataset / "imagesTr").iterdir()), *sorted((dataset / "imagesTs").iterdir())]
    inputs.append(real_data / "real" / "dicom_ct")
    assert len(inputs) >= 8
    for path in inputs:
        output = tmp_path / path.name.split(".")[0]
        said = trained.run("predict", "-i", path, "-o", output, "-f", "0")
        assert said.code == 0, said.err
        (written,) = output.glob("*.nii.gz")
        labels = sitk.ReadImage(str(written))
        assert np.issubdtype(sitk.GetArrayViewFromImage(labels).dtype, np.integer)
        expected = read_volume(path).stored
        assert labels.GetSize() == expected.shape[::-1]
        for found, wanted in (
            (labels.GetSpacing(), expected.spacing_mm[::-1]),
            (labels.GetOrigin(), expected.origin_mm),
            (labels.GetDirection(), expected.direction),
        ):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4, err_msg=path.name)


def test_other_networks_are_planned_trained_and_predict(place):
    wishes = ("--network", "unet3d", "--network", "swin_unetr", "--attention", "identity")
    assert place.run("plan-and-preprocess", "-d", "1", *SMALL, *wishes).code == 0
    assert [path.name for path in place.preprocessed.iterdir() if path.is_dir()] == ["fullres"]
    for network in ("unet3d", "swin_unetr_identity"):
        said = place.run("train", f"fullres_{network}", "--fold", "0", *SHORT)
        assert said.code == 0, said.err
        said = place.run("predict", "-i", place.raw / "imagesTs", "-o", network, "-c", f"fullres_{network}")
        assert said.code == 0, said.err
        assert len(list((place.root / network).glob("*.nii.gz"))) == 2


def test_budgets_are_compared_without_a_plan_being_written(place):
    assert place.run("fingerprint", "-d", "1").code == 0
    said = place.run("plan", "-d", "1", "--memory", "2GB", "--memory", "8GB", *SMALL[2:])
    assert said.code == 0, said.err
    rows = [line.split() for line in said.out.splitlines() if " fullres " in line]
    assert [row[2] for row in rows] == ["2.0", "8.0"]
    assert "nothing is written" in said.out
    assert not (place.preprocessed / "plan.json").exists()
    expect_refusal(
        place,
        *("plan", "-d", "1", "--memory", "2GB", "--memory", "8GB", "--calibrate"),
        says=("expected one --memory", "--calibrate"),
    )


def test_a_plan_is_explained_as_it_is(place):
    expect_refusal(place, "plan", "-d", "1", "--explain", says=("expected a plan", "plan-and-preprocess"))
    assert place.run("plan", "-d", "1", *SMALL).code == 0
    before = (place.preprocessed / "plan.json").read_bytes()
    said = place.run("plan", "-d", "1", "--explain")
    assert said.code == 0, said.err
    assert "set by the user" in said.out
    assert (place.preprocessed / "plan.json").read_bytes() == before


def test_a_plan_says_that_a_training_may_begin_from_the_starter(place):
    command = f"autospine plan-and-preprocess -d {NAME} --pretrained starter"
    said = place.run("plan", "-d", "1", *SMALL)
    assert f"to begin from the starter (vertebra, disc, canal, sacrum): {command}\n" in said.out
    said = place.run("plan", "-d", "1", "--memory", "2GB", "--pretrained", "starter")
    assert said.code == 0, said.err
    assert command not in said.out
    described = json.loads((place.raw / "dataset.json").read_text(encoding="utf-8"))
    values = [value for value in described["labels"].values() if value]
    described["labels"] = {"background": 0, **{f"rib_{value}": value for value in values}}
    (place.raw / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    said = place.run("plan", "-d", "1", *SMALL)
    assert said.code == 0, said.err
    assert "starter" not in said.out


def test_a_plan_that_is_replaced_during_a_training_says_so(place):
    assert "goes on" not in place.run("plan-and-preprocess", "-d", "1", *SMALL, "--no-report").err
    with heartbeat_lock(
        place.root / "results" / NAME / "fast" / "fold_1" / TRAINING_LOCK, "it", TrainingError
    ):
        said = " ".join(place.run("plan", "-d", "1", *SMALL).err.split())
    assert "training goes on by the plan that there was in" in said
    assert "fast/fold_1; wait for its end before you preprocess anew" in said


def test_a_plan_takes_wishes_from_a_file_and_says_what_it_replaces(place):
    (place.root / "wishes.yaml").write_text(
        "patch_size: [32, 32, 32]\nfeature_size: 8\nnetworks: [unet3d]\n", encoding="utf-8"
    )
    assert place.run("plan", "-d", "1", *SMALL).code == 0
    said = place.run(
        *("plan", "-d", "1", "--memory", "2GB", "--overrides", "wishes.yaml", "--patch", "16", "16", "16")
    )
    assert said.code == 0, said.err
    assert "no longer planned: fullres" in said.err
    plan = read_json(place.preprocessed / "plan.json", Plan)
    assert {(c.network.name, c.patch_size) for c in plan.configurations} == {("unet3d", (16, 16, 16))}


def test_calibration_is_kept_and_counts_for_later_plans(place):
    said = place.run("plan", "-d", "1", *SMALL, "--calibrate")
    assert said.code == 0, said.err
    factor = json.loads((place.preprocessed / "calibration.json").read_text(encoding="utf-8"))["factor"]
    assert 0.5 <= factor <= 2.0
    assert place.run("plan", "-d", "1", *SMALL).code == 0
    reasons = {d.name: d.value for d in read_json(place.preprocessed / "plan.json", Plan).rationale}
    assert reasons["calibration"] == f"{factor:.2f}"
    (place.preprocessed / "calibration.json").write_text(
        '{"format_version": 1, "device": "x", "factor": -3.5}', encoding="utf-8"
    )
    expect_refusal(place, "plan", "-d", "1", *SMALL, says=("expected a factor", "calibrate again"))


def test_training_begins_from_imported_weights(place):
    place.prepare()
    plan = read_json(place.preprocessed / "plan.json", Plan)
    planned = plan.configurations[0].network
    network = checkpoints.small(depths=planned.depths, num_heads=planned.num_heads, use_v2=True)
    torch.save({"state_dict": checkpoints.as_monai(network)}, place.root / "monai.pt")
    said = place.run("model", "import-weights", "monai.pt")
    assert said.code == 0, said.err
    for words in (
        "100% of the encoder's",
        "matched:",
        "missing in the file",
        "--pretrained",
    ):
        assert words in said.out
    weights = place.preprocessed / "fullres_pretrained.safetensors"
    assert load_imported(weights).tensors["bottleneck.conv1.weight"].equal(network.bottleneck.conv1.weight)
    kernel = load_imported(weights).tensors["encoders.0.conv1.weight"]
    assert kernel.shape[-1] == 2 and kernel[..., 0].any() and not kernel[..., 1].any()  # image, gradient
    said = place.run("train", "0", "--fold", "0", "--pretrained", weights, *SHORT)
    assert said.code == 0, said.err
    expect_refusal(place, "train", "0", "--fold", "1", *SHORT, says=("--pretrained", "fold_0"))
    place.run("plan", "-d", "1", *SMALL, "--network", "cnn3d")
    expect_refusal(place, "model", "import-weights", "monai.pt", says=("cnn3d",))
    expect_refusal(place, "train", "0", "--pretrained", weights, says=("another network",))


def test_interrupted_training_goes_on(place, monkeypatch):
    place.prepare()
    take, steps = Learner.step, []

    def step(self, *arguments):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return take(self, *arguments)

    monkeypatch.setattr(Learner, "step", step)
    words = ("train", "0", "--fold", "2", "--epochs", "2", "--iterations", "2", "--parallel", "1")
    said = place.run(*words)
    assert said.code == 130
    assert "run the same command again to go on" in said.err
    assert (place.results / "fold_2" / "checkpoint.safetensors").is_file()
    said = place.run(*words)
    assert said.code == 0, said.err
    assert "fold 2 resumes after epoch 1" in said.err
    assert len(steps) == 3 + 2
    assert (place.results / "fold_2" / "model.safetensors").is_file()
    assert not (place.results / "fold_2" / "checkpoint.safetensors").exists()


def test_training_takes_files_and_plan_as_they_are_now(place):
    def stored():
        files = (place.preprocessed / "fullres").glob("*.json")
        return {path.stem: path.stat().st_mtime_ns for path in files}

    def trained_on_new():
        before = stored()
        assert place.run("train", "0", "--fold", "full", *SHORT).code == 0
        return {name for name, time in stored().items() if time != before[name]}

    place.prepare()
    labels = min((place.raw / "labelsTr").iterdir())
    image = sitk.ReadImage(str(labels))
    image[0, 0, 0] = 1
    sitk.WriteImage(image, str(labels))
    assert trained_on_new() == {labels.name.removesuffix(".nii.gz")}
    shutil.rmtree(place.results)
    path = place.preprocessed / "plan.json"
    planned = read_json(path, Plan)
    ct = replace(planned.normalisation["CT"], mean=planned.normalisation["CT"].mean + 5)
    write_json(path, replace(planned, normalisation={**planned.normalisation, "CT": ct}))
    assert trained_on_new() == {case.name for case in load_dataset(place.raw).cases}


def test_a_loss_that_cannot_be_made_is_refused_before_anything_is_planned(place, tmp_path, monkeypatch):
    others = tmp_path / "others"
    others.mkdir()
    (others / "odd_losses.py").write_text("def odd():\n    pass\n", encoding="utf-8")
    makers.install_distribution(others, "odd-losses", "[autospine.losses]\nodd = odd_losses:odd\n")
    monkeypatch.syspath_prepend(str(others))
    said = place.run("plan-and-preprocess", "-d", "1", "--loss", "odd", *SMALL)
    assert said.code == 1
    assert "the loss 'odd' (odd_losses:odd) of the distribution odd-losses 1.0 cannot be made" in said.err
    assert not (place.preprocessed / "plan.json").exists()


def test_a_model_of_every_case_is_named_where_folds_would_predict(place):
    place.prepare()
    alone = place.run("train", "0", "--fold", "full", *SHORT)
    assert re.search(r"next: autospine predict -i IMAGES -o OUTPUT( -w \S+)?\n", alone.out)
    assert place.run("train", "0", "--fold", "0", *SHORT).code == 0
    beside = place.run("train", "0", "--fold", "full", *SHORT)
    assert "next: autospine predict -i IMAGES -o OUTPUT -f full" in beside.out
    assert "cross-validation" not in beside.out


def test_the_schedule_fits_the_time_given(place):
    place.prepare()
    said = place.run(
        "train", "0", "--fold", "0", "--max-minutes", "0.5", "--iterations", "2", "--parallel", "1"
    )
    assert said.code == 0, said.err
    rows = (place.results / "fold_0" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rows[-1])["progress"] == 1.0


# Several models.

PAIR = ("fullres", "fullres_unet3d")


@pytest.fixture(scope="module")
def compared(trained, tmp_path_factory) -> Place:
    """A workspace with two models, compared."""
    root = tmp_path_factory.mktemp("compared") / "workspace"
    shutil.copytree(trained.root, root)
    place = Place(root)
    wishes = ("--network", "adaptive_swin_unetr", "--network", "unet3d")
    for words in (
        ("plan", "-d", "1", *SMALL, *wishes),
        ("train", PAIR[1], *SHORT),
        ("compare", "-d", "1"),
    ):
        said = place.run(*words)
        assert said.code == 0, said.err
    (root / "said.txt").write_text(said.out, encoding="utf-8")
    return place


@pytest.fixture
def spoilt_pair(compared, tmp_path) -> Place:
    """A copy of the workspace with two models."""
    shutil.copytree(compared.root, tmp_path / "pair")
    return Place(tmp_path / "pair")


def test_models_and_their_ensemble_are_compared_on_the_same_cases(compared):
    best = read_json(compared.results.parent / "best.json", Best)
    assert {one.members for one in best.candidates} == {(PAIR[0],), (PAIR[1],), PAIR}
    dice = [one.dice for one in best.candidates]
    assert dice == sorted(dice, reverse=True)
    assert best.members == best.candidates[0].members
    assert best.n_cases == 5
    by_members = {one.members: one for one in best.candidates}
    one, two, both = by_members[PAIR[:1]], by_members[PAIR[1:]], by_members[PAIR]
    assert both.parameters == one.parameters + two.parameters
    assert both.minutes == pytest.approx(one.minutes + two.minutes, abs=0.01)
    assert set(both.modality_dice) == {"CT", "MR"}
    said = (compared.root / "said.txt").read_text(encoding="utf-8")
    assert "fullres + fullres_unet3d" in said
    assert f"next: {best.command}" in said
    assert best.command.startswith("autospine predict -i IMAGES -o OUTPUT -m results/")


def test_an_ensemble_is_validated_by_the_networks_that_have_not_seen_the_case(compared):
    folds = read_cross_validation(compared.results).folds
    ensemble = compared.results.parent / "ensembles" / "+".join(PAIR)
    case = folds["2"][0]
    models = [open_model(compared.results.parent / name) for name in PAIR]
    predictors = [
        Predictor(
            plan=model.plan,
            configuration=model.configuration,
            networks=model.networks(["2"]),
            device=torch.device("cpu"),
        )
        for model in models
    ]
    known = {c.name: c for c in load_dataset(compared.raw).cases}[case]
    expected = JointPredictor(predictors=predictors).predict(read_volume(known.images), known.modality)
    written = read_volume(ensemble / "fold_2" / "validation" / f"{case}.nii.gz")
    np.testing.assert_array_equal(written.array[0], expected)
    scores = json.loads((ensemble / "cross_validation.json").read_text(encoding="utf-8"))
    assert len(scores["cases"]) == 5


def test_where_another_model_is_validated_too_training_ends_with_how_to_compare(spoilt, spoilt_pair):
    for place, said_so in ((spoilt, False), (spoilt_pair, True)):
        said = place.run("train", PAIR[0], *SHORT)
        assert said.code == 0, said.err
        assert (f"or compare {', '.join(PAIR)} first: autospine compare -d {NAME}" in said.out) == said_so


def test_comparing_again_keeps_what_the_ensemble_has_predicted(compared):
    before = compared.state()
    assert compared.run("compare", "-d", "1").code == 0
    changed = {path.name for path, state in compared.state().items() if before.get(path) != state}
    files = {"best.json", "confusion.csv", "cross_validation.json", "postprocessing.json", "report.html"}
    assert changed == files


def test_prediction_takes_the_best(spoilt_pair):
    path = spoilt_pair.results.parent / "best.json"
    best = read_json(path, Best)
    write_json(path, replace(best, members=PAIR))
    inputs = ("predict", "-i", spoilt_pair.raw / "imagesTs", "-f", "0", "-o")
    said = spoilt_pair.run(*inputs, "by_itself")
    assert said.code == 0, said.err
    assert said.out.count("the best in results") == 2
    folders = [word for name in PAIR[::-1] for word in ("-m", f"results/{NAME}/{name}")]
    assert spoilt_pair.run(*inputs, "named", *folders).code == 0
    one = spoilt_pair.run(*inputs, "single", "-c", PAIR[1])
    assert "(as asked for)" in one.out
    for path in (spoilt_pair.root / "named").glob("*.nii.gz"):
        named, by_itself = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(spoilt_pair.root / folder / path.name)))
            for folder in ("named", "by_itself")
        )
        np.testing.assert_array_equal(named, by_itself)


def test_an_ensemble_of_networks_trained_since_is_predicted_anew(spoilt_pair):
    fold = spoilt_pair.results / "fold_0" / "model.safetensors"
    shutil.copy(spoilt_pair.results / "fold_1" / "model.safetensors", fold)
    inputs = ("-i", spoilt_pair.raw / "imagesTs", "-f", "0", "-o", "new")
    said = spoilt_pair.run("predict", *inputs)
    assert "run `autospine compare -d Dataset001_Tiny` again" in said.out
    folders = [word for name in PAIR for word in ("-m", f"results/{NAME}/{name}")]
    said = spoilt_pair.run("predict", *inputs, *folders)
    assert "not compared together as they are now" in said.err
    before = spoilt_pair.state()
    assert spoilt_pair.run("compare", "-d", "1").code == 0
    after = spoilt_pair.state()
    again = [path for path in after if path.match("ensembles/*/fold_*/validation/*")]
    assert len(again) == 5
    assert all(after[path] != before[path] for path in again)


def test_a_damaged_prediction_of_an_ensemble_is_made_again(spoilt_pair):
    ensemble = spoilt_pair.results.parent / "ensembles" / "+".join(PAIR)
    path = next(ensemble.glob("fold_2/validation/*"))
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2])
    said = spoilt_pair.run("compare", "-d", "1")
    assert said.code == 0, said.err
    assert len(path.read_bytes()) == len(sound)


def test_scores_of_other_weights_are_told(spoilt_pair):
    """As after an extension that was broken off, or where weights were copied."""
    folds = [spoilt_pair.results / f"fold_{fold}" for fold in range(2)]
    words = {
        "compare": ("compare", "-d", "1", "--no-ensembles"),
        "predict": (
            *("predict", "-i", spoilt_pair.raw / "imagesTs", "-o", "new"),
            *("-m", spoilt_pair.results, "-f", "0"),
        ),
    }
    for command in words.values():
        assert "is of other weights" not in spoilt_pair.run(*command).err
    shutil.copy(folds[1] / "model.safetensors", folds[0] / "model.safetensors")
    for command in words.values():
        said = spoilt_pair.run(*command)
        assert said.code == 0, said.err
        assert f"fullres is of other weights than fold_0 has now: run `autospine train {PAIR[0]}" in said.err


def test_no_model_that_has_seen_a_case_helps_with_it(spoilt_pair):
    results = spoilt_pair.results.parent
    shutil.copytree(results / PAIR[1], results / "lowres")
    plan = json.loads((results / "lowres" / "plan.json").read_text(encoding="utf-8"))
    plan["configurations"][0]["spacing_mm"] = [2 * d for d in plan["configurations"][0]["spacing_mm"]]
    (results / "lowres" / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    (results / "lowres" / "cross_validation.json").unlink()  # or it would be known to be bad
    shutil.rmtree(results / "ensembles")
    said = spoilt_pair.run("compare", "-d", "1", "-c", PAIR[0], "-c", PAIR[1])
    assert said.code == 0, said.err
    assert "locates the spine" not in said.err
    folders = [word for name in PAIR for word in ("-m", results / name)]
    inputs = ("-i", spoilt_pair.raw / "imagesTs", "-f", "0", "-o", "new")
    said = spoilt_pair.run("predict", *inputs, *folders)
    assert "locates the spine" in said.err


def test_models_alone_are_compared_without_predicting(spoilt_pair):
    shutil.rmtree(spoilt_pair.results.parent / "ensembles")
    assert spoilt_pair.run("compare", "-d", "1", "--no-ensembles").code == 0
    assert not (spoilt_pair.results.parent / "ensembles").exists()
    assert spoilt_pair.run("compare", "-d", "1", "-c", PAIR[1]).code == 0
    assert read_json(spoilt_pair.results.parent / "best.json", Best).members == PAIR[1:]


def test_models_that_cannot_be_compared(spoilt_pair):
    results = spoilt_pair.results.parent
    expect_refusal(
        spoilt_pair, "compare", "-d", "1", "-c", "nothing", says=("found nothing", "autospine train")
    )
    scores = results / PAIR[1] / "cross_validation.json"
    text = scores.read_text(encoding="utf-8")
    described = json.loads(text)
    described["folds"]["0"]["cases"], described["folds"]["1"]["cases"] = (
        described["folds"]["1"]["cases"],
        described["folds"]["0"]["cases"],
    )
    scores.write_text(json.dumps(described))
    expect_refusal(spoilt_pair, "compare", "-d", "1", says=("same folds", "-c"))
    del described["folds"]["0"]
    scores.write_text(json.dumps(described))
    expect_refusal(spoilt_pair, "compare", "-d", "1", "-c", PAIR[1], says=("all 5 held-out cases", PAIR[1]))
    said = spoilt_pair.run("compare", "-d", "1")
    assert f"left out: {PAIR[1]}" in said.err
    scores.write_text(text)
    plan = results / PAIR[1] / "plan.json"
    plan.write_text(plan.read_text(encoding="utf-8").replace('"disc"', '"disk"'), encoding="utf-8")
    expect_refusal(spoilt_pair, "compare", "-d", "1", says=("same labels", "-c"))
    folders = [word for name in PAIR for word in ("-m", results / name)]
    inputs = ("-i", spoilt_pair.raw / "imagesTs", "-o", "new")
    expect_refusal(spoilt_pair, "predict", *inputs, *folders, says=("predict together", "disk"))


def test_a_best_model_that_is_gone_is_missed(spoilt_pair):
    path = spoilt_pair.results.parent / "best.json"
    write_json(path, replace(read_json(path, Best), members=PAIR))
    shutil.rmtree(spoilt_pair.results.parent / PAIR[1])
    inputs = ("predict", "-i", spoilt_pair.raw / "imagesTs", "-o", "new")
    expect_refusal(spoilt_pair, *inputs, says=(PAIR[1], "autospine compare"))


def test_nothing_to_compare(place):
    expect_refusal(place, "compare", "-d", "1", says=("found none", "autospine train"))


# Bad input: a clear sentence, exit code 1, nothing half-written.


def test_no_dataset_of_that_name(place):
    for words in (("plan-and-preprocess", "-d", "7"), ("verify", "-d", "Dataset007"), ("train", "-d", "x")):
        expect_refusal(place, *words, says=(NAME,))


def test_no_dataset_at_all(tmp_path):
    expect_refusal(Place(tmp_path), "verify", "-d", "1", says=("found none",))


def test_every_missing_file_is_named_at_once(place):
    names = sorted(path.name.removesuffix("_0000.nii.gz") for path in (place.raw / "imagesTr").iterdir())
    (place.raw / "labelsTr" / f"{names[0]}.nii.gz").unlink()
    (place.raw / "imagesTr" / f"{names[1]}_0000.nii.gz").unlink()
    shutil.copy(
        place.raw / "imagesTr" / f"{names[2]}_0000.nii.gz", place.raw / "imagesTr" / f"{names[2]}_0001.nii.gz"
    )
    says = (
        f"{names[0]}: image without label",
        f"{names[1]}: label without image",
        f"{names[2]}: expected 1 channel (0000), found 0000, 0001",
    )
    for command in ("verify", "plan-and-preprocess"):
        expect_refusal(place, command, "-d", "1", says=says)


def change(path: Path, array=lambda array: array, **header) -> None:
    """Rewrite an image with other voxels or another header."""
    image = sitk.ReadImage(str(path))
    changed = sitk.GetImageFromArray(array(sitk.GetArrayFromImage(image)))
    for what in ("Spacing", "Origin", "Direction"):
        getattr(changed, f"Set{what}")(header.get(what, getattr(image, f"Get{what}")()))
    sitk.WriteImage(changed, str(path))


def test_every_faulty_case_is_named_at_once(place):
    labels = sorted((place.raw / "labelsTr").iterdir())
    names = [path.name.removesuffix(".nii.gz") for path in labels]
    origin = sitk.ReadImage(str(labels[0])).GetOrigin()
    change(labels[0], Origin=(origin[0] + 0.5, *origin[1:]))
    if sitk.ReadImage(str(labels[1])).GetSize()[2] > 2:
        change(labels[1], lambda array: array[1:])
    change(labels[2], lambda array: np.where(array == 2, 77, array))
    image = place.raw / "imagesTr" / f"{names[3]}_0000.nii.gz"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    (place.raw / "imagesTr" / f"{names[4]}_0000.nii.gz").write_bytes(b"not an image")
    says = (
        f"{names[0]}: expected image and labels on one grid",
        f"{names[1]}: expected image and labels on one grid",
        f"{names[2]}: expected the labels [0, 1, 2, 3, 4] of dataset.json, found 77",
        f"{names[3]}:",
        f"{names[4]}:",
        "found 5 faults",
    )
    for command in ("verify", "plan-and-preprocess"):
        expect_refusal(place, command, "-d", "1", says=says)


def test_the_splits_of_nnunet_are_taken(place):
    place.prepare()
    folds = place.preprocessed / "folds.json"
    names = sorted(
        name for fold in json.loads(folds.read_text(encoding="utf-8"))["validation"] for name in fold
    )
    splits = place.root / "splits_final.json"
    pair = [{"train": names[2:], "val": names[:2]}, {"train": names[:2], "val": names[2:]}]
    splits.write_text(json.dumps(pair), encoding="utf-8")
    said = place.run("plan", "-d", "1", *SMALL, "--splits", "splits_final.json")
    assert said.code == 0, said.err
    assert json.loads(folds.read_text(encoding="utf-8"))["validation"] == [names[:2], names[2:]]
    before = folds.read_bytes()
    assert place.run("plan", "-d", "1", *SMALL).code == 0
    assert folds.read_bytes() == before
    pair[0]["train"] = names[3:]
    splits.write_text(json.dumps(pair), encoding="utf-8")
    expect_refusal(
        place, "plan", "-d", "1", *SMALL, "--splits", "splits_final.json", says=("fold 0", names[2])
    )
    expect_refusal(place, "plan", "-d", "1", "--splits", "absent.json", says=("absent.json", "--splits"))


def test_rounding_of_a_header_is_no_fault(place):
    for path in (place.raw / "labelsTr").iterdir():
        origin = sitk.ReadImage(str(path)).GetOrigin()
        change(path, Origin=(origin[0] + 5e-4, *origin[1:]))
    assert place.run("verify", "-d", "1").code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "dataset.json"),
        ('{"labels": {"background": 0, "a": 1}}', "channel_names"),
        ('{"channel_names": {"0": "CT"}, "labels": {"a": null}}', "`labels`"),
        ('{"channel_names": {"0": "CT"}, "labels": {"a": 1}, "file_ending": ".png"}', "file_ending"),
    ],
)
def test_a_description_that_makes_no_sense(place, text, says):
    (place.raw / "dataset.json").write_text(text)
    expect_refusal(place, "plan-and-preprocess", "-d", "1", says=(says,))


def test_too_few_cases_for_five_folds(place):
    for path in [*(place.raw / "imagesTr").glob("*_004*"), *(place.raw / "labelsTr").glob("*_004*")]:
        path.unlink()
    rows = (place.raw / "cases.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (place.raw / "cases.csv").write_text("".join(row for row in rows if "_004" not in row))
    said = place.run("plan-and-preprocess", "-d", "1", *SMALL)
    assert said.code == 0
    assert "at least 5 subjects for 5 folds, found 4" in said.err
    expect_refusal(place, "train", "0", "--fold", "all", *SHORT, says=("found 4 with 4 cases", "--fold full"))


@pytest.mark.parametrize("memory", ["0.05GB", "a lot"])
def test_a_memory_budget_too_small_for_any_patch(place, memory):
    expect_refusal(
        place,
        *("plan-and-preprocess", "-d", "1", "--memory", memory),
        says=("memory",),
        may_write=("fingerprint.json",),
    )


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (("--patch", "17", "16", "16"), "divisible"),
        (("--spacing", "0", "1", "1"), "--spacing"),
        (("--feature-size", "7"), "--feature-size"),
        (("--network", "nothing"), "resenc_unet"),
        (("--attention", "nothing"), "identity"),
        (("--fusion-placement", "nothing"), "stem"),
        (("--adaptive-stages", "5"), "--adaptive-stages"),
        (("--network", "cnn3d", "--attention", "plain"), "swin_unetr"),
        (("--device", "gpu"), "--device"),
    ],
)
def test_wishes_that_cannot_be_met(place, wish, says):
    expect_refusal(
        place, "plan-and-preprocess", "-d", "1", *wish, says=(says,), may_write=("fingerprint.json",)
    )


def test_training_without_a_plan(place):
    expect_refusal(place, "train", "0", "-d", "1", says=("plan-and-preprocess",))
    expect_refusal(place, "train", "0", says=("plan-and-preprocess",))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("train", "9"), ("0 (fullres)", "'9'")),
        (("train", "nothing"), ("0 (fullres)", "'nothing'")),
        (("train", "0", "--fold", "5"), ("0, 1, 2, 3, 4", "'5'")),
        (("train", "0", "--fold", "some"), ("all, full", "'some'")),
        (("train", "0", "--seed", str(2**64)), ("--seed",)),
        (("train", "0", "--pretrained", "absent"), ("absent", "import-weights")),
        (("train", "0", "--pretrained", f"raw/{NAME}/dataset.json"), ("dataset.json", "import-weights")),
        (("model", "import-weights", "absent"), ("absent",)),
        (("model", "import-weights", f"raw/{NAME}/dataset.json"), ("expected weights in",)),
        (("model", "import-weights", f"raw/{NAME}/dataset.json", "-o", "weights.pt"), (".safetensors",)),
        (("preprocess", "-d", "1", "-c", "9"), ("0 (fullres)", "'9'")),
        (("predict", "-i", "raw", "-o", "new", "-c", "nothing"), ("model 'nothing'",)),
        (("predict", "-i", f"raw/{NAME}/imagesTs", "-o", "new", "-f", "7"), ("0, 1, 2, 3, 4", "7")),
        (("predict", "-i", f"raw/{NAME}/imagesTs", "-o", "new", "-m", "raw"), ("model folder", "raw")),
        (("predict", "-i", f"raw/{NAME}/imagesTs", "-o", "new", "-d", "7"), ("model of 7",)),
        (("predict", "-i", "absent", "-o", "new"), ("absent",)),
        (("predict", "-i", f"raw/{NAME}", "-o", "new"), ("found none",)),
        (("predict", "-i", f"raw/{NAME}/dataset.json", "-o", "new"), ("dataset.json",)),
        (("predict", "-i", f"raw/{NAME}/imagesTs", "-o", f"raw/{NAME}/dataset.json"), ("the file",)),
        (("evaluate", "absent", f"raw/{NAME}/labelsTs"), ("absent",)),
        (("evaluate", "out", "absent"), ("absent",)),
        (("evaluate", f"raw/{NAME}/labelsTr", f"raw/{NAME}/labelsTs"), ("rename the files",)),
        (("verify", "-d", "1", "-w", "absent"), ("absent",)),
    ],
)
def test_what_does_not_exist(trained, words, says):
    expect_refusal(trained, *words, says=says)


def test_the_file_reference_names_every_file(trained):
    text = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    cases = sorted(case.name for case in load_dataset(trained.raw).cases)
    names = {
        path.name for folder in ("preprocessed", "results") for path in (trained.root / folder).rglob("*")
    }
    for case in cases:
        names = {name.replace(case, "CASE") for name in names}
    folders = {NAME, "fullres", *(f"fold_{fold}" for fold in range(5))}
    assert [name for name in sorted(names - folders) if name not in text] == []


def test_a_model_tells_how_it_was_trained(trained):
    said = trained.run("model", "info", trained.results)
    assert said.code == 0, said.err
    assert " minutes, seed 0" in said.out
    assert f"PyTorch {torch.__version__}, CPU, " in " ".join(said.out.split())


def test_a_fold_that_does_not_exist_is_refused_before_anything_is_said(trained):
    said = trained.run("train", "0", "--fold", "9")
    assert (said.code, said.out) == (1, "")
    assert "one of 0, 1, 2, 3, 4, found '9'" in said.err


def test_predicting_without_a_model(place):
    images = place.raw / "imagesTs"
    expect_refusal(
        place, "predict", "-d", "900", "-i", images, "-o", "out", says=("autospine train", "first")
    )
    said = place.run("predict", "-i", images, "-o", "out")
    assert said.code == 0, said.err
    assert "model: starter, fold full (no model is trained in" in said.out
    assert STARTER_LIMITS in said.out
    assert len(list((place.root / "out").glob("*.nii.gz"))) == len(list(images.iterdir()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_said(place):
    said = place.run("predict", "-i", place.raw / "imagesTs", "-o", "nowhere", "--device", "cuda")
    assert (said.code, said.out) == (1, "")
    assert "found 0 GPUs" in said.err
    assert not (place.root / "nowhere").exists()


def test_one_bad_image_does_not_stop_the_others(spoilt):
    images = sorted((spoilt.raw / "imagesTs").iterdir())
    images[0].write_bytes(images[0].read_bytes()[:500])
    words = ("predict", "-i", spoilt.raw / "imagesTs", "-o", "new", "-f", "0")
    said = spoilt.run(*words)
    assert said.code == 1
    assert images[0].name in said.err
    written = [path.name for path in (spoilt.root / "new").glob("*.nii.gz")]
    assert written == [images[1].name.replace("_0000", "")]
    assert "damaged" in said.err
    bad, good = sorted(read_record(spoilt.root / "new").values(), key=lambda case: case.status)
    assert (bad.status, good.status) == ("failed", "written")
    assert "damaged" in bad.error
    assert good.tiles_run <= good.tiles
    assert good.seconds > 0
    assert good.peak_gb > 0.1
    assert [len(model.digest) for model in good.models] == [64]
    # The bad one is mended: it alone is predicted, and the other's entry is kept as it is.
    shutil.copy(images[1], images[0])
    said = spoilt.run(*words, "--continue")
    assert said.code == 0
    assert "tiles" in said.err
    mended = read_record(spoilt.root / "new")
    assert mended[good.case] == good
    assert mended[bad.case].status == "written"


def test_a_batch_goes_on_past_everything_that_is_no_image(spoilt):
    """Wrong files are said one by one, the others are predicted, and the code is 1."""
    images = spoilt.raw / "imagesTs"
    good = sorted(path.name.removesuffix("_0000.nii.gz") for path in images.iterdir())
    flat, colours = np.zeros((20, 20), np.int16), np.zeros((4, 20, 20, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(flat), str(images / "flat.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(images / "colours.nrrd"))
    (images / "absent.nii.gz").symlink_to("nowhere.nii.gz")
    shutil.copy(images / f"{good[0]}_0000.nii.gz", images / "two_0000.nii.gz")
    shutil.copy(images / f"{good[0]}_0000.nii.gz", images / "two_0001.nii.gz")
    (images / "README.txt").write_text("Not an image.", encoding="utf-8")
    said = spoilt.run("predict", "-i", images, "-o", "new", "-f", "0")
    assert said.code == 1
    assert "4 cases failed: absent, colours, flat, two" in " ".join(said.out.split())
    assert "written to new: 2 of 6 label maps" in said.out
    for word in (
        "absent: expected an image at",
        "colours: expected",
        "flat: expected a 3D",
        "two: expected 1",
    ):
        assert word in said.err
    assert sorted(path.name for path in (spoilt.root / "new").glob("*.nii.gz")) == [
        f"{name}.nii.gz" for name in good
    ]


def test_images_with_too_many_channels(spoilt):
    for path in sorted((spoilt.raw / "imagesTs").iterdir()):
        shutil.copy(path, spoilt.root / path.name)
        shutil.copy(path, spoilt.root / path.name.replace("_0000", ""))
    expect_refusal(spoilt, "predict", "-i", ".", "-o", "new", says=("expected 1 file,", "none"))


def test_an_image_is_never_written_over(spoilt):
    images = spoilt.root / "images"
    images.mkdir()
    for path in (spoilt.raw / "imagesTs").iterdir():
        shutil.copy(path, images / path.name.replace("_0000", ""))
    expect_refusal(spoilt, "predict", "-i", images, "-o", images, says=("other than that of the images",))
    expect_refusal(spoilt, "predict", "-i", images, "-o", spoilt.raw, says=("other than that of a dataset",))


def test_several_folds_are_not_taken_for_the_last_one(spoilt):
    expect_refusal(
        spoilt,
        "train",
        "0",
        "-f",
        "0",
        "-f",
        "1",
        says=("found 0, 1; run the command with --fold 0, then with --fold 1, or",),
    )


def test_damaged_files_of_ours_are_named(spoilt):
    weights = spoilt.results / "fold_1" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    inputs = ("-i", spoilt.raw / "imagesTs", "-o", "new")
    expect_refusal(spoilt, "predict", *inputs, says=("fold_1", "expected weights"))
    (spoilt.results / "plan.json").write_text('{"format_version": 1}')
    expect_refusal(spoilt, "predict", *inputs, says=("plan.json", "channels is missing"))
    (spoilt.preprocessed / "plan.json").write_text("{}")
    expect_refusal(spoilt, "train", "0", says=("plan.json",))


def test_a_changed_dataset_is_measured_again(place):
    place.prepare()
    path = place.preprocessed / "fingerprint.json"
    before = path.read_text(encoding="utf-8")
    assert place.run("plan", "-d", "1", *SMALL).code == 0
    assert path.read_text(encoding="utf-8") == before
    change(sorted((place.raw / "labelsTr").iterdir())[0], lambda array: np.where(array == 2, 0, array))
    assert place.run("plan", "-d", "1", *SMALL).code == 0
    assert path.read_text(encoding="utf-8") != before


def test_a_damaged_fingerprint_is_measured_again(place):
    place.prepare()
    path = place.preprocessed / "fingerprint.json"
    before = path.read_text(encoding="utf-8")
    path.write_text("[]")
    assert place.run("plan", "-d", "1", *SMALL).code == 0
    assert path.read_text(encoding="utf-8") == before


def test_folds_edited_into_nonsense(spoilt):
    path = spoilt.preprocessed / "folds.json"
    folds = json.loads(path.read_text(encoding="utf-8"))
    folds["validation"][0] = folds["validation"][1]
    path.write_text(json.dumps(folds))
    expect_refusal(spoilt, "train", "0", *SHORT, says=("is validated 2 times", "is in no fold", "folds.json"))


def test_the_phantom_command_does_not_replace_what_is_there(place):
    words = ("phantom", "--cases", "1", "--workers", "1", "-o")
    expect_refusal(place, *words, place.raw, says=("ask to overwrite",))
    (place.root / "file").write_text("")
    expect_refusal(place, *words, place.root / "file", says=("found a file",))


# Usage, help and faults of ours.


def test_wrong_usage_is_code_2(place):
    assert place.run("train", "0", "--no-such-option").code == 2
    assert place.run("train", "0", "--seed", "-1").code == 2
    assert place.run("predict").code == 2
    assert place.run("nothing").code == 2


@pytest.mark.parametrize(
    "command", ["", *["plan-and-preprocess", "verify", "fingerprint", "plan", "preprocess", "train"]]
)
def test_help_is_there(place, command):
    said = place.run(*command.split(), "--help")
    assert said.code == 0
    assert "Usage" in said.out


def test_a_fault_of_ours_is_code_3_and_its_traceback_is_for_debugging(place, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("autospine.pipeline.measuring.check", broken)
    said = place.run("verify", "-d", "1")
    assert said.code == 3
    assert "ZeroDivisionError" in said.err
    assert "Traceback" not in said.err
    with pytest.raises(ZeroDivisionError):
        place.run("verify", "-d", "1", "--debug")


def test_info_lists_what_is_there(trained):
    said = trained.run("info")
    assert said.code == 0
    assert f"{NAME}: planned, trained: fullres" in said.out
