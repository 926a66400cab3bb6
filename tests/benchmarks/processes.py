"""Processes of their own: what they took, by the kernel's account, and commands in a workspace."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

Facts = dict[str, Any]


def peak_bytes() -> int:
    """Most memory that this program alone has held since it began or since `forget_peak`: `VmHWM`."""
    return _status("VmHWM")


def held_bytes() -> int:
    """Memory that this program holds now: `VmRSS`."""
    return _status("VmRSS")


def forget_peak() -> None:
    """Let the peak begin anew with what is held now (proc(5), `clear_refs`)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def in_fresh_process(script: str, child: str, given: Facts) -> Facts:
    """Run `script --child child` with these options in a new interpreter; it prints its facts last."""
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, script, "--child", child, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    facts: Facts = json.loads(done.stdout.splitlines()[-1])
    print(child, given, facts, file=sys.stderr)  # noqa: T201
    return facts


def autospine(workspace: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command of AutoSpine in a workspace.

    Raises:
        SystemExit: If the command fails and `check` is set.
    """
    command = [sys.executable, "-m", "autospine", *words]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
