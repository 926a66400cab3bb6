"""Give AutoSpine what people's disks hold: odd, damaged and hostile inputs, each of which a test makes anew.

Run by `make bench-first-aid`. Each input of `tests/odd_inputs` goes to the command that takes it, in a
process that is watched: `predict` with a small untrained model, `verify`, or `preprocess` and `train` in a
copy of a small trained workspace. Prints one JSON object last. `--messages FILE` writes every input with what
was said of it, for a person to read; `--write FILE` puts the table between that file's `<!-- measured -->`
marks; `--only WORD` tries the inputs whose kind or name contains the word.

How each figure is counted:

- `kinds`, `inputs`: how many of `odd_inputs.trial.KINDS` were tried, and with how many inputs.
- `silently_wrong`: the command succeeded, but voxels or places are not those of the file, or it should have
  refused the input, or have said a word that it did not say.
- `refused_though_sound`: it refused what it should read.
- `tracebacks`: a traceback, an internal error (exit code 3), or a process that died.
- `hung`: no answer within `--timeout` seconds. `too_large`: more than 2 GB of memory beyond that of the
  first input.
- `escaped`: inputs after which a file outside the folders of the command was new, gone or changed, or of
  whose texts control characters reached the screen. `hostile` counts those that try it.
- `unclear`: refusals that do not name the file or case, the cause and a remedy: the words that the input's
  trial asks for, and what to do after a semicolon.
- `odd_files_right`: of the public odd files, those that are read as their publisher's reference, or refused
  with the reason; see `odd_inputs.public`.
- `busy_ratio`, `idle_cost`: see `busy.py`; `--repeats 0` leaves them out.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from odd_inputs.messages import has_remedy  # noqa: E402
from odd_inputs.reading import reading_difference, writing_difference  # noqa: E402
from odd_inputs.trial import KINDS, Accepted, Contained, Refused, Right, Trial  # noqa: E402
from result_page import measured_on, write_measured  # noqa: E402

BUSY = Path(__file__).with_name("busy.py")

ADDRESS_BYTES = 16 << 30
"""Address space of the watched process, so that one input cannot take the memory of the machine."""

MOST_BYTES = 2 << 30
"""Memory beyond that of the first input that counts as too large."""

FAULTS = ("silently_wrong", "refused_though_sound", "tracebacks", "hung", "too_large", "escaped", "unclear")

CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that steer a terminal or turn a line round; ends of lines and tabs are harmless."""


@dataclass(kw_only=True)
class Verdict:
    """What came of one input."""

    kind: str
    name: str
    hostile: bool
    seconds: float = 0.0
    code: int | None = None
    """Exit code; None without an answer."""

    said: str = ""
    faults: list[str] = field(default_factory=list)
    why: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the watched process has to say of one command."""

    code: int
    said: str
    peak_bytes: int
    different: str | None
    """How what was read differs from what is in the file; None if it does not."""


# The watched process


def serve(connection: Connection) -> None:
    """Run one command line after the other, as the console script would, and report on each."""
    os.environ["OMP_NUM_THREADS"] = "1"  # so small a network gains nothing from more
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    os.setpgrp()  # so that it is ended together with its own workers
    while True:
        try:
            words, folder, source, expect, out = connection.recv()
        except EOFError:
            return
        Path("/proc/self/clear_refs").write_text("5")  # begin to measure the peak anew
        screen = io.StringIO()
        with chdir(folder), redirect_stdout(screen), redirect_stderr(screen):
            code = _run(words)
            different = None
            if code == 0 and isinstance(expect, Right):
                different = reading_difference(source, expect) or writing_difference(out, expect)
        peak = next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/self/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        connection.send(Answer(code=code, said=screen.getvalue(), peak_bytes=peak, different=different))


def _run(words: Sequence[str]) -> int:
    from autospine.cli import main

    try:
        return main(list(words))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # whatever a user would see as a traceback
        import traceback

        traceback.print_exc()
        return 3 if isinstance(error, Exception) else 130


# The watcher


class Watched:
    """A process that runs command lines, started anew after it hung or died."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._connection: Any = None

    def ask(self, *request: Any) -> Answer | str | None:
        """Return the answer, None if there is none in time, or a word on how the process died."""
        if self._process is None:
            self._connection, other = self._context.Pipe()
            self._process = self._context.Process(target=serve, args=(other,))
            self._process.start()
            other.close()
        try:
            self._connection.send(request)
            if not self._connection.poll(self._timeout_s):
                self.stop()
                return None
            answer: Answer = self._connection.recv()
            return answer
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.stop()
            return f"the process died with {code}"

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.join()
            self._process = None


