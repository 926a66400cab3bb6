"""What fifteen minutes of training on two cores teach AutoSpine, nnU-Net and MONAI's Swin UNETR.

Run by `make bench-training`, and on a GPU with `--device cuda` by `make bench-gpu`. Every peer learns from
the same 20 phantoms, CT and MR in turn, for the same time on the same machine, and segments the same 10
held-out ones; all are scored by `autospine.evaluation.scores`.

- `autospine`: configuration 0 of its own plan.
- `nnunet`: nnU-Net v2's plain U-Net as it plans and trains by itself, the poly schedule fitted to the time.
- `nnunet_coarse`: the same at the voxel size of AutoSpine's configuration 0, where a CPU takes more steps.
- `nnunet_resenc`: nnU-Net's large residual encoder, which it recommends for GPUs.
- `monai`: MONAI's SwinUNETR in AutoSpine's loop, at AutoSpine's voxel size and recipe.

nnU-Net ignores the orientation of files, so that its copies are stored in one. Each run is a process of its
own. All of them take two hours, so that finished ones are kept in `--record FILE`, with the kill test of
`kill.py`: what stands there is not measured again unless `--again` is given. Prints one JSON object last, and
with `--write FILE` puts the table between that file's `<!-- measured -->` marks.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import kill
from network import processor
from result_page import write_measured

from autospine.evaluation.evaluate_maps import evaluate_predictions
from autospine.models.model_folder import open_model
from autospine.pipeline.measuring import fingerprint, make_phantoms
from autospine.pipeline.planned_dataset import open_planned
from autospine.pipeline.planning import plan as make_plan
from autospine.pipeline.training import open_project, preprocess, train
from autospine.prediction.predict_cases import predict
from autospine.prediction.prediction_options import PredictionOptions
from autospine.storage.trained_models import FULL
from autospine.storage.workspace import DatasetLocation, Workspace
from autospine.system.hardware import default_workers
from planners.overrides import Overrides
from trainers.settings import TrainingSettings

DATASET = "Dataset900_Bench"
CASES, HELD_OUT, PHANTOM_SEED = 20, 10, 77
MONAI = "monai_swin_unetr"
KILLS = 10
PEERS = ("autospine", "nnunet", "nnunet_coarse", "monai")
ON_GPU = "nnunet_resenc"
"""Peer that a CPU is too slow for."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one training came to."""

    peer: str
    seed: int
    minutes: float
    steps: int
    patch: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    parameters: int
    day: str
    machine: str
    versions: dict[str, str]
    peak_gb: float
    dice: float
    by_class: dict[str, float]
    by_modality: dict[str, float]

    @property
    def key(self) -> tuple[str, int, float]:
        """What a second run of the same would share."""
        return self.peer, self.seed, self.minutes


def prepare(work: Path) -> DatasetLocation:
    """The phantoms and AutoSpine's plan for them."""
    work.mkdir(parents=True, exist_ok=True)
    workspace = Workspace.locate(work)
    folder = work / "raw" / DATASET
    if not (folder / "dataset.json").is_file():
        make_phantoms(
            folder,
            cases=CASES,
            test_cases=HELD_OUT,
            region="lumbar",
            scheme="structures",
            modalities=("CT", "MR"),
            seed=PHANTOM_SEED,
            overwrite=True,
            workers=default_workers(),
        )
    location = workspace.find_dataset(DATASET)
    fingerprint(location)
    return location


def score(location: DatasetLocation, predictions: Path, device: torch.device, **facts: object) -> Run:
    """A run, scored on the held-out cases."""
    evaluation = evaluate_predictions(predictions, location.raw / "labelsTs", location.raw / "dataset.json")
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Run(
        day=str(date.today()),
        machine=torch.cuda.get_device_name() if device.type == "cuda" else processor(),
        versions={name: version(name) for name in ("torch", "nnunetv2", "monai")},
        peak_gb=round(peak * 1024 / 1e9, 2),
        dice=round(evaluation.mean_dice, 4),
        by_class={name: round(scores.dice, 4) for name, scores in evaluation.total.by_class.items()},
        by_modality={name: round(one.mean.dice, 4) for name, one in evaluation.by_modality.items()},
        **facts,  # type: ignore[arg-type]
    )


