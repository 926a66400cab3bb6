"""The planner as a whole: properties of every plan, and eight plans to read.

The golden plans are written anew by

    AUTOSPINE_UPDATE_GOLDEN=1 python -m pytest tests/unit/planners/test_planner.py -k golden

Look at the difference before committing it: each changed line is a changed decision.
"""

import os
import re
from functools import cache
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_figures import card, hours_per_fold, plan_budget_share_max, plan_for
from unit.planners import archetypes, facts
from unit.planners.archetypes import GOLDEN

from autospine.core.errors import AutospineError, PlanError
from autospine.core.labels import parse_labels
from autospine.network.swin.swin_plan import token_grids
from autospine.plan import Configuration, Plan, build_network
from autospine.storage.serialization import from_json, to_json
from planners import rules
from planners.overrides import Overrides, read_overrides
from planners.planner import make_plan
from planners.rules import GPU
from planners.sizing import Budget

NEXT_STEP = re.compile(r"next step \((\d+)x(\d+)x(\d+), (\d+) channels, batch (\d+)\) needs ([\d.]+)")

FOLDER = Path(__file__).parent / "golden"
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
    names = [c.name for c in plan.configurations]
    assert "fullres" in names
    assert set(names) <= {"fullres", "lowres", "fast"}
    assert names[0] == ("fullres" if gpu or "fast" not in names else "fast")
    for configuration in plan.configurations:
        network, patch = configuration.network, configuration.patch_size
        assert configuration.memory_bytes <= plan.memory_budget_bytes
        assert min(patch) >= 1
        assert not any(n % d for n, d in zip(patch, network.divisor, strict=True))
        for grid, window in zip(token_grids(patch, network.strides), network.window_sizes, strict=True):
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


def extent(configuration: Configuration) -> int:
    """Voxels times patches times channels of a training step."""
    size = prod(configuration.patch_size) * configuration.training.batch_size
    return size * configuration.network.feature_size


@pytest.mark.parametrize("gpu", [False, True])
@given(CASES, THICKNESSES)
@settings(deadline=None, max_examples=5)
def test_more_memory_never_gives_a_smaller_step(gpu, cases, thicknesses):
    amounts = (0.4, 1, 3, 8, 24, 48)
    plans = [planned(cases, thicknesses, budget(gib, gpu)) for gib in amounts]
    made = [plan for plan in plans if plan is not None]
    assert plans[len(plans) - len(made) :] == made, "a larger budget failed where a smaller one sufficed"
    for name in ("fullres", "lowres", "fast"):
        chosen = [c for plan in made for c in plan.configurations if c.name == name]
        for small, large in pairwise(chosen):
            assert extent(large) >= extent(small)


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
        ({"networks": ("swin_unetr",), "adaptive_stages": (3,)}, "adaptive attention for --adaptive-stages"),
        ({"attention": ("plain",), "adaptive_stages": (1,)}, "adaptive attention for --adaptive-stages"),
        ({"fusion_weighting": ("off",), "fusion_placement": ("stem",)}, "with fusion for --fusion-placement"),
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


@pytest.mark.parametrize("network", COMPARED)
def test_a_single_slice_is_not_padded(network):
    plan = planned(
        [((1, 96, 80), (5.0, 1.0, 1.0))], [9.0], budget(2), overrides=Overrides(networks=(network,))
    )
    assert {c.patch_size[0] for c in plan.configurations} == {1}


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
    assert names(v2_blocks=False) == ["fullres_v1"]
    assert names(fusion_levels=False) == ["fullres_no_levels"]
    assert names(gradient_channel=False) == ["fullres_no_gradient_channel"]
    assert names(fusion_levels=False, gradient_channel=False) == ["fullres_paper"]
    assert names(fusion_levels=False, gradient_channel=False, of_model=True) == ["fullres"]
    assert names(fusion_levels=False, fusion_weighting=("off",), attention=("plain",)) == [
        "fullres_plain_fusion_off"
    ]
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
    assert not network(v2_blocks=False).use_v2
    assert network().fusion.levels and network().attention.gradient_channel
    assert not network(fusion_levels=False).fusion.levels
    assert not network(gradient_channel=False).attention.gradient_channel
    assert network(networks=("swin_unetr",)).attention == "plain"
    for name in COMPARED:
        assert network(networks=(name,), checkpointing=True).checkpointing


def test_checkpointing_gives_room_for_more():
    wishes = [Overrides(checkpointing=on) for on in (False, True)]
    plain, thrifty = (planned(CUBE, [9.0], budget(2), overrides=w).configurations[-1] for w in wishes)
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


