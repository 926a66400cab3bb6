"""Experiments: their designs, their protocol, and what they say of what they found."""

import json
from dataclasses import replace
from itertools import zip_longest
from math import prod

import makers
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from autospine.core.errors import PlanError, TrainingError
from autospine.dataset.splits import FoldsFile
from autospine.evaluation.boundary_errors import BoundaryErrors
from autospine.evaluation.overlap import Counts
from autospine.evaluation.scores import CaseScores, Evaluation
from autospine.pipeline import costs
from autospine.pipeline.configuration_cost import known_costs
from autospine.pipeline.costs import measure_costs
from autospine.pipeline.experiments import experiment_run, variants
from autospine.pipeline.experiments.designs import EXPERIMENTS
from autospine.pipeline.experiments.experiment_files import CSV, FIGURE, JSON, VERDICT, write_experiment
from autospine.pipeline.experiments.experiment_run import FinishedExperiment, TrainingExtent, run_experiment
from autospine.pipeline.experiments.protocol import (
    FORMAT_VERSION,
    ExperimentProtocol,
    read_protocol,
    settle_protocol,
)
from autospine.pipeline.experiments.results import (
    BOUNDARY,
    DICE,
    METRICS,
    VariantResult,
    boundary_findings,
    differences_from,
    group_differences,
    of_means,
)
from autospine.pipeline.experiments.verdicts import judge, not_outdone
from autospine.pipeline.measuring import fingerprint
from autospine.pipeline.planned_dataset import PlannedDataset
from autospine.pipeline.training import open_project
from autospine.storage.workspace import DatasetLocation
from trainers.schedule import NoTimeLeftError

CPU = torch.device("cpu")
CLASSES = ("bone", "canal")


def test_an_ablation_changes_the_mechanisms_alone():
    plan = makers.plan()
    (configuration,) = plan.configurations
    found = {each.name: each.configuration for each in variants.ablations(plan, configuration)}
    assert list(found) == [
        *("as_planned", "fusion_off", "fusion_ones", "attention_plain", "attention_identity", "both_off")
    ]
    assert found["as_planned"] == configuration
    fused, adaptive = configuration.network.fusion, configuration.network.attention
    assert {name: (each.network.fusion, each.network.attention) for name, each in found.items()} == {
        "as_planned": (fused, adaptive),
        "fusion_off": (None, adaptive),
        "fusion_ones": (replace(fused, weighting="ones"), adaptive),
        "attention_plain": (fused, "plain"),
        "attention_identity": (fused, "identity"),
        "both_off": (None, "plain"),
    }
    assert all(replace(each, network=configuration.network) == configuration for each in found.values())


def test_a_network_without_mechanisms_is_not_ablated():
    plain = makers.configuration(network=makers.network_plan(fusion=None, attention="plain"))
    plan = makers.plan(plain)
    for ask in (variants.ablations, variants.against_plain):
        with pytest.raises(PlanError, match=r"multi-scale fusion or adaptive attention.*-c"):
            ask(plan, plain)


def test_a_sweep_begins_with_the_planned_weight():
    plan = makers.plan()
    found = variants.lambdas(plan, plan.configurations[0])
    assert [each.configuration.training.lambda_ce for each in found] == [0.5, 0, 0.25, 0.75, 1]
    assert [each.name for each in found][:3] == ["as_planned", "lambda_0", "lambda_0_25"]
    other = makers.configuration()
    other = replace(other, training=replace(other.training, loss="focal"))
    with pytest.raises(PlanError, match=r"dice_ce.*focal"):
        variants.lambdas(makers.plan(other), other)


def test_a_case_is_learnt_by_heart_without_augmentation():
    plan = makers.plan()
    (only,) = variants.memorising(plan, plan.configurations[0])
    augmentation = only.configuration.augmentation
    assert augmentation.spatial_probability == augmentation.intensity_probability == 0
    assert augmentation.mirror_axes == ()


def protocol(**changes: object) -> ExperimentProtocol:
    made = ExperimentProtocol(
        format_version=FORMAT_VERSION,
        experiment="ablation",
        dataset="Dataset001_Test",
        configuration="fullres",
        designs={"as_planned": "a", "fusion_off": "b"},
        seeds=(0, 1),
        folds=("0", "1", "2"),
        steps=25,
        minutes=None,
    )
    return replace(made, **changes)


