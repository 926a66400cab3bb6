from pathlib import Path

import pytest

from autospine.cluster.shared_paths import SharedFile, SharedPaths, shared_files


def test_a_folder_that_is_written_to_is_shown_by_a_new_file_that_is_gone_afterwards(tmp_path: Path):
    written = tmp_path / "out" / "deep"
    with shared_files(SharedPaths(written=written)) as (file,):
        assert file.place == str(written)
        assert Path(file.path).parent == written
        assert file.size == Path(file.path).stat().st_size > 0
        assert file.is_here()
    assert not file.is_here()
    assert list(written.iterdir()) == []


@pytest.mark.parametrize("place", [".", "images", "images/b.nii.gz"])
def test_what_is_read_is_shown_by_its_first_file(tmp_path: Path, place):
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "deep" / "a.nii.gz").write_bytes(b"12")
    (tmp_path / "images" / "b.nii.gz").write_bytes(b"123")
    (tmp_path / "images" / ".a.nii.gz").write_bytes(b"1")
    shared = SharedPaths(written=tmp_path / "out", read=(tmp_path / place,))
    with shared_files(shared) as (_, file):
        assert file == SharedFile(
            place=str(tmp_path / place), path=str(tmp_path / "images" / "b.nii.gz"), size=3
        )
        assert file.is_here()
        Path(file.path).write_bytes(b"of another machine")
        assert not file.is_here()


def test_paths_without_a_file_are_not_shown(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    shared = SharedPaths(written=tmp_path / "out", read=(tmp_path / "empty", tmp_path / "absent"))
    with shared_files(shared) as files:
        assert [file.place for file in files] == [str(tmp_path / "out")]