@cache
def golden(name: str) -> Plan:
    archetype, device = GOLDEN[name]
    return archetype(device)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_plans(name):
    path = FOLDER / f"{name}.json"
    made = golden(name)
    if os.environ.get("AUTOSPINE_UPDATE_GOLDEN"):
        path.write_text(to_json(made), encoding="utf-8")
    assert to_json(made) == path.read_text(encoding="utf-8"), (
        "the plan has changed; if that is meant, run again with AUTOSPINE_UPDATE_GOLDEN=1"
    )


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("gib", [4, 8, 24, 80])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_no_archetype_is_planned_wastefully(name, gib, on_gpu):
    """No axis much longer than the median case, no window that pads, and what stopped each patch is said."""
    archetype, _ = GOLDEN[name]
    plan = archetype(archetypes.gpu(gib) if on_gpu else archetypes.laptop(gib))
    reasons = {decision.name: decision.reason for decision in plan.rationale}
    for one in plan.configurations:
        why = reasons[f"{one.name}.patch_size"]
        shape = [int(n) for n in re.search(r"median case (\d+)x(\d+)x(\d+)", why).groups()]
        assert all(n <= max(1.1 * m, m + 1) for n, m in zip(one.patch_size, shape, strict=True))
        grids = token_grids(one.patch_size, one.network.strides)
        for grid, window in zip(grids, one.network.window_sizes, strict=True):
            assert not any(n % w for n, w in zip(grid, window, strict=True))
        if step := re.search(
            r"next step \((\d+)x(\d+)x(\d+), (\d+) channels, batch (\d+)\) needs ([\d.]+)", why
        ):
            # The step that would not fit is hardly larger than what was chosen, or little is left.
            assert float(step[6]) >= round(gib, 2)
            larger = prod(int(n) for n in step.groups()[:5])
            assert larger <= 1.6 * extent(one) or one.memory_bytes >= 0.85 * plan.memory_budget_bytes
        else:
            enough = ("which is covered", "voxels: time is better", "as far as checkpointing is worth")
            assert any(reason in why for reason in enough) or one.cases == "fast"


def test_a_fold_takes_a_day_at_most_on_every_card():
    hours = [each for of in hours_per_fold().values() for each in of.values()]
    assert len(hours) == 32
    assert 0 < min(hours) < max(hours) <= 24


def test_many_classes_leave_a_24_gb_card_its_width():
    full = plan_for("whole_spine", card("RTX 4090")).configuration("fullres")
    assert full.network.feature_size >= 32
    assert full.training.batch_size == 2


def test_a_patch_stops_growing_where_time_is_better_spent():
    """A large card takes wider networks and larger batches instead, as far as the dataset bears them."""
    case = [((700, 400, 400), (0.8, 0.8, 0.8))] * 20
    plans = [planned(case, [9.0] * 4, budget(gib, gpu=True)) for gib in (20, 40, 75, 130)]
    full = [plan.configuration("fullres") for plan in plans]
    assert all(prod(each.patch_size) <= GPU().patch_voxels for each in full)
    assert full[2].patch_size == full[3].patch_size
    assert full[3].training.batch_size == 4
    assert [each.network.feature_size for each in full] == sorted(each.network.feature_size for each in full)
    why = {decision.name: decision.reason for decision in plans[3].rationale}
    epochs = [each.training.epochs for each in full]
    assert epochs[0] > epochs[3]
    assert "as nnU-Net's training does" in why["fullres.training"]


def test_the_hours_of_an_unknown_gpu_are_those_of_a_usual_one_and_said_to_be_estimated():
    plan = planned(CUBE, [9.0], budget(22, gpu=True))
    (note,) = (each for each in plan.rationale if each.name == "fullres.estimated hours")
    assert "estimated for a usual GPU of this memory, RTX 3090, by its data sheet" in note.reason
    assert "not measured" in note.reason
    assert "estimated hours" not in str(planned(CUBE, [9.0], budget(4)).rationale)


def test_no_plan_fills_a_card():
    assert plan_budget_share_max() <= 0.93


def test_a_card_that_others_use_gets_a_plan_for_what_is_free():
    shared = plan_for("lumbar_ct", card("RTX 4090", held_gib=14.0))
    assert max(c.memory_bytes for c in shared.configurations) <= 9.6 * GIB
    (reason,) = (decision.reason for decision in shared.rationale if decision.name == "memory budget")
    assert "14.0 GiB are held by the display, other programs" in reason


def test_a_reason_is_given_for_every_number():
    plans = map(golden, GOLDEN)
    assert all(decision.reason and decision.value for plan in plans for decision in plan.rationale)


