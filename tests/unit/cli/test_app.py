"""A mistake is answered in one line, before anything is imported that takes long."""

import errno
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer

from autospine.cli import app as app_module
from autospine.cli import main
from autospine.cli.app import app, load_commands
from autospine.storage.atomic import replacing

GOLDEN = Path(__file__).parents[1] / "planners" / "golden" / "lumbar_ct.json"
NAME = json.loads(GOLDEN.read_text(encoding="utf-8"))["dataset"]

HEAVY = ("torch", "SimpleITK", "scipy", "matplotlib", "pandas")
HEAVIER = (*HEAVY, "numpy", "jaxtyping")
"""What not even a plan is read for."""

RUN = """
import contextlib, io, json, sys
from autospine.cli import main

def run(folder, words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue(), list(sys.modules)

print(json.dumps([run(*each) for each in json.load(sys.stdin)]))
"""


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str
    modules: list[str]


LIGHTEST = {
    "help": (("--help",), 0, "predict"),
    "version": (("--version",), 0, "autospine"),
    "help of a command": (("train", "--help"), 0, "--max-minutes"),
    "no such command": (("trian",), 2, "did you mean 'train'"),
    "no such option": (("predict", "--no-such-option"), 2, "no-such-option; see `autospine predict --help`"),
    "no number": (
        ("train", "--epochs", "x"),
        2,
        "invalid value for '--epochs': expected a valid integer; see",
    ),
    "too small a number": (
        ("train", "--max-minutes", "0"),
        2,
        "expected a value greater than or equal to 0.1",
    ),
    "no such choice": (("predict", "--format", "xx"), 2, "'--format': 'xx' is not one of 'nii.gz'"),
    "no value": (("predict", "-i"), 2, "option '-i' requires an argument; see `autospine predict --help`"),
    "too few values": (
        ("model", "import-weights", "x", "--window", "1"),
        2,
        "autospine model import-weights --help",
    ),
    "an output given twice": (
        ("predict", "-i", ".", "-o", "a", "-o", "b"),
        2,
        "expected '--output' / '-o' once, found it 2 times; see `autospine predict --help`",
    ),
    "a dataset given twice": (("plan", "-d", "1", "--dataset", "2"), 2, "expected '--dataset' / '-d' once"),
    "a number given three times": (
        ("train", "--epochs", "1", "--epochs", "2", "--epochs=2"),
        2,
        "expected '--epochs' once, found it 3 times",
    ),
    "a switch and its opposite": (
        ("predict", "-i", ".", "-o", "out", "--roi", "--no-roi"),
        2,
        "expected '--roi' / '--no-roi' once",
    ),
    "a file to export to given twice": (
        ("model", "export", "-o", "a.autospine", "-oa.autospine"),
        2,
        "expected '--output' / '-o' once",
    ),
    "a switch given twice": (("predict", "--mirror", "--mirror", "-i", "absent", "-o", "out"), 1, "absent"),
    "no second input": (("predict", "-i", ".", "-i", "absent", "-o", "out"), 1, "absent"),
    "names that a shell has put in": (
        ("predict", "-i", "a.nii.gz", "b.nii.gz", "-o", "out"),
        2,
        "unexpected extra argument(s) (b.nii.gz); give -i before each, or a folder",
    ),
    "no epochs": (("train", "0", "-d", "1", "--epochs", "0"), 2, "'--epochs': expected a value greater"),
    "no steps": (("train", "0", "-d", "1", "--iterations", "0"), 2, "'--iterations': expected a value"),
    "no further epochs": (("train", "0", "-d", "1", "--extend", "-1"), 2, "'--extend': expected a value"),
    "no epochs to wait": (("train", "0", "--stop-early", "0"), 2, "'--stop-early': expected a value"),
    "an early end of an extension": (("train", "--stop-early=9", "--extend=9"), 1, "leave --stop-early out"),
    "epochs and further epochs": (("train", "--epochs=9", "--extend=9"), 1, "found both; leave one out"),
    "a demo into a file": (("demo", "-o", "file"), 1, "found the file file; name another"),
    "no predictions to evaluate": (("evaluate", "absent", "."), 1, "label maps at absent"),
    "no references": (("evaluate", ".", "absent"), 1, "reference label maps at absent"),
    "no model to compare": (("compare", "-d", "1", "-c", "absent"), 1, "found absent; name others"),
    "no such dataset": (("train", "0", "-d", "Dataset777"), 1, "Dataset777"),
    "no workspace": (("verify", "-d", "1", "-w", "absent"), 1, "absent"),
    "no plan at all": (("train",), 1, "plan-and-preprocess"),
    "minutes without end": (("train", "0", "--max-minutes", "inf"), 1, "found inf; leave it out"),
    "no memory": (("plan", "-d", "1", "--memory", "much"), 1, "8GB"),
    "no device": (("compare", "-d", "1", "--device", "tpu"), 1, "cuda:N"),
    "no input": (("predict", "-i", "absent", "-o", "out"), 1, "absent"),
    "an input of another kind": (("predict", "-i", "file", "-o", "out"), 1, "another kind of file"),
    "an output that is a file": (("predict", "-i", ".", "-o", "file"), 1, "the file"),
    "no such model": (("predict", "-i", ".", "-o", "out", "-m", "absent"), 1, "model folder"),
    "a model without folds": (("predict", "-i", ".", "-o", "out", "-m", "untrained"), 1, "trained fold"),
    "no such fold of a model": (("predict", "-i", ".", "-o", "out", "-m", "model", "-f", "7"), 1, "found 7"),
    "no model to inspect": (("model", "info", "absent"), 1, "model folder"),
    "no model to import": (("model", "import", "absent"), 1, "an .autospine file"),
    "a file to export": (("model", "export", "-o", "x.autospine", "-m", "file"), 1, "model import` first"),
    "no model to export": (("model", "export", "-o", "x.autospine", "-m", "absent"), 1, "model folder"),
}
"""Command lines, the exit code, and what the answer mentions; asked in an unplanned workspace."""

