"""The benchmarks, which take minutes to hours and run seldom: what each takes from its neighbours."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PLACES = (TESTS / "benchmarks", TESTS)
BENCHMARKS = sorted(PLACES[0].glob("*.py"))


def neighbour(module: str) -> Path | None:
    """The file of a module beside the benchmarks; None for one of a library."""
    return next((file for place in PLACES if (file := place / f"{module}.py").is_file()), None)


def defined(file: Path) -> set[str]:
    """Names at the top of a module."""
    names: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:
            names |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return names


def missing(source: str) -> list[str]:
    """Names that a module imports from a neighbour, or calls by it, and that the neighbour lacks."""
    tree = ast.parse(source)
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    taken: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            taken += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            taken += [(node.value.id, node.attr)] if node.value.id in modules else []
    return [
        f"{module}.{name}"
        for module, name in taken
        if (file := neighbour(module)) is not None and name not in defined(file)
    ]


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_takes_from_a_neighbour_is_there(benchmark):
    assert missing(benchmark.read_text(encoding="utf-8")) == []


def test_what_is_not_there_is_noticed():
    assert missing("from network import processor, write\nimport kill\nkill.measure, kill.nothing") == [
        "network.write",
        "kill.nothing",
    ]