def train_autospine(
    location: DatasetLocation, seed: int, minutes: float, peer: str, device: torch.device
) -> Run:
    """AutoSpine's network, or MONAI's in AutoSpine's loop."""
    # The least multiple of 32 that holds a case and leaves MONAI's deepest level more than one voxel.
    wishes = Overrides(networks=(MONAI,), patch_size=(64, 64, 32)) if peer == "monai" else Overrides()
    make_plan(location, device=device, overrides=wishes)
    project = open_project(open_planned(location, "0"), FULL)
    chosen = project.configuration
    preprocess(location, project.dataset, project.plan, chosen)
    train(project, FULL, TrainingSettings(seed=seed, device=device), minutes=minutes)
    model = location.results / chosen.name
    predictions = model / "predictions"
    predict(
        [open_model(model)], location.raw / "imagesTs", predictions, PredictionOptions(device=device.type)
    )
    network = open_model(model).networks()[0]
    rows = (model / "fold_full" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return score(
        location,
        predictions,
        device,
        peer=peer,
        seed=seed,
        minutes=minutes,
        steps=json.loads(rows[-1])["step"],
        patch=chosen.patch_size,
        spacing_mm=chosen.spacing_mm,
        parameters=sum(p.numel() for p in network.parameters()),
    )


def offer_monai(work: Path) -> None:
    """MONAI's SwinUNETR as a network of another distribution, found by its entry point."""
    site = work / "monai_network"
    facts = site / "monai_network-1.0.dist-info"
    facts.mkdir(parents=True, exist_ok=True)
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: monai-network\nVersion: 1.0\n", encoding="utf-8"
    )
    (facts / "entry_points.txt").write_text(
        f"[autospine.networks]\n{MONAI} = monai_network:make\n", encoding="utf-8"
    )
    (site / "monai_network.py").write_text(
        "import torch\n"
        "from monai.networks.nets import SwinUNETR\n\n\n"
        "def make(in_channels, out_channels, spacing_mm, patch_size):\n"
        "    device = torch.get_default_device()\n"
        "    with torch.device('cpu'):  # it reads numbers, which the meta device has not\n"
        "        network = SwinUNETR(in_channels=in_channels, out_channels=out_channels, feature_size=24)\n"
        "    network.divisor = (32, 32, 32)\n"
        "    return network.to(device)\n",
        encoding="utf-8",
    )
    sys.path.insert(0, str(site))


def train_nnunet(
    location: DatasetLocation, work: Path, seed: int, minutes: float, peer: str, device: torch.device
) -> Run:
    """nnU-Net v2's plain U-Net, or its large residual encoder."""
    _copy_for_nnunet(location, work / "nnunet" / "raw" / DATASET)
    for kind in ("raw", "preprocessed", "results"):
        folder = work / "nnunet" / kind
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{kind}"] = str(folder)
    os.environ["nnUNet_n_proc_DA"] = "1"  # noqa: SIM112 (nnU-Net's spelling)
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    number, name = int(DATASET[7:10]), f"{peer}Plans"
    coarse = make_plan(location, device=device).configurations[0].spacing_mm
    api.extract_fingerprints([number], num_processes=2, clean=False)
    api.plan_experiments(
        [number],
        overwrite_target_spacing=coarse if peer == "nnunet_coarse" else None,
        overwrite_plans_name=name,
        experiment_planner_class_name="nnUNetPlannerResEncL" if peer == ON_GPU else "ExperimentPlanner",
    )
    api.preprocess([number], name, ("3d_fullres",), num_processes=(1,))
    preprocessed = work / "nnunet" / "preprocessed" / DATASET
    trainer = _timed_trainer(preprocessed, name, seed, minutes, device)
    predictions = work / "nnunet" / f"{peer}_{seed}_predictions"
    _predict_with_nnunet(trainer, work / "nnunet" / "raw" / DATASET / "imagesTs", predictions, device)
    return score(
        location,
        predictions,
        device,
        peer=peer,
        seed=seed,
        minutes=minutes,
        steps=trainer.steps,
        patch=tuple(trainer.configuration_manager.patch_size),
        spacing_mm=tuple(float(d) for d in trainer.configuration_manager.spacing),
        parameters=sum(p.numel() for p in trainer.network.parameters()),
    )


