"""Bundles: what goes in comes out, and nothing else gets in."""

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import makers
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from autospine.cli import main
from autospine.cli.model import model as commands
from autospine.core.errors import AutospineError, FormatError, ModelError, PlanError, WorkspaceError
from autospine.evaluation.overlap import Counts
from autospine.evaluation.score_description import describe_evaluation
from autospine.evaluation.scores import CaseScores, Evaluation
from autospine.models.archive import (
    ENDING,
    opened_model,
    read_manifest,
    unpack,
)
from autospine.models.manifest import ModelScores, Training, describe
from autospine.models.model_export import export_model
from autospine.models.model_folder import find_localizer, open_model
from autospine.storage.digest import sha256_of
from autospine.storage.serialization import to_json, write_json
from autospine.storage.tensors import load_tensors, save_tensors
from autospine.storage.workspace import Workspace


@pytest.fixture
def model(tmp_path):
    """A trained model folder with scores and a secret name in every file that may hold one."""
    folder = tmp_path / "results" / "Dataset001_Test" / "fullres"
    makers.write_model(folder, folds=("0", "1"))
    write_json(folder / "dataset.json", {"labels": {"background": 0}, "dataset": {"Smith_John": {}}})
    scores = {"n_cases": 2, "mean_dice": 0.5, "classes": {}, "cases": {"Smith_John": {"mean_dice": 0.5}}}
    write_json(folder / "cross_validation.json", scores)
    return open_model(folder)


@pytest.fixture
def bundle(model, tmp_path):
    path = tmp_path / f"model{ENDING}"
    export_model(model, path, licence="CC-BY-4.0")
    return path


def rewritten(bundle, target, change):
    """The bundle with `change(name, data)` in place of each entry; None leaves it out."""
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            if (data := change(info.filename, old.read(info))) is not None:
                new.writestr(info.filename, data)
    return target


def patched(bundle, target, **facts):
    """The bundle with other facts about the first fold's weights in its table of contents."""
    shutil.copy(bundle, target)
    with zipfile.ZipFile(target, "a") as archive:
        info = archive.getinfo("fold_0/model.safetensors")
        for name, value in facts.items():
            setattr(info, name, value)
        archive._didModify = True
    return target


def test_a_bundle_predicts_like_its_folder(model, bundle):
    with opened_model(bundle) as other:
        assert other.folds == ("0", "1")
        assert other.configuration == model.configuration
        for mine, its in zip(model.networks(), other.networks(), strict=True):
            for a, b in zip(mine.state_dict().values(), its.state_dict().values(), strict=True):
                assert torch.equal(a, b)
    assert not other.path.exists()
    with opened_model(model.path) as same:
        assert same == model


def test_weights_in_half_precision_take_half_the_space_and_predict_alike(model, bundle, tmp_path):
    path = tmp_path / f"half{ENDING}"
    export_model(model, path, licence="CC-BY-4.0", half=True)
    assert path.stat().st_size < 0.65 * bundle.stat().st_size
    image = torch.randn(1, 1, 16, 16, 16)
    with opened_model(path) as other:
        for mine, its in zip(model.networks(), other.networks(), strict=True):
            assert {tensor.dtype for tensor in its.parameters()} == {torch.float32}
            with torch.no_grad():
                torch.testing.assert_close(its(image), mine(image), rtol=0.02, atol=0.02)
    unpack(path, tmp_path / "there")
    assert not [left for left in tmp_path.iterdir() if left.name.startswith(".")]


def test_weights_too_large_for_half_precision_are_refused(model, tmp_path):
    weights = model.weights(["0"])[0]
    tensors, facts = load_tensors(weights)
    tensors["head.weight"][0] = 1e5
    save_tensors(weights, tensors, facts)
    with pytest.raises(ModelError, match=r"larger ones in head\.weight; export without --half"):
        export_model(model, tmp_path / f"half{ENDING}", half=True)
    assert not (tmp_path / f"half{ENDING}").exists()


def test_it_says_where_it_comes_from_and_names_no_case(bundle, tmp_path):
    manifest = read_manifest(bundle)
    assert manifest.licence == "CC-BY-4.0"
    assert "not a medical device" in manifest.intended_use
    assert manifest.scores == ModelScores(n_cases=2, mean_dice=0.5)
    assert manifest.training["0"] == Training(steps=10, epochs=2, seed=4)
    assert b"Smith" not in bundle.read_bytes()
    unpack(bundle, tmp_path / "there")
    assert json.loads((tmp_path / "there" / "cross_validation.json").read_text())["mean_dice"] == 0.5


