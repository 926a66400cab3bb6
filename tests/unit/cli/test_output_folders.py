"""A folder that cannot be written to is refused before the work for it is done."""

import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from autospine.cli import main

COMMANDS = {
    "evaluate": "evaluate maps maps -o {}",
    "measure": "anatomy measure -i maps -o {}",
    "identify": "anatomy identify -i maps -o {}",
    "convert": "convert labels -i maps -o {} --from verse --to totalspineseg",
    "attention": "attention -m starter -i maps/case.nii.gz -o {}",
    "predict": "predict -m starter -i maps/case.nii.gz -o {}",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch) -> Path:
    """A folder with a label map that no command can use, so that work on it would end in another message."""
    monkeypatch.chdir(tmp_path)
    Path("maps").mkdir()
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 250, np.int16), np.eye(4)), "maps/case.nii.gz")
    Path("file").touch()
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_made_is_refused_first(place, command, capsys):
    assert main(shlex.split(COMMANDS[command].format("file/out"))) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "output folder that can be written to, found file/out" in said[0]
    assert "name another with -o" in said[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_error_leaves_no_folder_behind(place, command, capsys):
    Path("maps/case.nii.gz").unlink()
    assert main(shlex.split(COMMANDS[command].format("new/out"))) == 1
    assert not Path("new").exists()
