"""The planner as a whole: properties of every plan, and three plans to read.

The golden plans are written anew by

    AUTOSPINE_UPDATE_GOLDEN=1 python -m pytest tests/unit/planners/test_planner.py -k golden

Look at the difference before committing it: each changed line is a changed decision.
"""

import os
from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.planners import facts

from autospine.errors import PlanError
from autospine.labels import VERSE, parse_labels
from autospine.network.build import build_network
from autospine.plan import Plan
from autospine.serialization import from_json, to_json
from planners import rules
from planners.planner import Budget, Overrides, make_plan

GOLDEN = Path(__file__).parent / "golden"
GIB = 1024**3

CASES = st.lists(
    st.tuples(
        st.tuples(*[st.integers(1, 600)] * 3),
        st.tuples(*[st.floats(0.25, 6.0).map(lambda d: round(d, 2))] * 3),
    ),
    min_size=1,
    max_size=4,
)
THICKNESSES = st.lists(st.none() | st.floats(0.5, 90.0), min_size=1, max_size=26).filter(any)


def budget(gib: float, gpu: bool = False) -> Budget:
    return Budget(
        memory_bytes=int(gib * GIB), gpu=gpu, precision="bfloat16" if gpu else "float32", reason="a test"
    )


def planned(cases, thicknesses, given: Budget, channels=("CT",), overrides=None) -> Plan | None:
    """The plan, None where the budget is too small for any."""
    labels = facts.plain_labels(len(thicknesses))
    try:
        return make_plan(
            facts.dataset(labels, channels), facts.fingerprint(cases, thicknesses), given, overrides
        )
    except PlanError as error:
        assert "memory budget of at least" in str(error)
        return None


@given(CASES, THICKNESSES, st.floats(0.3, 60.0), st.booleans())
@settings(deadline=None, max_examples=25)
def test_every_plan_is_sound(cases, thicknesses, gib, gpu):
    plan = planned(cases, thicknesses, budget(gib, gpu))
    if plan is None:
        return
    assert from_json(to_json(plan), Plan, "test") == plan
    assert [c.name for c in plan.configurations] in (["fullres"], ["fullres", "fast"], ["fast", "fullres"])
    for configuration in plan.configurations:
        network, patch = configuration.network, configuration.patch_size
        assert configuration.memory_bytes <= plan.memory_budget_bytes
        assert min(patch) >= 1
        assert not any(n % d for n, d in zip(patch, network.divisor, strict=True))
        for grid, window in zip(rules.token_grids(patch, network.strides), network.window_sizes, strict=True):
            assert not any(n % w for n, w in zip(grid, window, strict=True))
        assert network.fusion is None or network.fusion.kernels[0] == network.strides[0]
    explained = {decision.name for decision in plan.rationale}
    assert len(explained) == len(plan.rationale)
    for configuration in plan.configurations:
        fusion = "fusion" if configuration.network.fusion is None else "fusion_kernels"
        for what in ("spacing_mm", "patch_size", "strides", "window_sizes", fusion, "feature_size"):
            assert f"{configuration.name}.{what}" in explained


@given(CASES, THICKNESSES, st.floats(0.3, 60.0), st.booleans())
@settings(deadline=None, max_examples=10)
def test_the_same_facts_give_the_same_plan(cases, thicknesses, gib, gpu):
    assert planned(cases, thicknesses, budget(gib, gpu)) == planned(cases, thicknesses, budget(gib, gpu))


@given(CASES, THICKNESSES, st.floats(0.3, 12.0), st.integers(1, 3), st.booleans())
@settings(deadline=None, max_examples=5)
def test_every_plan_makes_a_network_that_can_learn(cases, thicknesses, gib, channels, gpu):
    """One step on the meta device: every shape fits, nothing is computed."""
    plan = planned(cases, thicknesses, budget(gib, gpu), [f"CT {i}" for i in range(channels)])
    if plan is None:
        return
    configuration = plan.configurations[0]
    with torch.device("meta"):
        network = build_network(plan, configuration)
        logits = network(torch.empty(1, channels, *configuration.patch_size))
    assert logits.shape == (1, plan.labels.n_channels, *configuration.patch_size)
    logits.sum().backward()