def test_only_the_folds_that_are_asked_for_travel(model, tmp_path):
    path = tmp_path / f"one{ENDING}"
    export_model(model, path, folds=["1"])
    with opened_model(path) as other:
        assert other.folds == ("1",)
    with pytest.raises(ModelError, match=r"expected folds among 0, 1, .* found 3"):
        export_model(model, path, folds=["3"])
    with pytest.raises(ModelError, match="ends in"):
        export_model(model, tmp_path / "model.zip")


def test_a_model_that_travels_on_keeps_licence_and_use(model, tmp_path):
    first, second = tmp_path / f"first{ENDING}", tmp_path / f"second{ENDING}"
    export_model(model, first, licence="Do good.\nDo nothing else.\n", intended_use="teaching")
    unpack(first, tmp_path / "there")
    again = export_model(open_model(tmp_path / "there"), second)
    assert (again.licence, again.intended_use) == ("Do good.", "teaching")
    with zipfile.ZipFile(second) as archive:
        assert archive.read("LICENSE") == b"Do good.\nDo nothing else.\n"
    assert export_model(model, tmp_path / f"plain{ENDING}").licence == "not stated"


@pytest.fixture
def localizer(model):
    """A coarser model beside it."""
    folder = model.path.parent / "lowres"
    coarse = makers.configuration(name="lowres", spacing_mm=(4.0, 4.0, 4.0))
    makers.write_model(folder, folds=("0", "1"), configurations=(coarse,))
    return open_model(folder)


def test_the_model_that_finds_the_spine_travels_along(model, localizer, tmp_path):
    assert find_localizer(model) == localizer
    path = tmp_path / f"both{ENDING}"
    export_model(model, path, localizer=localizer)
    with opened_model(path) as other:
        found = find_localizer(other)
        assert found.configuration == localizer.configuration
        assert found.folds == ("0",)  # the one that looks
        (mine,), (its,) = localizer.networks(["0"]), found.networks()
        for a, b in zip(mine.state_dict().values(), its.state_dict().values(), strict=True):
            assert torch.equal(a, b)
        again = tmp_path / f"again{ENDING}"
        export_model(other, again, localizer=found)
    assert read_manifest(again).finder == read_manifest(path).finder == "lowres"