def judge(trial: Trial, model: Path, root: Path, watched: Watched, base: list[int]) -> Verdict:
    """Try one input."""
    verdict = Verdict(kind=trial.kind, name=trial.name, hostile=trial.hostile)
    folder = Path(tempfile.mkdtemp(dir=root))
    out = folder / "out"
    source = trial.make(_made(folder / "input"))
    words = _words(trial, source, out, model)
    before = _outside(folder, source, trial)
    place = source if trial.words else folder
    start = time.perf_counter()
    answer = watched.ask(words, place, source, trial.expect, out)
    verdict.seconds = time.perf_counter() - start
    if _outside(folder, source, trial) != before or _strays():
        _fault(verdict, "escaped", "a file outside was made, changed or removed")
    shutil.rmtree(folder, ignore_errors=True)
    if answer is None:
        _fault(verdict, "hung", f"no answer after {verdict.seconds:.0f} s")
        return verdict
    if isinstance(answer, str):
        _fault(verdict, "tracebacks", answer)
        return verdict
    verdict.code = answer.code
    verdict.said = answer.said.replace(str(folder), "FOLDER")
    base.append(answer.peak_bytes)
    if answer.peak_bytes - base[0] > MOST_BYTES:
        _fault(verdict, "too_large", f"{answer.peak_bytes / 2**30:.1f} GB of memory")
    if controls := CONTROLS.search(re.sub(r"\r", "", verdict.said)):
        _fault(verdict, "escaped", f"the control character {controls[0]!r} reached the screen")
    if "Traceback" in verdict.said or answer.code not in (0, 1, 2):
        _fault(verdict, "tracebacks", f"exit code {answer.code}")
    else:
        _compare(trial, answer, verdict)
    return verdict


def _compare(trial: Trial, answer: Answer, verdict: Verdict) -> None:
    match trial.expect:
        case Right():
            if answer.code:
                _fault(verdict, "refused_though_sound", "refused")
            elif answer.different:
                _fault(verdict, "silently_wrong", answer.different)
        case Accepted(says=says):
            missing = _unsaid(says, verdict.said)
            if answer.code:
                _fault(verdict, "refused_though_sound", "refused")
            elif missing:
                _fault(verdict, "silently_wrong", f"no word of {', '.join(missing)}")
        case Refused(says=says):
            missing = _unsaid(says, verdict.said)
            if not answer.code:
                _fault(verdict, "silently_wrong", "not refused")
            elif missing:
                _fault(verdict, "unclear", f"no word of {', '.join(missing)}")
            elif not has_remedy(verdict.said):
                _fault(verdict, "unclear", "no remedy")
        case Contained():
            pass


def _unsaid(says: Sequence[str], said: str) -> list[str]:
    joined = " ".join(said.split())
    return [word for word in says if not re.search(word, joined, re.IGNORECASE)]


def _fault(verdict: Verdict, fault: str, why: str) -> None:
    verdict.faults.append(fault)
    verdict.why.append(why)


def _words(trial: Trial, source: Path, out: Path, model: Path) -> list[str]:
    if trial.words:
        return [trial.command, *trial.words]
    if trial.command == "verify":
        return ["verify", "-d", "7", "-w", str(source)]
    return ["predict", "-i", str(source), "-o", str(out), "-m", str(model), "--format", "nii.gz"]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _outside(folder: Path, source: Path, trial: Trial) -> dict[str, str]:
    """The files beside the command's own folders, with digests of their content."""
    own = {folder / "out", source} if trial.words else {folder / "out"}
    found = {}
    for path in sorted(folder.rglob("*")):
        if any(path == each or each in path.parents for each in own):
            continue
        plain = path.is_file() and not path.is_symlink()
        size = path.stat().st_size if plain else 0
        found[str(path)] = (
            hashlib.blake2b(path.read_bytes()).hexdigest() if plain and size < 2**27 else str(size)
        )
    return found


def _strays() -> bool:
    return Path("/tmp/autospine-victim").exists()


# The whole


def all_trials(root: Path, only: str) -> Iterator[Trial]:
    """Every input; a workspace is trained first if one is needed."""
    from odd_inputs.datasets import dataset_trials
    from odd_inputs.images import image_trials
    from odd_inputs.public import public_trials
    from odd_inputs.series import dicom_trials

    wanted = only.lower()

    def chosen(trials: Iterator[Trial]) -> Iterator[Trial]:
        yield from (each for each in trials if wanted in f"{each.kind} {each.name}".lower())

    yield from chosen(image_trials())
    yield from chosen(dicom_trials())
    yield from chosen(public_trials())
    yield from chosen(dataset_trials())
    yield from _in_workspace(root / "template", chosen)


