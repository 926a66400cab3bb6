"""Build the wheel and the source archive of a release, and check them: `make release`.

    python tests/release.py [--folder dist] [--tree]

Checked are the version in all places that state it, the changelog, that the working tree is what was
committed, and that both archives have exactly the files that belong in them. The wheel is then installed in a
new, empty environment outside of the checkout, where `autospine demo --fast` has to run. `--tree` leaves out
what a release needs and a build does not: a clean working tree and a dated entry of the changelog. Writes the
archives and their SHA-256 into the folder.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("autospine", "planners", "trainers")
SUMS = "SHA256SUMS"

LARGEST_WHEEL = 24 * 2**20
"""Most bytes of the wheel, of which the starter has up to 16 MB."""


def build(folder: Path) -> tuple[Path, Path]:
    """Build both archives into a folder; return the wheel and the source archive."""
    folder.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "hatchling", "build", "-d", str(folder))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the archives cannot be built:\n{done.stderr}")
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


def wheel_faults(wheel: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licensed = any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    yield from (f"the wheel lacks {name}" for name in sorted(wanted - names))
    yield from (f"the wheel has {name}, which is no part of the packages" for name in sorted(names - wanted))
    for package in PACKAGES:
        if f"{package}/py.typed" not in names:
            yield f"{package} has no py.typed, so that its types are not seen"
    if not licensed:
        yield "the wheel has no licence"
    if wheel.stat().st_size > LARGEST_WHEEL:
        yield f"the wheel has {wheel.stat().st_size / 2**20:.1f} MB, {LARGEST_WHEEL >> 20} are allowed"


def source_faults(source: Path) -> Iterator[str]:
    """Yield what is wrong with the files of a source archive: it has to build, test and document itself."""
    with tarfile.open(source) as archive:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt"):
        if name not in names:
            yield f"the source archive lacks {name}"
    for folder in (*PACKAGES, "tests", "docs"):
        if not any(name.startswith(f"{folder}/") for name in names):
            yield f"the source archive lacks {folder}"
    for name in sorted(names):
        if "__pycache__" in name or name.startswith((".venv", "raw/", "preprocessed/", "results/")):
            yield f"the source archive has {name}"


def version_faults(root: Path, *, released: bool) -> Iterator[str]:
    """Yield where the version is another one than that of `pyproject.toml`.

    Args:
        root: The checkout.
        released: Whether the changelog has to have a dated entry of the version.
    """
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    if f"\nversion: {version}\n" not in citation:
        yield f"CITATION.cff states another version than {version}"
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if released and not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.M):
        yield (
            f"CHANGELOG.md has no entry `## [{version}] - YEAR-MONTH-DAY`: give this title to what is under "
            "Unreleased"
        )


def tree_faults(root: Path) -> Iterator[str]:
    """Yield what of the working tree is not committed."""
    done = subprocess.run(
        ("git", "status", "--porcelain"), cwd=root, capture_output=True, text=True, check=True
    )
    yield from (f"not committed: {line[3:]}" for line in done.stdout.splitlines())


def installed_faults(wheel: Path, *, dependencies: bool) -> Iterator[str]:
    """Install a wheel in a new environment outside of the checkout, and yield what does not run there.

    Args:
        wheel: The wheel.
        dependencies: Whether what it depends on is installed too; otherwise it is that of this environment.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        venv.create(folder / "environment", with_pip=True)
        python = folder / "environment/bin/python"
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(wheel)]
        if dependencies:
            install += ["--constraint", str(ROOT / "constraints.txt")]
        else:
            install += ["--no-deps"]
            share_dependencies(python)
        for command in (
            install,
            [str(python.with_name("autospine")), "--version"],
            [str(python.with_name("autospine")), "demo", "--fast"],
        ):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                yield f"{' '.join(command[-3:])} ends with {done.returncode}: {done.stderr[-500:]}"
                return
        where = (str(python), "-c", "import autospine, sys; sys.stdout.write(autospine.__file__)")
        found = subprocess.run(where, cwd=folder, capture_output=True, text=True, check=True).stdout
        if not Path(found).is_relative_to(folder):
            yield f"the environment takes autospine from {found}"


def share_dependencies(python: Path) -> None:
    """Let a new environment find what is installed in this one, but for AutoSpine itself."""
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    here = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    for entry in here.iterdir():
        if "autospine" not in entry.name.lower() and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)


def write_sums(folder: Path, files: tuple[Path, ...]) -> None:
    """Write the SHA-256 of each file, as `sha256sum --check` reads them."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Build and check, and say what goes on or what is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "dist", help="folder for the archives")
    parser.add_argument("--tree", action="store_true", help="check the build alone, not that it is a release")
    options = parser.parse_args()
    faults = [*version_faults(ROOT, released=not options.tree)]
    faults += [] if options.tree else tree_faults(ROOT)
    if not faults:
        shutil.rmtree(options.folder, ignore_errors=True)
        archives = build(options.folder)
        faults += [*wheel_faults(archives[0]), *source_faults(archives[1])]
        faults = faults or [*installed_faults(archives[0], dependencies=True)]
    if faults:
        raise SystemExit("no release:\n" + "\n".join(f"- {fault}" for fault in faults))
    write_sums(options.folder, archives)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    print(f"{options.folder}: {', '.join(path.name for path in archives)} and {SUMS}")  # noqa: T201
    print(f"release it with: git tag v{version} && git push origin v{version}")  # noqa: T201


if __name__ == "__main__":
    main()
