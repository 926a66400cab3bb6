r"""Show that a checkout behaves as an earlier one did: the same plan, weights and label maps, bit for bit.

Everything is done through `python -m autospine`, so that any checkout can be tested, and takes a few minutes
on two cores:

- Phantoms are drawn, planned for, preprocessed, and trained on for 20 deterministic steps; the held-out cases
  are predicted and scored.
- With `--model FOLDER --images FOLDER`, both of which may be repeated, images are segmented by models that
  the earlier checkout has trained. A model is copied with those beside it, as a coarser one may locate the
  spine.
- With `--workspace FOLDER`, an interrupted training of the earlier checkout is finished in a copy. Its plan,
  split and stored cases have to be used as they are.

`--record FILE` writes the digests, SHA-256 cut to 16 digits, and `--compare FILE` prints `equal` or every
difference and then exits with 1. Keys of the plan and columns of scores that were renamed or added are listed
and count as equal, other values and missing keys do not. Parts that this run leaves out are not compared.
Digests can be compared on the same processor and with the same version of PyTorch only.

The models and the workspace of an earlier checkout are made like this:

    git worktree add ../before 8660514
    python tests/benchmarks/house_behaviour.py --tree ../before --make-workspace ../inputs/interrupted
    cd ../before
    python -m autospine demo -o ../inputs/demo
    python -m autospine plan -w ../inputs/demo -d 999 --memory 2GB --patch 48 64 32 --feature-size 8
    python -m autospine train fullres -w ../inputs/demo -d 999 --fold full --epochs 1 --iterations 30

The last two lines train a model for which the demo's own, `fast`, locates the spine. Two such models of
patients are trained on a dataset in `../inputs/real/raw`:

    python -m autospine plan-and-preprocess -w ../inputs/real -d 1 --memory 3GB
    python -m autospine train fast -w ../inputs/real -d 1 --fold 0 --max-minutes 3
    python -m autospine plan -w ../inputs/real -d 1 --memory 2GB --spacing 2.2 2.2 2.2 --patch 48 64 64 \
        --feature-size 8
    python -m autospine train fullres -w ../inputs/real -d 1 --fold full --epochs 1 --iterations 30
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
DATASET = "Dataset001_Phantom"
CONFIGURATION = "fast"
PHANTOMS = ("phantom", "-o", f"raw/{DATASET}", "-n", "6", "--labels", "structures", "--seed", "3", "-j", "2")
PLANNING = ("plan-and-preprocess", "-d", "1", "--memory", "2GB", "--device", "cpu")
SIZES = ("--patch", "32", "32", "32", "--feature-size", "8")
LENGTH = ("--epochs", "2", "--iterations", "10")
TRAINING = ("train", CONFIGURATION, "-d", "1", "--fold", "0", "--deterministic", "--seed", "0", *LENGTH)
ON_CPU = ("--workers", "0", "--device", "cpu")
TRAINED = Path("results") / DATASET / CONFIGURATION / "fold_0"
PREPARED = Path("preprocessed") / DATASET
IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")
STOPPED = (130, 143)
"""Exit codes of a command that was told to stop."""

Digests = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The sources to be tested and the interpreter that runs them."""

    tree: Path
    python: str

    def start(self, workspace: Path, *words: str) -> "subprocess.Popen[bytes]":
        """Start a command in a workspace; its messages are added to a file there."""
        unwanted = ("AUTOSPINE_WORKSPACE", "nnUNet_raw")
        environment = {name: value for name, value in os.environ.items() if name not in unwanted}
        # With one thread, sums do not depend on the number of cores.
        environment |= {"PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": "1"}
        command = [self.python, "-m", "autospine", *words]
        with (workspace / "messages.txt").open("ab") as messages:
            return subprocess.Popen(command, cwd=workspace, env=environment, stdout=messages, stderr=messages)

    def run(self, workspace: Path, *words: str) -> None:
        """Run a command that has to succeed."""
        began = time.monotonic()
        if code := self.start(workspace, *words).wait():
            said = (workspace / "messages.txt").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(
                f"`autospine {' '.join(words)}` of {self.tree} ended with {code}:\n{said[-4000:]}"
            )
        print(f"{time.monotonic() - began:.0f} s: autospine {' '.join(words)}", file=sys.stderr)  # noqa: T201


# Digests


