"""How large a training step is: patch, width and batch, rungs of a ladder that does not know the budget."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import NamedTuple

from autospine.core.types import Shape3, Vector3

FAST_VOXELS = 64**3
"""Largest patch of the fast configuration: a training step stays below a second on two cores."""

S_EMPHASIS = 1.5
"""A patch reaches further along the spine than across it, by this factor."""

SPARE = 0.1
"""Share of the median case that a patch need not cover: rounding up for so little would pad most cases."""

STEP = 8
"""Voxels by which a patch grows where the network would take any size."""

BATCH_SHARE = 0.05
"""Largest share of the dataset's voxels in one batch (nnU-Net): beyond it steps repeat each other."""

PARAMETERS_PER_SQUARE = 30_000
"""Parameters of the Swin UNETR, per square of its width (measured at 48 and 96)."""

Holds = Callable[[Shape3], bool]
"""Whether a patch shows enough."""


class Size(NamedTuple):
    """A rung of the ladder."""

    width: int
    """Channels at full resolution."""

    patch: Shape3
    batch: int

    @property
    def extent(self) -> int:
        """Voxels times patches times channels: what a step costs, up to a factor."""
        return self.width * prod(self.patch) * self.batch


def ladder(
    path: Sequence[Shape3],
    climbs: Sequence[tuple[Holds, int]],
    *,
    widths: Sequence[int],
    batches: Sequence[int],
) -> list[Size]:
    """Every size that a plan may have, each larger than the one before.

    Each climb lets the patch grow until it holds what it should, and the network widen up to the climb's
    width. At the end of the first one there are as many patches as is usual, the second of `batches`. Where a
    larger patch costs less than the next width or number of patches, the patch comes first. After the climbs
    the patch grows to the end of its path, and what memory is left goes into more patches and into still
    wider networks.

    The plan takes the highest rung that fits. As the ladder does not depend on the budget and `Size.extent`
    rises along it, more memory never gives a smaller step.

    Args:
        path: patches in the order of growth, not empty.
        climbs: whether a patch is large enough, and the width to reach then, both ascending.
        widths: that the network may have, ascending.
        batches: numbers of patches per step, ascending.
    """
    rungs = [Size(widths[0], path[0], batches[0])]
    for holds_enough, widest in climbs:
        end = next((i for i, patch in enumerate(path) if holds_enough(patch)), len(path) - 1)
        rungs += _grown(rungs[-1], path[: end + 1])
        rungs += _enlarged(rungs[-1], path, batch=batches[min(1, len(batches) - 1)])
        for width in widths:
            if rungs[-1].width < width <= widest:
                rungs += _enlarged(rungs[-1], path, width=width)
    rungs += _grown(rungs[-1], path)
    rungs += [rungs[-1]._replace(batch=batch) for batch in batches[2:]]
    rungs += [rungs[-1]._replace(width=width) for width in widths if width > rungs[-1].width]
    return list(dict.fromkeys(rungs))


def _grown(size: Size, path: Sequence[Shape3]) -> list[Size]:
    """The size with each later patch of the path."""
    return [size._replace(patch=patch) for patch in path if prod(patch) > prod(size.patch)]


def _enlarged(
    size: Size, path: Sequence[Shape3], *, width: int | None = None, batch: int | None = None
) -> list[Size]:
    """The size with the larger patches that cost less than the change of width or batch; then changed."""
    changed = Size(width or size.width, size.patch, batch or size.batch)
    return [*(one for one in _grown(size, path) if one.extent < changed.extent), changed]


def highest_rung(rungs: Sequence[Size], fits: Callable[[Size], bool], *, halving: bool) -> int | None:
    """Index of the highest rung that fits, None if none does.

    Args:
        rungs: of a ladder.
        fits: whether a size does.
        halving: ask in the middle of what is left instead of from the top down, for answers that take long.
            Exact where all rungs below one that fits do so too.
    """
    if halving:
        return bisect_left(rungs, True, key=lambda size: not fits(size)) - 1 if fits(rungs[0]) else None
    return next((i for i in reversed(range(len(rungs))) if fits(rungs[i])), None)


def widths_within(widths: Sequence[int], usual: int, dataset_voxels: int) -> tuple[int, ...]:
    """Those of the widths up to the usual one, and wider ones with no more parameters than the dataset has
    voxels: a few small crops do not teach hundreds of millions of numbers.
    """
    return tuple(
        w for w in widths if w <= max(usual, widths[0]) or PARAMETERS_PER_SQUARE * w**2 <= dataset_voxels
    )


def batches_within(batches: Sequence[int], patch: Shape3, dataset_voxels: int) -> tuple[int, ...]:
    """Those of the batches that hold at most `BATCH_SHARE` of the dataset; the first two in any case."""
    most = BATCH_SHARE * dataset_voxels / prod(patch)
    return tuple(batch for i, batch in enumerate(batches) if i < 2 or batch <= most)


def patch_path(
    spacing_mm: Vector3,
    shape: Shape3,
    divisor: Callable[[Shape3], Shape3],
    smallest: Shape3,
) -> list[Shape3]:
    """Patches from the smallest, rounded up to its divisor, to one that covers the median case.

    The patch always grows along the axis that reaches least far in mm (S counts less by `S_EMPHASIS`) and is
    not yet as long as the median case, by its divisor.

    Args:
        spacing_mm: voxel size.
        shape: of the median case.
        divisor: what a patch of about this size must be a multiple of.
        smallest: where the growth starts.
    """
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
        grown = list(path[-1])
        grown[shortest] += steps[shortest]
        patch = (grown[0], grown[1], grown[2])


def holds(patch: Shape3, extent_mm: float, spacing_mm: Vector3, shape: Shape3) -> bool:
    """Whether a patch spans an extent along S, or the whole of the median case but for `SPARE`."""
    return patch[0] >= (1 - SPARE) * shape[0] or patch[0] * spacing_mm[0] >= extent_mm


def step(divisor: Shape3, shape: Shape3) -> Shape3:
    """By what a patch grows: the smallest multiple of the divisor of `STEP` voxels or the whole case."""
    s, p, left = (ceil(min(STEP, n) / d) * d for d, n in zip(divisor, shape, strict=True))
    return s, p, left
