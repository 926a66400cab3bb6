import argparse
import os
import pickle

import numpy as np
import pytest
import torch
from checkpoints import as_monai, as_self_supervised, small
from safetensors.torch import save_file

from autospine.core.errors import FormatError
from autospine.network import load_monai_file
from autospine.network.weights.file import RECORD_SINCE_2025, read_weights

TENSORS = {"a": torch.arange(4.0), "b": torch.ones(2, 3).bfloat16()}


class Code:
    """Unpickling it would run a command."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def assert_read(path, is_old: bool) -> None:
    found = read_weights(path)
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensor, TENSORS[name]) for name, tensor in found.tensors.items())
    assert found.is_old == is_old


def test_state_dicts_checkpoints_and_safetensors_are_read(tmp_path):
    path = tmp_path / "weights.pt"
    for content in (TENSORS, {"state_dict": TENSORS, "epoch": 1}, {"model": {"state_dict": TENSORS}}):
        torch.save(content, path)
        assert_read(path, is_old=False)
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    assert_read(path, is_old=True)
    save_file(TENSORS, tmp_path / "weights.safetensors")
    assert_read(tmp_path / "weights.safetensors", is_old=False)


def test_scores_of_numpy_beside_the_weights_do_no_harm(tmp_path):
    """As the fine-tuning scripts of SwinUNETR write their best score."""
    path = tmp_path / "model.pt"
    torch.save({"state_dict": TENSORS, "best_acc": np.float64(0.8), "mean": np.float32(1)}, path)
    assert_read(path, is_old=False)


@pytest.mark.parametrize("kind", ["zip", "old", "plain"])
def test_code_is_not_run(tmp_path, kind):
    path, traces = tmp_path / "model.pt", tmp_path / "traces"
    content = {"state_dict": TENSORS, "hook": Code(traces)}
    if kind == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(FormatError, match="expected"):
        read_weights(path)
    assert not traces.exists()


def test_what_could_run_code_is_named(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"state_dict": TENSORS, "hook": Code(tmp_path / "traces")}, path)
    with pytest.raises(FormatError, match=r"nothing but tensors in .*model\.pt, found posix\.system"):
        read_weights(path)
    torch.save({"state_dict": TENSORS, "args": argparse.Namespace(a=1)}, path)
    with pytest.raises(FormatError, match=r"found argparse\.Namespace.* save its state dict alone"):
        read_weights(path)
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(FormatError, match=r"found torch\.nn\.modules\.linear\.Linear"):
        read_weights(path)


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(TENSORS, path)
    whole = path.read_bytes()
    noise = np.random.default_rng(0).bytes(300)
    for content in (
        b"",
        b"hello",
        noise,
        b"\x80\x02" + noise,
        whole[: len(whole) // 2],
        b"PK\x03\x04" + noise,
    ):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"weights\.pt"):
            read_weights(path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"hello")
    with pytest.raises(FormatError, match=r"expected safetensors in .*weights\.safetensors"):
        read_weights(path)
    for absent in (tmp_path, tmp_path / "absent.pt"):
        with pytest.raises(FormatError, match="expected a file of weights"):
            read_weights(absent)


def test_files_without_weights_are_refused(tmp_path):
    path = tmp_path / "weights.pt"
    for content, found in (({"epoch": 1}, "only epoch"), ({}, "only nothing"), ([1, 2], "none")):
        torch.save(content, path)
        with pytest.raises(FormatError, match=f"expected named tensors in .*, found {found}"):
            read_weights(path)


def test_the_file_tells_its_merge_order(tmp_path):
    source, path = small(), tmp_path / "model.pt"
    torch.save({"state_dict": as_monai(source)}, path)
    assert load_monai_file(small(), path).merge_order == "fixed"
    without_record(path)
    report = load_monai_file(small(merge_order="legacy"), path)
    assert report.merge_order == "legacy"
    assert "before 2025 only" in report.merge_reason
    assert load_monai_file(small(), path, merge_order="fixed").merge_order == "fixed"
    torch.save({"state_dict": as_self_supervised(source)}, path)
    assert load_monai_file(small(merge_order="legacy"), path).merge_order == "legacy"


def without_record(path) -> None:
    """Give the entry by which newer files are known another name, of the same length."""
    name = RECORD_SINCE_2025.encode()
    path.write_bytes(path.read_bytes().replace(name, b".formbt_version"))
