import pickle
from multiprocessing.reduction import ForkingPickler

import makers
import pytest
import torch
from checkpoints import save_import

from autospine.core.errors import FormatError, ModelError, TrainingError
from autospine.core.labels import parse_labels
from autospine.models.model_folder import save_weights
from autospine.plan import Plan, build_network
from autospine.storage.serialization import write_json
from trainers import initial_weights as pretrained
from trainers.initial_weights import load_initial_weights

OTHER_LABELS = parse_labels({"background": 0, "disc": 1, "cord": 2})


def model(folder, plan: Plan, *folds: str):
    """A model folder whose folds have weights of their own."""
    write_json(folder / "plan.json", plan)
    for seed, fold in enumerate(folds):
        torch.manual_seed(seed)
        save_weights(folder / f"fold_{fold}", build_network(plan, plan.configurations[0]), {})
    return folder


def start(path, plan: Plan):
    return load_initial_weights(path, plan, plan.configurations[0])


def test_a_model_of_the_same_labels_is_taken_whole(tmp_path):
    plan = makers.plan()
    found = start(model(tmp_path / "m", plan, "0"), plan)
    assert found.tensors.keys() == build_network(plan, plan.configurations[0]).state_dict().keys()
    assert "100.0%" in found.report
    assert "anew" not in found.report


def test_the_head_is_drawn_anew_for_other_labels_of_the_same_number(tmp_path):
    found = start(model(tmp_path / "m", makers.plan(), "0"), makers.plan(labels=OTHER_LABELS))
    assert not any(name.startswith("head.") for name in found.tensors)
    assert found.report.endswith("drawn anew: head.weight, head.bias")


def test_a_network_of_others_loses_what_has_an_output_for_each_class(tmp_path, monkeypatch):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3), torch.nn.Conv3d(8, 3, 1))
    monkeypatch.setattr(pretrained, "build_network", lambda *_: network)
    plan = makers.plan()
    assert plan.labels.n_channels == 3
    write_json(tmp_path / "m" / "plan.json", plan)
    save_weights(tmp_path / "m" / "fold_0", network, {})
    assert start(tmp_path / "m", plan).tensors.keys() == network.state_dict().keys()
    assert start(tmp_path / "m", makers.plan(labels=OTHER_LABELS)).tensors.keys() == {"0.weight", "0.bias"}


def test_the_first_layer_is_drawn_anew_for_other_channels(tmp_path):
    found = start(model(tmp_path / "m", makers.plan(), "0"), makers.plan(channels=("T1", "T2")))
    assert "embedding" in found.report.partition("drawn anew")[2]
    assert "head.weight" in found.tensors


def test_the_full_fold_comes_first_unless_one_is_named(tmp_path):
    plan = makers.plan()
    folder = model(tmp_path / "m", plan, "0", "1", "full")
    whole, named = start(folder, plan), start(folder / "fold_1", plan)
    assert "fold full" in whole.report
    assert "fold 1" in named.report
    assert whole.digest != named.digest
    assert named.digest == start(folder / "fold_1", plan).digest


def test_another_network_is_refused_and_so_is_what_is_no_model(tmp_path):
    wide = makers.plan(makers.configuration(network=makers.network_plan(feature_size=16)))
    with pytest.raises(TrainingError, match="plan with its --feature-size"):
        start(model(tmp_path / "m", makers.plan(), "0"), wide)
    (tmp_path / "m" / "fold_3").mkdir()
    with pytest.raises(ModelError, match="found 3"):
        start(tmp_path / "m" / "fold_3", makers.plan())
    with pytest.raises(ModelError, match=r"model folder with plan\.json"):
        start(tmp_path, makers.plan())
    with pytest.raises(FormatError, match="give a model folder"):
        start(tmp_path / "absent", makers.plan())


def test_initial_weights_reach_another_process_as_bytes(tmp_path):
    plan = makers.plan()
    path = save_import(tmp_path / "imported.safetensors", seed=0)
    made = load_initial_weights(path, plan, plan.configurations[0])
    copy = pickle.loads(ForkingPickler.dumps(made))
    assert (copy.digest, copy.dataset, copy.report) == (made.digest, made.dataset, made.report)
    assert copy.tensors.keys() == made.tensors.keys()
    assert all(torch.equal(copy.tensors[name], tensor) for name, tensor in made.tensors.items())
