"""The house: which part may import which."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

LEVELS = (
    (
        "",
        "types",
        "errors",
        "log",
        "labels",
        "files",
        "locks",
        "serialization",
        "hardware",
        "allocation",
        "colours",
    ),
    (
        "geometry",
        "images",
        "held",
        "nifti",
        "segments",
        "dicom",
        "dicom_seg",
        "modality",
        "workspace",
        "dataset",
        "folds",
        "verify",
        "phantom",
    ),
    ("fingerprint", "plan", "convert"),
    ("checkpoint", "preprocessing", "network", "data"),
    ("inference", "metrics", "evaluation", "postprocessing", "validation", "anatomy"),
    ("report",),
    ("pipeline", "api", "demo", "cli", "__main__"),
)
"""Parts of `autospine` by level; the root package is the empty name."""

FACE = "autospine"
"""The root package: its version is for all, and it shows `autospine.api` without importing it until asked."""

LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
ENGINES = {"planners", "trainers"}
ENGINE_LEVEL = 5
READER_OF_CHECKPOINTS = "autospine.network.weights.file"
"""The only module that may read pickles, and it with nothing but tensors in them."""

COMPOSITION = ("pipeline", "demo", "cli")
"""The parts that may import planners and trainers."""


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


def imported(name: str) -> Iterator[str]:
    """Modules that a module imports anywhere, those inside functions too; our own by their full name."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def part(name: str) -> str:
    """`autospine.network.swin` -> `network`."""
    return [*name.split("."), ""][1]


def own(name: str) -> set[str]:
    return {other for other in imported(name) if other.split(".")[0] in {"autospine", *ENGINES}}


LIBRARY = [name for name in MODULES if name.split(".")[0] == "autospine"]


def test_every_part_of_the_library_has_a_level():
    assert {part(name) for name in LIBRARY} <= set(LEVEL)


def test_the_library_imports_lower_or_equal_levels_only():
    wrong = [
        f"{name} imports {other}"
        for name in LIBRARY
        for other in own(name)
        if other.split(".")[0] == "autospine" and LEVEL[part(other)] > LEVEL[part(name)] and name != FACE
    ]
    assert not wrong
    assert own(FACE) <= {FACE, "autospine.api"}


def test_the_library_reaches_planners_and_trainers_from_its_top_only():
    wrong = [
        f"{name} imports {other}"
        for name in LIBRARY
        for other in own(name)
        if other.split(".")[0] in ENGINES and part(name) not in COMPOSITION
    ]
    assert not wrong


def test_planners_and_trainers_import_the_library_and_never_each_other():
    wrong = [
        f"{name} imports {other}"
        for name in set(MODULES) - set(LIBRARY)
        for other in own(name)
        if other.split(".")[0] != name.split(".")[0]
        and (other.split(".")[0] in ENGINES or LEVEL[part(other)] > ENGINE_LEVEL)
    ]
    assert not wrong


def test_no_module_imports_itself_in_a_circle():
    inner = set(MODULES) - {FACE}
    graph = {name: {other for other in own(name) if other in inner} - {name} for name in inner}
    while leaves := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert not graph


def test_only_one_module_knows_pydantic():
    users = {name for name in MODULES for other in imported(name) if other.split(".")[0] == "pydantic"}
    assert users == {"autospine.serialization"}


def test_only_the_workspace_reads_the_environment():
    readers = {name for name in MODULES if {"os.environ", "os.environb", "os.getenv"} & attributes(name)}
    assert readers == {"autospine.workspace"}
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
