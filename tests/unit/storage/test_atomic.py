import os
import stat

import makers
import numpy as np
import pytest

from autospine.io.images import write_labels
from autospine.storage.atomic import remove_abandoned, remove_leftovers, replacing, visible, write_text


def test_a_file_is_written_with_its_folder(tmp_path):
    path = tmp_path / "a" / "b" / "text.txt"
    write_text(path, "Wirbelsäule\n")
    assert path.read_text(encoding="utf-8") == "Wirbelsäule\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [True, False])
def test_an_error_leaves_everything_as_it_was(tmp_path, error, existing):
    path = tmp_path / "model.safetensors"
    if existing:
        path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert [file.read_text(encoding="utf-8") for file in tmp_path.iterdir()] == (["old"] if existing else [])


def test_the_old_file_stands_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "case.nii.gz"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.name.endswith(".nii.gz")
        assert temporary.name.startswith(".")
        temporary.write_text("new")
        assert path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_left_alone(tmp_path):
    path = tmp_path / "plan.json"
    path.mkdir()
    with pytest.raises(OSError):
        write_text(path, "text")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    ordinary, written = tmp_path / "ordinary", tmp_path / "written"
    ordinary.write_text("")
    write_text(written, "")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path):
    write_text(tmp_path / "case.json", "kept")
    (tmp_path / ".hidden").write_text("kept")
    block = replacing(tmp_path / "model.safetensors")
    block.__enter__().write_text("half")
    (tmp_path / ".label map.tmp").mkdir()
    (tmp_path / ".label map.tmp" / "case.nii.gz").write_text("half")
    assert len(list(tmp_path.iterdir())) == 4
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"case.json", ".hidden"}
    remove_leftovers(tmp_path / "absent")


@pytest.fixture
def flushed(tmp_path, monkeypatch):
    """What was waited for, a file or a folder, and which files had their names by then."""
    seen, wait = [], os.fsync

    def watching(handle: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        seen.append((kind, sorted(path.name for path in tmp_path.glob("[!.]*"))))
        wait(handle)

    monkeypatch.setattr(os, "fsync", watching)
    return seen


@pytest.mark.skipif(os.name == "nt", reason="folders of POSIX")
@pytest.mark.parametrize("name", ["plan.json", "case.nii.gz"])
def test_the_disk_has_a_file_before_it_takes_its_name_and_then_the_name(tmp_path, flushed, name):
    if name == "plan.json":
        write_text(tmp_path / name, "{}")
    else:
        write_labels(tmp_path / name, np.zeros((3, 4, 5), dtype=np.uint8), makers.grid((3, 4, 5)))
    assert flushed == [("file", []), ("folder", [name])]


def test_a_file_system_that_cannot_wait_for_a_folder_is_no_error(tmp_path, monkeypatch):
    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError("Invalid argument")

    monkeypatch.setattr(os, "fsync", files_only)
    write_text(tmp_path / "plan.json", "{}")
    assert (tmp_path / "plan.json").read_text(encoding="utf-8") == "{}"


def age(*paths):
    for path in paths:
        os.utime(path, (0, 0))


def test_what_was_abandoned_in_a_folder_of_others_is_removed_file_or_folder(tmp_path):
    """A killed writing of an image leaves a folder; nothing that was touched within a day is removed."""
    for name in (".abcd1234.tmp", ".efgh5678.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "case.nii.gz").write_text("half")
    for name in (".ijkl_012.tmp.nii.gz", ".mnop_012.tmp.nii.gz", ".mine.tmp", "case.nii.gz"):
        (tmp_path / name).write_text("half")
    age(tmp_path / ".abcd1234.tmp" / "case.nii.gz", tmp_path / ".abcd1234.tmp", tmp_path / ".efgh5678.tmp")
    age(tmp_path / ".ijkl_012.tmp.nii.gz", tmp_path / ".mine.tmp", tmp_path / "case.nii.gz")
    remove_abandoned(tmp_path)
    kept = [".efgh5678.tmp", ".mine.tmp", ".mnop_012.tmp.nii.gz", "case.nii.gz"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_writing_removes_what_was_abandoned_there(tmp_path):
    (tmp_path / ".abcd1234.tmp.json").write_text("half")
    age(tmp_path / ".abcd1234.tmp.json")
    write_text(tmp_path / "plan.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_what_cannot_be_removed_stands_in_nobodys_way(tmp_path, monkeypatch):
    (tmp_path / ".abcd1234.tmp.json").write_text("half")
    (tmp_path / ".efgh5678.tmp").mkdir()
    age(tmp_path / ".abcd1234.tmp.json", tmp_path / ".efgh5678.tmp")

    def refused(*_, **__):
        raise PermissionError

    for name in ("unlink", "rmdir"):
        monkeypatch.setattr(os, name, refused)
    remove_abandoned(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_names_that_begin_with_a_dot_are_not_looked_at(tmp_path):
    for name in (".abcd1234.tmp", ".DS_Store", "b", "a.tmp"):
        (tmp_path / name).touch()
    assert [path.name for path in visible(tmp_path)] == ["a.tmp", "b"]
    assert visible(tmp_path / "absent") == visible(tmp_path / "b") == []
