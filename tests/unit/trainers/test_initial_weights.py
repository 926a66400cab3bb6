import pickle
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler

import makers
import pytest
import torch
from checkpoints import save_import

from autospine.core.errors import FormatError, ModelError, TrainingError
from autospine.core.labels import parse_labels
from autospine.models.model_export import export_model
from autospine.models.model_folder import open_model, save_weights
from autospine.network.unet_plans import UNetPlan
from autospine.plan import Plan, build_network
from autospine.storage.serialization import write_json
from autospine.storage.tensors import load_tensors
from trainers import initial_weights, weight_mapping
from trainers.initial_weights import load_initial_weights
from trainers.learner import Learner
from trainers.optimizer import IMPORTED_SHARE

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
    assert "100 % of the weights" in found.report
    assert "anew" not in found.report
    assert found.share == IMPORTED_SHARE


def test_the_head_is_drawn_anew_for_other_labels_of_the_same_number(tmp_path):
    found = start(model(tmp_path / "m", makers.plan(), "0"), makers.plan(labels=OTHER_LABELS))
    assert not any(name.startswith("head.") for name in found.tensors)
    assert found.report.endswith("begin at random: head (2 tensors)")
    assert "none of its classes is taken (bone, canal)" in found.report


def outputs(path, plan: Plan, image):
    """The logits of the network that begins from the model, by class."""
    found = start(path, plan)
    network = build_network(plan, plan.configurations[0]).eval()
    network.load_state_dict({**network.state_dict(), **found.tensors})
    with torch.no_grad():
        return dict(zip(plan.labels.channel_names, network(image)[0], strict=True)), found.report