LIGHT = {
    "no plan": ("unplanned", ("train", "0", "-d", "1"), 1, "plan of"),
    "no model": ("unplanned", ("predict", "-d", "1", "-i", ".", "-o", "out"), 1, "expected a trained model"),
    "no such configuration": ("planned", ("train", "nosuchname", "-d", "1"), 1, "nosuchname"),
    "no such fold": ("planned", ("train", "0", "-d", "1", "--fold", "77"), 1, "one of 0, 1, 2"),
    "a fold that is none": ("planned", ("train", "0", "-d", "1", "--fold", "some"), 1, "all, full"),
    "the number of no configuration": ("planned", ("preprocess", "-d", "1", "-c", "99"), 1, "'99'"),
    "no such fold of the model that is chosen": (
        "planned",
        ("predict", "-i", ".", "-o", "out", "-f", "7"),
        1,
        "found 7",
    ),
    "nothing to stop early by": (
        "planned",
        ("train", "0", "-d", "1", "--fold", "full", "--stop-early", "9"),
        1,
        "held-out cases for --stop-early, found none of fold full",
    ),
    "nothing to begin from": ("planned", ("train", "0", "--pretrained", "absent"), 1, "import-weights"),
    "nothing to import": ("planned", ("model", "import-weights", "absent"), 1, "SwinUNETR at absent"),
    "the plan": ("planned", ("plan", "-d", "1", "--explain"), 0, "patch"),
}
"""The same for what plan and folds are read for, each with its workspace."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[str, Answer]:
    """The answers of one process, in the order above: what a later one lacks no earlier one has loaded."""
    root = tmp_path_factory.mktemp("places")
    for folder in ("unplanned", "planned"):
        (root / folder / "raw" / NAME).mkdir(parents=True)
    ready = root / "planned" / "preprocessed" / NAME
    ready.mkdir(parents=True)
    (ready / "plan.json").write_text(GOLDEN.read_text(encoding="utf-8"), encoding="utf-8")
    folds = {"format_version": 1, "dataset": NAME, "validation": [["a"], ["b"], ["c"]]}
    (ready / "folds.json").write_text(json.dumps(folds), encoding="utf-8")
    trained = root / "planned" / "results" / NAME / "fast"
    (trained / "fold_0").mkdir(parents=True)
    (trained / "fold_0" / "model.safetensors").touch()
    (trained / "plan.json").write_text("{}", encoding="utf-8")
    place = root / "unplanned"
    (place / "file").write_text("no image", encoding="utf-8")
    for name in ("model", "untrained"):
        (place / name).mkdir()
        (place / name / "plan.json").write_text("{}", encoding="utf-8")
    (place / "model" / "fold_0").mkdir()
    (place / "model" / "fold_0" / "model.safetensors").touch()
    asked = {name: (place, words) for name, (words, _, _) in LIGHTEST.items()}
    asked |= {name: (root / folder, words) for name, (folder, words, _, _) in LIGHT.items()}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([(str(folder), words) for folder, words in asked.values()]),
        capture_output=True,
        text=True,
        check=True,
    )
    return {name: Answer(*one) for name, one in zip(asked, json.loads(done.stdout), strict=True)}


@pytest.mark.parametrize("name", LIGHTEST)
def test_a_name_is_checked_with_next_to_nothing(answers, name):
    _, code, mentioned = LIGHTEST[name]
    check(answers[name], code, mentioned, HEAVIER)


@pytest.mark.parametrize("name", LIGHT)
def test_a_name_in_a_plan_is_checked_without_pytorch(answers, name):
    _, _, code, mentioned = LIGHT[name]
    check(answers[name], code, mentioned, HEAVY)


def check(answer: Answer, code: int, mentioned: str, absent: tuple[str, ...]) -> None:
    assert answer.code == code, answer.err
    said = " ".join((answer.out if code == 0 else answer.err).split())
    assert mentioned in said
    assert not set(absent) & set(answer.modules)
    if code:
        assert answer.out == ""
        assert answer.err.startswith("autospine: ")
        assert len(answer.err.splitlines()) == 1


def test_every_option_that_takes_one_value_refuses_a_second():
    """All options of all commands, as the command line has them now."""
    load_commands()
    root = typer.main.get_command(app)
    commands = {(name,): command for name, command in root.commands.items() if name != "model"}
    commands |= {("model", name): command for name, command in root.commands["model"].commands.items()}
    tried = 0
    for words, command in commands.items():
        for option in command.params:
            if option.param_type_name != "option" or option.multiple or option.name == "help":
                continue
            if option.is_flag and not option.secondary_opts:
                continue
            given = [option.opts[0], *["1"] * (0 if option.is_flag else option.nargs)] * 2
            with pytest.raises(
                typer.BadParameter.__bases__[0], match=rf"{option.opts[0]}'.* once, found it 2"
            ):
                root.main([*words, *given], standalone_mode=False)
            tried += 1
    assert tried > 70


@pytest.mark.parametrize("words", [(), ("anatomy",), ("model",)])
def test_nothing_at_all_shows_the_help_once(words, capsys):
    assert main(words) == 2
    shown = "".join(capsys.readouterr())
    assert shown.count(f"Usage: {' '.join(('autospine', *words))} ") == 1
    assert "<bool>" not in shown


def test_a_misspelt_option_is_answered_with_a_question(capsys):
    assert main(["train", "--epoch", "3"]) == 2
    assert "no such option: --epoch; did you mean --epochs" in capsys.readouterr().err


def test_packages_of_others_are_told_from_our_own(tmp_path):
    """Another distribution's `planners`, found first, is named before anything of it is used."""
    (tmp_path / "planners").mkdir()
    (tmp_path / "planners" / "__init__.py").touch()
    run = "import sys; sys.path.insert(0, sys.argv[1]); from autospine.cli import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", run, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "own package `planners`" in done.stderr and "uninstall" in done.stderr
    assert len(done.stderr.splitlines()) == 1