def test_a_protocol_holds_for_all_trainings(tmp_path):
    folder = tmp_path / "ablation"
    assert read_protocol(folder) is None
    settle_protocol(folder, protocol())
    settle_protocol(folder, protocol())
    assert read_protocol(folder) == protocol()
    with pytest.raises(TrainingError, match=r"other seeds, steps; give.*move that folder away"):
        settle_protocol(folder, protocol(seeds=(0,), steps=30))
    assert read_protocol(folder) == protocol()


def test_a_protocol_says_what_is_equal():
    assert protocol().trainings == 12
    assert protocol().epochs_and_iterations == (10, 3)
    assert protocol().limit == "equal steps: 30 each"
    assert protocol(steps=2).epochs_and_iterations == (2, 1)
    assert protocol(steps=None, minutes=2.5).limit == "equal minutes: 2.5 for each variant and seed"
    with pytest.raises(TrainingError, match="found both"):
        TrainingExtent(steps=3, minutes=1.0)


def result(
    name: str, found: list[int], *, seeds: int = 1, groups: str = "", **changes: object
) -> VariantResult:
    """A design that found so many of a hundred voxels of each class in cases a, b, c, ..."""
    cases = tuple(
        CaseScores(
            case=case,
            classes=CLASSES,
            counts=(Counts(tp=n, fp=0, fn=100 - n),) * 2,
            metrics=METRICS,
            measured={BOUNDARY.name: (n / 100,) * 2},
            modality={"C": "CT", "M": "MR"}.get(group),
            site=group,
        )
        for case, n, group in zip_longest("abcdefgh"[: len(found)], found, groups or "")
    )
    plan = makers.plan()
    named = {each.name: each for each in variants.ablations(plan, plan.configurations[0])}
    made = VariantResult(
        variant=named[name],
        evaluations=(Evaluation(classes=CLASSES, cases=cases),) * seeds,
        parameters=1000,
        seconds_per_step=1.0,
        memory_bytes=10**9,
        loss=0.5,
        readings={},
    )
    return replace(made, **changes)


def test_seeds_of_one_subject_count_as_one():
    baseline = result("as_planned", [60, 61, 62, 63], seeds=3)
    other = result("fusion_off", [50, 52, 53, 51], seeds=3)
    found = differences_from(baseline, [baseline, other])
    assert list(found) == ["fusion_off"]
    dice = of_means(found["fusion_off"], DICE)
    assert dice.n_subjects == 4
    assert dice.difference < 0 and dice.high < 0


def test_an_ablation_says_what_earns_its_place():
    baseline = result("as_planned", [60, 61, 62, 63, 60, 61], seeds=2, seconds_per_step=2.0)
    worse = result("fusion_off", [50, 52, 53, 51, 50, 54], seeds=2)
    equal = result("attention_plain", [61, 60, 63, 62, 60, 61], seeds=2)
    better = result("both_off", [70, 71, 72, 73, 70, 71], seeds=2)
    sentences = judge("ablation", [baseline, worse, equal, better], None)
    assert len(sentences) == 3
    assert "no multi-scale fusion, mean Dice falls by" in sentences[0]
    assert "2.00 times as long. What was removed earns its place here." in sentences[0]
    assert "No gain of what was removed is shown here." in sentences[1]
    assert "What was removed does harm here." in sentences[2]


def test_a_verdict_says_what_it_cannot_know():
    baseline, other = result("as_planned", [60]), result("fusion_off", [50])
    *_, subjects, seeds = judge("ablation", [baseline, other], None)
    assert "one subject" in subjects
    assert "--seeds 3" in seeds


def test_a_verdict_on_designs_that_have_hardly_learnt_says_so():
    *_, learnt, _ = judge("ablation", [result("as_planned", [10, 12]), result("fusion_off", [20, 22])], None)
    assert learnt.startswith("The best mean Dice is 0.") and "give more --steps" in learnt
    judged = judge("ablation", [result("as_planned", [60, 62]), result("fusion_off", [20, 22])], None)
    assert not any("too little was learnt" in sentence for sentence in judged)