def _copy_for_nnunet(location: DatasetLocation, folder: Path) -> None:
    """The same dataset, every file in one orientation."""
    import SimpleITK as sitk

    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for path in sorted((location.raw / part).glob("*.nii.gz")):
            if not (folder / part / path.name).is_file():
                sitk.WriteImage(
                    sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS"), str(folder / part / path.name)
                )
    text = (location.raw / "dataset.json").read_text(encoding="utf-8")
    (folder / "dataset.json").write_text(text, encoding="utf-8")


def _timed_trainer(
    preprocessed: Path, plans_name: str, seed: int, minutes: float, device: torch.device
) -> Any:
    """nnU-Net's trainer, after training for that time with its schedule fitted to it, without validation."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(seed)
    plans = json.loads((preprocessed / f"{plans_name}.json").read_text(encoding="utf-8"))
    description = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    # The constructor takes this key out of the plans.
    trainer = nnUNetTrainer({**plans, "continue_training": False}, "3d_fullres", "all", description, device)
    trainer.initialize()
    trainer.on_train_start()
    trainer.network.train()
    trainer.steps = 0
    began = time.monotonic()
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - progress) ** 0.9
        trainer.train_step(next(trainer.dataloader_train))
        trainer.steps += 1
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if hasattr(loader, "_finish"):
            loader._finish()
    return trainer


def _predict_with_nnunet(trainer: Any, images: Path, output: Path, device: torch.device) -> None:
    """Without mirroring, which costs eight passes and which AutoSpine does without too."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    output.mkdir(parents=True, exist_ok=True)
    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(
        trainer.network.eval(),
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        "nnUNetTrainer",
        None,
    )
    cases = [[str(path)] for path in sorted(images.glob("*.nii.gz"))]
    names = [str(output / Path(files[0]).name.replace("_0000.nii.gz", "")) for files in cases]
    predictor.predict_from_files_sequential(cases, names)


def run_one(work: Path, peer: str, seed: int, minutes: float, device: torch.device) -> Run:
    """Prepare, train, predict and score, in this process."""
    if device.type == "cpu":
        torch.set_num_threads(2)
    offer_monai(work)
    # A workspace each, and a new one: a second training of a configuration would go on with the first.
    own = work / f"{peer}_{seed}"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    if not (own / "raw").exists():
        (own / "raw").symlink_to(work / "raw", target_is_directory=True)
    location = Workspace.locate(own).find_dataset(DATASET)
    fingerprint(location)
    if peer.startswith("nnunet"):
        return train_nnunet(location, work, seed, minutes, peer, device)
    return train_autospine(location, seed, minutes, peer, device)


@dataclass
class Record:
    """What has been measured, kept in a file."""

    path: Path | None
    runs: list[Run] = field(default_factory=list)
    kill: dict[str, Any] | None = None

    def load(self) -> None:
        """Take over what the file holds."""
        if self.path is not None and self.path.is_file():
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.runs, self.kill = [Run(**run) for run in content["runs"]], content["kill"]

    def save(self) -> None:
        """Write everything to the file."""
        if self.path is not None:
            content = {"kill": self.kill, "runs": [asdict(run) for run in self.runs]}
            self.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def put(self, new: Run) -> None:
        """Add a run in the place of the one that it repeats."""
        self.runs = [run for run in self.runs if run.key != new.key] + [new]
        self.save()


