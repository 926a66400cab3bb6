"""The examples of the page on extending AutoSpine, run as they are printed."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import torch

from autospine.cli import main
from autospine.io.images import write_array
from autospine.phantom import PhantomSettings, write_dataset

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "extend.md"

SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

SECTIONS = dict(SECTION.findall(PAGE.read_text(encoding="utf-8")))
SMALL = ("--memory", "2GB", "--patch", "16", "16", "16")


def blocks(section: str, kind: str) -> list[str]:
    return [body for found, body in FENCE.findall(SECTIONS[section]) if found == kind]


def files(section: str) -> list[tuple[str, str]]:
    """The Python blocks of a section: the file named in the first line, and the other lines."""
    parted = [block.split("\n", 1) for block in blocks(section, "python")]
    return [(first.removeprefix("# "), rest) for first, rest in parted]


@pytest.fixture
def installed(request, tmp_path, monkeypatch) -> None:
    """The distribution of a section, as pip would install it."""
    section = request.param
    (description,) = map(tomllib.loads, blocks(section, "toml"))
    project, modules = description["project"], description["tool"]["setuptools"]["py-modules"]
    site = tmp_path / "site"
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    makers.install_distribution(site, project["name"], "\n".join(lines) + "\n", project["version"])
    for name, text in files(section):
        (site / name).write_text(text, encoding="utf-8")
    assert sorted(modules) == sorted(Path(name).stem for name, _ in files(section))
    monkeypatch.syspath_prepend(str(site))
    yield
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """A workspace with a raw dataset of five coarse phantoms."""
    root = tmp_path_factory.mktemp("phantoms")
    settings = PhantomSettings(spacing_mm=(4.0, 4.0, 4.0), size_mm=(76.0, 72.0, 64.0), metal=False)
    folder = root / "raw" / "Dataset001_Tiny"
    write_dataset(folder, cases=5, test_cases=0, scheme="structures", settings=settings, seed=1)
    return root


@pytest.fixture
def workspace(phantoms, tmp_path, monkeypatch) -> Path:
    shutil.copytree(phantoms, tmp_path / "workspace")
    monkeypatch.chdir(tmp_path / "workspace")
    return tmp_path / "workspace"


def run(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def test_each_block_names_its_file_and_few_files_are_written():
    written = {section: {name for name, _ in files(section)} for section in SECTIONS}
    assert all(re.fullmatch(r"[\w/]+\.py", name) for names in written.values() for name in names)
    assert {section: len(names) for section, names in written.items() if names} == {
        "A loss": 1,
        "A metric": 1,
        "A network": 1,
        "An option of predict": 2,
    }


@pytest.mark.parametrize("installed", ["A loss"], indirect=True)
def test_the_loss_trains_and_its_parts_are_logged(installed, workspace):
    run("plan-and-preprocess", "-d", "1", *SMALL, "--feature-size", "8", "--loss", "focal")
    run("train", "0", "--fold", "full", "--epochs", "1", "--iterations", "2")
    (metrics,) = (workspace / "results").rglob("metrics.jsonl")
    (row,) = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    assert row["loss_parts"].keys() == {"focal", "cross_entropy"}
    assert row["loss"] == pytest.approx(row["loss_parts"]["focal"], abs=1e-4)
    assert 0 < row["loss_parts"]["focal"] < row["loss_parts"]["cross_entropy"]


@pytest.mark.parametrize("installed", ["A metric"], indirect=True)
def test_the_metric_is_computed_by_the_command(installed, workspace):
    references = workspace / "raw" / "Dataset001_Tiny" / "labelsTr"
    metrics = ("--metric", "dice", "--metric", "volume_similarity")
    run("evaluate", references, references, "-o", workspace / "scores", *metrics)
    with (workspace / "scores" / "evaluation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["volume_similarity"] for row in rows} <= {"1", "1.0", ""}
    assert any(row["volume_similarity"] for row in rows)


@pytest.mark.parametrize("installed", ["A network"], indirect=True)
def test_the_network_is_planned(installed, workspace):
    run("fingerprint", "-d", "1")
    run("plan", "-d", "1", *SMALL, "--network", "small_unet")
    (path,) = (workspace / "preprocessed").rglob("plan.json")
    network = json.loads(path.read_text(encoding="utf-8"))["configurations"][0]["network"]
    assert network["name"] == "external"
    assert network["entry_point"] == "small_unet"
    assert network["divisor"] == [2, 2, 2]
    made = import_module("small_unet").make(1, 3, (1, 1, 1), (8, 6, 4))
    assert made(torch.zeros(1, 1, 8, 6, 4)).shape == (1, 3, 8, 6, 4)


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """A copy of the packages with the lines of the example for `predict`."""
    root = tmp_path_factory.mktemp("changed")
    for package in ("autospine", "planners", "trainers"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, block in files("An option of predict"):
        path = root / name
        path.write_text(inserted(path.read_text(encoding="utf-8"), block), encoding="utf-8")
    return root


def inserted(text: str, block: str) -> str:
    """A file with the lines of a block behind those of its first lines that the file has already."""
    lines = block.splitlines(keepends=True)
    known = max(n for n in range(len(lines) + 1) if "".join(lines[:n]) in text)
    context, added = "".join(lines[:known]), "".join(lines[known:])
    assert known, f"{lines[0]!r} is not in the file any more"
    assert text.count(context) == 1
    assert added
    return text.replace(context, context + added)


@pytest.fixture(scope="module")
def answers(changed, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What the changed command does; one process for all lines, which imports everything once."""
    folder = tmp_path_factory.mktemp("option")
    makers.write_model(folder / "model")
    (folder / "in").mkdir()
    for name in "abc":
        write_array(folder / "in" / f"{name}.nii.gz", np.zeros((9, 8, 7), np.int16), makers.grid((9, 8, 7)))
    words = ["predict", "-i", f"{folder / 'in'}", "-m", f"{folder / 'model'}", "-o"]
    lines = {
        "help": ["predict", "--help"],
        "two": [*words, f"{folder / 'two'}", "--only", "a", "--only", "c"],
        "none": [*words, f"{folder / 'none'}", "--only", "d"],
    }
    ended = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(lines)],
        env=os.environ | {"PYTHONPATH": str(changed), "COLUMNS": "200", "NO_COLOR": "1"},
        cwd=changed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    written = {path.name for path in (folder / "two").glob("*.nii.gz")}
    return {**json.loads(ended.stdout.splitlines()[-1]), "written": written}


RUN = """
import contextlib, io, json, sys
from autospine.cli import main

answers = {}
for name, words in json.loads(sys.argv[1]).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    answers[name] = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
print(json.dumps(answers))
"""


def test_the_option_is_in_the_help(answers):
    assert "--only" in answers["help"]["out"]
    assert "Predict only the case of this name." in answers["help"]["out"]


def test_the_option_takes_effect(answers):
    assert answers["two"]["code"] == 0, answers["two"]["err"]
    assert answers["written"] == {"a.nii.gz", "c.nii.gz"}
    assert answers["none"]["code"] == 1
    assert "there is no case d in" in answers["none"]["err"]
