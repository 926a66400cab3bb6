"""A whole-spine CT with 27 classes from file to labels on a GPU, by the command, with one fold and with five.

Part of `make bench-gpu`. The model is what the planner makes of whole-spine CT for the card, and its weights
are random: its labels mean nothing, its time is that of any. The localizer has nothing to find with such
weights, so that all tiles with a body in them are run. Prints one JSON object last.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from makers import grid
from planner_gpu import WHOLE, archetype
from whole_spine import trunk

from autospine.io.images import write_array
from autospine.models.model_folder import save_weights
from autospine.plan import build_network
from autospine.storage.serialization import write_json
from autospine.system.hardware import parse_bytes
from planners.planner import make_plan
from planners.sizing import Budget

FOLDS = 5


def write_model(folder: Path, memory: int, *, gpu: bool) -> dict[str, Any]:
    """A model with random weights; how it was planned."""
    dataset, fingerprint = archetype(WHOLE)
    precision = "bfloat16" if gpu else "float32"
    plan = make_plan(
        dataset,
        fingerprint,
        Budget(memory_bytes=memory, gpu=gpu, precision=precision, reason="the benchmark's"),
    )
    chosen = plan.configurations[0]
    write_json(folder / "plan.json", replace(plan, configurations=(chosen,)))
    for fold in range(FOLDS):
        torch.manual_seed(fold)
        facts = {"fold": str(fold), "steps": 10, "epochs": 2, "seed": fold}
        save_weights(folder / f"fold_{fold}", build_network(plan, chosen), facts)
    return {
        "patch": "x".join(map(str, chosen.patch_size)),
        "width": chosen.network.feature_size,
        "spacing_mm": "x".join(f"{step:.2f}" for step in chosen.spacing_mm),
    }


def predict(folder: Path, image: Path, out: Path, device: str, folds: int) -> dict[str, Any]:
    """Seconds of the command and of its case, and what the case took."""
    words = ["predict", "-i", image, "-o", out, "-m", folder, "--device", device]
    words += [word for fold in range(folds) for word in ("-f", fold)]
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "autospine", *map(str, words)], check=True, stdout=sys.stderr)
    seconds = time.monotonic() - began
    cases = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["cases"]
    (entry,) = cases
    kept = ("tiles", "tiles_run", "peak_gb", "tile_batch")
    return {"seconds": round(seconds, 1), **{key: entry[key] for key in kept if key in entry}}


def main() -> None:
    """Make the model and the image, predict, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--spacing", type=float, default=0.8, help="voxel size of the CT in mm")
    parser.add_argument("--memory", type=parse_bytes, help="plan for this much instead of the card's")
    options = parser.parse_args()
    gpu = options.device == "cuda"
    memory = options.memory or torch.cuda.get_device_properties(0).total_memory
    with TemporaryDirectory() as root:
        folder, image = Path(root) / "fullres", Path(root) / "spine_0000.nii.gz"
        figures = write_model(folder, memory, gpu=gpu)
        voxels, _ = trunk(options.spacing, seed=0)
        write_array(image, voxels, grid(voxels.shape, (options.spacing,) * 3))
        figures["voxels"] = "x".join(map(str, voxels.shape))
        for folds in (1, FOLDS):
            row = predict(folder, image, Path(root) / f"out_{folds}", options.device, folds)
            print(json.dumps({"folds": folds, **row}), flush=True)  # noqa: T201
            figures |= {f"{key}_{folds}_folds": value for key, value in row.items()}
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
