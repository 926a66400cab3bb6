"""README and docs agree with the code: commands, numbers, keys, messages, links and examples."""

import ast
import json
import re
import shlex
import shutil
from dataclasses import MISSING, fields, is_dataclass
from functools import cache, reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import typer.main
from house_graph import rooms
from page_commands import commands_in
from stated_values import STATED

from autospine.cli.app import app
from autospine.cli.reference import commands as read_commands
from autospine.core.geometry import Box, Grid
from autospine.core.labels import LabelSpace, parse_labels
from autospine.dataset.splits import FoldsFile
from autospine.evaluation import export
from autospine.evaluation.label_statistics import LabelStatistics
from autospine.evaluation.postprocessing import ClassCleanup, Cleanup, LabelChange, Postprocessing
from autospine.evaluation.score_description import describe_evaluation
from autospine.evaluation.scores import Evaluation
from autospine.evaluation.statistics_files import STATISTICS_COLUMNS, StatisticsFile
from autospine.fingerprint import (
    CaseFacts,
    ClassFacts,
    Fingerprint,
    IntensityFacts,
    SiteFacts,
    StructureFacts,
)
from autospine.io.images import write_array
from autospine.measurements.spine_measurements import (
    Alignment,
    DiscMeasurements,
    SpineAngle,
    SpineMeasurements,
    VertebraMeasurements,
)
from autospine.models.best import Best, Candidate
from autospine.models.manifest import Entry, Manifest
from autospine.models.model_export import export_model
from autospine.models.model_folder import TrainedOn, open_model
from autospine.network.cnn3d_plan import CNNPlan
from autospine.network.external_plan import ExternalPlan
from autospine.network.swin.swin_plan import SwinPlan
from autospine.network.swin.swin_settings import AttentionSettings, FusionSettings
from autospine.network.unet_plans import ResEncPlan, UNetPlan, UNetTransformerPlan
from autospine.pipeline.calibration import Calibration
from autospine.plan import Augmentation, Configuration, Decision, Normalisation, Plan, TrainingPlan
from autospine.prediction.case_log import PredictedCase, UsedModel
from autospine.prediction.model_postprocessing import Members
from autospine.prediction.probabilities import Description, ProbabilityWriter
from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.prepare import Encoding
from autospine.preprocessing.store import CaseRecord
from autospine.vertebrae.identities import SpineIdentities, VertebraIdentity
from trainers.metrics_log import METRICS
from trainers.run_identity import RunIdentity
from trainers.validation_record import PredictedImages

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
GOLDEN = ROOT / "tests" / "unit" / "planners" / "golden" / "lumbar_ct.json"

FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CONSTANT = re.compile(r"^\| `([a-zA-Z_]+\.[\w.]+)` \| `([^`]+)`", re.MULTILINE)
PLAN_KEY = re.compile(r"`(training|augmentation|normalisation)\.[\w.]+`")
QUANTITIES = re.compile(r"^\| quantity \| value \| reason \|\n\|[-|]+\|\n((?:\|.*\n)+)", re.MULTILINE)
NUMBER = re.compile(r"(-?\d+(?:,\d{3})*(?:\.\d+)?)(?:\s?(%|million|MB|GB|MiB))?")
UNITS = {"%": 0.01, "million": 1e6, "MB": 1e6, "GB": 1e9, "MiB": 2.0**20}
MESSAGE = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)

STORED_KINDS = (
    *(Fingerprint, CaseFacts, ClassFacts, IntensityFacts, StructureFacts, SiteFacts),
    *(Plan, Configuration, TrainingPlan, Augmentation, Normalisation, LabelSpace, Decision),
    *(
        SwinPlan,
        FusionSettings,
        AttentionSettings,
        UNetPlan,
        ResEncPlan,
        UNetTransformerPlan,
        CNNPlan,
        ExternalPlan,
    ),
    *(CaseRecord, Encoding, IntensityTransform, Box, FoldsFile, PredictedCase, UsedModel),
    *(LabelStatistics, StatisticsFile, LabelChange),
    *(Postprocessing, ClassCleanup, Cleanup, Best, Candidate, Members, Manifest, Entry),
    *(
        SpineIdentities,
        SpineMeasurements,
        VertebraMeasurements,
        DiscMeasurements,
        SpineAngle,
        Alignment,
        VertebraIdentity,
    ),
    *(Description, Grid, PredictedImages, Calibration, RunIdentity, TrainedOn),
)
"""Dataclasses that are written as JSON, by themselves or in the header of weights."""

NOT_WRITTEN = {(RunIdentity, "folder"), (RunIdentity, "inputs")}
"""Fields that no file has."""