def test_a_sweep_names_the_best_weight_and_collapse():
    baseline = result("as_planned", [60, 61, 62], seeds=2)
    best = result("fusion_off", [70, 71, 72], seeds=2)
    lost = result("both_off", [0, 0, 0], seeds=2)
    first, shown, collapse = judge("lambda", [baseline, best, lost], None)
    assert first.startswith("Best: no multi-scale fusion")
    assert "shown to be better" in shown
    assert "neither fusion nor adaptive attention: bone, canal not found" in collapse
    assert lost.collapsed == CLASSES
    assert baseline.collapsed == ()


def test_networks_are_ranked():
    sentences = judge("compare", [result("as_planned", [60, 61]), result("both_off", [70, 72])], None)
    assert sentences[0].startswith("By mean Dice: adaptive_swin_unetr 0.")
    assert "rises by" in sentences[1]


def test_mechanisms_are_judged_in_each_modality():
    both = {"seeds": 2, "groups": "CCCCMMMM"}
    baseline = result("as_planned", [60, 61, 62, 63, 60, 61, 62, 63], **both)
    mixed = result("fusion_off", [50, 52, 53, 51, 70, 72, 71, 73], **both)
    equal = result("attention_plain", [61, 60, 63, 62, 61, 60, 63, 62], **both)
    first, second = judge("modality", [baseline, mixed, equal], None)
    assert "in CT mean Dice falls by 0." in first and "in MR mean Dice rises by 0." in first
    assert first.endswith("What was removed earns its place in CT. It does harm in MR.")
    assert second.endswith("No gain of what was removed is shown in either.")
    found = group_differences([baseline, mixed], "modality")
    assert list(found) == ["CT", "MR"]
    assert found["CT"]["fusion_off"].n_subjects == 4


def test_a_loss_at_sites_that_were_left_out_is_told_site_by_site():
    seen = result("as_planned", [60, 61, 62, 63, 60, 61], groups="pppqqq")
    apart = result("fusion_off", [59, 60, 62, 40, 38, 39], groups="pppqqq")
    overall, sites, _ = judge("transfer", [seen, apart], None)
    assert "falls by" in overall
    assert sites.startswith("Site by site, the worst first: q -0.")
    assert "; p -0.0" in sites


def test_cheaper_designs_are_weighed_against_their_price():
    planned = result("as_planned", [60, 61, 62, 63], seeds=2, seconds_per_step=2.0)
    worse = result("fusion_off", [50, 52, 53, 51], seeds=2, seconds_per_step=1.0, memory_bytes=5 * 10**8)
    equal = result("attention_plain", [60, 61, 62, 63], seeds=2, seconds_per_step=1.5)
    slow = result("both_off", [59, 60, 61, 62], seeds=2, seconds_per_step=3.0)
    results = [planned, worse, equal, slow]
    first, second, _, front = judge("efficiency", results, None)
    assert "takes 0.50 of the time and 0.50 of the memory" in first and first.endswith("it costs accuracy.")
    assert second.endswith("as accurate, within 0.01.")
    better = result("attention_plain", [70, 71, 72, 73], seeds=2)
    assert judge("efficiency", [planned, better], None)[0].endswith("more accurate.")
    assert [each.variant.name for each in not_outdone(results)] == ["fusion_off", "attention_plain"]
    assert front.endswith("fusion_off, attention_plain.")


def test_accuracy_is_drawn_against_cost(tmp_path):
    results = (result("as_planned", [60, 61]), result("both_off", [70, 72], seconds_per_step=0.5))
    finished = FinishedExperiment(
        experiment=EXPERIMENTS["efficiency"], protocol=protocol(), folder=tmp_path, results=results
    )
    write_experiment(finished, judge("efficiency", results, None), CPU)
    drawn = plt.imread(tmp_path / FIGURE)
    assert drawn.shape[1] > 1000
    assert {"both_off"} == set(pd.read_csv(tmp_path / CSV).query("memory_bytes == 10**9").design) - {
        "as_planned"
    }
    assert "| both_off |" in (tmp_path / VERDICT).read_text()


def test_cheaper_designs_change_one_thing_each():
    planned = makers.configuration(network=makers.network_plan(feature_size=24), patch_size=(32, 16, 16))
    found = {each.name: each.configuration for each in variants.cheaper(makers.plan(planned), planned)}
    assert [found[name].network.feature_size for name in ("three_quarters_width", "half_width")] == [16, 12]
    assert prod(found["small_patch"].patch_size) < prod(planned.patch_size)
    assert found["small_patch"].network == planned.network
    assert found["both_off"].network.attention == "plain"
    assert "attention_identity" in found


