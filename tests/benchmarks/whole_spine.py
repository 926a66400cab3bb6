"""A whole-spine CT from file to labels on a CPU by the commands, and what looking for the spine first saves.

Part of `make bench-inference`. Two pairs of models are trained on small phantoms of the whole trunk, in each
`lowres` first and `fullres` from its weights. The pair that is timed has 26 labels and takes few steps: its
labels are coarse, its time is that of any. The other one has but one label and learns it well: it tells what
is lost where tiles far from the spine are left out.
"""

import json
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from processes import Facts

PATCH = 64
"""In training: a model is not bound to the tile that it was trained with, and this one learns on a CPU."""

FOLDS = 5
SIZE_MM = (640.0, 409.6, 409.6)
LEVELS = 24
SACRUM, DISC = 25, 26
DONE = "trained"
HELD_OUT = (100, 101, 102)
HELD_OUT_MM = 2.0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A coarse and a fine model, and what they learn from."""

    workspace: str
    names: tuple[str, ...]
    cases: int
    case_mm: float
    full_mm: float
    feature_size: int
    tile: int
    minutes: tuple[float, float]
    """For the coarse and for the fine one."""


TIMED = Pair(
    workspace="workspace",
    names=("background", *(f"v{index}" for index in range(1, LEVELS + 1)), "sacrum", "disc"),
    cases=6,
    case_mm=3.0,
    full_mm=1.5,
    feature_size=24,
    tile=128,
    minutes=(6.0, 1.0),
)
TELLING = Pair(
    workspace="spine",
    names=("background", "spine"),
    cases=8,
    case_mm=HELD_OUT_MM,
    full_mm=HELD_OUT_MM,
    feature_size=12,
    tile=PATCH,
    minutes=(7.0, 6.0),
)


def trunk(spacing_mm: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A CT of the whole trunk, and 26 labels: 24 vertebrae, the sacrum, and the discs as one."""
    from autospine.core.labels import DISC_OFFSET, VERSE
    from autospine.phantom import PhantomSettings, generate

    settings = PhantomSettings(
        region="whole",
        modality="CT",
        variant="usual",
        spacing_mm=(spacing_mm,) * 3,
        size_mm=SIZE_MM,
        orientation="LPS",
        oblique_deg=0.0,
        metal=False,
    )
    phantom = generate(settings, seed=seed)
    labels = np.where(phantom.labels <= LEVELS, phantom.labels, 0)
    labels[phantom.labels == VERSE["sacrum"]] = SACRUM
    labels[phantom.labels > DISC_OFFSET] = DISC
    return phantom.image, labels


def make_raw(folder: Path, pair: Pair) -> None:
    """A dataset of small phantoms."""
    from makers import grid

    from autospine.io.images import write_array

    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for seed in range(pair.cases):
        image, labels = trunk(pair.case_mm, seed)
        lattice = grid(image.shape, (pair.case_mm,) * 3)
        known = np.minimum(labels, len(pair.names) - 1)
        write_array(folder / f"imagesTr/case{seed}_0000.nii.gz", image, lattice)
        write_array(folder / f"labelsTr/case{seed}.nii.gz", known, lattice)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(pair.names)},
        "numTraining": pair.cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def command(workspace: Path, *words: object) -> float:
    """Run a command in the workspace; the seconds that it took, from start to end."""
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "autospine", *map(str, words)],
        cwd=workspace,
        check=True,
        stdout=sys.stderr,
    )
    return time.monotonic() - began


def train_pair(folder: Path, pair: Pair, scale: float) -> Path:
    """Train `lowres` on every case, then `fullres` from its weights; the folder of both, made once."""
    workspace = folder / pair.workspace
    results = workspace / "results" / "Dataset001_Trunk"
    if (workspace / DONE).exists():
        return results
    make_raw(workspace / "raw" / "Dataset001_Trunk", pair)
    wishes = ("--spacing", *[pair.full_mm] * 3, "--patch", *[PATCH] * 3, "--feature-size", pair.feature_size)
    command(workspace, "plan", "-d", 1, *wishes)
    for name, minutes, first in (
        ("lowres", pair.minutes[0], ()),
        ("fullres", pair.minutes[1], ("--pretrained", results / "lowres")),
    ):
        command(workspace, "preprocess", "-d", 1, "-c", name)
        limit = ("--max-minutes", max(0.1, minutes * scale))
        command(workspace, "train", name, "-d", 1, "--fold", "full", *limit, *first)
    written = results / "fullres" / "plan.json"
    plan = json.loads(written.read_text(encoding="utf-8"))
    for configuration in plan["configurations"]:
        if configuration["name"] == "fullres":
            configuration["patch_size"] = [pair.tile] * 3
    written.write_text(json.dumps(plan), encoding="utf-8")
    (workspace / DONE).touch()
    return results