def digest(content: bytes | str) -> str:
    """The first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def digest_array(array: np.ndarray) -> str:
    """Digest of an array's values, type and shape."""
    return digest(f"{array.dtype.str} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())


def digest_images(folder: Path) -> Digests:
    """Digests of every image in a folder, of its values and of its grid."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(IMAGE_ENDINGS):
            image = sitk.ReadImage(str(path))
            grid = (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
            found[path.name] = {
                "values": digest_array(sitk.GetArrayViewFromImage(image)),
                "grid": digest(repr(grid)),
            }
    if not found:
        raise SystemExit(f"there is no image in {folder}, although the command has succeeded")
    return found


def digest_weights(path: Path) -> Digests:
    """Digest of every tensor by its name; the file's header may change."""
    return {name: digest_array(tensor) for name, tensor in sorted(load_file(path).items())}


def digest_columns(path: Path) -> Digests:
    """Digest of every column of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: digest("\n".join(row[name] for row in rows)) for name in rows[0]}


def digest_plan(path: Path) -> Digests:
    """Digest of every value of a plan by its key, but for the reasons of its decisions."""
    plan = json.loads(path.read_text(encoding="utf-8"))
    plan["configurations"] = {one["name"]: one for one in plan["configurations"]}
    left_out = ("rationale", "format_version")
    kept = {key: value for key, value in plan.items() if key not in left_out}
    return {key: digest(json.dumps(value)) for key, value in flatten(kept)}


def flatten(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by their path, `configurations.fast.patch_size`."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


# What is tested


def prepare(checkout: Checkout, workspace: Path) -> None:
    """Draw phantoms, plan for them, and preprocess them."""
    workspace.mkdir(parents=True)
    checkout.run(workspace, *PHANTOMS)
    checkout.run(workspace, *PLANNING, *SIZES)


def train_anew(checkout: Checkout, workspace: Path) -> Digests:
    """Phantoms, plan, weights, predictions of held-out cases and their scores."""
    prepare(checkout, workspace)
    if not (workspace / PREPARED / CONFIGURATION).is_dir():
        raise SystemExit(
            f"configuration 0 of the plan in {workspace / PREPARED} is no longer {CONFIGURATION}"
        )
    checkout.run(workspace, *TRAINING, *ON_CPU)
    raw, validation = workspace / "raw" / DATASET, workspace / TRAINED / "validation"
    checkout.run(workspace, "evaluate", str(validation), str(raw / "labelsTr"), "-o", "scores")
    return {
        "phantoms": {name: digest_images(raw / name) for name in ("imagesTr", "labelsTr")},
        "plan": digest_plan(workspace / PREPARED / "plan.json"),
        "weights": digest_weights(workspace / TRAINED / "model.safetensors"),
        "validation": digest_images(validation),
        "scores": digest_columns(workspace / "scores" / "evaluation.csv"),
    }


def predict(checkout: Checkout, model: Path, images: Path, scratch: Path) -> Digests:
    """Digests of the label maps that a model of the earlier checkout gives."""
    copied = scratch / "models"
    shutil.rmtree(copied, ignore_errors=True)
    for beside in sorted(model.parent.iterdir()):
        if (beside / "plan.json").is_file():
            shutil.copytree(beside, copied / beside.name)
    output = scratch / "predicted"
    shutil.rmtree(output, ignore_errors=True)
    words = ("predict", "-i", str(images), "-o", str(output), "-m", str(copied / model.name))
    checkout.run(scratch, *words, "--device", "cpu")
    return digest_images(output)


def make_interrupted(checkout: Checkout, workspace: Path) -> None:
    """Begin a training and end it by SIGTERM after the first of its two epochs."""
    prepare(checkout, workspace)
    process = checkout.start(workspace, *TRAINING, *ON_CPU)
    while process.poll() is None and not (workspace / TRAINED / "checkpoint.safetensors").is_file():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    if code not in STOPPED or (workspace / TRAINED / "model.safetensors").exists():
        raise SystemExit(f"the training in {workspace} was not interrupted, it ended with {code}; try again")


def resume(checkout: Checkout, made: Path, workspace: Path) -> Digests:
    """Finish the interrupted training in a copy of its workspace."""
    shutil.copytree(made, workspace, copy_function=shutil.copy2)  # stored cases know the times of raw files
    if (workspace / TRAINED / "model.safetensors").exists():
        raise SystemExit(f"{made} holds a training that is finished; make another with --make-workspace")
    before, rows = stored_files(workspace), epochs(workspace)
    checkout.run(workspace, *TRAINING, *ON_CPU)
    return {
        "weights": digest(json.dumps(digest_weights(workspace / TRAINED / "model.safetensors"))),
        "validation": digest_images(workspace / TRAINED / "validation"),
        "files_made_anew": sorted({name for name, _ in before.items() ^ stored_files(workspace).items()}),
        "epochs_kept": rows == epochs(workspace)[: len(rows)],
        "epochs_resumed": len(epochs(workspace)) - len(rows),
    }


def stored_files(workspace: Path) -> dict[str, str]:
    """Plan, split, fingerprint and stored cases of a workspace, each with its time and digest."""
    folder = workspace / PREPARED
    return {
        str(path.relative_to(folder)): f"{path.stat().st_mtime_ns} {digest(path.read_bytes())}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def epochs(workspace: Path) -> list[dict[str, Any]]:
    """The rows of the fold's metrics."""
    lines = (workspace / TRAINED / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# Comparison


def compare(expected: Digests, found: Digests) -> tuple[list[str], list[str]]:
    """Differences in the parts that both have, and remarks that are none."""
    differences: list[str] = []
    remarks = [f"not compared: {part}" for part in sorted(expected.keys() ^ found.keys())]
    for part in [key for key in expected if key in found and key != "machine"]:
        old, new = (dict(flatten({part: digests[part]})) for digests in (expected, found))
        missing, added = [key for key in old if key not in new], [key for key in new if key not in old]
        if part in ("plan", "scores"):
            for was, now in renamed(missing, added, old, new):
                remarks.append(f"renamed, with the same value: {was} is {now}")
                missing.remove(was)
                added.remove(now)
            remarks += [f"added: {key}" for key in added]
        elif part != "predictions":  # of which each run may make others
            differences += [f"only in the tested checkout: {key}" for key in added]
        if part == "predictions":
            models = {model: maps for model, maps in expected[part].items() if model not in found[part]}
            remarks += [f"not compared: predictions of {model}" for model in models]
            missing = [
                key for key in missing if not key.startswith(tuple(f"{part}.{one}." for one in models))
            ]
        differences += [f"missing in the tested checkout: {key}" for key in missing]
        changed = [key for key in old if key in new and old[key] != new[key]]
        differences += [f"changed: {key} from {old[key]} to {new[key]}" for key in changed]
    remarks += [
        f"other {name}: {found['machine'][name]} instead of {value}; the digests may differ for that alone"
        for name, value in expected["machine"].items()
        if name != "commit" and found["machine"][name] != value
    ]
    return differences, remarks


def renamed(
    missing: Sequence[str], added: Sequence[str], old: Mapping[str, str], new: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Pairs of a missing and an added key that have the same value, each key once."""
    left, pairs = list(added), []
    for was in missing:
        # Of several with this value, one in the same part of the plan.
        same = [now for now in left if new[now] == old[was]]
        same.sort(key=lambda now: now.rpartition(".")[0] != was.rpartition(".")[0])
        if same:
            pairs.append((was, same[0]))
            left.remove(same[0])
    return pairs


def machine(tree: Path) -> dict[str, str]:
    """What the digests depend on besides the code, and the commit that is checked out."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return {
        "commit": subprocess.run(command, capture_output=True, text=True).stdout.strip(),
        "processor": models[0] if models else platform.machine(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "SimpleITK": version("SimpleITK"),
    }


def measure(checkout: Checkout, options: argparse.Namespace, scratch: Path) -> Digests:
    """The digests of every part that was asked for."""
    found: Digests = {"machine": machine(checkout.tree), **train_anew(checkout, scratch / "workspace")}
    if options.model:
        found["predictions"] = {
            f"{model.parent.name}/{model.name}": predict(checkout, model, images, scratch)
            for model, images in zip(options.model, options.images, strict=True)
        }
    if options.workspace:
        found["resumed"] = resume(checkout, options.workspace, scratch / "resumed")
        if found["resumed"]["weights"] != digest(json.dumps(found["weights"])):
            print("the resumed training has other weights than the undisturbed one")  # noqa: T201
    return found


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = {"type": lambda text: Path(text).resolve(), "metavar": "FOLDER"}
    parser.add_argument("--tree", **folder, default=ROOT, help="checkout that is tested")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs it")
    parser.add_argument("--model", **folder, action="append", default=[], help="may be repeated")
    parser.add_argument("--images", **folder, action="append", default=[], help="one for each model")
    parser.add_argument("--workspace", **folder, help="made with --make-workspace by the earlier checkout")
    parser.add_argument("--make-workspace", **folder, help="make one with an interrupted training, and end")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the digests")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="compare with digests of an earlier run")
    options = parser.parse_args()
    if len(options.model) != len(options.images):
        parser.error(f"{len(options.model)} --model but {len(options.images)} --images; give one for each")
    return options


def main() -> None:
    """Measure, and write or compare as asked."""
    options = parse_options()
    checkout = Checkout(tree=options.tree, python=options.python)
    if options.make_workspace:
        make_interrupted(checkout, options.make_workspace)
        return
    with TemporaryDirectory() as scratch:
        found = measure(checkout, options, Path(scratch))
    if options.record:
        options.record.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not options.compare:
        print(json.dumps(found))  # noqa: T201
        return
    differences, remarks = compare(json.loads(options.compare.read_text(encoding="utf-8")), found)
    print("\n".join([*remarks, *(differences or ["equal"])]))  # noqa: T201
    raise SystemExit(bool(differences))


if __name__ == "__main__":
    main()
