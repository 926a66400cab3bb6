import os
from pathlib import Path

import pytest

from autospine.core.errors import WorkspaceError
from autospine.storage.workspace import Workspace


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AUTOSPINE_WORKSPACE", raising=False)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("Dataset001_Spine", "Dataset012_Neck", "notes"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    return Workspace.locate(tmp_path)


def touch(path: Path, time: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    os.utime(path, (time, time))
    return path


def test_the_root_is_given_or_set_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "set").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Workspace.locate().root.resolve() == tmp_path.resolve()
    monkeypatch.setenv("AUTOSPINE_WORKSPACE", str(tmp_path / "set"))
    assert Workspace.locate().root == tmp_path / "set"
    assert Workspace.locate(tmp_path).root == tmp_path


def test_a_missing_root_is_named(tmp_path: Path):
    with pytest.raises(WorkspaceError, match=r"workspace folder .*nowhere, found none"):
        Workspace.locate(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name",
    [
        "1",
        "001",
        "Dataset001",
        "Dataset1",
        "Dataset001_Spine",
        "Spine",
        "spine",
        "dataset001_spine",
        "Spine/",
    ],
)
def test_datasets_go_by_number_name_or_whole_name(name: str, workspace: Workspace):
    found = workspace.find_dataset(name)
    assert found.name == "Dataset001_Spine"
    assert found.raw == workspace.root / "raw" / "Dataset001_Spine"
    assert found.preprocessed == workspace.root / "preprocessed" / "Dataset001_Spine"
    assert found.results == workspace.root / "results" / "Dataset001_Spine"


@pytest.mark.parametrize("name", ["2", "Dataset00", "Spin", "notes", ""])
def test_unknown_datasets_list_those_there_are(name: str, workspace: Workspace):
    with pytest.raises(WorkspaceError, match=r"raw, found Dataset001_Spine, Dataset012_Neck"):
        workspace.find_dataset(name)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        (("nnUNet_results",), r"-w.* \(nnUNet_results is not read: -w names all folders at once\)"),
        (("nnUNet_results", "nnUNet_preprocessed"), r"\(nnUNet_preprocessed and nnUNet_results are not read"),
        ((), r"[^)]$"),
    ],
)
def test_variables_of_nnunet_are_pointed_out_where_nothing_is_found(tmp_path, monkeypatch, variables, says):
    for name in variables:
        monkeypatch.setenv(name, str(tmp_path))
    empty = Workspace.locate(tmp_path)
    for look in (empty.last_planned, empty.last_models, lambda: empty.find_dataset("1")):
        with pytest.raises(WorkspaceError, match=says):
            look()


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("1", "Dataset001_NAME"),
        ("7", "Dataset007_NAME"),
        ("dataset1234", "Dataset1234_NAME"),
        ("Spine", "Dataset001_Spine"),
        ("Dataset900_Phantom", "Dataset900_Phantom"),
        ("my spines", "Dataset001_NAME"),
    ],
)
def test_an_empty_workspace_says_under_which_name_a_dataset_would_be_found(tmp_path: Path, wanted, name):
    with pytest.raises(WorkspaceError, match=rf"found none; put it there as {name} in.*-w"):
        Workspace.locate(tmp_path).find_dataset(wanted)


def test_a_file_is_no_workspace(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkspaceError, match=r"workspace folder .*file, found a file; .*-w"):
        Workspace.locate(tmp_path / "file")


@pytest.mark.parametrize(
    ("made", "given", "said"),
    [
        ("Dataset001_Spine/dataset.json", ".", r"Dataset001_Spine in .* itself; move datasets into .*raw"),
        ("dataset.json", ".", r"dataset.json in .* itself; move .* into .*raw/Dataset001_NAME"),
        ("raw/Dataset001_Spine/dataset.json", "raw", r"name its workspace, -w \S+"),
        ("raw/Dataset001_Spine/dataset.json", "raw/Dataset001_Spine", r"name its workspace, -w \S+"),
        ("preprocessed/Dataset001_Spine/plan.json", ".", "preprocessed of Dataset001_Spine; put its images"),
    ],
)
def test_a_dataset_in_another_place_is_pointed_at(tmp_path: Path, made: str, given: str, said: str):
    (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / made).touch()
    with pytest.raises(WorkspaceError, match=rf"expected a dataset '1' in .*raw, found none.*{said}"):
        Workspace.locate(tmp_path / given).find_dataset("1")


def test_the_option_that_leads_to_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = tmp_path / "work space"
    place.mkdir()
    monkeypatch.chdir(tmp_path)
    assert Workspace.locate(Path("work space")).option == ("-w", "work space")
    monkeypatch.setenv("AUTOSPINE_WORKSPACE", str(place))
    assert Workspace.locate(Path("work space")).option == ()
    monkeypatch.delenv("AUTOSPINE_WORKSPACE")
    monkeypatch.chdir(place)
    assert Workspace.locate().option == ()


