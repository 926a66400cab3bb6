"""Options of a command, made of the declarations on a dataclass."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from autospine.cli.declared import takes
from autospine.core.declaration import Option, declarations
from autospine.prediction.prediction_options import FORMATS, PredictionOptions
from planners.overrides import Overrides
from planners.planning_options import PlanningOptions
from trainers.settings import TrainingSettings
from trainers.training_options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class Choices:
    number: Annotated[int | None, Option(names=("--number", "-n"), minimum=2, help="A number.")] = None
    names: Annotated[tuple[str, ...], Option(names=("--name",), help="Names.")] = ("usual",)
    size: Annotated[tuple[int, int] | None, Option(names=("--size",), help="A size.")] = None
    fast: Annotated[bool, Option(names=("--fast",), help="Be fast.")] = False
    clean: Annotated[bool, Option(names=("--clean/--no-clean",), help="Be clean.")] = True
    replace: Annotated[bool, Option(names=("--keep",), negated=True, help="Keep files.")] = True
    kind: Annotated[
        str | None, Option(names=("--kind",), choices=("a", "b"), read="kind {}".format, help="A kind.")
    ] = None
    place: Annotated[Path | None, Option(names=("--place",), help="A place.")] = None
    inner: int = 7


def given(*words: str, partly: bool = False) -> object:
    """What a command gets for these words."""
    found = []

    @takes(Choices, partly=partly)
    def command(*, options: object) -> None:
        found.append(options)

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(words))
    if result.exit_code:
        raise ValueError(result.output)
    return found[0]


def test_without_options_a_command_gets_the_defaults():
    assert given() == Choices()
    assert given(partly=True) == {}


def test_options_become_fields():
    words = "-n 3 --name x --name y --size 4 5 --fast --no-clean --keep --kind b --place p"
    expected = {
        "number": 3,
        "names": ("x", "y"),
        "size": (4, 5),
        "fast": True,
        "clean": False,
        "replace": False,
        "kind": "kind b",
        "place": Path("p"),
    }
    assert given(*words.split()) == Choices(**expected)


@pytest.mark.parametrize("words", [("-n", "1"), ("--kind", "c"), ("--no-fast",), ("--inner", "1")])
def test_anything_else_is_refused(words):
    with pytest.raises(ValueError, match="--"):
        given(*words)


def test_only_what_is_given_is_passed_on_where_options_override_others():
    assert given("--size", "4", "5", "--no-clean", partly=True) == {"size": (4, 5), "clean": False}


def test_the_commands_take_what_the_dataclasses_declare():
    assert set(declarations(PredictionOptions)) == set(PredictionOptions.__dataclass_fields__)
    assert set(declarations(TrainingOptions)) == set(TrainingOptions.__dataclass_fields__)
    assert set(declarations(PlanningOptions)) == set(PlanningOptions.__dataclass_fields__)
    assert issubclass(Overrides, PlanningOptions)
    assert issubclass(TrainingSettings, TrainingOptions)
    assert "dcm" in FORMATS