@pytest.mark.parametrize("gpu", [False, True])
@given(CASES, THICKNESSES)
@settings(deadline=None, max_examples=5)
def test_more_memory_gives_a_wider_network_or_a_patch_as_large(gpu, cases, thicknesses):
    amounts = (0.4, 1, 3, 8, 24, 48)
    plans = [planned(cases, thicknesses, budget(gib, gpu)) for gib in amounts]
    made = [plan for plan in plans if plan is not None]
    assert plans[len(plans) - len(made) :] == made, "a larger budget failed where a smaller one sufficed"
    for name in ("fullres", "fast"):
        chosen = [c for plan in made for c in plan.configurations if c.name == name]
        for small, large in pairwise(chosen):
            assert large.network.feature_size >= small.network.feature_size
            if large.network.feature_size == small.network.feature_size:
                assert all(a <= b for a, b in zip(small.patch_size, large.patch_size, strict=True))


def test_too_little_memory_says_how_much_is_needed():
    cases = [((200, 200, 200), (1.0, 1.0, 1.0))]
    with pytest.raises(PlanError, match=r"at least (\d\.\d\d) GiB .* found 0\.10 GiB; .*--memory") as caught:
        make_plan(facts.dataset(facts.plain_labels(1)), facts.fingerprint(cases, [9.0]), budget(0.1))
    needed = float(str(caught.value).split("at least ")[1].split()[0])
    assert planned(cases, [9.0], budget(needed + 0.01)) is not None


CUBE = [((200, 200, 200), (1.0, 1.0, 1.0))]


def test_the_users_wishes_are_kept():
    wishes = Overrides(spacing_mm=(1.0, 1.2, 1.2), patch_size=(64, 64, 32), feature_size=24)
    plan = planned(CUBE, [9.0], budget(8), overrides=wishes)
    full = plan.configuration("fullres")
    assert full.spacing_mm == (1.0, 1.2, 1.2)
    for configuration in plan.configurations:
        assert configuration.patch_size == (64, 64, 32)
        assert configuration.network.feature_size == 24
    reasons = {d.name: d.reason for d in plan.rationale}
    for what in ("spacing_mm", "patch_size", "feature_size"):
        assert reasons[f"fullres.{what}"] == "set by the user"


def test_a_patch_larger_than_fast_would_take_is_kept_when_asked_for():
    plan = planned(CUBE, [9.0], budget(8), overrides=Overrides(patch_size=(96, 96, 96)))
    assert {c.patch_size for c in plan.configurations} == {(96, 96, 96)}


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"patch_size": (33, 64, 64)}, r"divisible by .*--patch 33x64x64"),
        ({"patch_size": (0, 64, 64)}, "--patch"),
        ({"patch_size": (-32, 64, 64)}, "--patch"),
        ({"spacing_mm": (0.0, 1.0, 1.0)}, "--spacing"),
        ({"spacing_mm": (1.0, -1.0, 1.0)}, "--spacing"),
        ({"spacing_mm": (1.0, float("nan"), 1.0)}, "--spacing"),
        ({"feature_size": 0}, "--feature-size"),
        ({"feature_size": 10}, "--feature-size"),
        ({"feature_size": 100}, "--feature-size"),
        ({"networks": ("unet2d",)}, r"--network among adaptive_swin_unetr, .*resenc_unet.*'unet2d'"),
        ({"attention": ("none",)}, r"--attention among adaptive, plain, identity, found 'none'"),
        ({"fusion_weighting": ("one",)}, "--fusion-weighting among"),
        ({"fusion_placement": ("head",)}, "--fusion-placement among embedding, stem, both"),
        ({"adaptive_stages": (0, 1)}, "--adaptive-stages among"),
        ({"networks": ("unet3d",), "attention": ("plain",)}, "that attention and fusion options apply to"),
        ({"networks": ("unet3d",), "patch_size": (33, 64, 64)}, r"divisible by .*--patch 33x64x64"),
    ],
)
def test_wishes_against_the_rules_are_refused(wishes, message):
    labels = facts.plain_labels(1)
    with pytest.raises(PlanError, match=message):
        make_plan(facts.dataset(labels), facts.fingerprint(CUBE, [9.0]), budget(8), Overrides(**wishes))


COMPARED = ("adaptive_swin_unetr", "swin_unetr", "cnn3d", "unet3d", "unet3d_transformer", "resenc_unet")
SMALL = [((30, 26, 28), (3.0, 3.0, 3.0)), ((34, 30, 26), (2.0, 2.2, 2.2))]
COARSE = [((24, 24, 24), (4.0, 4.0, 4.0))]
"""Too coarse for a `fast` configuration."""

THICK = [((90, 80, 9), (1.2, 1.2, 4.4))]