def test_datasets_go_by_their_folders(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    whole = "Dataset001_Spine"
    for given in (f"raw/{whole}", f"raw/{whole}/", f"preprocessed/{whole}", str(workspace.raw / whole)):
        assert workspace.find_dataset(given).name == whole
    weights = touch(workspace.results / whole / "fine" / "fold_0" / "model.safetensors", 1000)
    assert (
        workspace.last_models(f"results/{whole}")[0]
        == workspace.last_models("spine")[0]
        == weights.parents[1]
    )


def test_a_folder_outside_the_workspace_is_told_how_to_get_in(workspace: Workspace, tmp_path: Path):
    away = touch(tmp_path / "away" / "raw" / "Dataset007_Hip" / "dataset.json", 1000).parent
    with pytest.raises(WorkspaceError, match=rf"name the workspace of {away}, -w {tmp_path / 'away'}$"):
        workspace.find_dataset(str(away))
    loose = touch(tmp_path / "loose" / "dataset.json", 1000).parent
    with pytest.raises(WorkspaceError, match=rf"put {loose}, or a link to it, into .*raw as Dataset001_NAME"):
        workspace.find_dataset(str(loose))


@pytest.mark.parametrize(
    ("made", "number"),
    [
        ("Dataset900-Hip", "900"),
        ("dataset900_Hip", "900"),
        ("Dataset900", "900"),
        ("Dataset_900_Hip", "900"),
        ("hip", "001"),
    ],
)
def test_a_dataset_under_a_name_that_no_dataset_has_is_named(tmp_path: Path, made: str, number: str):
    touch(tmp_path / "raw" / made / "dataset.json", 1000)
    with pytest.raises(
        WorkspaceError,
        match=rf"found none, and .*raw/{made} under another name than Dataset{number}_NAME; rename",
    ):
        Workspace.locate(tmp_path).find_dataset("900")


def test_two_of_a_name_need_the_whole_name(workspace: Workspace):
    (workspace.raw / "Dataset002_Spine").mkdir()
    with pytest.raises(WorkspaceError, match=r"Dataset001_Spine, Dataset002_Spine; give the whole name"):
        workspace.find_dataset("spine")


def test_two_of_a_number_need_the_whole_name(workspace: Workspace):
    (workspace.raw / "Dataset001_Other").mkdir()
    with pytest.raises(WorkspaceError, match=r"Dataset001_Other, Dataset001_Spine; give the whole name"):
        workspace.find_dataset("1")
    assert workspace.find_dataset("Dataset001_Other").name == "Dataset001_Other"


def test_nnunet_datasets_are_found_in_place(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    theirs = tmp_path / "nnunet"
    for name in ("Dataset001_Spine", "Dataset500_Hip"):
        (theirs / name).mkdir(parents=True)
    monkeypatch.setenv("nnUNet_raw", str(theirs))
    found = workspace.find_dataset("500")
    assert found.raw == theirs / "Dataset500_Hip"
    assert found.results == workspace.root / "results" / "Dataset500_Hip"
    assert workspace.find_dataset("1").raw == workspace.raw / "Dataset001_Spine"


def test_the_last_planned_dataset(workspace: Workspace):
    with pytest.raises(WorkspaceError, match=r"planned dataset .* run `autospine plan-and-preprocess"):
        workspace.last_planned()
    touch(workspace.preprocessed / "Dataset012_Neck" / "plan.json", 2000)
    touch(workspace.preprocessed / "Dataset001_Spine" / "plan.json", 1000)
    assert workspace.last_planned().name == "Dataset012_Neck"


def test_what_is_planned_nowhere_names_the_dataset_that_could_be(tmp_path: Path):
    one = Workspace(root=tmp_path / "one")
    (one.raw / "Dataset003_Hip").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="run `autospine plan-and-preprocess -d Dataset003_Hip` first"):
        one.last_planned()
    inside = Workspace(root=one.raw)
    with pytest.raises(WorkspaceError, match=f"and no dataset in .*; name its workspace, -w {one.root}"):
        inside.last_planned()


def test_a_dataset_that_is_a_link_to_nothing_is_named(workspace: Workspace, tmp_path: Path):
    (workspace.raw / "Dataset044_Away").symlink_to(tmp_path / "unmounted")
    for wanted in ("44", "Dataset044_Away"):
        with pytest.raises(WorkspaceError, match=r"leads to .*unmounted, which is not there; mend this link"):
            workspace.find_dataset(wanted)
    with pytest.raises(WorkspaceError, match="name one of these"):
        workspace.find_dataset("45")


@pytest.mark.parametrize("name", [".abcd1234.tmp", ".autospine-abcd1234.tmp"])
def test_nothing_with_a_temporary_name_is_the_last(workspace: Workspace, name: str):
    plan = touch(workspace.preprocessed / "Dataset012_Neck" / "plan.json", 1000)
    weights = touch(workspace.results / "Dataset012_Neck" / "fine" / "fold_0" / "model.safetensors", 1000)
    touch(workspace.preprocessed / name / "plan.json", 2000)
    touch(workspace.results / name / "fine" / "fold_0" / "model.safetensors", 2000)
    touch(workspace.results / "Dataset012_Neck" / name / "fold_0" / "model.safetensors", 2000)
    (workspace.raw / name).mkdir()
    assert workspace.last_planned().name == plan.parent.name
    assert workspace.last_models()[0] == weights.parents[1]
    assert name not in [dataset.name for dataset in workspace.datasets()]


def test_the_last_model(workspace: Workspace):
    with pytest.raises(WorkspaceError, match=r"trained model in .* run `autospine train 0 --fold all` first"):
        workspace.last_models()
    old = touch(workspace.results / "Dataset001_Spine" / "fine" / "fold_0" / "model.safetensors", 1000)
    new = touch(workspace.results / "Dataset012_Neck" / "fine" / "fold_0" / "model.safetensors", 2000)
    touch(workspace.results / "Dataset001_Spine" / "coarse" / "fold_0" / "metrics.jsonl", 3000)
    assert workspace.last_models()[0] == new.parents[1]
    assert workspace.last_models("1")[0] == old.parents[1]
    with pytest.raises(WorkspaceError, match="trained model 'coarse' of 1 "):
        workspace.last_models("1", "coarse")


def test_datasets_of_nnunet_v1_are_told_how_to_become_some(workspace: Workspace):
    (workspace.raw / "Task001_Spine").mkdir()
    with pytest.raises(WorkspaceError, match="Task001_Spine in the layout of nnU-Net v1; convert it with"):
        workspace.find_dataset("77")