NETWORKS = {
    "adaptive Swin UNETR": makers.network_plan(),
    "Swin UNETR without fusion": makers.network_plan(fusion=None),
    "3D U-Net": UNetPlan(
        name="unet3d",
        features=(8, 16),
        strides=((1, 1, 1), (2, 2, 2)),
        kernels=((3, 3, 3),) * 2,
        checkpointing=False,
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_and_classes_are_taken_by_name(tmp_path, name):
    """T1w, T2w into T2w, T1w, and bone, canal into Canal, bone, of other integers: the same logits."""
    configuration = makers.configuration(network=NETWORKS[name])
    theirs = makers.plan(configuration, channels=("T1w", "T2w"))
    ours = makers.plan(
        configuration,
        channels=("t2w", "T1w"),
        labels=parse_labels({"background": 0, "Canal": 1, "bone": 2}),
    )
    folder = model(tmp_path / "m", theirs, "0")
    image = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    before, _ = outputs(folder, theirs, image)
    after, report = outputs(folder, ours, image.flip(1))
    for mine, its in {"background": "background", "Canal": "canal", "bone": "bone"}.items():
        torch.testing.assert_close(after[mine], before[its], rtol=1e-4, atol=1e-5)
    assert "its channels are T1w, T2w, those of this dataset t2w, T1w: they are taken by name" in report
    assert "its classes Canal, bone are taken by name" in report
    assert "anew" not in report


def test_of_several_channels_those_are_taken_that_are_there(tmp_path):
    theirs, ours = makers.plan(channels=("T1w", "T2w", "FLAIR")), makers.plan(channels=("T2w",))
    folder = model(tmp_path / "m", theirs, "0")
    weights = load_tensors(folder / "fold_0" / "model.safetensors")[0]
    found = start(folder, ours)
    assert "taken by name" in found.report and "anew" not in found.report
    read = {name for name, tensor in found.tensors.items() if tensor.shape != weights[name].shape}
    assert read
    for name in read:
        (axis,) = (n for n in range(5) if found.tensors[name].shape[n] != weights[name].shape[n])
        torch.testing.assert_close(found.tensors[name], weights[name].narrow(axis, 1, 1))


def test_channels_that_the_model_lacks_are_not_taken_from_others(tmp_path):
    found = start(
        model(tmp_path / "m", makers.plan(channels=("T1w", "T2w")), "0"), makers.plan(channels=("T1w", "CT"))
    )
    assert "those of this dataset T1w, CT: the weights that read them begin at random" in found.report
    assert not any(tensor.ndim == 5 and tensor.shape[1] == 2 for tensor in found.tensors.values())


def test_a_single_channel_is_taken_and_another_modality_said(tmp_path):
    found = start(model(tmp_path / "m", makers.plan(channels=("CT",)), "0"), makers.plan(channels=("T2w",)))
    assert found.tensors.keys() == start(tmp_path / "m", makers.plan(channels=("CT",))).tensors.keys()
    assert "its channel is CT, that of this dataset T2w: it is taken as it is" in found.report
    assert "it was trained on CT, this dataset is MR" in found.report


def test_levels_begin_as_the_structure_of_a_model_without_levels(tmp_path):
    structures = makers.plan(labels=parse_labels({"background": 0, "vertebra": 1, "disc": 2, "canal": 3}))
    names = ("disc_L4-5", "T12", "spinal_canal", "vertebrae_L1", "rib")
    levels = makers.plan(labels=parse_labels({"background": 0, **{n: i for i, n in enumerate(names, 1)}}))
    folder = model(tmp_path / "m", structures, "0")
    weights = load_tensors(folder / "fold_0" / "model.safetensors")[0]
    found = start(folder, levels)
    assert (
        "T12, vertebrae_L1 begin as its vertebra, and disc_L4-5 begin as its disc, and spinal_canal begin as "
        "its canal, and rib begin at random" in found.report
    )
    assert "does not tell these classes apart, so that all weights learn at the full rate" in found.report
    assert found.share == 1.0
    head, its = found.tensors["head.weight"], weights["head.weight"]
    assert torch.equal(head[:5], its[[0, 2, 1, 3, 1]])
    assert head[5].isnan().all()
    # The other way round nothing is known: which level would the vertebra be?
    found = start(model(tmp_path / "l", levels, "0"), structures)
    assert "begin as its" not in found.report.replace("canal begin as its spinal_canal", "")


def test_a_starter_in_half_precision_is_taken_in_single(tmp_path):
    plan = makers.plan()
    folder = model(tmp_path / "m", plan, "0")
    export_model(open_model(folder), tmp_path / "half.autospine", half=True)
    found, exact = start(tmp_path / "half.autospine", plan), start(folder, plan)
    for name, tensor in found.tensors.items():
        assert tensor.dtype == exact.tensors[name].dtype
        torch.testing.assert_close(tensor, exact.tensors[name], rtol=1e-3, atol=1e-7)


def test_a_model_of_another_network_is_answered_with_the_plan_for_it(tmp_path, monkeypatch):
    folder = model(tmp_path / "m", makers.plan(), "0")
    wide = makers.plan(configurations=(makers.configuration(network=makers.network_plan(feature_size=16)),))
    with pytest.raises(TrainingError, match=rf"plan-and-preprocess -d {wide.dataset} --pretrained {folder}"):
        start(folder, wide)
    bundle = tmp_path / "starter.autospine"
    export_model(open_model(folder), bundle)
    monkeypatch.setattr(initial_weights, "STARTER_FILE", bundle)
    with pytest.raises(TrainingError, match=r"--pretrained starter$"):
        start(bundle, wide)


def test_classes_that_the_model_lacks_are_drawn_beside_those_it_has(tmp_path):
    plan = makers.plan()
    more = makers.plan(labels=parse_labels({"background": 0, "disc": 1, "canal": 2, "bone": 3}))
    folder = model(tmp_path / "m", plan, "0")
    weights = load_tensors(folder / "fold_0" / "model.safetensors")[0]
    found = start(folder, more)
    assert "its classes canal, bone are taken by name, and disc begin at random" in found.report
    head = found.tensors["head.weight"]
    assert head[1].isnan().all() and not head[[0, 2, 3]].isnan().any()
    learner = Learner(
        more, more.configurations[0], seed=0, device=torch.device("cpu"), imported=found.tensors
    )
    state = learner.network.state_dict()
    assert all(tensor.isfinite().all() for tensor in state.values())
    torch.testing.assert_close(state["head.weight"][[0, 2, 3]], weights["head.weight"][[0, 2, 1]])


def test_regions_are_no_classes(tmp_path):
    regions = parse_labels({"background": 0, "bone": [1, 2], "canal": [2]}, [1, 2])
    found = start(model(tmp_path / "m", makers.plan(), "0"), makers.plan(labels=regions))
    assert "none of its classes is taken (regions and classes)" in found.report
    assert not any(name.startswith("head.") for name in found.tensors)


def test_another_spacing_is_said(tmp_path):
    fine = makers.plan(makers.configuration(spacing_mm=(0.5, 0.7, 1.0)))
    found = start(model(tmp_path / "m", fine, "0"), makers.plan())
    assert "its voxels are 0.5 x 0.7 x 1 mm, these 1.5 x 1.5 x 1.5 mm" in found.report
    near = makers.plan(makers.configuration(spacing_mm=(1.2, 1.5, 1.6)))
    assert "mm" not in start(model(tmp_path / "n", near, "0"), makers.plan()).report.replace(
        str(tmp_path), ""
    )


def test_what_does_not_fit_is_counted_by_part(tmp_path):
    """Another configuration differs in dozens of tensors, whose names say nothing to anybody."""
    windows = makers.network_plan(window_sizes=((4, 4, 4),) * 4)
    other = makers.plan(makers.configuration(network=windows, patch_size=(32, 32, 32)))
    found = start(model(tmp_path / "m", makers.plan(), "0"), other)
    assert len(found.report) - len(str(tmp_path)) < 200, found.report


def test_a_network_of_others_loses_what_has_an_output_for_each_class(tmp_path, monkeypatch):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3), torch.nn.Conv3d(8, 3, 1))
    for module in (initial_weights, weight_mapping):
        monkeypatch.setattr(module, "build_network", lambda *_: network)
    plan = makers.plan()
    assert plan.labels.n_channels == 3
    write_json(tmp_path / "m" / "plan.json", plan)
    save_weights(tmp_path / "m" / "fold_0", network, {})
    assert start(tmp_path / "m", plan).tensors.keys() == network.state_dict().keys()
    assert start(tmp_path / "m", makers.plan(labels=OTHER_LABELS)).tensors.keys() == {"0.weight", "0.bias"}


def test_the_first_layer_is_drawn_anew_for_other_channels(tmp_path):
    found = start(model(tmp_path / "m", makers.plan(), "0"), makers.plan(channels=("T1", "T2")))
    assert "embedding" in found.report.partition("begin at random")[2]
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
    with pytest.raises(TrainingError, match="plan for it first"):
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
    assert pickle.loads(ForkingPickler.dumps(replace(made, share=1.0))).share == 1.0
    assert copy.tensors.keys() == made.tensors.keys()
    assert all(torch.equal(copy.tensors[name], tensor) for name, tensor in made.tensors.items())
