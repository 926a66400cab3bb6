"""The house: which part may import which."""

import ast
import re
import subprocess
import sys
from collections import Counter

import pytest
from house_graph import ENGINES, FACE, LIBRARY, MODULES, imported, own, part, reached, rooms, tree

READER_OF_CHECKPOINTS = "autospine.network.weights.file"
"""The only module that may read pickles, and it with nothing but tensors in them."""

COMPOSITION = {"pipeline", "cli", "__main__"}
"""The rooms of the library that may reach planners and trainers."""

STAND_ALONE = ("autospine.api", "autospine.prediction.predict_cases", "autospine.cli.predict")
"""What predicts: it reaches neither what plans and trains nor what draws."""

MOST_TO_LOAD_A_MODEL = 100

CAMEL_CASE = re.compile(r"_?[A-Z]\w*[a-z]\w*")

NOT_FOR_PREDICTION = {"planners", "trainers", "autospine.phantom", "matplotlib", "pandas", "yaml"}


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
    if name == "autospine.cli.predict":  # `--preview` alone draws
        assert "autospine.report.preview" in imported(name)
        found = {other for other in found if not within(other, "matplotlib")}
    assert not found


def test_loading_a_model_loads_little():
    """What a user imports for a prediction stays a part of the library."""
    ours = {name for name in reached("autospine.api") if name in MODULES}
    assert len(ours) <= MOST_TO_LOAD_A_MODEL, f"autospine.api reaches {len(ours)} modules"


def test_a_report_is_written_without_pytorch():
    """It would take seconds and hundreds of megabytes, for nothing."""
    command = "import sys, autospine.report.folder_report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False, timeout=300).returncode == 0


def test_a_stranger_in_the_house_is_noticed():
    assert within("planners.rules.sizes", "planners")
    assert not within("autospine.phantoms", "autospine.phantom")
    assert {"planners.planner", "planners.rules", "yaml"} <= reached("autospine.pipeline.planning")


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def test_every_file_and_every_type_has_a_name_of_its_own():
    """A name that occurs once can be searched for; packages go by their folder, and `_Part` is `Part`."""
    files = Counter(name.split(".")[-1] for name in MODULES if not name.endswith("__main__"))
    types: Counter[str] = Counter()
    for name in MODULES:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ClassDef):
                types[node.name.lstrip("_")] += 1
            elif isinstance(node, ast.Assign | ast.AnnAssign) and node in tree(name).body:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name) and CAMEL_CASE.fullmatch(target.id):
                    types[target.id.lstrip("_")] += "cli" not in name  # options of the command line
    assert [name for name, times in (files + types).items() if times > 1] == []


def test_no_module_imports_itself_in_a_circle():
    inner = set(MODULES) - {FACE}
    graph = {name: {other for other in own(name) if other in inner} - {name} for name in inner}
    while leaves := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert not graph


def test_only_one_module_knows_pydantic():
    users = {name for name in MODULES for other in imported(name) if other.split(".")[0] == "pydantic"}
    assert users == {"autospine.storage.serialization"}


def test_only_the_workspace_and_the_machine_read_the_environment():
    readers = {name for name in MODULES if {"os.environ", "os.environb", "os.getenv"} & attributes(name)}
    machine = {"autospine.system.devices", "autospine.system.hardware"}
    assert readers == {"autospine.storage.workspace"} | machine
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
