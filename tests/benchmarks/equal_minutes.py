"""The planned network, the same without its mechanisms, and the other networks, in equal time.

A part of `make bench-evidence`. Data, recipe, patch and memory are those of `designs.py`. All networks take
steps of training in turn, on one thread; each is then trained for as many steps as last as long as `STEPS` of
the planned network. So the comparison is that of equal minutes on a machine with nothing else to do, and what
else the machine does changes nothing in it.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import torch
from designs import NAMES, STEPS, CaseScores, interval, scored, trained_scores

from autospine.network.swin.swin_plan import SwinPlan
from autospine.network.swin.swin_settings import AttentionSettings
from autospine.pipeline.experiments.variants import networks
from autospine.pipeline.measuring import fresh_fingerprint
from autospine.pipeline.planned_dataset import open_planned
from autospine.pipeline.training import open_project
from autospine.plan import Plan
from autospine.storage.serialization import write_json
from autospine.storage.workspace import Workspace
from trainers.learner import Learner

OURS, PLAIN = "ours", "swin_unetr"
ROUNDS = 9
EPOCHS = 5

MODALITIES = {"phantom": ("ct", "mr"), "real": ("mr",)}
"""Modalities of the images of each benchmark; names of images hold them."""

Figures = dict[str, float | list[float]]
Scores = Mapping[tuple[str, int], Mapping[str, CaseScores]]
"""Scores of each image by network and seed."""


def compared_plans(benchmark: str, prepared: Path) -> dict[str, Plan]:
    """Return the plan of each network by its name, with that configuration alone, the planned one first."""
    location = Workspace.locate(prepared).find_dataset(NAMES[benchmark])
    project = open_project(open_planned(location, "0"), "full")
    measured = fresh_fingerprint(location, project.dataset)
    ours, *others = networks(project.plan, project.configuration, project.dataset, measured)
    network = project.configuration.network
    assert isinstance(network, SwinPlan)
    plain = replace(project.configuration, network=replace(network, fusion=None, attention="plain"))
    return {
        OURS: ours.plan,
        PLAIN: replace(project.plan, configurations=(plain,)),
        **{
            each.name: replace(
                each.plan, configurations=(replace(each.configuration, name=project.configuration.name),)
            )
            for each in others
            if each.name != PLAIN
        },
    }


def relative_step_time(plans: Mapping[str, Plan]) -> dict[str, float]:
    """Return how long a training step of each takes, in parts of that of the first: medians, in turn.

    On one thread.
    """
    torch.set_num_threads(1)
    learners = {}
    for name, plan in plans.items():
        configuration = plan.configurations[0]
        learners[name] = Learner(plan, configuration, seed=0, device=torch.device("cpu"))
    batch = configuration.training.batch_size
    image = torch.randn(batch, len(plan.channels), *configuration.patch_size)
    labels = torch.randint(0, plan.labels.n_channels, (batch, *configuration.patch_size), dtype=torch.uint8)
    times: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(1 + ROUNDS):
        for name, learner in learners.items():
            began = perf_counter()
            learner.step(image, labels, 0.01)
            times[name].append(perf_counter() - began)
    first = times[next(iter(times))][1:]
    return {
        name: round(median(a / b for a, b in zip(each[1:], first, strict=True)), 3)
        for name, each in times.items()
    }


def scores_of(
    benchmark: str, name: str, plan: Plan, seed: int, iterations: int, prepared: Path, longer: float = 1
) -> dict[str, CaseScores]:
    """Train a network for a number of steps, unless that is done, and return the scores of each image.

    The planned network that is trained for `STEPS` is that of `designs.py`.
    """
    if name == OURS and longer == 1:
        return scored(benchmark, OURS, seed, prepared)
    folder = prepared / "equal_minutes" / f"{name}_{seed}{'' if longer == 1 else f'_times_{longer:g}'}"
    dataset = NAMES[benchmark]
    own, theirs = folder / "preprocessed" / dataset, prepared / "preprocessed" / dataset
    if not own.exists():
        folder.mkdir(parents=True)
        (folder / "raw").symlink_to(prepared / "raw")
        shutil.copytree(theirs, own)
        write_json(own / "plan.json", plan)
    return trained_scores(benchmark, folder, OURS, seed, EPOCHS, iterations)


def in_half(benchmark: str, seed: int, prepared: Path) -> dict[str, CaseScores]:
    """Return the scores of the planned network after half of its steps."""
    plan = compared_plans(benchmark, prepared)[OURS]
    epochs, iterations = STEPS[benchmark]
    steps = round(epochs * iterations / EPOCHS / 2)
    return scores_of(benchmark, OURS, plan, seed, steps, prepared, 0.5)


def model_in_half(benchmark: str, seed: int, prepared: Path) -> Path:
    """Return the model folder that `in_half` has trained."""
    (model,) = (prepared / "equal_minutes" / f"{OURS}_{seed}_times_0.5").glob("results/*/*/")
    return model


def time_in_half(benchmark: str, prepared: Path) -> float:
    """Return how long half of the steps take, in parts of all steps of the design before.

    That design is the planned one without fused levels and without the gradient's channel.
    """
    plan = compared_plans(benchmark, prepared)[OURS]
    configuration = plan.configurations[0]
    network = configuration.network
    assert (
        isinstance(network, SwinPlan) and network.fusion and isinstance(network.attention, AttentionSettings)
    )
    former = replace(
        network,
        fusion=replace(network.fusion, levels=False),
        attention=replace(network.attention, gradient_channel=False),
    )
    plans = {"before": replace(plan, configurations=(replace(configuration, network=former),)), OURS: plan}
    return round(relative_step_time(plans)[OURS] / 2, 3)


def minutes_figures(benchmark: str, prepared: Path, seeds: int) -> tuple[Figures, list[str]]:
    """Train every network in equal time; return the figures and the rows of a table.

    Returns:
        `mechanisms_gain_equal_minutes_...`, mean Dice of the planned network minus that of the same without
        its mechanisms, and `compare_margin_...`, minus that of the best other network, on CT and on MR
        apart; both in points of 0.01, with the ends of their intervals.
    """
    plans = compared_plans(benchmark, prepared)
    kept = prepared / "equal_minutes" / "step_times.json"
    if not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(json.dumps(relative_step_time(plans)), encoding="utf-8")
    times: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))
    epochs, iterations = STEPS[benchmark]
    steps = {name: round(epochs * iterations / EPOCHS / times[name]) for name in plans}
    scores = {
        (name, seed): scores_of(benchmark, name, plan, seed, steps[name], prepared)
        for seed in range(seeds)
        for name, plan in plans.items()
    }
    figures: Figures = {}
    for metric, suffix in (("dice", ""), ("boundary_dice_2mm", "_boundary")):
        gain = interval(_differences(scores, metric, PLAIN, seeds, ""))
        key = f"mechanisms_gain_equal_minutes_{benchmark}{suffix}"
        figures |= {key: gain[0], f"{key}_interval": list(gain[1:])}
    for modality in MODALITIES[benchmark]:
        dice = {name: _mean(scores, "dice", name, seeds, modality) for name in plans if name != OURS}
        best = max(dice, key=dice.__getitem__)
        margin = interval(_differences(scores, "dice", best, seeds, modality))
        key = f"compare_margin_{benchmark}_{modality}"
        figures |= {key: margin[0], f"{key}_interval": list(margin[1:])}
    rows = []
    for name in plans:
        row = f"| {benchmark} | `{name}` | {times[name]:.2f} | {EPOCHS * steps[name]} |"
        for metric in ("dice", "boundary_dice_2mm"):
            row += f" {_mean(scores, metric, name, seeds, ''):.3f} |"
            ends = interval(_differences(scores, metric, name, seeds, "")) if name != OURS else None
            row += " |" if ends is None else f" {ends[0]:+.1f} [{ends[1]:+.1f}, {ends[2]:+.1f}] |"
        rows.append(row)
    return figures, rows


def _mean(scores: Scores, metric: str, name: str, seeds: int, modality: str) -> float:
    """Return the mean over the images of a modality, or of all for an empty one, and over seeds."""
    found = [scores[name, seed] for seed in range(seeds)]
    return mean(case[metric] for each in found for key, case in each.items() if f"{modality}_" in key)


def _differences(scores: Scores, metric: str, other: str, seeds: int, modality: str) -> list[float]:
    """Return by how much the planned network is better on each image of a modality with each seed."""
    return [
        case_scores[metric] - scores[other, seed][case][metric]
        for seed in range(seeds)
        for case, case_scores in scores[OURS, seed].items()
        if f"{modality}_" in case
    ]
