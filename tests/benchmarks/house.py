"""Measure the order of the code: what a prediction imports, names that collide, array axes that are named.

Run by `make bench-house`; takes some five minutes and a machine with nothing else to do, as it times the
command line too. Prints one JSON object last. `--write FILE` puts the table between that file's
`<!-- measured -->` marks, beside the figures of an earlier checkout from `--before FILE`. Any checkout can
be measured, by the present interpreter or another one:

    git worktree add ../before 8660514
    python tests/benchmarks/house.py --tree ../before > docs/results/house-before.json

How each figure is counted:

- `load_model_modules`: modules of autospine, planners and trainers that `autospine.api` imports, directly or
  not, inside functions too but for `if TYPE_CHECKING`; or those loaded after a model was read with
  `autospine.load_model`, whichever are more. `predict_modules`: those loaded after `autospine predict` has
  segmented an image.
- `load_model_forbidden`: modules of planners, trainers and the phantom, and the packages matplotlib, pandas
  and yaml, among all of these.
- `loose_modules`: files of autospine that lie in no folder, `__init__` and `__main__` aside.
- `colliding_file_names`: names of modules that occur more than once, a package going by its folder's name.
  `colliding_type_names`: the same for classes and for aliases of types, leading underscores aside. Typer's
  `Annotated` options in `autospine.cli` are no types.
- `named_axes_share`: among the arguments of functions that are annotated with an array, alone or in a union,
  the share whose annotation gives a shape other than "...", itself or through an alias. Bare `np.ndarray`,
  `Tensor` and `NDArray` give none. Containers such as `Mapping[str, Tensor]` are no arrays.
  `named_axes_returns_share` and `named_axes_fields_share` are the same of returned values and of fields of
  dataclasses.
- `help_seconds`, `version_seconds`, `mistake_seconds` (of a dataset that does not exist) and `mistakes`:
  median time of whole processes; `cpu_seconds` is what they took of the processor, which other programs
  disturb less. `torch_loaded`: the commands among these after which PyTorch was loaded.
- `files_for_new_loss` and so on: files that the examples of `docs/how-to/extend.md` name in the first line of
  their Python blocks.
"""

import argparse
import ast
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import nibabel
import numpy as np
from result_page import write_measured

ROOT = Path(__file__).resolve().parents[2]
BEFORE = ROOT / "docs" / "results" / "house-before.json"

PACKAGES = ("autospine", "planners", "trainers")
FACE = "autospine.api"
FORBIDDEN_MODULES = ("planners", "trainers", "autospine.phantom")
FORBIDDEN_PACKAGES = ("matplotlib", "pandas", "yaml")
FOUNDATION = ("torch", "SimpleITK", "nibabel", "scipy.ndimage")
"""What a prediction cannot do without. A forbidden package that they load themselves is not counted; with
torch 2.13, SimpleITK 2.5, nibabel 5.4 and scipy 1.17 they load none."""

EXTENDING = Path("docs/how-to/extend.md")
CHANGES = {
    "files_for_new_loss": "a loss",
    "files_for_new_metric": "a metric",
    "files_for_new_network": "a network",
    "files_for_new_predict_option": "an option of predict",
}
"""Headings of the examples, in lower case."""

Figures = dict[str, Any]
Imports = dict[str, tuple[str, str]]
"""Local name -> module and name there."""


# What is imported


def find_modules(tree: Path) -> dict[str, Path]:
    """Every module of the three packages, by its full name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((tree / package).rglob("*.py")):
            parts = path.relative_to(tree).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all below it, but for what only type checkers read."""
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        for below in node.orelse:
            yield from executed(below)
        return
    yield node
    for below in ast.iter_child_nodes(node):
        yield from executed(below)