def test_a_model_that_finds_the_spine_is_the_one_of_the_manifest(model, localizer, bundle, tmp_path):
    path = tmp_path / f"both{ENDING}"
    export_model(model, path, localizer=localizer)
    for told in (None, "fast"):
        other = restated(path, tmp_path / f"{told}{ENDING}", finder=told)
        with pytest.raises(FormatError, match="as the localizer in"):
            unpack(other, tmp_path / "there")
    with pytest.raises(FormatError, match=r"expected lowres as the localizer in .*, found None"):
        unpack(restated(bundle, tmp_path / f"none{ENDING}", finder="lowres"), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_model_that_is_there_is_not_replaced(bundle, model):
    with pytest.raises(ModelError, match="found one; move it away"):
        unpack(bundle, model.path)


@pytest.mark.parametrize(
    "name", ["../evil.json", "/etc/evil.json", "fold_0/evil.py", "fold_x/model.safetensors"]
)
def test_foreign_names_are_refused(bundle, tmp_path, name):
    other = tmp_path / f"evil{ENDING}"
    rewritten(bundle, other, lambda _, data: data)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr(name, b"{}")
    with pytest.raises(FormatError, match="plain uncompressed files of a model alone"):
        read_manifest(other)
    assert not (tmp_path / "evil.json").exists()


def restated(bundle, target, **facts):
    """The bundle with other facts in its manifest."""

    def changed(name, data):
        return json.dumps({**json.loads(data), **facts}) if name == "manifest.json" else data

    return rewritten(bundle, target, changed)


@pytest.mark.parametrize("key", ["dataset", "configuration"])
@pytest.mark.parametrize(
    "name", ["../../outside", "/outside", "..", ".", "", ".hidden", "a/b", "a\\b", "a\n"]
)
def test_a_model_is_imported_into_the_workspace_alone(bundle, tmp_path, key, name):
    place = tmp_path / "place" / "workspace"
    place.mkdir(parents=True)
    other = restated(bundle, tmp_path / f"other{ENDING}", **{key: name})
    result = CliRunner().invoke(commands, ["import", str(other), "--workspace", str(place)])
    assert isinstance(result.exception, FormatError)
    assert re.search(
        r"whose names can be folders' in .*other.autospine, found '.*do not use", str(result.exception)
    )
    assert list(place.parent.rglob("*")) == [place]


@pytest.mark.parametrize(
    ("facts", "where"),
    [
        ({"scores": {"n_cases": 1, "classes": [1]}}, "scores.classes"),
        ({"scores": {"n_cases": 1, "modalities": {"CT": 3}}}, "scores.modalities.CT"),
        ({"scores": {"n_cases": 1, "mean_dice": "x"}}, "scores.mean_dice"),
        ({"scores": {"n_cases": 1, "cases": {}}}, "scores.cases"),
        ({"training": {"0": {"minutes": "x"}}}, "training.0.minutes"),
        ({"training": {"0": 3}}, "training.0"),
    ],
)
def test_scores_and_training_of_nonsense_are_refused(bundle, tmp_path, facts, where):
    with pytest.raises(
        FormatError, match=rf"expected the description of a model in .*manifest\.json, found {where} is "
    ):
        read_manifest(restated(bundle, tmp_path / f"other{ENDING}", **facts))


def test_scores_of_nonsense_in_a_model_folder_are_refused(model):
    for text in ("[1]", '{"n_cases": 2, "mean_dice": "x"}', "{"):
        (model.path / "cross_validation.json").write_text(text, encoding="utf-8")
        with pytest.raises(FormatError, match=r"in .*cross_validation\.json, found"):
            describe(model)


def test_whatever_cross_validation_says_is_exported_without_its_cases(model):
    """Spreads, confusions and post-processed scores stay at home."""
    cases = tuple(
        CaseScores(
            case=f"patient{i}",
            classes=("bone",),
            counts=(Counts(tp=i, fp=1, fn=1),),
            foreground=Counts(tp=i, fp=1, fn=1),
            confusion=np.asarray([[9, 1], [1, i]]),
            modality="CT",
            site="north",
        )
        for i in (2, 3)
    )
    described = describe_evaluation(Evaluation(classes=("bone",), cases=cases))
    write_json(model.path / "cross_validation.json", described | {"postprocessed": None, "folds": {}})
    scores = describe(model).scores
    assert scores.classes["bone"].dice == pytest.approx(described["mean_dice"])
    assert "patient" not in to_json(scores)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "3"])
def test_a_description_of_nonsense_is_not_exported(model, tmp_path, text):
    (model.path / "dataset.json").write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=r"as JSON in .*dataset\.json.*restore it"):
        export_model(model, tmp_path / f"other{ENDING}", licence="MIT")


def test_nothing_in_a_bundle_steers_the_terminal(bundle, tmp_path, capsys):
    evil = "\x1b]0;owned\x07\x1b[2Jgood\x9b31m\u202e"
    other = restated(bundle, tmp_path / f"other{ENDING}", licence=evil, intended_use=evil)
    assert main(["model", "info", str(other)]) == 0
    assert main(["model", "info", str(restated(other, tmp_path / f"b{ENDING}", format_version=evil))]) == 1
    shown, said = capsys.readouterr()
    for text in (shown, said):
        assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert "[2Jgood" in shown


def test_names_that_could_not_be_imported_are_not_exported(tmp_path):
    makers.write_model(tmp_path / "model", dataset="Dataset007_a,b")
    with pytest.raises(ModelError, match=r"found 'Dataset007_a,b'; rename them in its plan\.json"):
        export_model(open_model(tmp_path / "model"), tmp_path / f"model{ENDING}")


@pytest.mark.parametrize("facts", [{"dataset": "Dataset008_Other"}, {"configuration": "lowres"}])
def test_a_plan_that_is_not_the_manifests_is_refused_before_the_folder_is_there(bundle, tmp_path, facts):
    other = restated(bundle, tmp_path / f"other{ENDING}", **facts)
    with pytest.raises(
        FormatError, match=r"other\.autospine, found that of Dataset007_Small, fullres; export"
    ):
        unpack(other, tmp_path / "there" / "model")
    assert list((tmp_path / "there").iterdir()) == []


