from pathlib import Path

import pytest

from autospine.core.errors import DatasetError
from autospine.io.formats import check_inputs


def test_every_input_that_is_none_is_named(tmp_path: Path):
    check_inputs([tmp_path])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DatasetError) as raised:
        check_inputs([tmp_path / "absent", tmp_path, tmp_path / "notes.txt"])
    absent, other = str(raised.value).splitlines()
    assert "absent, found nothing; check -i" in absent
    assert "notes.txt, found another kind of file; convert it to NIfTI" in other
