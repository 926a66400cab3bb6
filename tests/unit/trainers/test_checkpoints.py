import errno
import os

import pytest
import torch

from autospine.core.errors import FormatError, WorkspaceError
from autospine.storage import tensors as checkpoint
from trainers.checkpoints import ARRIVING, CHECKPOINT, PREVIOUS, Checkpoints


def save(folder, *steps):
    kept = Checkpoints(folder)
    for step in steps:
        kept.save({"step": torch.full((64,), float(step))}, {"step": step})
    return kept


def loaded(folder) -> int | None:
    found = Checkpoints(folder).load()
    return None if found is None else found[1]["step"]


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_header(path):
    path.write_bytes(path.read_bytes()[:20])


def test_without_checkpoints_there_is_none(tmp_path):
    assert loaded(tmp_path) is None


def test_the_newest_and_the_one_before_it_are_kept(tmp_path):
    save(tmp_path, 1, 2, 3)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}
    assert loaded(tmp_path) == 3
    (tmp_path / CHECKPOINT).unlink()
    assert loaded(tmp_path) == 2


def test_a_damaged_newest_is_said_and_the_one_before_it_used(tmp_path, caplog):
    save(tmp_path, 1, 2)
    damage(tmp_path / CHECKPOINT)
    assert loaded(tmp_path) == 1
    assert f"{CHECKPOINT} is damaged; going on from the checkpoint before it" in caplog.text
    save(tmp_path, 3)
    assert loaded(tmp_path) == 3
    (tmp_path / CHECKPOINT).unlink()
    assert loaded(tmp_path) == 1


def test_another_version_is_not_taken_for_damage(tmp_path, monkeypatch):
    save(tmp_path, 1)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "FORMAT_VERSION", checkpoint.FORMAT_VERSION + 1)
        save(tmp_path, 2)
    with pytest.raises(FormatError, match="use the AutoSpine version that wrote it"):
        loaded(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}


def test_when_all_are_damaged_nothing_is_removed(tmp_path):
    save(tmp_path, 1, 2)
    for name in (CHECKPOINT, PREVIOUS):
        damage(tmp_path / name)
    with pytest.raises(FormatError, match=f"found {CHECKPOINT}, {PREVIOUS} damaged; move that folder away"):
        loaded(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}


def test_wherever_the_process_is_killed_the_newest_complete_one_is_found(tmp_path, monkeypatch):
    """Saving is a write and two renames; it is cut off before each of them."""
    for survived, expected in ((0, 2), (1, 3), (2, 3)):
        folder = tmp_path / str(survived)
        save(folder, 1, 2)
        with monkeypatch.context() as patched:
            cut_off(patched, survived)
            with pytest.raises(KeyboardInterrupt):
                save(folder, 3)
        assert loaded(folder) == expected
        save(folder, 4)
        assert loaded(folder) == 4


def cut_off(patched, renames: int) -> None:
    """Let the process be killed at the rename after so many."""
    real, counted = os.rename, iter(range(10))

    def replace(self, target):
        if next(counted) >= renames:
            raise KeyboardInterrupt
        real(self, target)

    patched.setattr("pathlib.Path.replace", replace)


@pytest.mark.parametrize("kind", ["python", "safetensors"])
def test_a_full_disk_leaves_the_checkpoints_before_it(tmp_path, monkeypatch, kind):
    save(tmp_path, 1, 2)
    full = {
        "python": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        "safetensors": checkpoint.SafetensorError("I/O error: No space left on device (os error 28)"),
    }[kind]

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise full

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(WorkspaceError, match=r"No space left on device.*; free disk space"):
        save(tmp_path, 3)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}
    assert loaded(tmp_path) == 2


def test_all_are_removed_at_the_end(tmp_path):
    kept = save(tmp_path, 1, 2)
    (tmp_path / ARRIVING).write_bytes((tmp_path / CHECKPOINT).read_bytes())
    kept.remove()
    assert not list(tmp_path.iterdir())


def test_those_of_finished_weights_are_removed_and_those_of_an_extension_stay(tmp_path):
    kept = save(tmp_path, 1, 2)
    damage_header(tmp_path / CHECKPOINT)
    kept.remove_finished(0)
    assert not list(tmp_path.iterdir())
    kept.save({"step": torch.zeros(1)}, {"extensions": 1})
    kept.remove_finished(0)
    assert len(list(tmp_path.iterdir())) == 1
    kept.remove_finished(1)
    assert not list(tmp_path.iterdir())


def test_where_all_are_damaged_nobody_knows_of_what(tmp_path):
    kept = save(tmp_path, 1)
    damage_header(tmp_path / CHECKPOINT)
    kept.remove_finished(0)
    assert len(list(tmp_path.iterdir())) == 1