@pytest.mark.parametrize("network", COMPARED[1:])
@pytest.mark.parametrize("cases", [SMALL, THICK])
@pytest.mark.parametrize("gpu", [False, True])
def test_every_network_is_planned_soundly(network, cases, gpu):
    plan = planned(cases, [9.0, 14.0], budget(2, gpu), ("a", "b"), Overrides(networks=(network,)))
    assert plan is not None
    assert from_json(to_json(plan), Plan, "test") == plan
    explained = {decision.name for decision in plan.rationale}
    assert len(explained) == len(plan.rationale)
    for configuration in plan.configurations:
        assert configuration.name == f"{configuration.cases}_{network}"
        assert configuration.network.name == network
        assert configuration.memory_bytes <= plan.memory_budget_bytes
        assert {f"{configuration.name}.{w}" for w in ("patch_size", "memory")} < explained
        with torch.device("meta"):
            built = build_network(plan, configuration)
            logits = built(torch.empty(1, 2, *configuration.patch_size))
        assert logits.shape == (1, 3, *configuration.patch_size)
        assert getattr(built, "divisor", configuration.network.divisor) == configuration.network.divisor


def test_a_plan_that_was_written_gives_the_same_network():
    plan = planned(SMALL, [9.0], budget(2), overrides=Overrides(networks=COMPARED, patch_size=(32, 32, 32)))
    again = from_json(to_json(plan), Plan, "test")
    for one, other in zip(plan.configurations, again.configurations, strict=True):
        with torch.device("meta"):
            pair = [build_network(p, c) for p, c in ((plan, one), (again, other))]
        shapes = [{n: t.shape for n, t in built.state_dict().items()} for built in pair]
        assert shapes[0] == shapes[1]
        assert str(pair[0]) == str(pair[1])


def test_networks_share_the_cases_of_a_spacing():
    plan = planned(CUBE, [9.0], budget(4), overrides=Overrides(networks=("adaptive_swin_unetr", "unet3d")))
    assert [(c.name, c.cases) for c in plan.configurations] == [
        ("fast", "fast"),
        ("fast_unet3d", "fast"),
        ("fullres", "fullres"),
        ("fullres_unet3d", "fullres"),
    ]


def names(**wishes) -> list[str]:
    plan = planned(COARSE, [9.0], budget(2), overrides=Overrides(patch_size=(16, 16, 16), **wishes))
    return [c.name for c in plan.configurations]


def test_ablations_are_told_apart_by_name():
    assert names(attention=("adaptive", "identity")) == ["fullres", "fullres_identity"]
    assert names(fusion_weighting=("trainable", "ones", "off")) == [
        *("fullres", "fullres_fusion_ones", "fullres_fusion_off"),
    ]
    assert names(fusion_placement=("stem", "both")) == ["fullres_stem", "fullres_both"]
    assert names(adaptive_stages=(1, 3)) == ["fullres_stages_1_3"]
    assert names(networks=("swin_unetr", "unet3d"), attention=("identity",)) == [
        *("fullres_swin_unetr_identity", "fullres_unet3d"),
    ]
    assert names(checkpointing=True) == ["fullres"]
    assert names(networks=("unet3d", "unet3d")) == ["fullres_unet3d"]


def test_ablations_reach_the_network():
    def network(**wishes):
        wishes = Overrides(patch_size=(16, 16, 16), **wishes)
        return planned(COARSE, [9.0], budget(2), overrides=wishes).configurations[0].network

    assert network(attention=("identity",)).attention == "identity"
    assert network(attention=("plain",)).attention == "plain"
    assert network(adaptive_stages=(1, 2, 3)).attention.saliency == (True, True, True, False)
    assert network(fusion_weighting=("off",)).fusion is None
    assert network(fusion_weighting=("ones",)).fusion.weighting == "ones"
    assert network(fusion_placement=("both",)).fusion.placement == "both"
    assert network(networks=("swin_unetr",)).fusion is None
    assert network(networks=("swin_unetr",)).attention == "plain"
    for name in COMPARED:
        assert network(networks=(name,), checkpointing=True).checkpointing


def test_checkpointing_gives_room_for_more():
    wishes = [Overrides(networks=("unet3d",), checkpointing=on) for on in (False, True)]
    plain, thrifty = (planned(CUBE, [9.0], budget(1.2), overrides=w).configurations[-1] for w in wishes)
    assert prod(thrifty.patch_size) > prod(plain.patch_size)
    assert plain.name == thrifty.name


