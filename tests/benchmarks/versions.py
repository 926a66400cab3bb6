"""Hold this version against a checkout of another one on a CPU: speed, memory, and what the same steps teach.

    git worktree add /tmp/before COMMIT
    python tests/benchmarks/versions.py /tmp/before [--parts losses speed memory dice] [--record FILE]

- `losses`: the losses of the first steps of a small training, from the same weights on the same batch.
- `speed`: the calls of `make bench-network` and the training step as users run it. Both versions are called
  in turn, each in a process of its own, and every figure is the median of the ratios of neighbouring calls,
  this version over the other, in seconds of the processor: less than 1 is faster.
- `memory`: by how much two training steps with 27 classes raise the memory of a fresh process, the weights
  included, this version over the other.
- `dice`: both plan for the same phantoms, train configuration 0 on all of them with the same seed for the
  same number of steps, and segment the same held-out ones; this version scores both.

Prints one JSON object last. Parts that stand in the record are kept unless they are named. What both versions
are called by is in `version_calls.py`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from network import processor
from result_page import measured_on

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CALLS = HERE / "version_calls.py"
CLASSES = 27
"""Classes of the step whose memory is measured: every vertebra."""

Figures = dict[str, Any]


class Version:
    """Commands and calls of one checkout, in processes of their own.

    Args:
        checkout: Folder of the checkout.
        options: Sizes and number of threads.
    """

    def __init__(self, checkout: Path, options: argparse.Namespace) -> None:
        self.checkout = checkout.resolve()
        self._options = options
        folders = (self.checkout, self.checkout / "tests", self.checkout / "tests" / "benchmarks")
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
            "OMP_NUM_THREADS": str(options.threads),
        }

    def autospine(self, workspace: Path, *words: str) -> str:
        """Run a command of AutoSpine, and return what it says; fail if it fails."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "autospine", *words],
            cwd=workspace,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{self.checkout}: {' '.join(words)} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    def begin(self, task: str) -> "subprocess.Popen[str]":
        """Start `version_calls.py` for a task."""
        sizes = ("size", "feature_size", "classes")
        words = [f"--{name.replace('_', '-')}={getattr(self._options, name)}" for name in sizes]
        return subprocess.Popen(
            [sys.executable, "-P", str(CALLS), task, *words, f"--checkout={self.checkout}"],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def answer(process: "subprocess.Popen[str]", asked: str = "") -> Any:
    """Ask a process for a call, and return the JSON of its next line."""
    assert process.stdin is not None and process.stdout is not None
    if asked:
        process.stdin.write(f"{asked}\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{CALLS.name} ended with {process.wait()} where {asked or 'a start'} was expected")
    return json.loads(line)


def losses(this: Version, other: Version, _: argparse.Namespace) -> Figures:
    """How far the losses of the same steps are apart, at most."""
    own, old = (answer(version.begin("losses")) for version in (this, other))
    apart = max(abs(a - b) / abs(b) for a, b in zip(own, old, strict=True))
    return {"steps": len(own), "first": own[0], "last": own[-1], "largest relative difference": apart}


def speed(this: Version, other: Version, options: argparse.Namespace) -> Figures:
    """Ratios of the seconds of each call, and this version's seconds."""
    here, there = this.begin("serve"), other.begin("serve")
    try:
        names = answer(here)
        if answer(there) != names:
            raise SystemExit("the versions do not have the same calls; compare with another one")
        figures: Figures = {}
        for name in [name for name in names if options.calls in name]:
            rows = [(answer(here, name), answer(there, name)) for _ in range(options.rounds + 1)][1:]
            figures[f"{name}: ratio"] = round(statistics.median(own / old for own, old in rows), 3)
            figures[f"{name}: seconds"] = round(statistics.median(own for own, _ in rows), 3)
            print(f"{name}: {figures[f'{name}: ratio']}", file=sys.stderr, flush=True)  # noqa: T201
    finally:
        here.kill()
        there.kill()
    return figures


def memory(this: Version, other: Version, options: argparse.Namespace) -> Figures:
    """Ratios of the memory of a training step, and this version's gigabytes."""
    figures: Figures = {}
    for precision in ("float32", "bfloat16"):
        own, old = (answer(version.begin(f"memory-{precision}")) for version in (this, other))
        figures[f"step with {options.classes} classes, {precision}: ratio"] = round(own / old, 3)
        figures[f"step with {options.classes} classes, {precision}: GB"] = round(own / 1e9, 2)
    return figures


def dice(this: Version, other: Version, options: argparse.Namespace) -> Figures:
    """Dice of held-out phantoms after the same number of steps, and what each version planned."""
    phantoms = options.work / "phantoms"
    if not phantoms.is_dir():
        options.work.mkdir(parents=True, exist_ok=True)
        this.autospine(
            options.work,
            *("phantom", "-o", str(phantoms), "--cases", "20", "--test-cases", "10"),
            *("--labels", "structures", "--seed", "77"),
        )
    figures: Figures = {"steps": options.epochs * options.iterations}
    for name, version in (("this", this), ("other", other)):
        workspace = options.work / name
        (workspace / "raw").mkdir(parents=True, exist_ok=True)
        dataset = workspace / "raw" / "Dataset900_Phantom"
        if not dataset.exists():
            dataset.symlink_to(phantoms, target_is_directory=True)
        found = trained(version, workspace, options) | scores(this, workspace)
        figures |= {f"{name}: {key}": value for key, value in found.items()}
    return figures


def trained(version: Version, workspace: Path, options: argparse.Namespace) -> Figures:
    """Plan, train and predict in a workspace; what was planned."""
    version.autospine(workspace, "plan-and-preprocess", "900")
    version.autospine(
        workspace,
        *("train", "0", "--fold", "full", "--device", "cpu", "--seed", "0", "--workers", "0"),
        *("--epochs", str(options.epochs), "--iterations", str(options.iterations)),
    )
    raw, found = workspace / "raw" / "Dataset900_Phantom", workspace / "found"
    version.autospine(
        workspace,
        *("predict", "-i", str(raw / "imagesTs"), "-o", str(found), "-d", "900", "--fold", "full"),
        *("--device", "cpu"),
    )
    return planned(workspace)


def scores(this: Version, workspace: Path) -> Figures:
    """Mean Dice over the classes, and that of each."""
    found, references = workspace / "found", workspace / "raw" / "Dataset900_Phantom" / "labelsTs"
    this.autospine(workspace, "evaluate", str(found), str(references))
    evaluation = json.loads((found / "evaluation.json").read_text(encoding="utf-8"))
    by_class = {name: round(each["dice"], 4) for name, each in evaluation["classes"].items()}
    return {"dice": round(evaluation["mean_dice"], 4), **by_class}


def planned(workspace: Path) -> Figures:
    """Patch, width and batch of configuration 0."""
    plan = json.loads(next(workspace.glob("preprocessed/*/plan.json")).read_text(encoding="utf-8"))
    first = plan["configurations"][0]
    return {
        "spacing": first["spacing_mm"],
        "patch": first["patch_size"],
        "width": first["network"]["feature_size"],
        "batch": first["training"]["batch_size"],
    }


PARTS: Mapping[str, Callable[[Version, Version, argparse.Namespace], Figures]] = {
    "losses": losses,
    "speed": speed,
    "memory": memory,
    "dice": dice,
}


def main() -> None:
    """Compare the versions, part by part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="checkout of the other version")
    parser.add_argument("--parts", nargs="+", choices=PARTS)
    parser.add_argument("--calls", default="", help="part of the names of the calls whose speed is measured")
    parser.add_argument("--record", type=Path, help="file of what has been measured")
    parser.add_argument("--work", type=Path, default=Path("build/bench-versions"))
    defaults = {"size": 96, "feature-size": 24, "classes": CLASSES, "rounds": 9, "threads": 1}
    for name, default in (defaults | {"epochs": 8, "iterations": 50}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    options.work = options.work.resolve()
    this, other = Version(ROOT, options), Version(options.other, options)
    record: Figures = {}
    if options.record and options.record.is_file():
        record = json.loads(options.record.read_text(encoding="utf-8"))
    for part in options.parts or [name for name in PARTS if name not in record]:
        record[part] = {"measured": f"{measured_on()} {processor()}", **PARTS[part](this, other, options)}
        print(json.dumps({part: record[part]}), file=sys.stderr, flush=True)  # noqa: T201
        if options.record:
            options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record))  # noqa: T201


if __name__ == "__main__":
    main()
