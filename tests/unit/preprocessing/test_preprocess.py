import json
from pathlib import Path

import numpy as np
import pytest

from autospine.dataset import load_dataset
from autospine.errors import DatasetError
from autospine.preprocessing.preprocess import preprocess_dataset

from .conftest import column, write_image


@pytest.fixture
def run(raw: Path, make_plan, tmp_path: Path):
    def run(workers=1, **changes):
        plan = make_plan(**changes)
        return preprocess_dataset(
            load_dataset(raw), plan, plan.configurations[0], tmp_path / "stored", workers
        )

    return run


def state(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_every_case_is_stored(run):
    ct, mr = run()
    assert (ct.name, mr.name) == ("ct_a", "mr_b")
    assert ct.record.modality == "CT"
    assert mr.record.subject == "two"
    assert ct.shape == (32, 32, 27)
    assert dict(ct.record.label_voxels).keys() == {0, 1, 2}
    assert ct.record.encoding.scale == (1.0,)
    volume = np.sum(column() == 5) * 2 * 1.5 * 1
    assert dict(ct.record.label_voxels)[1] * 1.5**3 == pytest.approx(volume, rel=0.05)


def test_a_second_run_does_nothing(run):
    before = state(run()[0].folder)
    assert state(run()[0].folder) == before


def test_an_interrupted_run_goes_on(run):
    folder = run()[0].folder
    before = state(folder)
    (folder / "mr_b.json").unlink()
    after = state(run()[0].folder)
    assert {name for name in after if after[name] != before[name]} == {
        name for name in before if name.startswith("mr_b")
    }


def test_changed_files_and_settings_are_noticed(run, raw: Path):
    folder = run()[0].folder
    before = state(folder)
    write_image(raw / "labelsTr" / "ct_a.nii.gz", np.roll(column(), 1, axis=1))
    after = state(run()[0].folder)
    assert after["ct_a.json"] != before["ct_a.json"]
    assert after["mr_b.json"] == before["mr_b.json"]
    assert state(run(spacing_mm=(2.0, 2.0, 2.0))[0].folder)["mr_b.json"] != after["mr_b.json"]
    assert run(ct_mean=50.0)[0].record.transform.mean == (50.0,)


def test_all_failures_are_reported_at_once(run, raw: Path):
    good = column()
    write_image(raw / "labelsTr" / "ct_a.nii.gz", good[:-2])
    labels = good.copy()
    labels[0, 0, 0] = 77
    write_image(raw / "labelsTr" / "mr_b.nii.gz", labels)
    with pytest.raises(DatasetError, match=r"2 failed(.|\n)*ct_a(.|\n)*mr_b(.|\n)*77"):
        run()
    write_image(raw / "labelsTr" / "ct_a.nii.gz", good)
    with pytest.raises(DatasetError, match="1 failed"):
        run()


def test_processes_store_the_same(run, tmp_path: Path):
    def contents():
        return {path.name: path.read_bytes() for path in (tmp_path / "stored").iterdir()}

    run()
    one = contents()
    for path in (tmp_path / "stored").glob("*.json"):
        path.unlink()
    run(workers=2)
    assert contents() == one
    json.loads(one["ct_a.json"])
