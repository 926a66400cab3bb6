"""Every command of the chain, killed at random moments, and run once more: is its result as if undisturbed?

Run by `make bench-trust`, which adds the figures to its own; alone it prints them as one JSON object. For
each stage the command runs undisturbed in a copy of the workspace, which tells its result and its time. Then,
for each kill, it runs in another copy, with all that it starts, until SIGKILL at a moment drawn evenly from
that time, and once more. It has recovered if it then ends with exit code 0 and has the same files, with the
same content but for times, memory and the day, and nothing beside them.

- `kills`, `recoveries`: how many were killed, and how many of these have recovered.
- `failures`: stage, moment and what differs, of those that have not.
"""

import argparse
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import Facts

from autospine.storage.tensors import load_tensors

COMMAND = (sys.executable, "-c", "import sys; from autospine.cli import main; sys.exit(main())")
DATASET = "Dataset001_Phantom"
SMALL = ("--patch", "32", "32", "32", "--feature-size", "8", "--memory", "2GB", "--device", "cpu")

EARLIEST = 0.2
"""Share of a command's time before which it is not killed: it has not begun to write."""

UNSTABLE = re.compile(r"seconds|minutes|hours|_gb$|^time|^written|^made$|^created$|^device$|memory_used")
"""Keys of JSON whose values are times or memory, which differ from run to run."""

DAY = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d \w+|(?:[\d.]+ to )?[\d.]+ (?:s|GB|min)\b|<svg.*?</svg>", re.DOTALL
)
"""What a page says of the day, and of times and memory, which some of its charts show."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One command of the chain."""

    name: str
    words: tuple[str, ...]
    results: str
    """Folder or file of its results in the workspace."""


STAGES = (
    Stage(
        name="fingerprint",
        words=("fingerprint", "-d", "1"),
        results=f"preprocessed/{DATASET}",
    ),
    Stage(
        name="preprocess",
        words=("plan-and-preprocess", "-d", "1", *SMALL),
        results=f"preprocessed/{DATASET}",
    ),
    Stage(
        name="train",
        words=(
            *("train", "0", "-d", "1", "--fold", "full", "--deterministic", "--device", "cpu"),
            *("--epochs", "3", "--iterations", "2"),
        ),
        results=f"results/{DATASET}",
    ),
    Stage(
        name="predict",
        words=("predict", "-d", "1", "-i", f"raw/{DATASET}/imagesTs", "-o", "out", "--continue"),
        results="out",
    ),
    Stage(
        name="evaluate",
        words=("evaluate", "out", f"raw/{DATASET}/labelsTs", "-o", "scores"),
        results="scores",
    ),
    Stage(name="report", words=("report", "scores", "-o", "page.html"), results="page.html"),
    Stage(name="export", words=("model", "export", "-o", "small.autospine"), results="small.autospine"),
)


def measure(root: Path, kills: int, moments: random.Random) -> Facts:
    """Kill each stage in turn until there were so many kills; return the figures.

    Args:
        root: An empty folder.
        kills: Kills of all stages together.
        moments: Draws the moments.
    """
    before = root / "before"
    before.mkdir()
    drawn = ("-o", f"raw/{DATASET}", "-n", "3", "--test-cases", "3", "--modality", "CT")
    run(before, "phantom", *drawn, "--labels", "structures")
    done, failures = 0, []
    for index, stage in enumerate(STAGES):
        work = copied(before, root / "work")  # pages name their folder, which is therefore always this one
        began = time.monotonic()
        run(work, *stage.words)
        seconds = time.monotonic() - began
        expected = dict(contents(work / stage.results))
        after = work.rename(root / "after")
        share = kills // len(STAGES) + (index < kills % len(STAGES))
        for _ in range(share):
            moment = moments.uniform(EARLIEST * seconds, seconds)
            fault = killed_once(copied(before, work), stage, moment, expected)
            done += 1
            print(stage.name, f"{moment:.1f} of {seconds:.1f} s", fault or "recovered", file=sys.stderr)  # noqa: T201
            if fault:
                failures.append(f"{stage.name} at {moment:.1f} of {seconds:.1f} s: {fault}")
        shutil.rmtree(before)
        after.rename(before)
    return {"kills": done, "recoveries": done - len(failures), "failures": failures}


def killed_once(workspace: Path, stage: Stage, moment: float, expected: dict[str, str]) -> str:
    """Kill a command and run it once more; return what is wrong with its result, nothing if it is right."""
    process = start(workspace, *stage.words)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = start(workspace, *stage.words)
    code = again.wait()
    if code:
        return f"exit code {code}: {(workspace.parent / 'messages.txt').read_text(encoding='utf-8')[-300:]}"
    found = dict(contents(workspace / stage.results))
    if lacking := expected.keys() - found.keys():
        return f"{sorted(lacking)} are not there"
    if surplus := found.keys() - expected.keys():
        return f"{sorted(surplus)} have been left"
    differing = [name for name in expected if found[name] != expected[name]]
    return f"{differing} differ" if differing else ""


def contents(place: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and a digest of each file of some results, but for locks; times do not count."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    for path in files:
        name = path.name if place.is_file() else str(path.relative_to(place))
        if path.suffix != ".lock" and path.name not in ("train.log", "metrics.jsonl"):
            yield name, hashlib.sha256(stable(path)).hexdigest()


def stable(path: Path) -> bytes:
    """Return the content of a file without what differs from run to run."""
    content = path.read_bytes()
    if path.suffix == ".json":
        return json.dumps(without_times(json.loads(content)), sort_keys=True).encode()
    if path.suffix in (".html", ".log", ".txt"):
        return DAY.sub("", content.decode("utf-8")).encode()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".safetensors":
        tensors, _ = load_tensors(path)
        return b"".join(name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors))
    if path.suffix == ".autospine":
        return b"".join(archived(path))
    if path.suffix == ".png":
        return b""  # curves have the times of epochs in them
    return content


def archived(path: Path) -> Iterator[bytes]:
    """Yield what is in an exported model, whose manifest and archive say when it was made."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            yield name.encode()
            yield stable(Path(archive.extract(name, folder)))


def without_times(value: Any) -> Any:
    """Return JSON without times and memory."""
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if not UNSTABLE.search(key)}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def copied(source: Path, target: Path) -> Path:
    """Replace a folder by a copy of another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target


def start(workspace: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own, so that all that it starts is killed with it."""
    with (workspace.parent / "messages.txt").open("wb") as messages:
        return subprocess.Popen(
            (*COMMAND, *words), cwd=workspace, stdout=messages, stderr=messages, start_new_session=True
        )


def run(workspace: Path, *words: str) -> None:
    """Run a command that has to succeed."""
    if start(workspace, *words).wait():
        raise SystemExit((workspace.parent / "messages.txt").read_text(encoding="utf-8"))


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=56)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        print(json.dumps(measure(Path(root), options.kills, random.Random(options.seed))))  # noqa: T201


if __name__ == "__main__":
    main()
