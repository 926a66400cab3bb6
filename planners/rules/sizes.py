"""How large: the patch, along a path of growth that does not depend on memory."""

from bisect import bisect_left
from collections.abc import Callable
from math import ceil

from autospine.types import Shape3, Vector3
from planners.rules.spacing import CONTEXT_MM

FAST_VOXELS = 64**3
"""Largest patch of the fast configuration: a training step stays below a second on two cores."""

S_EMPHASIS = 1.5
"""A patch reaches further along the spine than across it, by this factor."""

SPARE = 0.1
"""Share of the median case that a patch need not cover: rounding up for so little would pad most cases."""

STEP = 8
"""Voxels by which a patch grows where the network would take any size."""


def patch_size(
    spacing_mm: Vector3,
    shape: Shape3,
    divisor: Callable[[Shape3], Shape3],
    fits: Callable[[Shape3], bool],
    *,
    smallest: Shape3 = (1, 1, 1),
    halving: bool = False,
) -> tuple[Shape3 | None, str]:
    """The largest patch on the way from the smallest to the median case that fits.

    The patch grows by its divisor, always along the axis that reaches least far in mm (S counts less by
    `S_EMPHASIS`) and is not yet as long as the median case. The order does not depend on memory, so more
    memory never gives a smaller patch. None if not even the smallest fits.

    Args:
        spacing_mm: voxel size.
        shape: of the median case.
        divisor: what a patch of about this size must be a multiple of.
        fits: whether a patch does; asked in the order of growth until one does not.
        smallest: where the growth starts, rounded up to the divisor.
        halving: ask in the middle of what is left instead, for answers that take long. Only where all
            patches before one that fits do so too.
    """
    path = patch_path(spacing_mm, shape, divisor, smallest)
    if halving:
        count = bisect_left(path, True, key=lambda patch: not fits(patch))
    else:
        count = next((i for i, patch in enumerate(path) if not fits(patch)), len(path))
    stopped = (
        "the median case is covered"
        if count == len(path)
        else f"{_times(path[count])} would exceed the budget"
    )
    best = path[count - 1] if count else None
    return best, f"grown towards the median case {_times(shape)}; {stopped}"


def patch_path(
    spacing_mm: Vector3, shape: Shape3, divisor: Callable[[Shape3], Shape3], smallest: Shape3
) -> list[Shape3]:
    """Patches from the smallest, rounded up to its divisor, to one that covers the median case."""
    weight = (S_EMPHASIS, 1.0, 1.0)
    path, patch = [], smallest
    while True:
        steps = divisor(patch)
        s, p, left = (ceil(n / d) * d for n, d in zip(patch, steps, strict=True))
        path.append((s, p, left))
        limit = [ceil((1 - SPARE) * n / d) * d for n, d in zip(shape, steps, strict=True)]
        growable = [axis for axis in range(3) if path[-1][axis] < limit[axis]]
        if not growable:
            return path
        shortest = min(growable, key=lambda a: path[-1][a] * spacing_mm[a] / weight[a])
        grown = [n + steps[axis] * (axis == shortest) for axis, n in enumerate(path[-1])]
        patch = (grown[0], grown[1], grown[2])


def holds_context(patch: Shape3, spacing_mm: Vector3, shape: Shape3) -> bool:
    """Whether a patch spans five lumbar levels along S, or the whole of the median case but for `SPARE`."""
    return patch[0] >= (1 - SPARE) * shape[0] or patch[0] * spacing_mm[0] >= CONTEXT_MM


def step(divisor: Shape3, shape: Shape3) -> Shape3:
    """By what a patch grows: the smallest multiple of the divisor of `STEP` voxels or the whole case."""
    s, p, left = (ceil(min(STEP, n) / d) * d for d, n in zip(divisor, shape, strict=True))
    return s, p, left


def _times(shape: Shape3) -> str:
    return "x".join(str(n) for n in shape)