@pytest.mark.parametrize(
    ("found", "loss", "word"),
    [(99, 0.05, "Sound"), (99, 0.3, "Nearly sound"), (50, 0.05, "Not shown"), (50, 0.3, "Not shown")],
)
def test_learning_by_heart_is_judged_by_loss_and_dice(found, loss, word):
    (sentence,) = judge("overfit", [result("as_planned", [found], loss=loss)], 0.99)
    assert sentence.startswith(word)
    assert "0.990 is what its voxels allow" in sentence


def test_errors_at_blurred_boundaries_are_compared():
    def errors(wrong: int) -> tuple[tuple[str, BoundaryErrors], ...]:
        one = BoundaryErrors(
            voxels=(100, 100, 0, 0, 0), wrong=(wrong, 5, 0, 0, 0), blurred=(wrong, 100), sharp=(5, 100)
        )
        return tuple((subject, one) for subject in "abcd")

    ours = result("as_planned", [60] * 4, seeds=2, boundaries=errors(20))
    plain = result("attention_plain", [60] * 4, seeds=2, boundaries=errors(30))
    found = boundary_findings([ours, plain])["attention_plain"]
    assert found.blurred_difference == pytest.approx(0.1)
    assert found.rates[0] == pytest.approx(0.3)
    assert np.isnan(found.rates[2])
    first, second, *_ = judge("boundary", [ours, plain], None)
    assert "20.0% of the voxels" in first and "errs less there" in first
    assert second == "Near the rest of the boundary it is 5.0% and 5.0%."


@pytest.fixture
def planned(tmp_path):
    """A planned dataset of three cases that is split into as many folds, with the smallest network."""
    dataset = makers.dataset_of(
        tmp_path / "raw" / "Dataset007_Small", {name: makers.column() for name in "abc"}
    )
    labels = {"background": 0, "bone": 1, "canal": 2}
    described = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 3, "file_ending": ".nii.gz"}
    (dataset.folder / "dataset.json").write_text(json.dumps(described))
    plan = makers.plan(makers.configuration(), labels=makers.parse_labels(labels), channels=("CT",))
    folders = {name: tmp_path / name / dataset.name for name in ("preprocessed", "results")}
    return PlannedDataset(
        location=DatasetLocation(name=dataset.name, raw=dataset.folder, **folders),
        plan=plan,
        configuration=plan.configurations[0],
        folds_file=FoldsFile(format_version=1, dataset=dataset.name, validation=(("a",), ("b",), ("c",))),
    )


