"""Sizes of a training step: candidates of patch, width and batch size, which do not depend on the budget."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import NamedTuple

from autospine.core.geometry import triple
from autospine.core.types import Shape3, Vector3

FAST_VOXELS = 64**3
"""Largest patch of the fast configuration: a training step stays below a second on two cores."""

S_EMPHASIS = 1.5
"""A patch reaches further along the spine than across it, by this factor."""

VERTEBRA_MM = 100.0
"""Width of the widest vertebra, L5 with its processes (99 mm, measured on public CT masks)."""

SPARE = 0.1
"""Share of the median case that a patch need not cover: rounding up for so little would pad most cases."""

STEP = 8
"""Voxels by which a patch grows where the network would take any size."""

BATCH_SHARE = 0.05
"""Largest share of the dataset's voxels in one batch (nnU-Net): beyond it steps repeat each other."""

PARAMETERS_PER_SQUARE = 30_000
"""Parameters of the Swin UNETR, per square of its width (measured at 48 and 96)."""

ShowsEnough = Callable[[Shape3], bool]
"""Whether a patch shows as much as a goal asks for."""


class StepSize(NamedTuple):
    """Width, patch and batch size of a training step."""

    width: int
    """Channels at full resolution."""

    patch: Shape3
    """Voxels (S, P, L)."""

    batch: int
    """Patches per step."""

    @property
    def extent(self) -> int:
        """Voxels times patches times channels: the cost of a step up to a factor."""
        return self.width * prod(self.patch) * self.batch


def candidate_sizes(
    path: Sequence[Shape3],
    goals: Sequence[tuple[ShowsEnough, int]],
    *,
    widths: Sequence[int],
    batches: Sequence[int],
) -> list[StepSize]:
    """Every size that a plan may have, each larger than the one before.

    Towards each goal the patch grows until it shows enough, and then the network widens up to the goal's
    width. After the patch of the first goal the batch takes its usual size, the second of `batches`. Where a
    larger patch costs less than the next width or batch size, the patch comes first. After the goals the
    patch grows to the end of its path, and the remaining memory goes into larger batches and still wider
    networks.

    The plan takes the largest candidate that fits. As the candidates do not depend on the budget and
    `StepSize.extent` rises along them, more memory never gives a smaller step.

    Args:
        path: Patch sizes in the order of growth, not empty.
        goals: Whether a patch shows enough, and the width to reach then, both ascending.
        widths: Widths that the network may have, ascending.
        batches: Batch sizes, ascending.
    """
    sizes = [StepSize(widths[0], path[0], batches[0])]
    for shows_enough, widest in goals:
        end = next((i for i, patch in enumerate(path) if shows_enough(patch)), len(path) - 1)
        sizes += _grown(sizes[-1], path[: end + 1])
        sizes += _enlarged(sizes[-1], path, batch=batches[min(1, len(batches) - 1)])
        for width in widths:
            if sizes[-1].width < width <= widest:
                sizes += _enlarged(sizes[-1], path, width=width)
    sizes += _grown(sizes[-1], path)
    sizes += [sizes[-1]._replace(batch=batch) for batch in batches[2:]]
    sizes += [sizes[-1]._replace(width=width) for width in widths if width > sizes[-1].width]
    return list(dict.fromkeys(sizes))


def _grown(size: StepSize, path: Sequence[Shape3]) -> list[StepSize]:
    """Return the size with each later patch of the path."""
    return [size._replace(patch=patch) for patch in path if prod(patch) > prod(size.patch)]


def _enlarged(
    size: StepSize, path: Sequence[Shape3], *, width: int | None = None, batch: int | None = None
) -> list[StepSize]:
    """Return the size with larger patches as long as they cost less than the change of width or batch, then
    the changed size.
    """
    changed = StepSize(width or size.width, size.patch, batch or size.batch)
    return [*(grown for grown in _grown(size, path) if grown.extent < changed.extent), changed]


def largest_fitting(
    candidates: Sequence[StepSize], fits: Callable[[StepSize], bool], *, bisect: bool
) -> int | None:
    """Return the index of the largest candidate that fits, or None if none does.

    Args:
        candidates: Sizes, each larger than the one before.
        fits: Whether a size fits the memory.
        bisect: Search by bisection instead of from the top down, where each answer takes long. Exact if every
            candidate below one that fits does so too.
    """
    if bisect:
        fitting = fits(candidates[0])
        return bisect_left(candidates, True, key=lambda size: not fits(size)) - 1 if fitting else None
    return next((i for i in reversed(range(len(candidates))) if fits(candidates[i])), None)


def widths_within(widths: Sequence[int], usual: int, dataset_voxels: int) -> tuple[int, ...]:
    """Return the widths up to the usual one, and those with no more parameters than the dataset has voxels.

    A few small crops do not teach hundreds of millions of parameters.
    """
    return tuple(
        w for w in widths if w <= max(usual, widths[0]) or PARAMETERS_PER_SQUARE * w**2 <= dataset_voxels
    )


def batches_within(batches: Sequence[int], patch: Shape3, dataset_voxels: int) -> tuple[int, ...]:
    """Return the batch sizes that hold at most `BATCH_SHARE` of the dataset; the first two in any case."""
    most = BATCH_SHARE * dataset_voxels / prod(patch)
    return tuple(batch for i, batch in enumerate(batches) if i < 2 or batch <= most)


def patch_path(
    spacing_mm: Vector3,
    shape: Shape3,
    divisor: Callable[[Shape3], Shape3],
    smallest: Shape3,
    along_mm: float = 0.0,
) -> list[Shape3]:
    """Return patch sizes from the smallest, rounded up to its divisor, to one that covers the median case.

    The patch always grows along the axis that reaches least far in mm (S counts less by `S_EMPHASIS`) and is
    not yet as long as the median case, by its divisor. Once a vertebra fits across it, it grows along S alone
    until it spans `along_mm`.

    Args:
        spacing_mm: Voxel spacing (S, P, L).
        shape: Voxels (S, P, L) of the median case.
        divisor: What a patch of about this size must be a multiple of.
        smallest: Patch where the growth starts.
        along_mm: Extent along S that comes before more width.
    """
    weight = (S_EMPHASIS, 1.0, 1.0)
    path, patch = [], smallest
    while True:
        steps = divisor(patch)
        path.append(triple(ceil(n / d) * d for n, d in zip(patch, steps, strict=True)))
        limit = [ceil((1 - SPARE) * n / d) * d for n, d in zip(shape, steps, strict=True)]
        growable = [axis for axis in range(3) if path[-1][axis] < limit[axis]]
        if not growable:
            return path
        reach = [n * mm for n, mm in zip(path[-1], spacing_mm, strict=True)]
        narrow = any(axis in growable and reach[axis] < VERTEBRA_MM for axis in (1, 2))
        if 0 in growable and not narrow and reach[0] < along_mm:
            growable = [0]
        shortest = min(growable, key=lambda axis: reach[axis] / weight[axis])
        grown = list(path[-1])
        grown[shortest] += steps[shortest]
        patch = triple(grown)


def holds(patch: Shape3, extent_mm: float, spacing_mm: Vector3, shape: Shape3) -> bool:
    """Return whether a patch spans an extent along S, or the median case up to a share of `SPARE`."""
    return patch[0] >= (1 - SPARE) * shape[0] or patch[0] * spacing_mm[0] >= extent_mm


def step(divisor: Shape3, shape: Shape3) -> Shape3:
    """Return by how much a patch grows: the least multiple of the divisor of `STEP` voxels or the case."""
    return triple(ceil(min(STEP, n) / d) * d for d, n in zip(divisor, shape, strict=True))
