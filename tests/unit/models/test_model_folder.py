from dataclasses import replace

import makers
import pytest
import torch

from autospine.core.errors import FormatError, ModelError
from autospine.models.model_folder import find_localizer, open_model, save_weights, weights_digest
from autospine.plan import build_network
from autospine.prediction.build_predictor import build_predictor
from autospine.storage.serialization import write_json
from autospine.storage.tensors import load_tensors
from autospine.storage.trained_models import WEIGHTS

PLAN = makers.plan()


@pytest.fixture
def network():
    torch.manual_seed(3)
    return build_network(PLAN, PLAN.configurations[0])


@pytest.fixture
def folder(tmp_path, network):
    """A model with folds 0 and 2 complete and 1 not."""
    folder = tmp_path / "Dataset007_Small" / "fullres"
    write_json(folder / "plan.json", PLAN)
    for name in ("0", "2"):
        save_weights(folder / f"fold_{name}", network, {"fold": name})
    (folder / "fold_1").mkdir()
    return folder


def test_a_trained_network_comes_back(folder, network):
    model = open_model(folder)
    assert model.folds == ("0", "2")
    assert (model.plan, model.configuration) == (PLAN, PLAN.configurations[0])
    image = torch.randn(1, 1, 16, 16, 16)
    for again in model.networks():
        assert not again.training
        with torch.no_grad():
            torch.testing.assert_close(again(image), network.eval()(image))
    assert load_tensors(folder / "fold_0" / WEIGHTS)[1] == {"fold": "0"}


@pytest.mark.parametrize(
    ("formats", "folds", "expected"),
    [
        (("float16", "float16"), None, "float16"),
        (("float16", "bfloat16"), None, "bfloat16"),
        (("float16", "bfloat16"), ["0"], "float16"),
        (("float32", "float32"), None, "bfloat16"),
        ((None, None), None, "bfloat16"),
    ],
)
def test_networks_predict_in_the_16_bits_that_they_were_trained_in(
    tmp_path, network, formats, folds, expected
):
    """A GPU without bfloat16 trains a plan of that format in float16."""
    plan = makers.plan(makers.configuration(training={"precision": "bfloat16"}))
    write_json(tmp_path / "fullres" / "plan.json", plan)
    for name, trained_in in zip("01", formats, strict=True):
        facts = {"fold": name} if trained_in is None else {"fold": name, "precision": trained_in}
        save_weights(tmp_path / "fullres" / f"fold_{name}", network, facts)
    model = open_model(tmp_path / "fullres")
    found = model.trained_configuration(folds)
    assert found.training.precision == expected
    assert replace(found, training=model.configuration.training) == model.configuration
    predictor = build_predictor([model], torch.device("cpu"), folds)
    assert predictor.configuration.training.precision == expected


def test_folds_can_be_chosen(folder):
    assert len(open_model(folder).networks()) == 2
    assert len(open_model(folder).networks(["2"])) == 1
    with pytest.raises(ModelError, match=r"folds among 0, 2, .* found 1, 7; leave out"):
        open_model(folder).networks(["1", "2", "7"])


def test_what_is_no_model_is_refused(tmp_path, folder):
    with pytest.raises(ModelError, match="expected a model folder"):
        open_model(tmp_path)
    with pytest.raises(ModelError, match="expected a model folder"):
        open_model(tmp_path / "absent")
    for name in ("0", "2"):
        (folder / f"fold_{name}" / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"at least one trained fold .*autospine train fullres"):
        open_model(folder)


def test_a_damaged_plan_is_refused(folder):
    (folder / "plan.json").write_text("{}")
    with pytest.raises(FormatError, match=r"plan\.json"):
        open_model(folder)


def test_truncated_weights_are_refused(folder):
    path = folder / "fold_2" / WEIGHTS
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FormatError, match="fold_2"):
        open_model(folder).networks()


def test_weights_of_another_network_are_refused(folder, tmp_path):
    other = makers.configuration(network=makers.network_plan(feature_size=16))
    save_weights(folder / "fold_2", build_network(makers.plan(other), other), {})
    assert len(open_model(folder).networks(["0"])) == 1
    with pytest.raises(ModelError, match=r"expected weights of the plan's network in .*fold_2"):
        open_model(folder).networks()


