"""Commands in a process that can neither open a socket nor start another process."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import sealing

from autospine.phantom import PhantomSettings, write_dataset

SMALL = PhantomSettings(spacing_mm=(3.0, 3.0, 3.0), size_mm=(150.0, 100.0, 70.0))

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the filter is one of Linux on x86-64"
)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sealed") / "raw" / "Dataset900_Phantom"
    return write_dataset(folder, cases=1, modalities=("CT",), scheme="structures", settings=SMALL)


def run_sealed(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, sealing.__file__, *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_commands_work_without_sockets_and_processes(phantoms: Path) -> None:
    place = phantoms.parents[1]
    made = run_sealed(place, "predict", "-i", phantoms / "imagesTr", "-o", "out")
    assert made.returncode == 0, made.stderr
    (label_map,) = (place / "out").glob("*.nii.gz")
    assert (place / "out" / "report.html").is_file()
    identify = (
        "anatomy",
        "identify",
        "-i",
        "out",
        "--scheme",
        "structures",
        "--uppermost",
        "T12",
        "-o",
        "named",
    )
    measure = ("anatomy", "measure", "-i", "named", "-o", "measured")
    for words in (("evaluate", "out", phantoms / "labelsTr"), identify, measure, ("report", "out")):
        done = run_sealed(place, *words)
        assert done.returncode == 0, done.stderr
    assert (place / "named" / label_map.name).is_file()


def test_a_sealed_process_is_refused_both() -> None:
    """The test above shows something only if the filter holds, and that is checked before each command."""
    assert not sealing.is_sealed()
    tried = (
        "import sealing, socket, subprocess; sealing.seal(); print(sealing.is_sealed());"
        "import threading; threading.Thread(target=print, args=('thread',)).start()"
    )
    done = subprocess.run(
        [sys.executable, "-c", tried],
        cwd=Path(sealing.__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "thread"]
