"""A whole-spine CT from file to labels on a CPU by the commands, and what looking for the spine first saves.

Part of `make bench-inference`. A coarse model is trained on small phantoms of the whole trunk until it finds
the spine; the fine one, of 24 channels at 1.5 mm, begins from its weights and takes a few steps: its labels
are coarse, its time is that of any.
"""

import json
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
from processes import Facts

CASES = 6
CASE_MM = 3.0
FULL_MM = 1.5
FEATURE_SIZE = 24
TILE = 128
PATCH = 64
"""In training: a model is not bound to the tile that it was trained with, and this one learns on a CPU."""

COARSE_MINUTES, FINE_MINUTES = 6.0, 1.0
FOLDS = 5
SIZE_MM = (640.0, 409.6, 409.6)
LEVELS = 24
SACRUM, DISC = 25, 26
NAMES = ("background", *(f"v{index}" for index in range(1, LEVELS + 1)), "sacrum", "disc")
DONE = "trained"
HELD_OUT = (100, 101, 102)


def trunk(spacing_mm: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A CT of the whole trunk, and 26 labels: 24 vertebrae, the sacrum, and the discs as one."""
    from autospine.labels import DISC_OFFSET, VERSE
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


def make_raw(folder: Path) -> None:
    """A dataset of small phantoms."""
    from makers import grid

    from autospine.images import write_array

    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for seed in range(CASES):
        image, labels = trunk(CASE_MM, seed)
        lattice = grid(image.shape, (CASE_MM,) * 3)
        write_array(folder / f"imagesTr/case{seed}_0000.nii.gz", image, lattice)
        write_array(folder / f"labelsTr/case{seed}.nii.gz", labels, lattice)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {name: index for index, name in enumerate(NAMES)},
        "numTraining": CASES,
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


def train_models(workspace: Path, minutes: tuple[float, float]) -> Path:
    """Train `lowres` on every case, then `fullres` from its weights; the folder of both, made once."""
    if (workspace / DONE).exists():
        return workspace / "results" / "Dataset001_Trunk"
    make_raw(workspace / "raw" / "Dataset001_Trunk")
    wishes = ("--spacing", *[FULL_MM] * 3, "--patch", *[PATCH] * 3, "--feature-size", FEATURE_SIZE)
    command(workspace, "plan", "-d", 1, *wishes)
    results = workspace / "results" / "Dataset001_Trunk"
    for name, limit, first in (
        ("lowres", minutes[0], ()),
        ("fullres", minutes[1], ("--pretrained", results / "lowres")),
    ):
        command(workspace, "preprocess", "-d", 1, "-c", name)
        command(workspace, "train", name, "-d", 1, "--fold", "full", "--max-minutes", limit, *first)
    written = results / "fullres" / "plan.json"
    plan = json.loads(written.read_text(encoding="utf-8"))
    for configuration in plan["configurations"]:
        if configuration["name"] == "fullres":
            configuration["patch_size"] = [TILE] * 3
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
        (entry,) = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["cases"]
        if entry["near"] != "spine":
            raise SystemExit(f"expected tiles near the spine, found {entry['near']}; train for longer")
        figures |= {f"cpu_minutes_{name}_fold{'s' if number > 1 else ''}": seconds / 60}
        rows.append(
            f"| {number} | {entry['tiles_run']} of {entry['tiles']} | {entry['near']} | {seconds / 60:.2f} "
            f"| {entry['peak_gb']:.2f} |"
        )
    return figures, rows


def measure_roi(results: Path, scale: float) -> tuple[Facts, list[str]]:
    """Tiles and Dice with the trained coarse model looking first, for a network that knows bone by its HU."""
    import torch
    from makers import configuration, grid, plan

    from autospine.images import Volume
    from autospine.inference import Predictor, open_model
    from autospine.labels import parse_labels
    from autospine.pipeline.ensembles import joint_predictor

    class Dense(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            bone = 10 * image
            return torch.cat([-bone, bone], dim=1)

    cpu, spacing = torch.device("cpu"), 2.0 / scale
    shipped = joint_predictor([open_model(results / "fullres")], cpu)
    assert isinstance(shipped, Predictor)
    made = plan(
        configuration(spacing_mm=(spacing,) * 3, patch_size=(48, 48, 48)),
        labels=parse_labels({"background": 0, "bone": 1}),
    )
    guided = Predictor(
        plan=made, configuration=made.configurations[0], networks=[Dense()], device=cpu, finder=shipped.finder
    )
    ratios, deltas, rows = [], [], []
    for seed in HELD_OUT:
        image, truth = trunk(spacing, seed)
        lattice = grid(image.shape, (spacing,) * 3)
        volume = Volume(array=image[None], grid=lattice, stored=lattice)
        # Other bones are dense, too; those beside the spine count in all runs alike.
        around = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(truth))
        spine, works, dice = truth[around] > 0, [], []
        for model in (
            guided,
            replace(guided, finder=None),
            replace(guided, finder=None, confined=False),
        ):
            works.append(model.prepare(volume, "CT"))
            found = model.predict(volume, "CT")[around] == 1
            dice.append(2 * np.sum(found & spine) / (found.sum() + spine.sum()))
        ratios.append(works[0].tiles / len(works[0].run))
        deltas.append(abs(dice[0] - dice[2]))
        rows.append(
            f"| {seed} | {works[0].tiles} | {len(works[1].run)} | {len(works[0].run)} | {works[0].near} "
            f"| {dice[2]:.4f} | {dice[0]:.4f} |"
        )
    return {"roi_tile_ratio": min(ratios), "roi_dice_delta": max(deltas)}, rows


def train(options: Namespace) -> Path:
    """Make the models in a workspace; the folder of both."""
    minutes = (COARSE_MINUTES * options.scale, FINE_MINUTES * options.scale)
    return train_models(options.folder / "workspace", minutes)


def measure(options: Namespace, results: Path, image: Path) -> tuple[Facts, list[str], list[str]]:
    """Figures, rows of the commands and of the spine first."""
    timed, commands = time_commands(options.folder / "workspace", results, image)
    found, spines = measure_roi(results, options.scale)
    return timed | found, commands, spines
