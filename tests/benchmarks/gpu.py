"""All that a GPU is to show, in sections of their own: what is measured is kept, whatever fails after it.

    python tests/benchmarks/gpu.py [--sections parity step ...] [--record FILE] [--write FILE] [--try]

- `parity`: the tests of `make test-gpu`, which compare the GPU with the CPU.
- `step`: the training step as users run it, by kernel; what `cudnn.benchmark` and compiling change.
- `peers`: the network against MONAI's SwinUNETR at its best.
- `memory`: predicted against measured memory of planned configurations.
- `prediction`: whole-spine CT with 27 classes, by the command.
- `training`, `training of nnU-Net`: eight minutes on phantoms, and the same of its large residual encoder.

Run by `make bench-gpu`. Each section is a process with a time limit. Its JSON is printed, kept in the record
and written to the page as soon as it ends, so that an interruption loses one section. A section that stands
in the record for the same device and version of PyTorch is left out unless it is named. `--try` runs all of
it at the smallest size on the CPU: it shows that the sections work, and measures nothing.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from result_page import write_measured

HERE = Path(__file__).parent
LAST_LINES = 15
"""Lines of a failed section's output that are kept."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the benchmark."""

    command: tuple[str, ...]
    """After the interpreter; prints one JSON object last, or is a run of pytest."""

    tried: tuple[str, ...] = ()
    """What is added to try it on the CPU."""

    minutes: float = 9.0


def _training(peer: str) -> Section:
    return Section(
        command=(
            *(str(HERE / "training.py"), "--device", "cuda", "--no-kill", "--minutes", "8"),
            *("--seeds", "0", "--peers", peer, "--work", "build/bench-training-gpu"),
        ),
        tried=("--device", "cpu", "--minutes", "0.3", "--work", "build/bench-training-try"),
    )


SECTIONS: Mapping[str, Section] = {
    "parity": Section(command=("-m", "pytest", "-q", "-m", "gpu", str(HERE.parent))),
    "step": Section(
        command=(str(HERE / "gpu_step.py"),),
        tried=("--device", "cpu", "--size", "32", "--feature-size", "12", "--rounds", "2"),
    ),
    "peers": Section(
        command=(str(HERE / "network_gpu.py"),),
        tried=("--device", "cpu", "--size", "64", "--feature-size", "12", "--rounds", "1"),
    ),
    "memory": Section(command=(str(HERE / "planner_gpu.py"), "--budgets", "8", "24", "80")),
    "prediction": Section(
        command=(str(HERE / "gpu_prediction.py"),),
        tried=("--device", "cpu", "--spacing", "4", "--memory", "2GB"),
    ),
    "training": _training("autospine"),
    "training of nnU-Net": _training("nnunet_resenc"),
}


def setting() -> dict[str, str]:
    """Device and versions, which every figure belongs to."""
    if not torch.cuda.is_available():
        return {"device": "CPU", "torch": version("torch")}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": f"{properties.name}, {properties.total_memory / 1024**3:.1f} GiB",
        "capability": f"{properties.major}.{properties.minor}",
        "torch": version("torch"),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def run(section: Section, extra: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Run a section to its end or its time; its figures, or how it ended."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *section.command, *extra],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    ) as process:
        try:
            output, ended = process.communicate(timeout=section.minutes * 60)[0], ""
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, ended = process.communicate()[0], f"stopped after {section.minutes:g} minutes"
    lines = output.splitlines()
    result: dict[str, Any] = {"seconds": round(time.monotonic() - began, 1)}
    rows = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    if rows:
        result |= {"figures": rows[-1], "rows": rows[:-1]}
    elif lines and not ended:
        result |= {"figures": {"said": lines[-1]}}
    if ended or process.returncode:
        result |= {"failed": ended or f"exit code {process.returncode}", "output": lines[-LAST_LINES:]}
    return result


def page(record: Mapping[str, Any]) -> str:
    """The record as Markdown: a table for each section that has been run."""
    lines = []
    for name, each in record.items():
        where = ", ".join(f"{key} {value}" for key, value in each["setting"].items())
        lines += [f"## {name}", "", f"{each['day']}; {where}; {each['seconds']} s.", ""]
        if "failed" in each:
            lines += [f"It failed: {each['failed']}.", "", "```", *each["output"], "```", ""]
        if "figures" in each:
            lines += ["| | |", "|---|--:|"]
            lines += [f"| `{key}` | {_shown(value)} |" for key, value in each["figures"].items()]
            lines.append("")
    return "\n".join(lines)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def main() -> None:
    """Run the sections that are wanted; exit with 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, help="run these, also those on record")
    parser.add_argument("--record", type=Path, help="file of what has been measured")
    parser.add_argument("--write", type=Path, help="page to put the tables into")
    parser.add_argument("--try", dest="tried", action="store_true", help="try the sections on the CPU")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.tried):
        raise SystemExit(
            "This measures a GPU, and PyTorch sees none; run it where torch.cuda.is_available(), or try the "
            "sections with --try."
        )
    here = setting()
    record: dict[str, Any] = {}
    if options.record and options.record.is_file():
        record = json.loads(options.record.read_text(encoding="utf-8"))
    known = {name for name, each in record.items() if each["setting"] == here and "failed" not in each}
    wanted = options.sections or [name for name in SECTIONS if name not in known]
    failed = []
    for name in wanted:
        section = SECTIONS[name]
        if options.tried and not (section.tried or name == "parity"):
            continue
        environment = {"AUTOSPINE_GPU_TESTS_ON": "cpu"} if options.tried else {}
        result = run(section, section.tried if options.tried else (), environment)
        print(json.dumps({"section": name, **result}), flush=True)  # noqa: T201
        failed += [name] if "failed" in result else []
        record[name] = {"day": str(date.today()), "setting": here, **result}
        if not options.tried:
            if options.record:
                options.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            if options.write:
                write_measured(options.write, page(record))
    if failed:
        raise SystemExit(f"These sections failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