def measured(work: Path, peer: str, seed: int, minutes: float, device: str) -> Run:
    """A run, made in a process of its own."""
    path = work / f"{peer}_{seed}.json"
    chosen = ["--work", str(work), "--minutes", f"{minutes}", "--device", device, "--one", peer, f"{seed}"]
    subprocess.run([sys.executable, __file__, *chosen], check=True, stdout=sys.stderr)
    return Run(**json.loads(path.read_text(encoding="utf-8")))


def table(runs: list[Run]) -> str:
    """The runs as Markdown."""
    rows = [
        "| | seed | day | voxel mm | patch | parameters | steps | memory | Dice | CT | MR | "
        + " | ".join(runs[0].by_class)
        + " |",
        "|---|" + "---|" * (10 + len(runs[0].by_class)),
    ]
    for run in runs:
        cells = [
            run.peer,
            run.seed,
            run.day,
            " × ".join(f"{d:.2f}" for d in run.spacing_mm),
            " × ".join(map(str, run.patch)),
            f"{run.parameters / 1e6:.1f} M",
            run.steps,
            f"{run.peak_gb:.1f} GB",
            f"**{run.dice:.3f}**",
            *(f"{run.by_modality[name]:.3f}" for name in ("CT", "MR")),
            *(f"{dice:.3f}" for dice in run.by_class.values()),
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    minutes = runs[0].minutes
    first = f"{minutes:g} minutes each; Dice of held-out cases, RAM at the process's peak."
    return "\n".join([first, "", *rows])


def figures(runs: list[Run]) -> dict[str, float | None]:
    """Mean Dice over seeds; nnU-Net's is that of the better of its two plans."""
    means = {
        peer: statistics.mean(run.dice for run in runs if run.peer == peer)
        for peer in dict.fromkeys(run.peer for run in runs)
    }
    nnunet = [dice for peer, dice in means.items() if peer.startswith("nnunet")]
    return {
        "dice_autospine": round(means["autospine"], 4) if "autospine" in means else None,
        "dice_nnunet": round(max(nnunet), 4) if nnunet else None,
        "dice_monai": round(means["monai"], 4) if "monai" in means else None,
    }


def main() -> None:
    """Run what is missing, write the table, print the figures of merit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/bench-training"))
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="AutoSpine's; peers take the first"
    )
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=(*PEERS, ON_GPU))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--no-kill", dest="kill", action="store_false", help="leave the kills out")
    parser.add_argument("--record", type=Path, help="file of finished runs")
    parser.add_argument("--again", action="store_true", help="measure anew what is named, and the kills")
    parser.add_argument("--one", nargs=2, metavar=("PEER", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    work = options.work.resolve()
    if options.one:
        peer, seed = options.one[0], int(options.one[1])
        run = run_one(work, peer, seed, options.minutes, torch.device(options.device))
        path = work / f"{peer}_{seed}.json"
        path.write_text(json.dumps(asdict(run), indent=2), encoding="utf-8")
        return
    record = Record(path=options.record)
    record.load()
    if options.kill and (record.kill is None or options.again):
        with tempfile.TemporaryDirectory() as root:
            record.kill = kill.measure(Path(root), KILLS, random.Random(0))
        record.save()
    prepare(work)
    for peer in options.peers:
        for seed in options.seeds if peer == "autospine" else options.seeds[:1]:
            wanted = (peer, seed, options.minutes)
            if options.again or all(run.key != wanted for run in record.runs):
                record.put(measured(work, *wanted, options.device))
    runs = sorted(
        (run for run in record.runs if run.minutes == options.minutes),
        key=lambda run: ((*PEERS, ON_GPU).index(run.peer), run.seed),
    )
    if options.write:
        write_measured(options.write, table(runs))
    print(json.dumps({**figures(runs), **(record.kill or {})}))  # noqa: T201


if __name__ == "__main__":
    main()
