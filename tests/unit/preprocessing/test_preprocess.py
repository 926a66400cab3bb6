import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from autospine.core.errors import DatasetError, WorkspaceError
from autospine.core.geometry import Box
from autospine.dataset.case_parts import CasePart
from autospine.dataset.raw import load_dataset
from autospine.preprocessing import preprocess, store
from autospine.preprocessing.preprocess import LOCK, preprocess_dataset
from autospine.storage import arrays
from trainers.run_identity import identity

from .conftest import column, write_image


@pytest.fixture
def run(raw: Path, make_plan, tmp_path: Path):
    def run(workers=1, dataset=None, arrays="blosc2", part=None, **changes):
        plan = make_plan(**changes)
        return preprocess_dataset(
            dataset or load_dataset(raw),
            plan,
            plan.configurations[0],
            tmp_path / "stored",
            workers,
            arrays=arrays,
            part=part,
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


def test_parts_in_any_order_store_the_same(run, tmp_path: Path):
    def contents():
        return {path.name: path.read_bytes() for path in (tmp_path / "stored").iterdir() if path.is_file()}

    run()
    one = contents()
    shutil.rmtree(tmp_path / "stored")
    parts = [CasePart(number=number, count=3) for number in (3, 2, 1)]
    assert [[case.name for case in run(part=part)] for part in parts] == [[], ["mr_b"], ["ct_a"]]
    assert contents() == one
    before = state(tmp_path / "stored")
    run(part=parts[1])
    run()
    assert {name: state(tmp_path / "stored")[name] for name in one} == {name: before[name] for name in one}


def test_parts_at_the_same_time_leave_each_other_their_temporary_files(run, tmp_path: Path):
    beside = tmp_path / "stored" / ".abcd1234.tmp.json"
    run(part=CasePart(number=1, count=2))
    beside.write_text("{", encoding="utf-8")
    run(part=CasePart(number=2, count=2))
    assert beside.exists()
    run()
    assert not beside.exists()


def test_a_run_of_all_cases_waits_for_the_parts_at_work(run, tmp_path: Path, caplog):
    caplog.set_level("INFO", logger="autospine")
    folder, part, order = tmp_path / "stored", CasePart(number=1, count=2), []

    def whole() -> None:
        run()
        order.append("whole")

    with ThreadPoolExecutor(1) as other:
        with preprocess._beside_other_parts(folder, part):
            with pytest.raises(WorkspaceError, match="one run of part 1/2"):
                run(part=part)
            waiting = other.submit(whole)
            while "preprocesses part 1-of-2; waiting for it" not in caplog.text and not waiting.done():
                time.sleep(0.01)
            order.append("part")
        waiting.result(120)
    assert order == ["part", "whole"]


def test_a_file_of_the_same_content_is_not_preprocessed_again(run, raw: Path):
    folder = run()[0].folder
    before = state(folder)
    path = raw / "imagesTr" / "ct_a_0000.nii.gz"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    os.utime(path, (1, 1))
    after = state(run()[0].folder)
    assert {name for name in after if after[name] != before[name]} == {"ct_a.json"}
    # From now on a look at the file is enough again.
    assert state(run()[0].folder) == after


def write_facts(raw: Path, *lines: str) -> None:
    (raw / "cases.csv").write_text("\n".join(["case,modality,site,subject", *lines, ""]))


def test_what_is_said_of_a_case_later_changes_neither_its_voxels_nor_what_was_trained_on_it(
    run, raw: Path, make_plan
):
    plan = make_plan()

    def trained() -> str:
        return identity(plan, plan.configurations[0], run())

    write_facts(raw, "ct_a,CT,,one", "mr_b,,,two")
    before, files = trained(), state(run()[0].folder)
    write_facts(raw, "ct_a,CT,hospital,one", "mr_b,MR,,three")
    assert trained() == before
    ct, mr = run()
    assert (ct.record.site, mr.record.subject, mr.record.modality) == ("hospital", "three", "MR")
    changed = {name for name, time_ns in state(ct.folder).items() if time_ns != files[name]}
    assert changed == {"ct_a.json", "mr_b.json"}


def test_a_case_of_another_modality_is_made_anew(run, raw: Path, make_plan):
    plan = make_plan()
    write_facts(raw, "ct_a,CT,,one", "mr_b,,,two")
    mr = run()[1]
    before, files = identity(plan, plan.configurations[0], [mr]), state(mr.folder)
    write_facts(raw, "ct_a,CT,,one", "mr_b,CT,,two")
    mr = run()[1]
    assert mr.record.modality == "CT"
    assert identity(plan, plan.configurations[0], [mr]) != before
    assert state(mr.folder)["mr_b_image.b2nd"] != files["mr_b_image.b2nd"]
    write_facts(raw, "ct_a,CT,,one", "mr_b,,,two")
    mr = run()[1]
    assert mr.record.modality == "MR", "what was stated once does not count as a guess"
    assert identity(plan, plan.configurations[0], [mr]) == before


def test_the_state_of_files_is_all_that_is_read_when_nothing_changed(run, monkeypatch):
    run()

    def unread(*_):
        raise AssertionError("a file was read")

    monkeypatch.setattr("autospine.preprocessing.preprocess.files_key", unread)
    run()


def test_plain_files_hold_the_same(run):
    packed = [case.read_all() for case in run()]
    folder = run()[0].folder
    for path in folder.glob("*.json"):
        path.unlink()
    plain = run(arrays="npy")
    assert {path.suffix for path in folder.iterdir() if path.name != LOCK} == {".npy", ".json"}
    for case, (image, labels) in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(case.read_all()[0], image)
        np.testing.assert_array_equal(case.read_all()[1], labels)
    assert state(run()[0].folder) == state(folder)  # another format is no reason to store again


def test_without_blosc2_cases_become_plain_files(run, monkeypatch, caplog):
    monkeypatch.setattr(arrays, "blosc2", None)
    assert {case.record.arrays for case in run()} == {"npy"}
    assert "Blosc2 cannot be imported" in caplog.text


def test_where_blosc2_cannot_write_cases_become_plain_files(run, monkeypatch, caplog):
    def refuse(*_, **__):
        raise RuntimeError("Could not build empty array")

    monkeypatch.setattr(arrays.blosc2, "asarray", refuse)
    cases = run()
    assert {case.record.arrays for case in cases} == {"npy"}
    assert cases[0].read_all()[0].shape == (1, *cases[0].shape)
    assert "Could not build empty array" in caplog.text


def test_want_of_memory_is_reported_per_case(run, monkeypatch):
    def refuse(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(preprocess, "preprocess_case", refuse)
    with pytest.raises(DatasetError, match=r"2 failed(.|\n)*ct_a: RuntimeError: Def(.|\n)*mr_b: Run"):
        run()


class Deadly(str):
    """Kills the process in which it is unpickled."""

    __slots__ = ()

    def __reduce__(self):
        return os.abort, ()


def test_a_killed_worker_is_blamed_on_its_case_and_the_others_are_stored(run, raw: Path, tmp_path: Path):
    dataset = load_dataset(raw)
    first, second = dataset.cases
    dataset = replace(dataset, cases=(replace(first, site=Deadly("x")), second))
    with pytest.raises(DatasetError, match=r"1 failed:\s+ct_a: its worker process was killed") as caught:
        run(workers=2, dataset=dataset)
    assert "mr_b:" not in str(caught.value)
    assert (tmp_path / "stored" / "mr_b.json").is_file()


def test_a_full_disk_stops_everything_and_leaves_nothing(run, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(WorkspaceError, match=r"ct_a.*found 1 MB; free \d+ MB more"):
        run()
    assert not any((tmp_path / "stored").iterdir())


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(run, monkeypatch, tmp_path: Path):
    free = iter([10**9, 10**5])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "locate", full)
    with pytest.raises(WorkspaceError, match="expected room for case ct_a"):
        run()
    assert not any((tmp_path / "stored").iterdir())


def test_tissue_maps_are_stored_on_the_grid_of_the_image(run, raw: Path):
    described = json.loads((raw / "dataset.json").read_text())
    described["tissues"] = {"muscle": 0, "vertebra": 5, "canal": 9}
    (raw / "dataset.json").write_text(json.dumps(described))
    (raw / "tissuesTr").mkdir()
    write_image(raw / "tissuesTr" / "ct_a.nii.gz", column().astype(np.int32))
    ct, mr = run()
    assert ct.record.tissues == {0: "muscle", 5: "vertebra", 9: "canal"}
    assert mr.record.tissues == {}
    whole = Box.whole(ct.shape)
    codes, labels = ct.tissues(whole), ct.labels(whole)
    assert np.mean((codes == 5) == (labels == 1)) > 0.97
    before = state(ct.folder)
    write_image(raw / "tissuesTr" / "ct_a.nii.gz", np.roll(column(), 1, axis=1).astype(np.int32))
    assert state(run()[0].folder)["ct_a.json"] != before["ct_a.json"]


def test_a_tissue_map_on_another_grid_is_refused(run, raw: Path):
    described = json.loads((raw / "dataset.json").read_text()) | {"tissues": {"air": 0}}
    (raw / "dataset.json").write_text(json.dumps(described))
    (raw / "tissuesTr").mkdir()
    write_image(raw / "tissuesTr" / "ct_a.nii.gz", np.zeros((12, 32, 40), dtype=np.int32))
    with pytest.raises(DatasetError, match=r"tissue map .* on the grid of its case"):
        run()