def _in_workspace(template: Path, chosen: Callable[[Iterator[Trial]], Iterator[Trial]]) -> Iterator[Trial]:
    """Train a small workspace if a trial is to change it."""
    from odd_inputs.workspaces import PREPARE, workspace_trials

    trials = chosen(workspace_trials(template))
    first = next(trials, None)
    if first is None:
        return
    (template / "raw").mkdir(parents=True)
    for words in PREPARE:
        subprocess.run(
            [sys.executable, "-m", "autospine", *words], cwd=template, check=True, capture_output=True
        )
    yield first
    yield from trials


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    counted = Counter(fault for verdict in verdicts for fault in verdict.faults)
    return {
        "kinds": len({verdict.kind for verdict in verdicts}),
        "inputs": len(verdicts),
        "hostile": sum(verdict.hostile for verdict in verdicts),
        **{fault: counted[fault] for fault in FAULTS},
        "odd_files": sum(verdict.kind == "public" for verdict in verdicts),
        "odd_files_right": sum(verdict.kind == "public" and not verdict.faults for verdict in verdicts),
    }


def busy(repeats: int) -> dict[str, Any]:
    """The figures of `busy.py`: what neighbours cost a prediction and a training step."""
    command = [sys.executable, str(BUSY), "--repeats", str(repeats)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def report(verdicts: Sequence[Verdict]) -> str:
    """Every input with what was said of it, as Markdown."""
    lines = []
    for kind, meaning in KINDS.items():
        lines += [f"## {kind}: {meaning}", ""]
        for verdict in (each for each in verdicts if each.kind == kind):
            state = (
                ", ".join(f"{f} ({w})" for f, w in zip(verdict.faults, verdict.why, strict=True)) or "fine"
            )
            lines += [f"### {verdict.name}: exit {verdict.code}, {verdict.seconds:.1f} s, {state}", ""]
            lines += [f"    {line}"[:400] for line in verdict.said.splitlines()[-12:]] + [""]
    return "\n".join(lines)


def table(verdicts: Sequence[Verdict], figures: dict[str, Any]) -> str:
    """The inputs and faults of each kind, and every fault by name."""
    lines = [
        measured_on(),
        "",
    ]
    lines += ["| kind | inputs | " + " | ".join(f"`{fault}`" for fault in FAULTS) + " |"]
    lines += ["|---|" + "--:|" * (1 + len(FAULTS))]
    for kind, meaning in KINDS.items():
        own = [verdict for verdict in verdicts if verdict.kind == kind]
        counted = Counter(fault for verdict in own for fault in verdict.faults)
        cells = " | ".join(str(counted[fault]) for fault in FAULTS)
        lines.append(f"| {meaning} | {len(own)} | {cells} |")
    lines += [
        "",
        f"Faults: {', '.join(_named(verdicts)) or 'none'}.",
        "",
        "```json",
        json.dumps(figures),
        "```",
    ]
    return "\n".join(lines)


def _named(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for verdict in verdicts:
        if verdict.faults:
            yield f"{verdict.name} ({', '.join(verdict.faults)})"


def main() -> None:
    """Try every input and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of a kind's or an input's name")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that a command may take")
    parser.add_argument("--messages", type=Path, help="file for all messages")
    parser.add_argument("--repeats", type=int, default=5, help="timings beside endless loops; 0 times none")
    parser.add_argument("--write", type=Path, help="page that gets the table")
    arguments = parser.parse_args()
    import makers

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        model = root / "model"
        # Few tiles, even of large images.
        coarse = makers.configuration(spacing_mm=(4.0,) * 3, patch_size=(32,) * 3)
        makers.write_model(model, configurations=(coarse,))
        watched, base, verdicts = Watched(arguments.timeout), [], []
        for trial in all_trials(root, arguments.only):
            verdict = judge(trial, model, root, watched, base)
            verdicts.append(verdict)
            for fault, why in zip(verdict.faults, verdict.why, strict=True):
                print(f"{fault}: {verdict.kind}: {verdict.name}: {why}", file=sys.stderr, flush=True)  # noqa: T201
        watched.stop()
    if arguments.messages:
        arguments.messages.write_text(report(verdicts), encoding="utf-8")
    figures = summary(verdicts)
    if arguments.repeats:
        figures |= busy(arguments.repeats)
    if arguments.write:
        write_measured(arguments.write, table(verdicts, figures))
    print(json.dumps(figures))  # noqa: T201 (a script's result)


if __name__ == "__main__":
    main()
