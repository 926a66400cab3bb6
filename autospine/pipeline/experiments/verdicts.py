"""Verdicts: what the numbers of an experiment say, in sentences."""

import math
from collections.abc import Callable, Mapping, Sequence

from autospine.evaluation.paired_comparison import PairedDifference
from autospine.pipeline.experiments.results import (
    BOUNDARY,
    DICE,
    VariantResult,
    boundary_findings,
    differences_from,
    group_differences,
    of_means,
)

LEARNT_BY_HEART = 0.95
"""Dice on the training case from which it counts as learnt by heart, as a share of what its voxels allow."""

NEAR_ZERO = 0.1
"""Training loss below which it counts as near zero."""

LEARNT = 0.5
"""Mean Dice below which no design has learnt its task."""

TOLERATED = 0.01
"""Loss of mean Dice below which a cheaper design counts as as accurate."""


def judge(name: str, results: Sequence[VariantResult], labels_dice: float | None) -> tuple[str, ...]:
    """Return the verdict of an experiment in sentences.

    Args:
        name: Name of the experiment.
        results: Results of each design, the first being what the others are compared with.
        labels_dice: Dice that the voxel size allows; None where it is not known.
    """
    if name == "overfit":
        return _by_heart(results[0], labels_dice)
    sentences = _JUDGES[name](results)
    best = max(_dice(result) for result in results)
    if best < LEARNT:
        sentences += (
            f"The best mean Dice is {best:.3f}: too little was learnt for a difference to say much; give "
            "more --steps or --minutes.",
        )
    if len({*results[0].subjects}) < 2:
        sentences += ("All held-out cases are of one subject, so that there is no interval.",)
    if len(results[0].evaluations) < 2:
        sentences += (
            "One seed: the intervals are over subjects, and chance in the training is not in them; repeat "
            "with --seeds 3.",
        )
    return sentences


def _by_heart(result: VariantResult, labels_dice: float | None) -> tuple[str, ...]:
    dice, most = result.scores[DICE.name], labels_dice if labels_dice is not None else 1.0
    low_loss, learnt = result.loss < NEAR_ZERO, dice >= LEARNT_BY_HEART * most
    figures = f"training loss {result.loss:.3f} at the end, Dice {dice:.3f} on the case that was trained on"
    figures += f" ({most:.3f} is what its voxels allow)" if labels_dice is not None else ""
    if learnt and low_loss:
        return (f"Sound: the network learns the case by heart ({figures}).",)
    worst = min(result.class_dice.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1])
    if learnt:
        return (
            f"Nearly sound: the case is predicted as it is labelled, but the loss is not near zero "
            f"({figures}); train for more steps.",
        )
    return (
        f"Not shown to be sound: the network has not learnt the case by heart ({figures}); worst class "
        f"{worst[0]}, Dice {worst[1]:.3f}. Give more --steps first; if the loss stays, look at the labels of "
        "this class, at the voxel size and at the width of the network.",
    )


def _ablation(results: Sequence[VariantResult]) -> tuple[str, ...]:
    baseline, differences = results[0], differences_from(results[0], results)
    sentences = []
    for result in results[1:]:
        found = differences[result.variant.name]
        dice, boundary = of_means(found, DICE), of_means(found, BOUNDARY)
        time = baseline.seconds_per_step / result.seconds_per_step
        sentences.append(
            f"With {result.variant.change}, mean Dice {_changes(dice)} and boundary Dice "
            f"{_changes(boundary)}; a step of the design as planned takes {time:.2f} times as long. "
            f"{_worth(dice, boundary)}"
        )
    return tuple(sentences)


def _worth(dice: PairedDifference, boundary: PairedDifference) -> str:
    """Say what the removal of a mechanism shows of it."""
    if dice.high < 0 or boundary.high < 0:
        return "What was removed earns its place here."
    if dice.low > 0 or boundary.low > 0:
        return "What was removed does harm here."
    return "No gain of what was removed is shown here."


def _sweep(results: Sequence[VariantResult]) -> tuple[str, ...]:
    best = max(results, key=_dice)
    sentences = [f"Best: {best.variant.change}, mean Dice {_dice(best):.3f}."]
    if best is not results[0]:
        dice = of_means(differences_from(results[0], results)[best.variant.name], DICE)
        shown = "shown to be better" if dice.low > 0 else "not shown to be better"
        sentences.append(f"Against the planned weight, mean Dice {_changes(dice)}: {shown}.")
    for result in results:
        if result.collapsed:
            sentences.append(
                f"Collapse with {result.variant.change}: {', '.join(result.collapsed)} not found in any "
                "held-out case."
            )
    if not any(result.collapsed for result in results):
        sentences.append("No class has collapsed with any weight.")
    return tuple(sentences)


def _by_modality(results: Sequence[VariantResult]) -> tuple[str, ...]:
    found = group_differences(results, "modality")
    sentences = []
    for result in results[1:]:
        each = {group: differences[result.variant.name] for group, differences in found.items()}
        changes = ", and ".join(f"in {group} mean Dice {_changes(dice)}" for group, dice in each.items())
        earns = [group for group, dice in each.items() if dice.high < 0]
        harms = [group for group, dice in each.items() if dice.low > 0]
        worth = [
            *([f"What was removed earns its place in {' and '.join(earns)}."] if earns else ()),
            *([f"It does harm in {' and '.join(harms)}."] if harms else ()),
        ]
        shown = " ".join(worth) or "No gain of what was removed is shown in either."
        sentences.append(f"With {result.variant.change}, {changes}. {shown}")
    return tuple(sentences)