def imported(name: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """Full names of the modules that a module imports, those of its own functions included."""
    path = modules[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in executed(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = import_source(node, package)
            yield source
            yield from (
                f"{source}.{alias.name}" for alias in node.names if f"{source}.{alias.name}" in modules
            )


def import_source(node: ast.ImportFrom, package: str) -> str:
    """The module that `from ... import` names, also where it begins with dots."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) + 1 - node.level]
    return ".".join([*above, *([node.module] if node.module else [])])


def import_closure(start: str, modules: Mapping[str, Path]) -> set[str]:
    """What a module imports, directly or not; of other distributions the name of the package alone."""
    reached: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name not in modules:
            reached.add(name.split(".")[0])
            continue
        parts = name.split(".")
        for parent in (".".join(parts[:n]) for n in range(1, len(parts) + 1)):
            if parent not in reached:
                reached.add(parent)
                todo += imported(parent, modules)
    return reached


def is_own(name: str) -> bool:
    return name.split(".")[0] in PACKAGES


def is_forbidden(name: str) -> bool:
    inside = any(name == module or name.startswith(f"{module}.") for module in FORBIDDEN_MODULES)
    return inside or name in FORBIDDEN_PACKAGES


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """The sources to be measured and the interpreter that runs them."""

    tree: Path
    python: str
    scratch: Path
    """Where commands are run and test data are written."""

    def environment(self) -> dict[str, str]:
        """Variables under which the checkout's sources are imported and no workspace is given."""
        unwanted = ("AUTOSPINE_WORKSPACE", "nnUNet_raw", "PYTHONDONTWRITEBYTECODE")
        kept = {name: value for name, value in os.environ.items() if name not in unwanted}
        return {**kept, "PYTHONPATH": os.pathsep.join([str(self.tree), str(self.tree / "tests")])}

    def run(self, code: str, *arguments: str, cwd: Path | None = None) -> tuple[Any, str]:
        """Run code in a new process; return the JSON value that it prints last, and its messages."""
        command = [self.python, "-c", code, *arguments]
        done = subprocess.run(
            command, cwd=cwd or self.scratch, env=self.environment(), capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"the code {code!r} failed in {self.tree}:\n{done.stderr}")
        return json.loads(done.stdout.splitlines()[-1]), done.stderr


LIST_MODULES = "import json, sys; print(); print(json.dumps(sorted(sys.modules)))"
IMPORT_FOUNDATION = f"import {', '.join(FOUNDATION)}\n{LIST_MODULES}"
LOAD_MODEL = f"""
import sys, autospine
from pathlib import Path
autospine.load_model(Path(sys.argv[1]), device="cpu")
{LIST_MODULES}
"""
RUN_COMMAND = """
import json, sys
from autospine.cli import main
code = main(sys.argv[1:])
print(); print(json.dumps({"code": code, "modules": sorted(sys.modules)}))
"""
LOCATE = "import autospine, json; print(json.dumps(autospine.__file__))"


def check_sources(checkout: Checkout) -> None:
    """Raise unless the interpreter imports the checkout's own sources."""
    found, _ = checkout.run(LOCATE)
    if not Path(found).resolve().is_relative_to(checkout.tree):
        raise SystemExit(f"{checkout.python} imports {found}, not the sources in {checkout.tree}")


def loaded_by_command(checkout: Checkout, arguments: Sequence[str], cwd: Path) -> tuple[int, set[str], str]:
    """Exit code of a command, the modules loaded at its end, and its messages."""
    found, messages = checkout.run(RUN_COMMAND, *arguments, cwd=cwd)
    return found["code"], set(found["modules"]), messages


def measure_imports(checkout: Checkout, model: Path, image: Path) -> Figures:
    """Count what reading a model and predicting with it import."""
    modules = find_modules(checkout.tree)
    static = import_closure(FACE, modules)
    reading = set(checkout.run(LOAD_MODEL, str(model))[0])
    words = ("predict", "-i", str(image), "-o", str(checkout.scratch / "out"), "-m", str(model))
    code, predicting, messages = loaded_by_command(checkout, (*words, "--device", "cpu"), checkout.scratch)
    if code:
        raise SystemExit(f"`autospine predict` failed in {checkout.tree}:\n{messages}")
    foundation = set(checkout.run(IMPORT_FOUNDATION)[0])
    forbidden = {name for name in static | reading | predicting if is_forbidden(name)} - foundation
    own = {
        "static": sum(map(is_own, static)),
        "reading": sum(map(is_own, reading)),
        "predicting": sum(map(is_own, predicting)),
    }
    return {
        "modules": len(modules),
        "load_model_modules": max(own["static"], own["reading"]),
        "load_model_modules_static": own["static"],
        "load_model_modules_loaded": own["reading"],
        "predict_modules": own["predicting"],
        "load_model_forbidden": len(forbidden),
        "load_model_forbidden_names": sorted(forbidden),
    }


def make_model(checkout: Checkout, folder: Path) -> None:
    """An untrained model in a folder, made by the checkout's own test helpers."""
    tests = checkout.tree / "tests"
    homes = [path for path in tests.rglob("*.py") if re.search(r"^def write_model\(", path.read_text(), re.M)]
    if not homes:
        raise SystemExit(f"no file in {tests} defines write_model, with which a small model is made")
    name = ".".join(homes[0].relative_to(tests).with_suffix("").parts)
    code = f"import sys; from pathlib import Path; from {name} import write_model; "
    checkout.run(f"{code}write_model(Path(sys.argv[1])); print('true')", str(folder))


def write_image(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(array, np.diag([1.5, 1.5, 1.5, 1.0])).to_filename(path)


# Names


def measure_names(tree: Path) -> Figures:
    """Count loose modules, and names of modules and types that occur more than once."""
    modules = find_modules(tree)
    loose = sorted(path.stem for path in (tree / "autospine").glob("*.py") if path.stem not in ENTRANCES)
    files, types = defaultdict(list), defaultdict(list)
    for name, path in modules.items():
        if path.stem != "__main__":
            files[name.split(".")[-1]].append(name)
        for kind in type_names(parse(path), options=name.startswith("autospine.cli")):
            types[kind.lstrip("_")].append(f"{name}.{kind}")
    repeated_files = {name: places for name, places in files.items() if len(places) > 1}
    repeated_types = {name: places for name, places in types.items() if len(places) > 1}
    return {
        "loose_modules": len(loose),
        "loose_modules_names": loose,
        "colliding_file_names": len(repeated_files),
        "colliding_file_names_names": dict(sorted(repeated_files.items())),
        "colliding_type_names": len(repeated_types),
        "colliding_type_names_names": dict(sorted(repeated_types.items())),
    }


ENTRANCES = ("__init__", "__main__")
CAMEL_CASE = re.compile(r"_?[A-Z]\w*[a-z]\w*")
GENERICS = {"tuple", "list", "dict", "set", "frozenset", "type"}


def type_names(module: ast.Module, *, options: bool) -> Iterator[str]:
    """Names of a module's classes and of its aliases of types.

    Args:
        module: the parsed file.
        options: whether `Annotated` stands for options of the command line, which are left out.
    """
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            yield node.name
    for name, value in assignments(module):
        typer_option = options and head(value) == "Annotated"
        if CAMEL_CASE.fullmatch(name) and is_type(value) and not typer_option:
            yield name


def assignments(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Names that a module gives to something at its top level."""
    for node in module.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        elif type(node).__name__ == "TypeAlias":  # `type X = ...`, which Python 3.11 does not know
            yield node.name.id, node.value


def is_type(value: ast.expr) -> bool:
    """Return whether an expression makes a type: a subscripted one, a union, or `NewType`."""
    if isinstance(value, ast.Subscript):
        return head(value) in GENERICS or bool(CAMEL_CASE.fullmatch(head(value)))
    if isinstance(value, ast.BinOp):
        return isinstance(value.op, ast.BitOr)
    return isinstance(value, ast.Call) and ast.unparse(value.func).split(".")[-1] == "NewType"


def head(value: ast.expr) -> str:
    """`Literal` of `typing.Literal["CT"]`, the last name of `np.ndarray`; empty for other expressions."""
    inner = value.value if isinstance(value, ast.Subscript) else value
    return ast.unparse(inner).split(".")[-1] if isinstance(inner, ast.Name | ast.Attribute) else ""


# Axes of arrays

Axes = Literal["named", "bare"]
ARRAYS = {"ndarray", "Tensor"}
JAXTYPING = re.compile(
    r"(Shaped|Bool|Key|Num|Inexact|Real|Float|BFloat|Complex|Int|UInt|Integer)(\d+\w*)?", re.ASCII
)
WRAPPERS = {"Annotated", "Final", "ClassVar", "Optional", "Union", "InitVar"}


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the names in a module's annotations stand for."""

    aliases: dict[str, dict[str, ast.expr]]
    """By module, name -> expression."""

    imports: dict[str, Imports]
    """By module."""


def read_names(trees: Mapping[str, ast.Module], packages: set[str]) -> Names:
    """Collect the aliases and the imported names of every module."""
    imports: dict[str, Imports] = {name: {} for name in trees}
    for name, module in trees.items():
        package = name if name in packages else name.rpartition(".")[0]
        for node in ast.walk(module):
            if isinstance(node, ast.ImportFrom):
                source = import_source(node, package)
                imports[name] |= {alias.asname or alias.name: (source, alias.name) for alias in node.names}
    return Names(aliases={name: dict(assignments(module)) for name, module in trees.items()}, imports=imports)


def axes_of(annotation: ast.expr | None, module: str, names: Names) -> Axes | None:
    """Return whether an annotation is an array with named axes or a bare one; None if it is no array."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return axes_of(ast.parse(annotation.value, mode="eval").body, module, names)
    if isinstance(annotation, ast.BinOp):
        return axes_of_any([annotation.left, annotation.right], module, names)
    if isinstance(annotation, ast.Subscript):
        inner = annotation.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if head(annotation) in WRAPPERS:
            return axes_of_any(parts, module, names)
        if JAXTYPING.fullmatch(head(annotation)) and len(parts) == 2:
            shape = parts[1].value if isinstance(parts[1], ast.Constant) else ""
            return None if axes_of(parts[0], module, names) is None else "bare" if shape == "..." else "named"
        return "bare" if head(annotation) in {"NDArray", "ndarray"} else None
    if isinstance(annotation, ast.Name):
        return axes_of_name(annotation.id, module, names)
    return "bare" if isinstance(annotation, ast.Attribute) and head(annotation) in ARRAYS else None


def axes_of_any(parts: Sequence[ast.expr], module: str, names: Names) -> Axes | None:
    """The same for a union: one bare array makes it bare."""
    found = {axes_of(part, module, names) for part in parts}
    return "bare" if "bare" in found else "named" if "named" in found else None


def axes_of_name(name: str, module: str, names: Names) -> Axes | None:
    """The same for a name, which may be an alias of this module or of another."""
    if name in names.aliases.get(module, {}):
        value = names.aliases[module][name]
        if isinstance(value, ast.Call):  # TypeVar("Array", np.ndarray, Tensor)
            return axes_of_any(value.args[1:], module, names) if head(value.func) == "TypeVar" else None
        return axes_of(value, module, names)
    if name in names.imports.get(module, {}):
        source, theirs = names.imports[module][name]
        if source in names.aliases:
            return axes_of_name(theirs, source, names)
        return "bare" if theirs in ARRAYS else None
    return None


def is_dataclass(node: ast.ClassDef) -> bool:
    decorators = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
    return any(head(decorator) == "dataclass" for decorator in decorators)


def annotations(module: ast.Module) -> Iterator[tuple[str, ast.expr | None]]:
    """The annotations of arguments, returned values and fields of dataclasses, each with its kind."""
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            single = [one for one in (given.vararg, given.kwarg) if one is not None]
            for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, *single):
                yield "arguments", argument.annotation
            yield "returns", node.returns
        elif isinstance(node, ast.ClassDef) and is_dataclass(node):
            yield from (
                ("fields", below.annotation) for below in node.body if isinstance(below, ast.AnnAssign)
            )


def measure_axes(tree: Path) -> Figures:
    """The share of annotated arrays whose axes are named."""
    modules = find_modules(tree)
    trees = {name: parse(path) for name, path in modules.items()}
    names = read_names(trees, {name for name, path in modules.items() if path.stem == "__init__"})
    counts: dict[str, dict[str, int]] = defaultdict(lambda: {"named": 0, "bare": 0})
    for name, module in trees.items():
        for kind, annotation in annotations(module):
            if (axes := axes_of(annotation, name, names)) is not None:
                counts[kind][axes] += 1
    shares = {kind: round(of["named"] / (of["named"] + of["bare"]), 3) for kind, of in counts.items()}
    return {
        "named_axes_share": shares["arguments"],
        "named_axes_arguments": sum(counts["arguments"].values()),
        "named_axes_returns_share": shares["returns"],
        "named_axes_fields_share": shares["fields"],
    }


# The command line


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command whose time is taken."""

    words: tuple[str, ...]
    folder: str
    """Where it is run, below the scratch folder."""

    codes: tuple[int, ...]
    """Exit codes that it may have."""

    mentions: str
    """What its output has to contain, so that it fails for the reason that is meant."""


NOWHERE, PLANNED, UNPLANNED = "empty", "planned", "unplanned"
CASES = {
    "help": Case(words=("--help",), folder=NOWHERE, codes=(0,), mentions="predict"),
    "version": Case(words=("--version",), folder=NOWHERE, codes=(0,), mentions="autospine"),
    "unknown_dataset": Case(
        words=("train", "0", "-d", "Dataset777"), folder=NOWHERE, codes=(1,), mentions="Dataset777"
    ),
    "unknown_option": Case(
        words=("predict", "--no-such-option"), folder=NOWHERE, codes=(2,), mentions="no-such-option"
    ),
    "missing_model": Case(
        words=("predict", "-i", "../image.nii.gz", "-o", "out", "-m", "no-such-model"),
        folder=NOWHERE,
        codes=(1, 2),
        mentions="no-such-model",
    ),
    "missing_input": Case(
        words=("predict", "-i", "no-such-images", "-o", "out", "-m", "../model"),
        folder=NOWHERE,
        codes=(1, 2),
        mentions="no-such-images",
    ),
    "unknown_configuration": Case(
        words=("train", "nosuchname", "-d", "1"), folder=PLANNED, codes=(1,), mentions="nosuchname"
    ),
    "unknown_fold": Case(
        words=("train", "0", "--fold", "77", "-d", "1"), folder=PLANNED, codes=(1,), mentions="77"
    ),
    "no_plan": Case(words=("train", "0", "-d", "1"), folder=UNPLANNED, codes=(1,), mentions="plan"),
}
PLAIN = ("help", "version")
BUSY = 1.3
"""On a machine with nothing else to do, these commands take hardly longer than their processor time."""


def measure_commands(checkout: Checkout, repeats: int) -> Figures:
    """Time of commands that do nothing or fail, and which of them load PyTorch."""
    make_workspaces(checkout)
    wall, processor, with_torch = {}, {}, []
    for name, case in CASES.items():
        folder = checkout.scratch / case.folder
        _, modules, _ = loaded_by_command(checkout, case.words, folder)
        if "torch" in modules:
            with_torch.append(name)
        check_output(checkout, name, case)  # which leaves the files of the first run in memory, too
        timed = [time_process(checkout, case) for _ in range(repeats)]
        wall[name], processor[name] = (round(statistics.median(one), 3) for one in zip(*timed, strict=True))
        print(name, wall[name], processor[name], file=sys.stderr)  # noqa: T201
        if wall[name] > BUSY * processor[name]:
            print("the machine is busy: measure again when it is not", file=sys.stderr)  # noqa: T201
    return {
        "repeats": repeats,
        "help_seconds": wall["help"],
        "version_seconds": wall["version"],
        "mistake_seconds": wall["unknown_dataset"],
        "mistakes": {name: seconds for name, seconds in wall.items() if name not in PLAIN},
        "cpu_seconds": processor,
        "torch_loaded": with_torch,
    }


def command_line(checkout: Checkout, case: Case) -> list[str]:
    return [checkout.python, "-m", "autospine", *case.words]


def check_output(checkout: Checkout, name: str, case: Case) -> None:
    """Raise unless a command ends as it should."""
    done = subprocess.run(
        command_line(checkout, case),
        cwd=checkout.scratch / case.folder,
        env=checkout.environment(),
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    print(name, done.returncode, done.stderr.strip()[:300], file=sys.stderr)  # noqa: T201
    if done.returncode not in case.codes or case.mentions not in said:
        raise SystemExit(
            f"{name}: `autospine {' '.join(case.words)}` should end with {case.codes} and mention "
            f"{case.mentions}, but it ended with {done.returncode}:\n{said}"
        )


def time_process(checkout: Checkout, case: Case) -> tuple[float, float]:
    """Seconds of a whole process, and those of the processor."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command_line(checkout, case),
        cwd=checkout.scratch / case.folder,
        env=checkout.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def make_workspaces(checkout: Checkout) -> None:
    """An empty folder, a workspace with a planned dataset of five tiny cases, and one without the plan."""
    (checkout.scratch / NOWHERE).mkdir()
    golden = sorted((checkout.tree / "tests").rglob("golden/lumbar_ct.json"))
    if not golden:
        raise SystemExit(f"no golden/lumbar_ct.json in {checkout.tree / 'tests'}, which serves as a plan")
    plan = golden[0].read_text(encoding="utf-8")
    dataset, cases = json.loads(plan)["dataset"], [f"case_{index}" for index in range(5)]
    for folder in (PLANNED, UNPLANNED):
        make_dataset(checkout.scratch / folder / "raw" / dataset, cases)
    ready = checkout.scratch / PLANNED / "preprocessed" / dataset
    ready.mkdir(parents=True)
    (ready / "plan.json").write_text(plan, encoding="utf-8")
    folds = {"format_version": 1, "dataset": dataset, "validation": [[name] for name in cases]}
    (ready / "folds.json").write_text(json.dumps(folds), encoding="utf-8")


def make_dataset(folder: Path, cases: Sequence[str]) -> None:
    """A raw dataset of tiny CT with four labels."""
    rng = np.random.default_rng(0)
    for name in cases:
        labels = rng.integers(0, 5, (8, 8, 8)).astype(np.uint8)
        write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", 100 * labels.astype(np.int16))
        write_image(folder / "labelsTr" / f"{name}.nii.gz", labels)
    described = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "vertebra": 1, "disc": 2, "canal": 3, "sacrum": 4},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


# What a change costs


def measure_changes(tree: Path) -> Figures:
    """Files that an addition takes by the examples of the page on extending; None without such an example."""
    page = tree / EXTENDING
    found = named_files(page.read_text(encoding="utf-8")) if page.is_file() else {}
    return {figure: len(found[title]) if title in found else None for figure, title in CHANGES.items()}


def named_files(text: str) -> dict[str, set[str]]:
    """Names of files in the first lines of a page's Python blocks, by the section with the example."""
    found: dict[str, set[str]] = {}
    section, depth, fence = None, 0, ""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("```"):
            fence = "" if fence else line
            first = re.match(r"#\s*(\S+\.py)\b", lines[index + 1] if index + 1 < len(lines) else "")
            if fence.startswith("```python") and first and section:
                found[section].add(first[1])
        elif not fence and (heading := re.match(r"(#+) +(.+)", line)):
            title = heading[2].replace("`", "").strip().lower()
            if title in CHANGES.values():
                section, depth = title, len(heading[1])
                found[section] = set()
            elif len(heading[1]) <= depth:
                section = None
    return found


# The whole


def measure(checkout: Checkout, repeats: int) -> Figures:
    """Every figure of a checkout."""
    check_sources(checkout)
    model, image = checkout.scratch / "model", checkout.scratch / "image.nii.gz"
    make_model(checkout, model)
    write_image(image, np.random.default_rng(0).integers(-1000, 1000, (24, 24, 24)).astype(np.int16))
    return {
        "commit": commit_of(checkout.tree),
        **measure_imports(checkout, model, image),
        **measure_names(checkout.tree),
        **measure_axes(checkout.tree),
        **(measure_commands(checkout, repeats) if repeats else {}),
        **measure_changes(checkout.tree),
    }


def commit_of(tree: Path) -> str:
    """Short name of the commit that is checked out, empty where it is not known."""
    command = ["git", "-C", str(tree), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


LISTED = {
    "load_model_forbidden_names": "Forbidden and yet imported",
    "colliding_file_names_names": "Names of several modules",
    "colliding_type_names_names": "Names of several types",
}
"""Lists of names that stand below the table."""


def report(figures: Figures, before: Figures) -> str:
    """The page's measured part: one row for each figure, before and now, and the names that are left."""
    cores = len(os.sched_getaffinity(0))
    rows = [f"| {cell(key)} | {shown(key, before)} | {shown(key, figures)} |" for key in rows_of(figures)]
    head_rows = [f"| figure | {before.get('commit') or 'before'} | now |", "|---|--:|--:|"]
    return "\n\n".join(
        [
            f"{date.today().isoformat()}, {platform.machine()}, {cores} cores, Python "
            f"{platform.python_version()}; seconds are medians of "
            f"{figures.get('repeats', 0)} whole processes, before of {before.get('repeats', 0)}.",
            "\n".join(head_rows + rows),
            *(
                f"{title}: {', '.join(f'`{name}`' for name in figures[key]) or 'none'}."
                for key, title in LISTED.items()
            ),
        ]
    )


def rows_of(figures: Figures) -> list[str]:
    """Keys of the table, those of the mistakes each for itself."""
    nested = ("mistakes", "torch_loaded")
    keys = [key for key, value in figures.items() if key in nested or not isinstance(value, dict | list)]
    keys = [key for key in keys if key not in ("commit", "repeats")]
    others = [name for name in figures.get("mistakes", {}) if name != "unknown_dataset"]  # `mistake_seconds`
    where = keys.index("mistakes") if "mistakes" in keys else len(keys)
    return [*keys[:where], *(f"mistakes.{name}" for name in others), *keys[where + 1 :]]


def cell(key: str) -> str:
    return f"`{key.removeprefix('mistakes.')}_seconds`" if key.startswith("mistakes.") else f"`{key}`"


def shown(key: str, figures: Figures) -> str:
    """A figure as it stands in the table."""
    first, _, second = key.partition(".")
    value = figures.get(first)
    value = value.get(second) if second and isinstance(value, dict) else value
    if isinstance(value, list):
        return ", ".join(value).replace("_", " ") or "none"
    return "–" if value is None else str(value)


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout that is measured")
    parser.add_argument("--python", default=sys.executable, help="interpreter that runs it")
    parser.add_argument("--repeats", type=int, default=10, help="processes per command; 0 times none")
    parser.add_argument("--before", type=Path, default=BEFORE, help="figures of an earlier checkout, as JSON")
    parser.add_argument("--write", type=Path, help="page that gets the table")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        checkout = Checkout(
            tree=options.tree.resolve(), python=options.python, scratch=Path(scratch).resolve()
        )
        figures = measure(checkout, options.repeats)
    if options.write:
        before = json.loads(options.before.read_text(encoding="utf-8")) if options.before.is_file() else {}
        write_measured(options.write, report(figures, before))
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
