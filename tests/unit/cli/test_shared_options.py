"""Datasets and configurations are named the same way in every command."""

import re
import shutil
from pathlib import Path

import pytest
import typer

from autospine.cli.app import main
from autospine.cli.measure import POINTS
from autospine.cli.shared_options import LABEL_SCHEMES, either, named_dataset
from autospine.measurements.point_files import POINT_FORMATS
from autospine.vertebrae.schemes import SCHEMES

GOLDEN = Path(__file__).parents[1] / "planners" / "golden" / "lumbar_ct.json"
NAME = "Dataset001_LumbarCT"


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A planned dataset without cases."""
    (tmp_path / "raw" / NAME).mkdir(parents=True)
    (tmp_path / "preprocessed" / NAME).mkdir(parents=True)
    shutil.copy(GOLDEN, tmp_path / "preprocessed" / NAME / "plan.json")
    for name in ("AUTOSPINE_WORKSPACE", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_in(text: str) -> list[str]:
    """The names that a help text lists, without what it says of them in brackets."""
    return re.split(r", | or ", re.sub(r" \([^)]*\)", "", text))


def test_the_help_names_every_scheme_and_every_format_of_points():
    """They are written out since reading the tables would make each command slow to start."""
    assert sorted(names_in(LABEL_SCHEMES)) == sorted(SCHEMES)
    assert sorted(names_in(POINTS)) == sorted(POINT_FORMATS)


def test_an_argument_and_an_option_of_one_value_are_one(tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert either(None, None, "-d") is None
    assert either("1", None, "-d") == either(None, "1", "-d") == either("1", "1", "-d") == "1"
    with pytest.raises(typer.BadParameter, match="found 1 and 2; give one of them"):
        either("1", "2", "-d")
    with pytest.raises(typer.BadParameter, match="give -d and its number or name"):
        named_dataset(None, None, tmp_path)


@pytest.mark.parametrize("words", [(), ("1",), ("-d", "1"), ("LumbarCT",), ("-d", NAME), ("1", "-d", "1")])
def test_the_existing_plan_is_explained(workspace, words, capsys):
    """By default that of the dataset planned last."""
    assert main(["plan", *words, "--explain"]) == 0
    assert f"Plan of {NAME}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", ["plan-and-preprocess", "verify", "fingerprint", "plan", "preprocess", "compare"]
)
def test_a_dataset_is_an_argument_or_an_option(workspace, command, capsys):
    said = []
    for words in (("7",), ("-d", "7")):
        assert main([command, *words]) == 1
        said.append(capsys.readouterr().err)
    assert said[0] == said[1]
    assert f"expected a dataset '7' in raw, found {NAME}" in said[0]
    assert main([command, "7", "-d", "8"]) == 2
    assert "found 7 and 8; give one of them" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["plan-and-preprocess", "verify", "fingerprint", "plan", "preprocess"])
def test_where_a_dataset_is_needed_it_is_asked_for(workspace, command, capsys):
    assert main([command]) == 2
    assert f"--dataset / -d: found no dataset; give -d {NAME}; see" in capsys.readouterr().err


def test_a_configuration_is_an_argument_or_an_option_of_train(workspace, capsys):
    said = []
    for words in (("nothing",), ("-c", "nothing"), ("--configuration", "nothing")):
        assert main(["train", *words]) == 1
        said.append(capsys.readouterr().err)
    assert said[0] == said[1] == said[2]
    assert "'nothing'" in said[0]
    assert main(["train", "fast", "-c", "fullres"]) == 2
    assert "found fast and fullres; give one of them" in capsys.readouterr().err