def _transfer(results: Sequence[VariantResult]) -> tuple[str, ...]:
    seen, left_out = results
    dice = of_means(differences_from(seen, results)[left_out.variant.name], DICE)
    shown = (
        "the loss is shown"
        if dice.high < 0
        else "a gain is shown"
        if dice.low > 0
        else "no difference is shown"
    )
    sites = group_differences(results, "site")
    losses = {site: found[left_out.variant.name] for site, found in sites.items()}
    known = sorted(
        ((site, loss) for site, loss in losses.items() if not math.isnan(loss.difference)),
        key=lambda item: item[1].difference,
    )
    listed = "; ".join(f"{site} {loss.difference:+.3f}" for site, loss in known)
    return (
        f"Mean Dice is {_dice(seen):.3f} where the model has learnt from other cases of a case's site, and "
        f"{_changes(dice)} where it has learnt from none: {shown}.",
        f"Site by site, the worst first: {listed}.",
    )


def _efficiency(results: Sequence[VariantResult]) -> tuple[str, ...]:
    planned, differences = results[0], differences_from(results[0], results)
    sentences = []
    for result in results[1:]:
        dice = of_means(differences[result.variant.name], DICE)
        time = result.seconds_per_step / planned.seconds_per_step
        memory = result.memory_bytes / planned.memory_bytes
        sentences.append(
            f"With {result.variant.change}, a step takes {time:.2f} of the time and {memory:.2f} of the "
            f"memory, and mean Dice {_changes(dice)}: {_price(dice)}."
        )
    front = [result.variant.name for result in not_outdone(results)]
    sentences.append(f"No other design is at once better and faster than {', '.join(front)}.")
    return tuple(sentences)


def _price(dice: PairedDifference) -> str:
    """Say what a cheaper design costs in accuracy."""
    if dice.low > 0:
        return "more accurate"
    if dice.low > -TOLERATED:
        return f"as accurate, within {TOLERATED:g}"
    if dice.high < 0:
        return "it costs accuracy"
    return "not decided"


def not_outdone(results: Sequence[VariantResult]) -> list[VariantResult]:
    """Return the designs than which no other is at least as accurate and as fast, and one of both more."""
    return [
        one
        for one in results
        if not any(
            _dice(other) >= _dice(one)
            and other.seconds_per_step <= one.seconds_per_step
            and (_dice(other) > _dice(one) or other.seconds_per_step < one.seconds_per_step)
            for other in results
        )
    ]


def _ranking(results: Sequence[VariantResult]) -> tuple[str, ...]:
    ranked = sorted(results, key=lambda result: -_dice(result))
    listed = ", ".join(
        f"{result.variant.configuration.network.name} {_dice(result):.3f}" for result in ranked
    )
    sentences = [f"By mean Dice: {listed}."]
    differences = differences_from(results[0], results)
    for result in results[1:]:
        dice = of_means(differences[result.variant.name], DICE)
        name, time = (
            result.variant.configuration.network.name,
            result.seconds_per_step / results[0].seconds_per_step,
        )
        sentences.append(f"Trained with {name}, mean Dice {_changes(dice)}, in {time:.2f} times the time.")
    return tuple(sentences)


def _at_boundaries(results: Sequence[VariantResult]) -> tuple[str, ...]:
    findings = boundary_findings(results)
    ours, plain = results
    first, second = findings[ours.variant.name], findings[plain.variant.name]
    interval = second.blurred_interval
    shown = (
        "the design as planned errs less there"
        if interval.low > 0
        else "the design as planned errs more there"
        if interval.high < 0
        else "no difference is shown"
    )
    return (
        f"Within 2 mm of blurred boundaries, {first.blurred:.1%} of the voxels are wrong with the design as "
        f"planned and {second.blurred:.1%} with {plain.variant.change} (difference "
        f"{second.blurred_difference:+.2%}{_between(interval.low, interval.high, '+.2%')}): {shown}.",
        f"Near the rest of the boundary it is {first.sharp:.1%} and {second.sharp:.1%}.",
        *_ablation(results),
    )


_JUDGES: Mapping[str, Callable[[Sequence[VariantResult]], tuple[str, ...]]] = {
    "ablation": _ablation,
    "lambda": _sweep,
    "compare": _ranking,
    "boundary": _at_boundaries,
    "modality": _by_modality,
    "transfer": _transfer,
    "efficiency": _efficiency,
}


def _dice(result: VariantResult) -> float:
    value = result.scores[DICE.name]
    return -math.inf if math.isnan(value) else value


def _changes(found: PairedDifference) -> str:
    """Say how a score changes against the first design: `falls by 0.012 (-0.020 to -0.004)`."""
    if math.isnan(found.difference):
        return "is not defined"
    verb = "falls" if found.difference < 0 else "rises"
    return f"{verb} by {abs(found.difference):.3f}{_between(found.low, found.high, '+.3f')}"


def _between(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) else f" (95 % interval {low:{form}} to {high:{form}})"
