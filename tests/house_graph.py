"""The rooms of the code and their imports, read from the source files without importing them."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

FACE = "autospine"
"""The root package: its version is for all, and it shows `autospine.api` without importing it until asked."""

ENGINES = {"planners", "trainers"}


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


def at_run_time(root: ast.AST) -> Iterator[ast.AST]:
    """Everything in a tree but what `if TYPE_CHECKING` keeps for the type checker alone."""
    todo = [root]
    while todo:
        node = todo.pop()
        yield node
        hidden = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        todo += [child for child in ast.iter_child_nodes(node) if not (hidden and child in node.body)]


@cache
def imported(name: str) -> frozenset[str]:
    """Modules that a module imports anywhere, those inside functions too; our own by their full name."""
    found: set[str] = set()
    for node in at_run_time(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            assert node.module
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {other if other in MODULES else node.module for other in inner}
    return frozenset(found)


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