SHELL = [sys.executable, "-c", "import sys; from autospine.cli import main; sys.exit(main())"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk as Linux has it")
@pytest.mark.parametrize("words", [["--version"], ["train", "--help"], ["no-such-command"]])
@pytest.mark.parametrize("end", [">/dev/full 2>/dev/full", ">&- 2>&-", "2>&1 | true"])
def test_exit_codes_do_not_depend_on_what_can_be_shown(words, end, tmp_path):
    free = subprocess.run([*SHELL, *words], capture_output=True, check=False, cwd=tmp_path)
    line = f"set -o pipefail; {shlex.join([*SHELL, *words])} {end}"
    done = subprocess.run(["bash", "-c", line], check=False, cwd=tmp_path, capture_output=True)
    assert done.returncode == free.returncode
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("code", [None, 0, 5, "a text", 2.5])
def test_a_part_that_ends_the_program_is_an_error_in_one_line(monkeypatch, capsys, code):
    def info() -> None:
        raise SystemExit(code)

    load_commands("info")
    (command,) = (known for known in app.registered_commands if known.callback.__name__ == "info")
    monkeypatch.setattr(command, "callback", info)
    assert app_module.main(["info"]) == 1
    assert f"({SystemExit(code)!r}); run again with --debug" in capsys.readouterr().err


def test_an_interrupt_before_a_command_has_begun_shows_no_traceback(monkeypatch, capsys):
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app_module, "load_commands", interrupt)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "autospine: interrupted; run the same command again to go on\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            1,
            "memory of the GPU is full (CUDA out of memory.",
        ),
        (MemoryError(), 1, "the memory of this machine is full (MemoryError); end other programs"),
        (RuntimeError("shapes"), 3, "internal error: RuntimeError: shapes"),
    ],
)
def test_full_memory_is_no_fault_of_ours(monkeypatch, capsys, error, code, said):
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(app_module, "load_commands", fail)
    assert main(["info"]) == code
    assert said in capsys.readouterr().err


def test_a_full_disk_is_named_with_its_folder(monkeypatch, capsys, tmp_path):
    def fill(_: object) -> None:
        with replacing(tmp_path / "kept.json"):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(app_module, "load_commands", fill)
    assert main(["info"]) == 1
    said = capsys.readouterr().err
    assert "autospine: expected space on the disk, found it full ([Errno 28] No space left" in said
    assert said.endswith(f"in {tmp_path}; free some and run again\n")
    assert list(tmp_path.iterdir()) == []


def test_phantoms_are_not_drawn_under_a_name_that_no_dataset_has(capsys, tmp_path):
    assert main(["phantom", "-o", str(tmp_path / "raw" / "Phantom")]) == 1
    assert "expected a name such as Dataset900_Phantom" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