@pytest.mark.parametrize("network", ["unet3d", "cnn3d"])
def test_more_memory_never_gives_a_smaller_patch_of_a_traced_network(network):
    wishes = Overrides(networks=(network,))
    plans = [planned(CUBE, [9.0], budget(gib), overrides=wishes) for gib in (0.2, 0.5, 1, 3)]
    patches = [plan.configuration(f"fullres_{network}").patch_size for plan in plans if plan]
    assert len(patches) >= 3
    for small, large in pairwise(patches):
        assert all(a <= b for a, b in zip(small, large, strict=True))
    assert prod(patches[-1]) > prod(patches[0])


def test_the_users_patch_and_width_are_kept_by_every_network():
    wishes = Overrides(networks=COMPARED, patch_size=(32, 32, 32), feature_size=8)
    plan = planned(CUBE, [9.0], budget(4), overrides=wishes)
    assert {c.patch_size for c in plan.configurations} == {(32, 32, 32)}
    reasons = {d.name: d.reason for d in plan.rationale}
    for name in COMPARED[2:]:
        assert reasons[f"fast_{name}.features"].startswith("set by the user")
    wishes = Overrides(networks=("cnn3d",), patch_size=(17, 18, 19))
    assert planned(CUBE, [9.0], budget(4), overrides=wishes).configurations[0].patch_size == (17, 18, 19)


def test_without_a_gpu_the_fast_configuration_comes_first():
    assert [c.name for c in planned(CUBE, [9.0], budget(4)).configurations] == ["fast", "fullres"]
    assert [c.name for c in planned(CUBE, [9.0], budget(24, gpu=True)).configurations] == ["fullres", "fast"]
    coarse = [((60, 60, 60), (4.0, 4.0, 4.0))]
    assert [c.name for c in planned(coarse, [9.0], budget(4)).configurations] == ["fullres"]


def lumbar_ct() -> Plan:
    """Lumbar CT of about a millimetre, on a laptop."""
    names = {"vertebra": 1, "disc": 2, "canal": 3, "sacrum": 4}
    cases = [
        ((220, 180, 190), (1.0, 0.8, 0.8)),
        ((180, 200, 200), (1.25, 0.75, 0.75)),
        ((240, 160, 170), (0.9, 0.9, 0.9)),
    ]
    labels = parse_labels(names)
    measured = facts.fingerprint(
        cases, [19.0, 8.5, 14.0, 26.0], name="Dataset001_LumbarCT", names=list(names)
    )
    return make_plan(facts.dataset(labels, ["CT"], "Dataset001_LumbarCT"), measured, budget(6))


def sagittal_mr() -> Plan:
    """T2 in thick sagittal slices, on a laptop."""
    names = {"vertebra": 1, "disc": 2, "canal": 3}
    cases = [((448, 448, 15), (0.68, 0.68, 4.4)), ((512, 512, 17), (0.6, 0.6, 4.0))]
    measured = facts.fingerprint(
        cases, [18.0, 7.5, 13.0], modality="MR", name="Dataset002_SagittalMR", names=list(names)
    )
    return make_plan(facts.dataset(parse_labels(names), ["T2"], "Dataset002_SagittalMR"), measured, budget(6))


def whole_spine() -> Plan:
    """Every vertebra by level in CT of the whole spine, on a GPU of 16 GB."""
    names = {name: VERSE[name] for name in VERSE if name not in ("cord", "canal", "coccyx")}
    cases = [
        ((900, 350, 300), (0.8, 0.6, 0.6)),
        ((620, 280, 260), (1.0, 0.7, 0.7)),
        ((480, 512, 512), (1.0, 0.4, 0.4)),
    ]
    thicknesses = [9.0] * 7 + [13.0] * 12 + [17.0] * 6 + [24.0, 13.0]
    measured = facts.fingerprint(cases, thicknesses, name="Dataset003_WholeSpine", names=list(names))
    return make_plan(
        facts.dataset(parse_labels(names), ["CT"], "Dataset003_WholeSpine"), measured, budget(16, gpu=True)
    )


@pytest.mark.parametrize("archetype", [lumbar_ct, sagittal_mr, whole_spine])
def test_golden_plans(archetype):
    path = GOLDEN / f"{archetype.__name__}.json"
    made = archetype()
    if os.environ.get("AUTOSPINE_UPDATE_GOLDEN"):
        path.write_text(to_json(made), encoding="utf-8")
    assert to_json(made) == path.read_text(encoding="utf-8"), (
        "the plan has changed; if that is meant, run again with AUTOSPINE_UPDATE_GOLDEN=1"
    )


def test_a_reason_is_given_for_every_number_that_differs_between_plans():
    small, large = lumbar_ct(), replace(whole_spine(), dataset="Dataset001_LumbarCT")
    assert all(decision.reason and decision.value for plan in (small, large) for decision in plan.rationale)