OTHER_PROGRAMS = ("python3", "source", ".venv/bin/pip", "dask")
"""What else the shell examples call."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(kind: str) -> list[Any]:
    """One parameter per page that has fences of a kind: its blocks."""
    found = {
        page: [body for k, body in FENCE.findall(page.read_text(encoding="utf-8")) if k == kind]
        for page in PAGES
    }
    return [pytest.param(blocks, id=name(page)) for page, blocks in found.items() if blocks]


commands = cache(read_commands)


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """The name of a command, of two words if it is one of a group, and what follows it."""
    length = 2 if " ".join(words[:2]) in commands() else 1
    return " ".join(words[:length]), words[length:]


def check_command(words: list[str]) -> None:
    """Raise unless the words are a command that exists, with arguments that it takes."""
    program, *rest = words
    if program == "torchrun":  # which starts `python -m autospine`
        check_command(rest[rest.index("autospine") :])
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(rest) <= set(targets), f"no such target: {rest}"
    elif Path(program).name == "autospine":
        if rest != ["--version"]:
            command, arguments = split_command(rest)
            commands()[command].make_context(command, arguments)
    else:
        assert program in OTHER_PROGRAMS, f"unknown program {program}"


@pytest.mark.parametrize("blocks", fences("sh"))
def test_shell_examples_call_what_exists(blocks):
    for block in blocks:
        for words in commands_in(block):
            check_command(words)


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def test_commands_in_running_text_exist():
    for page in PAGES:
        for code in re.findall(
            r"`(autospine [^`]+|make [a-z-]+)`", FENCE.sub("", page.read_text(encoding="utf-8"))
        ):
            words = [word for word in shlex.split(code) if word not in ("COMMAND", "--help")]
            if words[0] == "make":
                check_command(words)
            elif len(words) > 1 and words[1].startswith("--"):
                assert set(words[1:]) <= options_of(typer.main.get_command(app)), code
            elif len(words) > 1:
                command, arguments = split_command(words[1:])
                known = options_of(commands()[command]) | {"--debug"}
                assert {word for word in arguments if word.startswith("-")} <= known, code


def test_an_example_that_is_wrong_is_noticed():
    for wrong in ("autospine nonsense", "autospine train --nope", "make nonsense", "rm -rf /"):
        with pytest.raises(Exception):  # noqa: B017
            check_command(shlex.split(wrong))


# The blocks of the page on extending AutoSpine are files: tests/integration/test_extending.py runs them.
@pytest.mark.parametrize("blocks", [each for each in fences("python") if each.id != "docs/how-to/extend.md"])
def test_python_examples_run(blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if any("spine.autospine" in block for block in blocks):
        makers.write_model(tmp_path / "model", labels=parse_labels({"background": 0, "vertebra": 1}))
        export_model(open_model(tmp_path / "model"), tmp_path / "spine.autospine")
        write_array(
            tmp_path / "ct.nii.gz", np.arange(504, dtype=np.int16).reshape(9, 8, 7), makers.grid((9, 8, 7))
        )
        (tmp_path / "images").mkdir()
        shutil.copy(tmp_path / "ct.nii.gz", tmp_path / "images" / "case_01_0000.nii.gz")
    if any("out/spine7_probabilities.b2nd" in block for block in blocks):
        (tmp_path / "out").mkdir()
        labels = parse_labels({"background": 0, "vertebra": 1})
        path = tmp_path / "out" / "spine7_probabilities.b2nd"
        ProbabilityWriter(path, labels, makers.grid((9, 8, 7))).finish()
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        exec(compile(block, "example", "exec"), names)


@pytest.mark.parametrize("blocks", fences("json"))
def test_json_examples_are_json(blocks):
    for block in blocks:
        json.loads(block)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_page_can_be_reached_from_the_readme(page):
    seen, todo = {PAGES[0]}, [PAGES[0]]
    while todo:
        at = todo.pop()
        links = {
            (at.parent / link.partition("#")[0]).resolve()
            for link in LINK.findall(at.read_text(encoding="utf-8"))
        }
        new = (links & set(PAGES)) - seen
        seen |= new
        todo += new
    assert page in seen


def test_every_concept_page_leads_to_the_glossary():
    glossary = ROOT / "docs" / "glossary.md"
    for page in (PAGES[0], *(ROOT / "docs" / "concepts").glob("*.md")):
        targets = LINK.findall(page.read_text(encoding="utf-8"))
        assert glossary in {(page.parent / target).resolve() for target in targets}, name(page)


def test_every_claim_about_security_names_tests_that_there_are():
    lines = (ROOT / "docs" / "concepts" / "security.md").read_text(encoding="utf-8").splitlines()
    claims = lines[lines.index("## Claims") + 4 : lines.index("## What is not protected") - 1]
    assert len(claims) > 10
    for claim in claims:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", claim)
        assert named, claim
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), (file, test)


def test_the_architecture_page_names_every_room_below_those_that_it_imports():
    text = (ROOT / "docs" / "concepts" / "architecture.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## Rooms in the order of their levels\n")
    order = re.findall(r"^\| `(\w+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert sorted(order) == sorted(rooms())
    for place, room in enumerate(order):
        assert rooms()[room] <= set(order[:place]), f"{room} imports rooms that stand below it"


def anchors(page: Path) -> set[str]:
    """Headings as they are linked to."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("kind", STORED_KINDS)
