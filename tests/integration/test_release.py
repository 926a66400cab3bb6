"""The archives of a release have what belongs in them, and the wheel works on its own."""

import shutil
import zipfile
from pathlib import Path

import pytest
import release

pytest.importorskip("hatchling", reason="hatchling is not installed: it comes with pip install -e '.[dev]'")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return release.build(tmp_path_factory.mktemp("dist"))


def test_both_archives_have_exactly_what_belongs_in_them(archives):
    wheel, source = archives
    assert list(release.wheel_faults(wheel)) == []
    assert list(release.source_faults(source)) == []


def test_a_wheel_without_the_starter_or_with_tests_in_it_is_told(archives, tmp_path):
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(archives[0]) as old, zipfile.ZipFile(wheel, "w") as new:
        for name in old.namelist():
            if not name.endswith("starter.autospine"):
                new.writestr(name, old.read(name))
        new.writestr("tests/makers.py", "")
    assert list(release.wheel_faults(wheel)) == [
        "the wheel lacks autospine/models/starter.autospine",
        "the wheel has tests/makers.py, which is no part of the packages",
    ]


def test_the_version_is_the_same_in_all_places(tmp_path):
    assert list(release.version_faults(release.ROOT, released=False)) == []
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md"):
        shutil.copy(release.ROOT / name, tmp_path)
    text = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(
        text.replace('version = "', 'version = "7.', 1), encoding="utf-8"
    )
    citation, changelog = release.version_faults(tmp_path, released=True)
    assert citation.startswith("CITATION.cff states another version than 7.")
    assert changelog.startswith("CHANGELOG.md has no entry `## [7.")


@pytest.mark.timeout(600)
def test_the_wheel_runs_outside_of_the_checkout(archives):
    assert list(release.installed_faults(archives[0], dependencies=False)) == []
