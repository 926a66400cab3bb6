"""Lines that a shell completes: commands, options, and the names of datasets."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("autospine")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

COMPLETE = """
source "$SCRIPT"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_autospine_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home folder in which completion has been installed as a user of bash installs it."""
    folder = tmp_path_factory.mktemp("home")
    typed = f"'{PROGRAM}' --install-completion; exit $?"
    done = subprocess.run(
        ["bash", "-c", typed],
        env=os.environ | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "bash completion installed" in done.stdout
    assert done.stderr == ""
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with two datasets."""
    for name in ("Dataset001_Spine", "Dataset002_Hip"):
        (tmp_path / "raw" / name).mkdir(parents=True)
        (tmp_path / "raw" / name / "dataset.json").write_text("{}", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("tr",), ["train"]),
        (("plan", "--spac"), ["--spacing"]),
        (("anatomy", ""), ["identify", "measure"]),
        (("train", "0", "-d", ""), ["Dataset001_Spine", "Dataset002_Hip"]),
        (("plan", "Dataset002"), ["Dataset002_Hip"]),
        (("plan", "-w", "nowhere", "-d", ""), [""]),
        (("predict", "-i", "ima"), [""]),  # files, which bash knows
    ],
)
def test_bash_completes_commands_options_and_datasets(home, workspace, words, expected):
    script = home / ".bash_completions" / "autospine.sh"
    assert str(script) in (home / ".bashrc").read_text(encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", str(PROGRAM), *words],
        env=os.environ | {"SCRIPT": str(script)},
        cwd=workspace,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == expected


def test_a_shell_that_asks_for_what_there_is_not_is_refused(tmp_path):
    done = subprocess.run(
        [PROGRAM],
        env=os.environ | {"_AUTOSPINE_COMPLETE": "complete_nonsense"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "Shell nonsense not supported.\n"