def test_a_network_far_larger_than_its_weights_takes_no_memory(folder):
    """Of this width, the largest that a plan may have, a single convolution would need some 7 GB."""
    wide = makers.configuration(network=makers.network_plan(feature_size=8192))
    write_json(folder / "plan.json", makers.plan(wide))
    with pytest.raises(
        ModelError, match=r"expected weights of the plan's network in .*fold_0.*size mismatch"
    ):
        open_model(folder).networks()


@pytest.mark.parametrize("weighting", ["trainable", "ones"])
def test_what_is_no_weight_has_its_values(tmp_path, weighting):
    """Constants that are not stored are those of a fresh network."""
    fusion = replace(makers.network_plan().fusion, weighting=weighting)
    one = makers.configuration(network=makers.network_plan(fusion=fusion))
    made = makers.write_model(tmp_path / "model", configurations=(one,))
    torch.manual_seed(0)
    fresh, image = build_network(made, one).eval(), torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(open_model(tmp_path / "model").networks()[0](image), fresh(image))


def test_a_model_is_found_from_inside_its_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert open_model(folder.relative_to(folder)).configuration.name == "fullres"


def test_a_model_of_one_configuration_may_be_renamed(folder, tmp_path):
    renamed = folder.rename(tmp_path / "spine-model")
    assert open_model(renamed).configuration.name == "fullres"


def test_the_digest_depends_on_the_plan_and_the_weights_that_take_part(folder, network):
    before = open_model(folder).digest()
    assert before == open_model(folder).digest(["0", "2"])
    assert before != open_model(folder).digest(["0"])
    with torch.no_grad():
        next(network.parameters()).add_(1)
    save_weights(folder / "fold_2", network, {"fold": "2"})
    assert open_model(folder).digest() != before


def test_weights_are_hashed_once_while_they_stay_the_same(folder, network, monkeypatch):
    path, opened = folder / "fold_2" / WEIGHTS, []
    usual = type(path).open

    def counting(self, *arguments, **options):
        opened.append(self.name)
        return usual(self, *arguments, **options)

    monkeypatch.setattr(type(path), "open", counting)
    first = weights_digest(path)
    assert (first, open_model(folder).digest(["2"])) == (
        weights_digest(path),
        open_model(folder).digest(["2"]),
    )
    assert opened.count(WEIGHTS) == 2, "once for each kind of digest"
    with torch.no_grad():
        next(network.parameters()).add_(1)
    save_weights(folder / "fold_2", network, {"fold": "2"})
    assert weights_digest(path) != first


@pytest.fixture
def model(tmp_path):
    makers.write_model(tmp_path / "fullres", folds=("0", "1"))
    return open_model(tmp_path / "fullres")


@pytest.fixture
def localizer(model):
    """A coarser model beside it."""
    coarse = makers.configuration(name="lowres", spacing_mm=(4.0, 4.0, 4.0))
    makers.write_model(model.path.parent / "lowres", folds=("0", "1"), configurations=(coarse,))
    return open_model(model.path.parent / "lowres")


def test_a_coarse_model_that_is_broken_or_bad_finds_no_spine(model, localizer, caplog):
    assert find_localizer(model) == localizer
    scores = {"format_version": 3, "folds": {}, "postprocessed": None, "modalities": {}}
    for dice, expected in ((0.49, None), (0.5, localizer)):
        write_json(localizer.path / "cross_validation.json", scores | {"mean_dice": dice})
        assert find_localizer(model) == expected
    (localizer.path / "plan.json").write_text("{", encoding="utf-8")
    assert find_localizer(model) is None
    assert "cannot locate the spine" in caplog.text


def test_without_a_coarser_model_of_the_same_channels_there_is_none(model):
    assert find_localizer(model) is None
    hardly = makers.configuration(name="lowres", spacing_mm=(1.6, 1.6, 1.6))
    makers.write_model(model.path.parent / "lowres", configurations=(hardly,))
    assert find_localizer(model) is None
    coarse = replace(hardly, spacing_mm=(4.0, 4.0, 4.0))
    makers.write_model(model.path.parent / "lowres", configurations=(coarse,), channels=("other",))
    assert find_localizer(model) is None
