import os

import makers
import pytest
import torch
from safetensors.torch import save_file

from autospine.core.errors import FormatError
from autospine.plan import build_network
from autospine.storage.tensors import (
    flatten_optimizer,
    load_facts,
    load_tensors,
    restore_optimizer,
    save_tensors,
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "fold_0" / "model.safetensors"
    save_tensors(path, {"a": torch.arange(64.0), "b": torch.ones(3, 4)}, {"fold": "0"})
    return path


def test_tensors_and_facts_come_back(tmp_path):
    tensors = {
        "float": torch.randn(2, 3, 4),
        "half": torch.randn(5).bfloat16(),
        "integer": torch.tensor(7),
        "flags": torch.tensor([True, False]),
        "bytes": torch.get_rng_state(),
        "empty": torch.zeros(0, 3),
        "turned": torch.randn(3, 5).T,
        "channels_last": torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d),
        "learnt": torch.nn.Parameter(torch.randn(2)),
    }
    facts = {"fold": "0", "steps": 12, "progress": 0.1, "names": ["Wirbelkörper", None], "nested": {"a": 1}}
    save_tensors(tmp_path / "x.safetensors", tensors, facts)
    found, told = load_tensors(tmp_path / "x.safetensors")
    assert told == facts == load_facts(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach())


def test_a_truncated_file_is_refused_wherever_it_ends(saved):
    whole = saved.read_bytes()
    for length in (0, 1, 7, 8, 20, len(whole) // 2, len(whole) - 1):
        saved.write_bytes(whole[:length])
        with pytest.raises(FormatError, match=r"model\.safetensors"):
            load_tensors(saved)


def test_a_changed_byte_is_noticed(saved):
    whole = saved.read_bytes()
    for place in (-1, -64 * 4, -70 * 4):
        changed = bytearray(whole)
        changed[place] ^= 4
        saved.write_bytes(changed)
        with pytest.raises(FormatError, match=r"model\.safetensors, found some that changed"):
            load_tensors(saved)
    saved.write_bytes(whole)
    assert load_facts(saved) == {"fold": "0"}


def test_files_without_a_checksum_are_read(tmp_path):
    header = {"format_version": "1", "facts": "{}"}
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors", metadata=header)
    assert load_tensors(tmp_path / "x.safetensors")[0]["a"].tolist() == [1, 1]


def test_missing_files_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "absent.safetensors", tmp_path, tmp_path / "pipe.safetensors"):
        with pytest.raises(FormatError, match="expected weights at"):
            load_tensors(path)


def test_foreign_files_are_refused(tmp_path):
    pickled, plain, other, bare, broken = (tmp_path / f"{name}.safetensors" for name in "abcde")
    torch.save({"a": torch.ones(2)}, pickled)
    save_file({"a": torch.ones(2)}, plain)
    save_file({"a": torch.ones(2)}, other, metadata={"format_version": "99", "facts": "{}"})
    save_file({"a": torch.ones(2)}, bare, metadata={"format_version": "1"})
    save_file({"a": torch.ones(2)}, broken, metadata={"format_version": "1", "facts": "{"})
    for path, message in (
        (pickled, "train or copy"),
        (plain, "found None"),
        (other, "found 99"),
        (bare, "d.safetensors"),
        (broken, "e.safetensors"),
    ):
        with pytest.raises(FormatError, match=message):
            load_tensors(path)


@pytest.mark.parametrize("facts", ["[" * 100_000, "[]", "3"])
def test_facts_of_nonsense_are_refused(tmp_path, facts):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={"format_version": "1", "facts": facts})
    for read in (load_tensors, load_facts):
        with pytest.raises(FormatError, match=r"facts in the header of .*x\.safetensors, found none; train"):
            read(path)


def test_what_cannot_be_saved_leaves_the_old_file(saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError):
        save_tensors(saved, {"a": torch.ones(1)}, {"device": torch.device("cpu")})
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_an_optimiser_goes_on_where_it_was(tmp_path):
    """Two steps in one go equal one step, a checkpoint, and one step."""

    def fresh():
        torch.manual_seed(0)
        network = build_network(makers.plan(), makers.configuration())
        groups = [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.1},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return network, torch.optim.AdamW(groups, lr=1e-2, fused=True)

    def step(network, optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(noise)
        optimizer.step()

    network, optimizer = fresh()
    step(network, optimizer, 1)
    weights = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    save_tensors(tmp_path / "x.safetensors", {**weights, **flatten_optimizer(optimizer)}, {})
    step(network, optimizer, 2)

    again, other = fresh()
    tensors, _ = load_tensors(tmp_path / "x.safetensors")
    again.load_state_dict(
        {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
    )
    restore_optimizer(other, tensors)
    step(again, other, 2)
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0, msg=name)