def test_links_and_compressed_entries_are_refused(bundle, tmp_path):
    link = zipfile.ZipInfo("LICENSE")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    for number, (entry, how) in enumerate(((link, zipfile.ZIP_STORED), ("LICENSE", zipfile.ZIP_DEFLATED))):
        other = rewritten(
            bundle, tmp_path / f"{number}{ENDING}", lambda name, data: None if name == "LICENSE" else data
        )
        with zipfile.ZipFile(other, "a") as archive:
            archive.writestr(entry, b"0" * 100_000, compress_type=how)
        with pytest.raises(FormatError, match=r"plain uncompressed files of a model alone.* found LICENSE"):
            unpack(other, tmp_path / "there")


def test_a_changed_byte_is_noticed(bundle, tmp_path):
    def flipped(name, data):
        return data[:-1] + bytes([data[-1] ^ 1]) if name.endswith(".safetensors") else data

    other = rewritten(bundle, tmp_path / f"changed{ENDING}", flipped)
    with pytest.raises(FormatError, match=r"fold_0/model.safetensors in .* found other bytes"):
        unpack(other, tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"changed{ENDING}",
        f"model{ENDING}",
        "results",
    ]


def test_files_that_the_manifest_does_not_state_are_refused(bundle, tmp_path):
    longer = rewritten(
        bundle, tmp_path / f"a{ENDING}", lambda name, data: data + b" " if name == "plan.json" else data
    )
    fewer = rewritten(
        bundle, tmp_path / f"b{ENDING}", lambda name, data: data if name != "plan.json" else None
    )
    for other in (longer, fewer):
        with pytest.raises(FormatError, match=r"a difference in plan\.json"):
            read_manifest(other)


def test_every_name_comes_once(bundle, tmp_path):
    other = rewritten(bundle, tmp_path / f"twice{ENDING}", lambda _, data: data)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(other, "a") as archive:
        archive.writestr("plan.json", b"{}")
    with pytest.raises(FormatError, match=r"every name once in .*, found plan\.json; copy or export"):
        read_manifest(other)


def test_entries_without_end_are_refused_in_a_few_words(bundle, tmp_path):
    other = rewritten(bundle, tmp_path / f"many{ENDING}", lambda _, data: data)
    with zipfile.ZipFile(other, "a") as archive:
        for number in range(100, 3100):
            archive.writestr(f"fold_{number}/model.safetensors", b"")
    with pytest.raises(FormatError, match=r"a difference in fold_100/.* and 2997 more; copy") as refusal:
        read_manifest(other)
    assert len(str(refusal.value)) < 500
    with zipfile.ZipFile(other, "a") as archive:
        for number in range(3000):
            archive.writestr(f"{number:0500}.exe", b"")
    with pytest.raises(FormatError, match=r"found 0000.* and 2997 more; do not use it") as refusal:
        read_manifest(other)
    assert len(str(refusal.value)) < 1000


def test_what_would_grow_when_it_is_unpacked_is_refused(bundle, tmp_path):
    """By compression, by a size that is not true, and by several entries made of the same bytes."""
    packed = rewritten(bundle, tmp_path / f"a{ENDING}", lambda name, data: data)
    bomb = zipfile.ZipInfo("fold_7/model.safetensors")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(packed, "a") as archive, archive.open(bomb, "w", force_zip64=True) as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
    assert packed.stat().st_size < bundle.stat().st_size + (1 << 17)
    lying = patched(bundle, tmp_path / f"b{ENDING}", file_size=1 << 30, compress_size=1 << 30)
    for other, found in (
        (packed, "fold_7/model.safetensors"),
        (lying, "entries larger than the file itself"),
    ):
        with pytest.raises(FormatError, match=rf"plain uncompressed files .* found {found}; do not use it"):
            unpack(other, tmp_path / "there")
    same = patched(bundle, tmp_path / f"c{ENDING}", header_offset=0)
    with pytest.raises(FormatError, match="found no whole"):
        unpack(same, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_encrypted_entries_are_refused(bundle, tmp_path):
    other = patched(bundle, tmp_path / f"other{ENDING}", flag_bits=1)
    with pytest.raises(FormatError, match=r"plain uncompressed files of a model alone"):
        unpack(other, tmp_path / "there")


@pytest.mark.parametrize("manifest", [b"[" * 100_000, b"[]", b"", b"\xff\xfe{\x00}\x00", b" " * (2 << 20)])
def test_a_manifest_of_nonsense_is_refused(bundle, tmp_path, manifest):
    other = rewritten(
        bundle, tmp_path / f"other{ENDING}", lambda name, data: manifest if name == "manifest.json" else data
    )
    with pytest.raises(FormatError, match=r"expected (JSON as manifest\.json|a manifest of at most)"):
        read_manifest(other)


@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.999])
def test_what_is_cut_short_is_refused(bundle, tmp_path, kept):
    other = tmp_path / f"cut{ENDING}"
    whole = bundle.read_bytes()
    other.write_bytes(whole[: int(kept * len(whole))])
    with (
        pytest.raises(FormatError, match=r"found no whole \.autospine file .*; copy or export it again"),
        opened_model(other),
    ):
        pass


