"""Everything that a fold was trained on, part by part, so that a later change can be named."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autospine.core.defaults import DEFAULT_LOSS
from autospine.core.errors import FAULTS_MENTIONED, AutospineError, FormatError, listed
from autospine.models.model_folder import TRAINED_ON, TrainedOn, TrainingImage
from autospine.network.network_plan import NetworkPlan
from autospine.plan import Configuration, Plan
from autospine.preprocessing.store import StoredCase
from autospine.storage.digest import digest_of
from autospine.storage.serialization import read_json, to_json, write_json
from autospine.storage.trained_models import PLAN

FORMAT_VERSION = 1


def plan_parts(plan: Plan, configuration: Configuration) -> dict[str, str]:
    """Return each part of the plan that weights depend on, by its name for people, as JSON."""
    recipe = asdict(replace(configuration.training, epochs=1, iterations_per_epoch=1))
    if recipe["loss"] == DEFAULT_LOSS and not recipe["loss_settings"]:
        # Checkpoints that were written before the loss could be chosen have a digest without these keys.
        del recipe["loss"], recipe["loss_settings"]
    augmentation = asdict(configuration.augmentation)
    if not augmentation["synthesis_probability"]:
        # Nor has that of checkpoints from before images could be made from tissue maps this key.
        del augmentation["synthesis_probability"]
    return {
        "network": to_json(_network_part(configuration.network)),
        "spacing, patch size or channels": to_json(
            (configuration.spacing_mm, configuration.patch_size, plan.channels)
        ),
        "labels": to_json(plan.labels),
        "normalisation": to_json(plan.normalisation),
        "training or augmentation": to_json((recipe, augmentation)),
    }


def _network_part(network: NetworkPlan) -> dict[str, Any]:
    """Return the network's settings without those that are off and that earlier versions did not have."""
    settings: dict[str, Any] = json.loads(to_json(network))
    for mechanism, added in (("fusion", "levels"), ("attention", "gradient_channel")):
        chosen = settings.get(mechanism)
        if isinstance(chosen, dict) and not chosen.get(added, True):
            del chosen[added]
    return settings


def trained_on(plan: Plan, configuration: Configuration, cases: Sequence[StoredCase]) -> TrainedOn:
    """Return the digests of what a fold trains on now."""
    parts = plan_parts(plan, configuration)
    return TrainedOn(
        format_version=FORMAT_VERSION,
        plan={name: digest_of([text.encode()]) for name, text in parts.items()},
        cases={case.name: case.record.content for case in cases},
        images={
            case.name: TrainingImage(
                digest=case.record.image,
                shape=case.record.source_shape,
                spacing_mm=case.record.source_spacing_mm,
            )
            for case in cases
        },
    )


def keep_trained_on(folder: Path, now: TrainedOn) -> None:
    """Write `trained_on.json` into the folder of a fold."""
    write_json(folder / TRAINED_ON, now)


def describe_changes(folder: Path, now: TrainedOn) -> str:
    """Say what has changed since a fold began, for a message; nothing if that is not known.

    Args:
        folder: Folder of the fold; folds of earlier versions have no `trained_on.json`.
        now: What the fold would train on now; without cases, if only its plan is known.
    """
    try:
        before = read_json(folder / TRAINED_ON, TrainedOn)
    except FormatError:
        return ""
    parts = [f"{name} of the plan" for name in _changed(before.plan, now.plan)]
    if not now.cases:
        return listed(parts, FAULTS_MENTIONED)
    there = before.cases.keys() & now.cases.keys()
    parts += [f"image or labels of {name}" for name in sorted(there) if before.cases[name] != now.cases[name]]
    parts += [f"{name} is new in it" for name in sorted(now.cases.keys() - there)]
    parts += [f"{name} has left it" for name in sorted(before.cases.keys() - there)]
    return listed(parts, FAULTS_MENTIONED)


def planned_otherwise(model: Path, plan: Plan, configuration: Configuration) -> list[str]:
    """Return the parts in which the plan of a model folder is not the present one.

    Args:
        model: Folder of a model; its plan.json is that of the folds in it.
        plan: The present plan.
        configuration: Its configuration of the model's name.

    Returns:
        Names of parts (see `plan_parts`); none where the folder has no plan that can be read.
    """
    try:
        before = read_json(model / PLAN, Plan)
        parts = plan_parts(before, before.configuration(configuration.name))
    except AutospineError:
        return []
    return _changed(parts, plan_parts(plan, configuration))


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [name for name, digest in now.items() if before.get(name) != digest]