def test_an_experiment_trains_compares_and_goes_on(planned):
    ask = EXPERIMENTS["boundary"]
    run = {"device": CPU, "device_name": "cpu"}
    finished = run_experiment(planned, ask, TrainingExtent(steps=1, fold="1"), **run)
    assert [each.variant.name for each in finished.results] == ["as_planned", "swin_unetr"]
    assert finished.protocol.folds == ("1",)
    assert all(len(each.evaluations[0].cases) == 1 for each in finished.results)
    assert all(len(each.boundaries) == 1 for each in finished.results)
    verdict = judge(ask.name, finished.results, None)
    write_experiment(finished, verdict, CPU)
    folder = finished.folder
    assert folder == planned.location.results / "experiments" / "boundary"
    assert (folder / FIGURE).stat().st_size > 5000
    table = pd.read_csv(folder / CSV)
    assert set(table["design"]) == {"as_planned", "swin_unetr"}
    written = json.loads((folder / JSON).read_text())
    assert written["protocol"]["steps"] == 1
    assert written["designs"]["as_planned"]["gamma"] is not None
    assert "gamma" not in written["designs"]["swin_unetr"]
    page = (folder / VERDICT).read_text()
    assert all(sentence in page for sentence in verdict)

    weights = sorted(folder.glob("*/seed_0/fold_1/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    again = run_experiment(planned, ask, TrainingExtent(), **run)  # what it began with
    assert again.protocol == finished.protocol
    assert [path.stat().st_mtime_ns for path in weights] == before
    with pytest.raises(TrainingError, match="found other steps"):
        run_experiment(planned, ask, TrainingExtent(steps=2), **run)


def test_whole_sites_are_left_out(planned):
    sites = {"a": "one", "b": "one", "c": "two"}
    rows = [f"{case},CT,{site},{case}" for case, site in sites.items()]
    (planned.location.raw / "cases.csv").write_text("\n".join(["case,modality,site,subject", *rows]))
    fingerprint(planned.location, workers=1)
    ask = EXPERIMENTS["transfer"]
    run = {"device": CPU, "device_name": "cpu"}
    finished = run_experiment(planned, ask, TrainingExtent(steps=1), **run)
    seen, apart = finished.results
    assert {fold.validation for fold in apart.variant.split} == {("a", "b"), ("c",)}
    assert len(seen.variant.split) == 2
    assert all(set(fold.training).isdisjoint(fold.validation) for fold in seen.variant.split)
    assert [case.case for case in apart.evaluations[0].cases] == ["a", "b", "c"]
    assert [case.site for case in seen.evaluations[0].cases] == ["one", "one", "two"]
    write_experiment(finished, judge(ask.name, finished.results, None), CPU)
    written = json.loads((finished.folder / JSON).read_text())
    assert set(written["designs"]["site_left_out"]["differences_by_group"]) == {"one", "two"}
    assert "| difference in Dice | one | two |" in (finished.folder / VERDICT).read_text()


def test_modalities_that_are_stated_nowhere_are_those_of_the_fingerprint(planned):
    described = json.loads((planned.location.raw / "dataset.json").read_text())
    described["channel_names"] = {"0": "image"}
    (planned.location.raw / "dataset.json").write_text(json.dumps(described))
    fingerprint(planned.location, workers=1)
    project = open_project(planned, "all")
    assert {case.modality for case in project.dataset.cases} == {None}
    found = {case.name: case.modality for case in experiment_run._of_measured_modality(project)}
    assert found == dict.fromkeys("abc", found["a"]) and found["a"] in ("CT", "MR")


def test_sites_and_modalities_that_are_not_known_are_asked_for(planned):
    fingerprint(planned.location, workers=1)
    run = {"device": CPU, "device_name": "cpu"}
    with pytest.raises(PlanError, match=r"in cases\.csv of .*found 3 cases without a site"):
        run_experiment(planned, EXPERIMENTS["transfer"], TrainingExtent(steps=1), **run)
    with pytest.raises(PlanError, match=r"expected CT and MR.*found CT alone"):
        run_experiment(planned, EXPERIMENTS["modality"], TrainingExtent(steps=1), **run)


def test_minutes_that_allow_no_step_are_refused(planned):
    ask = EXPERIMENTS["boundary"]
    with pytest.raises(NoTimeLeftError, match="time"):
        run_experiment(planned, ask, TrainingExtent(minutes=1e-4), device=CPU, device_name="cpu")
    assert not list(planned.location.results.glob("experiments/*/*/*/fold_*/model.safetensors"))


def test_the_costs_of_other_configurations_are_kept(planned, monkeypatch):
    """Those of the plan's other configuration were measured; that of the experiment's was not."""
    other = makers.configuration(name="other", spacing_mm=(2.0,) * 3)
    both = replace(planned, plan=replace(planned.plan, configurations=(planned.configuration, other)))
    timed = []

    def hours(*given: object) -> float:
        timed.append(given[3].name)
        return 1e4

    def train(*_: object, **__: object) -> None:
        raise NoTimeLeftError("enough is known")

    monkeypatch.setattr(costs, "_hours", hours)
    monkeypatch.setattr(experiment_run, "train", train)
    fingerprint(both.location, workers=1)
    before = measure_costs(both.location, replace(both.plan, configurations=(other,)), CPU)
    with pytest.raises(NoTimeLeftError, match="enough"):
        run_experiment(both, EXPERIMENTS["boundary"], TrainingExtent(), device=CPU, device_name="cpu")
    assert read_protocol(experiment_run.experiment_folder(both.location, "boundary")).steps
    assert experiment_run.measured_labels_dice(both, CPU) == pytest.approx(1, abs=0.1)
    kept = known_costs(both.location, both.plan)
    assert list(kept) == [planned.configuration.name, "other"]
    assert kept["other"] == before["other"]
    assert timed == ["other", planned.configuration.name]