def test_a_full_disk_is_no_damaged_bundle(bundle, tmp_path, monkeypatch):
    def full(path, *how, **more):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(WorkspaceError, match=r"expected room to write .*No space left.*; free some space"):
        unpack(bundle, tmp_path / "there")
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"model{ENDING}", "results"]


def test_a_place_that_cannot_be_written_to_is_no_damaged_bundle(model, bundle, tmp_path, monkeypatch):
    taken = tmp_path / "taken"
    taken.write_text("")
    unwritable = "expected to write .*taken.* found .*; mend the folder's permissions"
    with pytest.raises(WorkspaceError, match=unwritable):
        unpack(bundle, taken / "model")
    with pytest.raises(WorkspaceError, match=unwritable):
        export_model(model, taken / f"model{ENDING}")
    monkeypatch.setattr(tempfile, "tempdir", str(taken))
    with pytest.raises(WorkspaceError, match=r"expected to write .*, found.*TMPDIR"), opened_model(bundle):
        pass

    def failing(path, *how, **more):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(WorkspaceError, match=r"expected to write .*there, found .*Input/output error"):
        unpack(bundle, tmp_path / "there")


def test_licences_are_names_files_and_texts_of_any_length(model, tmp_path):
    path, file = tmp_path / f"travels{ENDING}", tmp_path / "LICENCE.txt"

    def run(licence):
        return CliRunner().invoke(
            commands, ["export", "-m", str(model.path), "-o", str(path), "--licence", licence]
        )

    file.write_text("\n", encoding="utf-8")
    for empty in ("", "  ", str(file)):
        assert isinstance(run(empty).exception, ModelError)
    file.write_bytes(b"\xff")
    assert isinstance(run(str(file)).exception, FormatError)
    assert not path.exists()
    assert run("Do good. " * 1000).exit_code == 0
    assert read_manifest(path).licence.startswith("Do good. Do")


@pytest.mark.parametrize(("version", "mend"), [(3, "update AutoSpine"), (0, "export the model again")])
def test_other_versions_say_what_to_do(bundle, tmp_path, version, mend):
    def renumbered(name, data):
        return (
            json.dumps({**json.loads(data), "format_version": version}) if name == "manifest.json" else data
        )

    other = rewritten(bundle, tmp_path / f"other{ENDING}", renumbered)
    with pytest.raises(FormatError, match=rf"found {version}; {mend}"):
        read_manifest(other)


def _without(tensors, name):
    del tensors[name]


def _put(tensors, name, value):
    tensors[name] = value


UNLOADABLE = {
    "a tensor too few": (lambda tensors, name: _without(tensors, name), "Missing key"),
    "a tensor too many": (lambda tensors, name: _put(tensors, "head.more", torch.zeros(1)), "Unexpected key"),
    "another shape": (
        lambda tensors, name: _put(tensors, name, torch.cat([tensors[name]] * 2)),
        "size mismatch",
    ),
    "another type": (
        lambda tensors, name: _put(tensors, name, tensors[name].bfloat16()),
        "of torch.float32 .*found torch.bfloat16",
    ),
    "integers": (lambda tensors, name: _put(tensors, name, tensors[name].to(torch.int8)), "found torch.int8"),
    "NaN": (lambda tensors, name: tensors[name].view(-1)[-1:].fill_(torch.nan), "expected finite weights"),
    "infinity": (
        lambda tensors, name: tensors[name].view(-1)[:1].fill_(torch.inf),
        "or infinity in 1 tensor",
    ),
    "none at all": (lambda tensors, name: tensors.clear(), "Missing key"),
}


