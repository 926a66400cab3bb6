"""Kills, damaged and hostile input, a thousand cases, a cluster, and the wheel: `make bench-trust`.

    python tests/benchmarks/trust.py [--only NAME ...] [--write docs/results/trust.md]

- `kills`, `recoveries`: see `kills.py`.
- `malformed_tried`, `malformed_unclear`, `malformed_hung`, `malformed_large`, `hostile_tried`,
  `hostile_succeeded`: inputs of `first_aid.py`, those that are refused without naming file, cause and remedy
  or that end in a traceback, those without an answer in time, those that take more than 2 GB, those that try
  to reach a file or the screen outside of what they are given, and those that do.
- `growth_exponent`, `small_case_overhead_seconds`: see `growth.py`.
- `cluster_cases_equal`, `cluster_overhead`: see `cluster.py`.
- `wheel_mb`: the wheel, in 10⁶ bytes, once it has exactly the files of the packages.

`--only` measures some of the parts. Prints one JSON object last.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import cluster
import growth
import kills
from processes import Facts
from result_page import measured_on, write_measured

sys.path.insert(0, str(Path(__file__).parents[1]))
import release

KILLS = 56
"""Eight of each of seven commands."""

GOALS = {
    "kills": ">= 50",
    "recoveries": "all",
    "malformed_tried": ">= 300",
    "malformed_unclear": "0",
    "malformed_hung": "0",
    "malformed_large": "0",
    "hostile_tried": ">= 25",
    "hostile_succeeded": "0",
    "cluster_cases_equal": "60",
    "cluster_overhead": "<= 0.15",
    "growth_exponent": "<= 1.1",
    "small_case_overhead_seconds": "",
    "wheel_mb": "",
}


def measure_kills(folder: Path) -> Facts:
    """Kill the commands of the chain."""
    return kills.measure(folder, KILLS, random.Random(0))


def measure_inputs(folder: Path) -> Facts:
    """Give the commands odd, damaged and hostile input."""
    script = Path(__file__).with_name("first_aid.py")
    command = (sys.executable, str(script), "--repeats", "0", "--messages", str(folder / "messages.txt"))
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Facts = json.loads(done.stdout.splitlines()[-1])
    return {
        "malformed_tried": found["inputs"],
        "malformed_unclear": found["unclear"] + found["tracebacks"],
        "malformed_hung": found["hung"],
        "malformed_large": found["too_large"],
        "hostile_tried": found["hostile"],
        "hostile_succeeded": found["escaped"],
    }


def measure_wheel(folder: Path) -> Facts:
    """Build the wheel and look into it."""
    wheel, _ = release.build(folder)
    if faults := list(release.wheel_faults(wheel)):
        raise SystemExit("\n".join(faults))
    return {"wheel_mb": round(wheel.stat().st_size / 1e6, 2)}


PARTS: dict[str, Callable[[Path], Facts]] = {
    "wheel": measure_wheel,
    "growth": growth.measure,
    "cluster": cluster.measure,
    "kills": measure_kills,
    "inputs": measure_inputs,
}


def table(figures: Facts) -> str:
    """The figures with what they are to be, and the stages, as Markdown."""
    lines = [measured_on(), "", "| figure | measured | to be |", "|---|--:|---|"]
    lines += [f"| `{key}` | {figures[key]} | {goal} |" for key, goal in GOALS.items() if key in figures]
    if stages := figures.get("stages"):
        lines += ["", "| stage | 10 cases | 100 cases | 1,000 cases | exponent |", "|---|--:|--:|--:|--:|"]
        for name, by_count in stages.items():
            cells = [f"{each['seconds']:.1f} s, {each['gb']:.2f} GB" for each in by_count.values()]
            lines.append(f"| {name} | {' | '.join(cells)} | {figures['exponents'][name]:.2f} |")
    if seconds := figures.get("cluster_seconds"):
        lines += ["", "| on this machine | seconds |", "|---|--:|"]
        lines += [f"| {what} | {value} |" for what, value in seconds.items()]
    lines += ["", *(f"- {each}" for each in figures.get("failures", ()))]
    return "\n".join(
        [*lines, "", "```json", json.dumps({key: figures[key] for key in GOALS if key in figures}), "```"]
    )


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to measure"
    )
    parser.add_argument("--write", type=Path, help="page that gets the table")
    options = parser.parse_args()
    figures: Facts = {}
    for name in options.only:
        with TemporaryDirectory() as folder:
            figures |= PARTS[name](Path(folder))
    text = table(figures)
    if options.write:
        write_measured(options.write, text)
    print(text)  # noqa: T201
    print(json.dumps({key: figures[key] for key in GOALS if key in figures}))  # noqa: T201


if __name__ == "__main__":
    main()