def time_commands(workspace: Path, results: Path, image: Path) -> tuple[Facts, list[str]]:
    """Minutes from file to labels by one fold and by five, which are the same network five times."""
    figures, rows = {}, []
    for number, name in ((1, "one"), (FOLDS, "five")):
        for fold in range(number):
            shutil.copytree(
                results / "fullres/fold_full", results / f"fullres/fold_{fold}", dirs_exist_ok=True
            )
        out = workspace / f"out_{name}"
        folds = [word for fold in range(number) for word in ("-f", fold)]
        seconds = command(workspace, "predict", "-i", image, "-o", out, "-m", results / "fullres", *folds)
        cases = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["cases"]
        (entry,) = (case for case in cases if case["case"] == image.name.partition(".")[0])
        if entry["near"] != "spine":
            raise SystemExit(f"expected tiles near the spine, found {entry['near']}; train for longer")
        figures |= {f"cpu_minutes_{name}_fold{'s' if number > 1 else ''}": seconds / 60}
        rows.append(
            f"| {number} | {entry['tiles_run']} of {entry['tiles']} | {entry['near']} | {seconds / 60:.2f} "
            f"| {entry['peak_gb']:.2f} |"
        )
    return figures, rows


def measure_roi(results: Path) -> tuple[Facts, list[str]]:
    """Tiles and Dice of phantoms that were not learnt from, near the spine, in the body and everywhere."""
    import torch
    from makers import grid

    from autospine.inference.predictor import Predictor
    from autospine.io.images import Volume
    from autospine.models.model_folder import open_model
    from autospine.prediction.build_predictor import build_predictor

    guided = build_predictor([open_model(results / "fullres")], torch.device("cpu"))
    assert isinstance(guided, Predictor)
    body, everything = (
        replace(guided, localizer=None),
        replace(guided, localizer=None, region_of_interest=False),
    )
    ratios, losses, lost, rows = [], [], [], []
    for seed in HELD_OUT:
        image, labels = trunk(HELD_OUT_MM, seed)
        lattice = grid(image.shape, (HELD_OUT_MM,) * 3)
        volume = Volume(array=image[None], grid=lattice, stored=lattice)
        truth = labels > 0
        works = [model.prepare(volume, "CT") for model in (guided, body)]
        near, whole = (model.predict(volume, "CT") == 1 for model in (guided, everything))
        dice = [2 * np.sum(found & truth) / (found.sum() + truth.sum()) for found in (near, whole)]
        ratios.append(works[0].tiles / len(works[0].run))
        losses.append(dice[1] - dice[0])
        lost.append(np.sum(whole & ~near & truth) / np.sum(whole & truth))
        rows.append(
            f"| {seed} | {works[0].tiles} | {len(works[1].run)} | {len(works[0].run)} | {works[0].region} "
            f"| {dice[1]:.4f} | {dice[0]:.4f} | {100 * lost[-1]:.3f} |"
        )
    return {
        "roi_tile_ratio": min(ratios),
        "roi_dice_delta": max(losses),
        "roi_spine_lost": max(lost),
    }, rows


def train(options: Namespace) -> tuple[Path, Path]:
    """Make the models; the folders of the pair that is timed and of the one that tells what is lost."""
    timed, telling = (train_pair(options.folder, pair, options.scale) for pair in (TIMED, TELLING))
    return timed, telling


def measure(
    options: Namespace, results: tuple[Path, Path], image: Path
) -> tuple[Facts, list[str], list[str]]:
    """Figures, rows of the commands and of the spine first."""
    timed, commands = time_commands(options.folder / TIMED.workspace, results[0], image)
    found, spines = measure_roi(results[1])
    return timed | found, commands, spines