@pytest.mark.parametrize("kind", UNLOADABLE)
@pytest.mark.parametrize("which", ["second fold", "localizer"])
def test_weights_that_cannot_be_loaded_are_not_imported(model, localizer, tmp_path, kind, which, capsys):
    """Though every size and hash in the bundle is right."""
    change, says = UNLOADABLE[kind]
    path = (model.weights(["1"]) if which == "second fold" else localizer.weights(["0"]))[0]
    tensors, facts = load_tensors(path)
    change(tensors, max(tensors, key=lambda name: tensors[name].numel()))
    save_tensors(path, tensors, facts)
    bundle, place = tmp_path / f"odd{ENDING}", tmp_path / "place"
    place.mkdir()
    export_model(model, bundle, localizer=localizer)
    assert main(["model", "import", str(bundle), "-w", str(place)]) == 1
    shown, said = capsys.readouterr()
    assert shown == ""
    assert re.search(says, said), said
    assert re.search(rf"odd{ENDING}.*; (copy|train|use)", said) and len(said.splitlines()) == 1
    assert [each for each in place.rglob("*") if each.is_file()] == []


def test_weights_of_a_plan_that_builds_no_network_are_not_imported(bundle, tmp_path):
    """Whatever the plan's numbers do to the network's code."""
    for number, (text, other) in enumerate((("feature_size", -8), ("feature_size", 10**30))):
        _import_with_plan(bundle, tmp_path / f"{number}{ENDING}", {text: other}, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def _import_with_plan(bundle, target, changes, folder):
    """Refuse a bundle whose plan was changed, and its hash with it."""
    plan = json.loads(zipfile.ZipFile(bundle).read("plan.json"))
    plan["configurations"][0]["network"] |= changes
    data = json.dumps(plan).encode()
    entry = {"bytes": len(data), "sha256": sha256_of([data])}

    def changed(name, content):
        if name == "manifest.json":
            manifest = json.loads(content)
            manifest["files"]["plan.json"] = entry
            return json.dumps(manifest)
        return data if name == "plan.json" else content

    with pytest.raises(AutospineError):
        unpack(rewritten(bundle, target, changed), folder)


def test_weights_that_are_not_finite_predict_nothing(model):
    path = model.weights(["0"])[0]
    tensors, facts = load_tensors(path)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_tensors(path, tensors, facts)
    with pytest.raises(ModelError, match=r"expected finite weights in .*fold_0.* such as .*; train"):
        model.networks(["0"])
    assert model.networks(["1"])


def test_scores_and_archives_of_earlier_versions_tell_the_recall(model, bundle, tmp_path):
    """They call it `acc`, in the means and in each class."""
    earlier = {
        "n_cases": 2,
        "mean_dice": 0.5,
        "mean_acc": 0.75,
        "classes": {"rib": {"dice": 0.5, "acc": 0.75, "n_cases": 2}},
        "sites": {"a": {"n_cases": 2, "mean_acc": 0.25, "classes": {"rib": {"acc": 0.25}}}},
    }
    write_json(model.path / "cross_validation.json", earlier)

    def as_before(name, data):
        if name != "manifest.json":
            return data
        return json.dumps({**json.loads(data), "format_version": 1, "scores": earlier})

    for scores in (
        describe(model).scores,
        read_manifest(rewritten(bundle, tmp_path / f"earlier{ENDING}", as_before)).scores,
    ):
        assert scores.mean_recall == scores.classes["rib"].recall == 0.75
        assert scores.sites["a"].mean_recall == scores.sites["a"].classes["rib"].recall == 0.25


def test_names_of_sites_are_said_and_left_out_on_request(model, tmp_path, capsys):
    sites = {"St Mary's": {"n_cases": 2, "mean_dice": 0.5}}
    write_json(model.path / "cross_validation.json", {"n_cases": 2, "mean_dice": 0.5, "sites": sites})
    with_, without = tmp_path / f"with{ENDING}", tmp_path / f"without{ENDING}"
    assert main(["model", "export", "-m", str(model.path), "-o", str(with_)]) == 0
    assert "it names sites: St Mary's; leave them out with --no-sites" in capsys.readouterr().out
    assert main(["model", "export", "-m", str(model.path), "-o", str(without), "--no-sites"]) == 0
    assert "names sites" not in capsys.readouterr().out
    assert b"Mary" in with_.read_bytes() and b"Mary" not in without.read_bytes()
    assert read_manifest(without).scores == ModelScores(n_cases=2, mean_dice=0.5)


KILLED = """
import os, pathlib, signal, sys
from autospine.models import archive
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # all is unpacked by then
archive.unpack(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_an_import_that_was_killed_before_the_name_leaves_no_model(model, bundle, tmp_path):
    workspace = Workspace(root=tmp_path)
    folder = tmp_path / "results" / model.plan.dataset / "imported"
    subprocess.run([sys.executable, "-c", KILLED, str(bundle), str(folder)], check=False)
    (left,) = folder.parent.iterdir()
    assert list(left.rglob("model.safetensors"))
    assert workspace.last_models()[0] == model.path
    unpack(bundle, folder)
    assert list(folder.parent.iterdir()) == [folder]
    assert workspace.last_models()[0] == folder


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_the_copy_of_a_prediction_that_was_killed_is_removed_by_the_next(bundle, tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    subprocess.run([sys.executable, "-c", KILLED_OPEN, str(bundle)], check=False)
    (left,) = place.iterdir()
    with opened_model(bundle) as one, opened_model(bundle) as other:
        assert not left.exists()
        assert one.path.is_dir() and other.path.is_dir()  # neither takes the other's for a leftover
    assert list(place.iterdir()) == []


KILLED_OPEN = """
import os, pathlib, signal, sys
from autospine.models.archive import opened_model
with opened_model(pathlib.Path(sys.argv[1])) as model:
    assert model.networks()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_errors_and_records_name_the_bundle_and_not_where_it_was_unpacked(bundle, model, tmp_path):
    def broken():
        with opened_model(bundle) as opened:
            assert opened.name == str(bundle)
            opened.weights()[0].write_bytes(b"nothing")
            opened.networks()

    with pytest.raises(FormatError, match=r"model\.autospine/fold_0/model\.safetensors") as raised:
        broken()
    assert tempfile.gettempdir() + "/.autospine-" not in str(raised.value)
    assert model.name == str(model.path)


def test_a_model_of_another_version_is_named(model):
    plan = model.path / "plan.json"
    plan.write_text(plan.read_text().replace('"format_version": 1', '"format_version": 0'))
    with pytest.raises(PlanError, match=r"a model of this AutoSpine in .*fullres, found another's: expected"):
        open_model(model.path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / f"pipe{ENDING}")
    with pytest.raises(FormatError, match="a named pipe instead of a file; mend that"):
        unpack(tmp_path / f"pipe{ENDING}", tmp_path / "model")


def test_what_is_no_zip_is_no_bundle(bundle, tmp_path):
    cut = tmp_path / f"cut{ENDING}"
    cut.write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"no whole \.autospine file"):
        read_manifest(cut)


def test_the_commands_export_describe_and_import(model, tmp_path):
    def run(*words):
        result = CliRunner().invoke(commands, [*map(str, words)])
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    path, other = tmp_path / f"travels{ENDING}", tmp_path / "elsewhere"
    other.mkdir()
    licence = tmp_path / "LICENCE.txt"
    licence.write_text("Do good\nwith it.\n", encoding="utf-8")
    run("export", "-m", model.path, "-o", path, "--licence", licence)
    shown = run("info", path)
    assert "Dice 0.500 over 2 held-out cases" in shown
    assert "licence Do good" in shown
    assert re.search(r"exported \d{4}-\d\d-\d\d \d\d:\d\d UTC, AutoSpine", shown)
    assert "trained by" not in shown  # which this model does not know
    assert "class integer bone 3 canal 7" in shown  # no columns of scores that there are not
    run("import", path, "--workspace", other)
    folder = other / "results" / model.plan.dataset / model.configuration.name
    assert open_model(folder).folds == ("0", "1")
    assert (folder / "LICENSE").read_text(encoding="utf-8") == "Do good\nwith it.\n"
    assert "licence Do good" in run("info", folder)
