"""The house: which part may import which."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FACE = "autospine"
"""The root package: its version is for all, and it shows `autospine.api` without importing it until asked."""

ENGINES = {"planners", "trainers"}
READER_OF_CHECKPOINTS = "autospine.network.weights.file"
"""The only module that may read pickles, and it with nothing but tensors in them."""

COMPOSITION = {"pipeline", "cli", "__main__"}
"""The rooms of the library that may reach planners and trainers."""

STAND_ALONE = ("autospine.api", "autospine.prediction.predict_cases", "autospine.cli.predict")
"""What predicts: it reaches neither what plans and trains nor what draws."""

NOT_FOR_PREDICTION = {"planners", "trainers", "autospine.phantom", "matplotlib", "pandas", "yaml"}


def modules() -> dict[str, Path]:
    """Every module of the three packages, by name."""
    found = {}
    for package in ("autospine", *sorted(ENGINES)):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Everything in a tree but what `if TYPE_CHECKING` keeps for the type checker alone."""
    yield node
    hidden = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in ast.iter_child_nodes(node):
        if not (hidden and child in node.body):
            yield from at_run_time(child)


def imported(name: str) -> Iterator[str]:
    """Modules that a module imports anywhere, those inside functions too; our own by their full name."""
    for node in at_run_time(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def part(name: str) -> str:
    """`autospine.network.swin.stages` -> `network`."""
    return [*name.split("."), ""][1]


def own(name: str) -> set[str]:
    return {other for other in imported(name) if other.split(".")[0] in {"autospine", *ENGINES}}


LIBRARY = [name for name in MODULES if name.split(".")[0] == "autospine"]


def room(name: str) -> str:
    """`autospine.network.swin.fusion` -> `network`; `planners.rules.sizes` -> `planners`."""
    first = name.split(".")[0]
    return first if first in ENGINES else part(name)


@cache
def rooms() -> dict[str, frozenset[str]]:
    """Every room, and the others that its modules import."""
    found: dict[str, set[str]] = {}
    for name in set(MODULES) - {FACE}:
        found.setdefault(room(name), set()).update(room(other) for other in own(name) if other != FACE)
    return {name: frozenset(others - {name}) for name, others in found.items()}


def reached(start: str) -> set[str]:
    """Modules that a module loads sooner or later, ours and others, with the packages that they lie in."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            parents = name.split(".")
            todo += [".".join(parents[:n]) for n in range(1, len(parents))]
            # The face shows the API to those who ask it; to import it asks for nothing.
            todo += [] if name == FACE else list(imported(name))
    return seen


def test_a_room_imports_rooms_below_it():
    """The rooms have levels: no two of them import each other, not even through others."""
    left = dict(rooms())
    while lowest := {name for name, others in left.items() if not others & set(left)}:
        left = {name: others for name, others in left.items() if name not in lowest}
    assert not left, "these rooms import each other in a circle"


def test_only_pipeline_and_command_line_reach_planners_and_trainers():
    for name in LIBRARY:
        if part(name) not in COMPOSITION and name != FACE:
            engines = {other for other in reached(name) if other.split(".")[0] in ENGINES}
            assert not engines, f"{name} reaches {sorted(engines)}"


def test_planners_and_trainers_reach_the_library_and_never_each_other():
    for name in set(MODULES) - set(LIBRARY):
        others = {other.split(".")[0] for other in reached(name)} & ENGINES
        assert others == {name.split(".")[0]}
        assert not {part(other) for other in reached(name) if other in LIBRARY} & COMPOSITION


@pytest.mark.parametrize("name", STAND_ALONE)
def test_a_prediction_stands_alone(name):
    found = {other for other in reached(name) for wrong in NOT_FOR_PREDICTION if within(other, wrong)}
    assert not found


def test_a_stranger_in_the_house_is_noticed():
    assert within("planners.rules.sizes", "planners")
    assert not within("autospine.phantoms", "autospine.phantom")
    assert {"planners.planner", "planners.rules", "yaml"} <= reached("autospine.pipeline.planning")


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def test_no_module_imports_itself_in_a_circle():
    inner = set(MODULES) - {FACE}
    graph = {name: {other for other in own(name) if other in inner} - {name} for name in inner}
    while leaves := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert not graph


def test_only_one_module_knows_pydantic():
    users = {name for name in MODULES for other in imported(name) if other.split(".")[0] == "pydantic"}
    assert users == {"autospine.storage.serialization"}


def test_only_the_workspace_reads_the_environment():
    readers = {name for name in MODULES if {"os.environ", "os.environb", "os.getenv"} & attributes(name)}
    assert readers == {"autospine.storage.workspace"}
    hidden = {
        name
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ImportFrom) and node.module == "os"
    }
    assert not hidden


def test_only_the_command_line_prints():
    wrong = {
        name
        for name in MODULES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {part(name) for name in wrong} <= {"cli"}


def test_annotations_are_not_postponed():
    """The checks of array shapes and of JSON look at the annotations themselves."""
    assert not {name for name in MODULES if "__future__" in set(imported(name))}


def test_nothing_that_is_read_can_run_code():
    risky = {"torch.load", "pickle.load", "pickle.loads", "yaml.load"}
    assert {name for name in MODULES if risky & attributes(name)} == {READER_OF_CHECKPOINTS}


def test_checkpoints_of_others_are_read_with_the_restricted_unpickler():
    calls = [
        {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        for node in ast.walk(tree(READER_OF_CHECKPOINTS))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls
    assert all(keywords.get("weights_only") == "True" for keywords in calls)


def attributes(name: str) -> set[str]:
    """What a module uses of the names that it has, as `os.environ`."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