def test_a_class_thinner_than_a_voxel_is_reported_with_the_spacing_that_keeps_it(caplog):
    plan = planned(CUBE, [9.0, 0.6], budget(8), overrides=Overrides(spacing_mm=(1.0, 0.9, 0.8)))
    reason = next(d.reason for d in plan.rationale if d.name == "fullres loses")
    assert "class 2 (0.60 mm)" in reason
    assert "--spacing of at most 0.6 mm" in reason
    kept = planned(CUBE, [9.0, 0.6], budget(8), overrides=Overrides(spacing_mm=(3.0, 0.5, 0.5)))
    assert "fullres loses" not in {d.name for d in kept.rationale}


def test_low_resolution_is_planned_where_patches_show_little():
    large = [((700, 400, 400), (1.0, 1.0, 1.0))]
    names = [c.name for c in planned(large, [9.0], budget(8, gpu=True)).configurations]
    assert names == ["fullres", "lowres", "fast"]
    plan = planned(large, [9.0], budget(8, gpu=True))
    low, full = plan.configuration("lowres"), plan.configuration("fullres")
    extents_mm = [np.multiply(one.patch_size, one.spacing_mm).prod() for one in (low, full)]
    assert extents_mm[0] > 2 * extents_mm[1]
    assert [c.name for c in planned(CUBE, [9.0], budget(80, gpu=True)).configurations] == ["fullres", "fast"]


def plan_of_classes(names: list[str], gib: float) -> Plan:
    labels = parse_labels({name: i for i, name in enumerate(names, start=1)})
    measured = facts.fingerprint([((400, 240, 240), (1.0, 1.0, 1.0))], [9.0] * len(names), names=names)
    return make_plan(facts.dataset(labels), measured, budget(gib, gpu=True))


@pytest.mark.parametrize("gib", [6, 12, 24, 80])
def test_levels_get_a_long_patch_or_a_look_at_the_whole_spine(gib):
    levels = plan_of_classes([f"L{i}" for i in range(1, 6)], gib)
    others = plan_of_classes([f"part {i}" for i in range(1, 6)], gib)
    spans, other = (plan.configuration("fullres").patch_size[0] for plan in (levels, others))
    assert spans >= other
    assert (spans > 261) != ("lowres" in {c.name for c in levels.configurations})
    assert (other > 200) != ("lowres" in {c.name for c in others.configurations})
    reasons = {d.name: d.reason for d in levels.rationale}
    assert "an end of a region tells levels" in reasons["fullres.patch_size"]
    assert "an end of a region" in reasons.get("lowres", reasons.get("lowres.spacing_mm"))
    assert all(c.augmentation.mirror_axes == (2,) for c in levels.configurations)
    assert all(max(c.augmentation.scale) <= rules.LEVEL_SCALE for c in levels.configurations)


def test_the_patch_of_low_resolution_spans_the_spine():
    large = [((700, 400, 400), (1.0, 1.0, 1.0))]
    low = planned(large, [9.0], budget(24, gpu=True)).configuration("lowres")
    assert low.patch_size[0] * low.spacing_mm[0] >= 0.9 * 700


def test_what_does_not_fit_is_left_out_and_said(caplog):
    networks = Overrides(networks=("adaptive_swin_unetr", "resenc_unet"))
    plan = planned(CUBE, [9.0], budget(0.4), overrides=networks)
    assert [c.name for c in plan.configurations] == ["fast_resenc_unet", "fullres_resenc_unet"]
    reasons = {d.name: d.reason for d in plan.rationale if "memory budget of at least" in d.reason}
    assert set(reasons) == {"fast", "fullres"}
    assert all(reason in caplog.text for reason in reasons.values())


def test_wishes_come_from_a_file(tmp_path):
    file = tmp_path / "wishes.yaml"
    file.write_text(
        "patch_size: [64, 64, 32]\nnetworks: [unet3d]\nspacing_mm: [1, 1.0, 1.0]\n", encoding="utf-8"
    )
    wishes = read_overrides(file)
    assert wishes == Overrides(patch_size=(64, 64, 32), networks=("unet3d",), spacing_mm=(1.0, 1.0, 1.0))
    for text, message in (
        ("patchsize: [1, 2, 3]", "patchsize"),
        ("patch_size: [1, 2]", "patch_size"),
        ("feature_size: 7", "--feature-size from 8 to 96"),
        ("a: [", "wishes.yaml"),
        ("a: " + "[" * 100_000, "wishes.yaml, found entries nested too deeply"),
        ("feature_size: 16\nfeature_size: 24", "each override once"),
        ("- 1", "wishes.yaml"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(AutospineError, match=message):
            read_overrides(file)
    with pytest.raises(AutospineError, match=r"nowhere\.yaml"):
        read_overrides(tmp_path / "nowhere.yaml")