def test_the_file_reference_names_every_key(kind):
    text = (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    written = [field.name for field in fields(kind) if (kind, field.name) not in NOT_WRITTEN]
    missing = [key for key in written if f"`{key}`" not in text]
    assert not missing


def test_the_file_reference_names_the_keys_of_an_evaluation():
    text = (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    described = describe_evaluation(Evaluation(classes=("disc",), cases=()))
    keys = {*described, *described["classes"]["disc"], *described["spread"]["classes"]["disc"]["dice"]}
    keys |= {*export.table_columns(), *export.MEANS_COLUMNS, *STATISTICS_COLUMNS}
    assert [key for key in sorted(keys) if f"`{key}`" not in text] == []
    assert METRICS in text


def stated() -> list[Any]:
    return [
        pytest.param(page, row, f"{owner}.{constant}", id=f"{page}: {row}")
        for page, owners in STATED.items()
        for owner, constants in owners.items()
        for constant, row in constants.items()
    ]


@pytest.mark.parametrize(("page", "row", "place"), stated())
def test_stated_numbers_are_those_of_the_code(page, row, place):
    expected = actual(place)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert numbers(tables()[page][row])[: len(expected)] == pytest.approx(expected)


def test_every_number_in_a_table_is_held_against_the_code():
    pinned = {tuple(parameter.values[:2]) for parameter in stated()}
    free = {
        (page, row) for page, rows in tables().items() for row in rows if not PLAN_KEY.fullmatch(row)
    } - pinned
    assert not free, "tests/stated_values.py says where the code has a value"


def test_the_numbers_of_a_cell_are_read():
    assert numbers("262,144 (64 cubed)") == [262144, 64]
    assert numbers("30, 100 and 3000 mm³") == [30, 100, 3000]
    assert numbers("12 %") == [0.12]
    assert numbers("-0.5 or 290 MB") == [-0.5, 290e6]


@cache
def tables() -> dict[str, dict[str, str]]:
    """The tables of quantities in docs/concepts/: by page, each row's first cell and its value."""
    found: dict[str, dict[str, str]] = {}
    for page in sorted((ROOT / "docs" / "concepts").glob("*.md")):
        for table in QUANTITIES.findall(page.read_text(encoding="utf-8")):
            rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in table.splitlines()]
            found.setdefault(page.name, {}).update(dict(rows))
    return found


def numbers(cell: str) -> list[float]:
    """The numbers in a cell, in the unit that follows them: bytes, or a share for per cent."""
    return [float(number.replace(",", "")) * UNITS.get(unit, 1) for number, unit in NUMBER.findall(cell)]


def plan_keys() -> list[Any]:
    return [
        pytest.param(path, value, id=path)
        for page in PAGES
        for path, value in CONSTANT.findall(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("path", "value"), plan_keys())
def test_keys_of_the_plan_have_the_value_that_is_stated(path, value):
    found, expected = actual(path), ast.literal_eval(value)
    assert found == pytest.approx(expected) if not isinstance(found, str) else found == expected


def actual(path: str) -> object:
    """The value of a constant of the code, of a dataclass' default, or of the recipe in a plan."""
    first, *rest = path.split(".")
    if first in ("training", "augmentation", "normalisation"):
        plan = json.loads(GOLDEN.read_text(encoding="utf-8"))
        value = plan[first] if first in plan else plan["configurations"][0][first]
        value = reduce(lambda inside, key: inside[key], rest, value)
        return tuple(value) if isinstance(value, list) else value
    module, owner = import_module(first), None
    value = module
    for part in rest:
        owner, value = value, getattr(value, part, None) or submodule(value, part)
    if isinstance(owner, type) and hasattr(owner, "_field_defaults"):
        return owner._field_defaults[rest[-1]]
    if isinstance(owner, type) and is_dataclass(owner):
        default = {field.name: field.default for field in fields(owner)}[rest[-1]]
        assert default is not MISSING
        return default
    return value


def submodule(parent: Any, part: str) -> object:
    path = f"{parent.__name__}.{part}"
    try:
        return import_module(path)
    except ModuleNotFoundError:
        pytest.fail(f"{path} is gone: say in tests/stated_values.py where its value is now")


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "how-to"], ids=name)
def test_messages_are_those_of_the_code(page):
    _, _, trouble = page.read_text(encoding="utf-8").partition("## What can go wrong")
    messages = MESSAGE.findall(trouble)
    assert messages
    for message in messages:
        for piece in filter(None, (part.strip(" ()") for part in message.split("…"))):
            assert any(piece in text for text in texts()), f"{message!r}: nothing says {piece!r}"


@cache
def texts() -> frozenset[str]:
    """Every text literal of the code."""
    return frozenset(
        node.value
        for package in ("autospine", "planners", "trainers")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
