"""The planner's rules: from measured facts to numbers, one small function each.

Each returns its value with the reason in words. Formulas, defaults and sources are explained in
docs/concepts/planning.md. Triples are in array order (superior, posterior, left).
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from autospine.fingerprint import Fingerprint
from autospine.labels import LabelSpace
from autospine.plan import Normalisation
from autospine.types import Modality, Shape3, Vector3

ANISOTROPY = 3.0
"""A grid whose coarsest spacing exceeds the next by this factor is thick-sliced (nnU-Net's threshold)."""

COARSE_AXIS_PERCENTILE = 10.0
"""Percentile of the coarse axis' spacings that becomes its target (nnU-Net)."""

CONTEXT_MM = 170.0
"""Five lumbar levels: sum of the level steps measured on public CT masks (33+35+36+35+30 mm)."""

FAST_MM = 3.2
"""Spacing of the fast configuration: the coarsest at which the labels of vertebrae still come back with a
Dice above 0.9 (0.92 on lumbar phantoms; 0.94 at 2.66 mm, with 1.7 times the voxels)."""

FAST_VOXELS = 64**3
"""Largest patch of the fast configuration: a training step stays below a second on two cores."""

VOXELS_ACROSS = 2.0
"""A structure is kept if its local thickness spans this many voxels."""

S_EMPHASIS = 1.5
"""A patch reaches further along the spine than across it, by this factor."""

LEVELS = 5
"""Times that the network may halve its grid: the patch embedding and four mergings."""

SPARE = 0.1
"""Share of the median case that a patch need not cover: rounding up for so little would pad most cases."""

STEP = 8
"""Voxels by which a patch grows where the network would take any size."""

SHORTEST_EDGE = 4
"""A U-Net keeps halving an axis while this many voxels remain (nnU-Net)."""

SHORTEST_LONE_EDGE = 6
"""The same where no other axis can be halved any more (nnU-Net)."""

UNET_FEATURES = 32
"""Channels of a U-Net at full resolution (nnU-Net)."""

MOST_FEATURES = 320
"""Channels at most in a U-Net (nnU-Net, for 3D)."""

RESENC_BLOCKS = (1, 3, 4, 6)
"""Residual blocks per level; the last number goes on (nnU-Net's ResEnc presets)."""

TRANSFORMER_LAYERS = 4
"""In the bottleneck (TransBTS)."""

HEAD_CHANNELS = 64
"""Channels of an attention head in the bottleneck (Vaswani et al., 2017)."""

LARGEST_KERNEL = 8
"""Largest fusion kernel in voxels; beyond it the coarser stages see further for less."""


class GPU(NamedTuple):
    """What differs between the devices a plan may be for."""

    largest_window: int = 8
    feature_sizes: tuple[int, ...] = (48, 32, 16)
    """Tried from the widest down."""

    epochs: int = 400
    iterations_per_epoch: int = 250
    batch_size: int = 2
    learning_rate: float = 0.02
    spatial_probability: float = 0.5


class CPU(NamedTuple):
    """On a CPU time is scarcer than memory."""

    largest_window: int = 4
    feature_sizes: tuple[int, ...] = (16,)
    epochs: int = 60
    iterations_per_epoch: int = 50
    batch_size: int = 1
    learning_rate: float = 0.1
    spatial_probability: float = 0.3
    """A short training sees no patch often enough to need many changed ones."""


Device = GPU | CPU


def target_spacing(spacings: Sequence[Vector3]) -> tuple[Vector3, str]:
    """Median spacing of each axis; a thick-sliced axis takes a low percentile instead.

    The median loses the least to resampling overall. Along a coarse axis it would throw away the finer
    cases, and interpolating thick slices a little costs nothing.
    """
    table = np.asarray(spacings, dtype=np.float64)
    target = np.median(table, axis=0)
    coarse = int(np.argmax(target))
    others = float(np.max(np.delete(target, coarse)))
    reason = f"median of {len(table)} cases"
    if target[coarse] > ANISOTROPY * others:
        target[coarse] = max(np.percentile(table[:, coarse], COARSE_AXIS_PERCENTILE), others)
        reason += f"; {'SPL'[coarse]} is thick-sliced and takes its {COARSE_AXIS_PERCENTILE:g}th percentile"
    return _vector(np.round(target, 3)), reason


def fast_spacing(full: Vector3, thicknesses_mm: Sequence[float]) -> tuple[Vector3, str]:
    """The spacing at which few voxels show several vertebrae, but no structure is lost.

    `max(full, min(3.2 mm, thinnest / 2))` on every axis.
    """
    thinnest = min(thicknesses_mm, default=CONTEXT_MM)
    spacing = round(min(FAST_MM, thinnest / VOXELS_ACROSS), 2)
    which = (
        f"five lumbar levels in {CONTEXT_MM / FAST_MM:.0f} voxels"
        if spacing == FAST_MM
        else f"the thinnest class ({thinnest:.1f} mm) keeps {VOXELS_ACROSS:g} voxels"
    )
    return _vector(np.maximum(full, spacing)), f"{which}; never finer than fullres"


def median_shape(sizes_mm: Sequence[Vector3], spacing_mm: Vector3) -> Shape3:
    """Voxels of the median case at a spacing."""
    size = np.median(np.asarray(sizes_mm), axis=0)
    s, p, l = (max(1, round(n / d)) for n, d in zip(size, spacing_mm, strict=True))  # noqa: E741
    return s, p, l


def strides(spacing_mm: Vector3, shape: Shape3) -> tuple[tuple[Shape3, ...], str]:
    """Strides of the five levels: an axis is halved while it is among the finest and long enough.

    An axis waits while its spacing is twice that of the finest axis or more, and stops when fewer than
    four voxels (to within `SPARE`) are left, so that at least two remain at the bottom.
    """
    spacing, size = list(spacing_mm), [float(n) for n in shape]
    levels = []
    for _ in range(LEVELS):
        long = [axis for axis in range(3) if size[axis] >= 4 * (1 - SPARE)]
        finest = min((spacing[axis] for axis in long), default=0.0)
        stride = [2 if axis in long and spacing[axis] < 2 * finest else 1 for axis in range(3)]
        spacing = [d * k for d, k in zip(spacing, stride, strict=True)]
        size = [n / k for n, k in zip(size, stride, strict=True)]
        levels.append((stride[0], stride[1], stride[2]))
    return tuple(levels), "halve the axes finer than twice the finest, while four voxels are left"


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


def token_grids(patch: Shape3, strides: Sequence[Shape3]) -> tuple[Shape3, ...]:
    """Token grids of the four Swin stages: after the embedding and after each merging but the last."""
    grids, size = [], list(patch)
    for stride in strides[:-1]:
        size = [n // k for n, k in zip(size, stride, strict=True)]
        grids.append((size[0], size[1], size[2]))
    return tuple(grids)


def windows(grids: Sequence[Shape3], largest: int) -> tuple[tuple[Shape3, ...], str]:
    """For each stage and axis the largest window up to `largest` that tiles the token grid exactly."""
    chosen = []
    for grid in grids:
        sides = [max(w for w in range(1, min(largest, n) + 1) if n % w == 0) for n in grid]
        chosen.append((sides[0], sides[1], sides[2]))
    return tuple(chosen), f"largest divisor of the token grid up to {largest}, so that no window is padded"


def unet_levels(spacing_mm: Vector3, shape: Shape3) -> tuple[tuple[Shape3, ...], tuple[Shape3, ...], str]:
    """Strides and kernels of a U-Net's levels, for patches of this shape: nnU-Net's rules.

    An axis is halved while its spacing is below twice that of the finest axis that can be halved, and at
    least `SHORTEST_EDGE` voxels remain, or `SHORTEST_LONE_EDGE` if it is the only one. Kernels are 1 along an
    axis until its spacing is below twice the finest, then 3; the coarsest level's are 3.
    """
    spacing, size = list(spacing_mm), list(shape)
    strides: list[Shape3] = [(1, 1, 1)]
    kernels: list[Shape3] = []
    side = [1, 1, 1]
    while True:
        side = [3 if k == 3 or d < 2 * min(spacing) else 1 for k, d in zip(side, spacing, strict=True)]
        long = [axis for axis in range(3) if size[axis] >= 2 * SHORTEST_EDGE]
        finest = min((spacing[axis] for axis in long), default=0.0)
        chosen = [axis for axis in long if spacing[axis] < 2 * finest]
        if not chosen or (len(chosen) == 1 and size[chosen[0]] < 2 * SHORTEST_LONE_EDGE):
            break
        kernels.append((side[0], side[1], side[2]))
        stride = [2 if axis in chosen else 1 for axis in range(3)]
        spacing = [d * k for d, k in zip(spacing, stride, strict=True)]
        size = [ceil(n / k) for n, k in zip(size, stride, strict=True)]
        strides.append((stride[0], stride[1], stride[2]))
    kernels.append((3, 3, 3))
    reason = f"nnU-Net's: halve the axes finer than twice the finest, while {SHORTEST_EDGE} voxels are left"
    return tuple(strides), tuple(kernels), reason


def unet_features(first: int, levels: int) -> tuple[int, ...]:
    """Channels per level: doubled from level to level up to `MOST_FEATURES`."""
    return tuple(min(first * 2**level, MOST_FEATURES) for level in range(levels))


def resenc_blocks(levels: int) -> tuple[int, ...]:
    """Residual blocks per level."""
    return tuple(RESENC_BLOCKS[min(level, len(RESENC_BLOCKS) - 1)] for level in range(levels))


def transformer_heads(channels: int) -> int:
    """The most heads of at least `HEAD_CHANNELS` channels that divide the channels."""
    return next(h for h in range(max(1, channels // HEAD_CHANNELS), 0, -1) if channels % h == 0)


def dilations(spacing_mm: Vector3, shape: Shape3) -> tuple[tuple[Shape3, ...], str]:
    """Dilations of the plain network's layers: what a U-Net would see per voxel, level by level.

    Two layers without dilation, one per halving that `strides` would make, and one without again.
    """
    levels, _ = strides(spacing_mm, shape)
    steps, now = [(1, 1, 1), (1, 1, 1)], [1, 1, 1]
    for stride in levels[:-1]:
        if max(stride) > 1:
            now = [n * k for n, k in zip(now, stride, strict=True)]
            steps.append((now[0], now[1], now[2]))
    return (*steps, (1, 1, 1)), "doubled where a U-Net would halve; 1 at both ends (Yu and Koltun)"


def step(divisor: Shape3, shape: Shape3) -> Shape3:
    """By what a patch grows: the smallest multiple of the divisor of `STEP` voxels or the whole case."""
    s, p, left = (ceil(min(STEP, n) / d) * d for d, n in zip(divisor, shape, strict=True))
    return s, p, left


def heads(feature_size: int) -> tuple[int, int, int, int]:
    """Attention heads per stage: heads of 16 channels from 24 on (Swin UNETR's at 48), of 8 below."""
    first = 3 if feature_size % 24 == 0 else 2
    return first, 2 * first, 4 * first, 8 * first


def width_reason(device: Device) -> str:
    """Why the feature size is what it is."""
    if isinstance(device, CPU):
        return "on a CPU time is scarcest: 16 channels fill one vector register and no more"
    return "the widest whose patch still spans five lumbar levels or the median case"


def fusion_kernels(
    spacing_mm: Vector3, stride: Shape3, thicknesses_mm: Sequence[float]
) -> tuple[tuple[Shape3, ...], str]:
    """Kernels of the multi-scale fusion: the embedding's own, and one as wide as each typical thickness.

    An axis of spacing d and stride k takes `k + 2 m` voxels, the smallest that spans the thickness, at
    most `LARGEST_KERNEL`; equal kernels collapse.
    """
    kernels = [stride]
    widths: list[float] = []
    if len(thicknesses_mm):
        widths = sorted({float(width) for width in np.percentile(thicknesses_mm, [10, 50, 90])})
    for width in widths:
        sides = [
            min(k + 2 * max(0, ceil((width / d - k) / 2)), LARGEST_KERNEL - (LARGEST_KERNEL - k) % 2)
            for d, k in zip(spacing_mm, stride, strict=True)
        ]
        kernel = (sides[0], sides[1], sides[2])
        if kernel not in kernels:
            kernels.append(kernel)
    spans = ", ".join(f"{width:.0f}" for width in widths)
    return tuple(kernels), f"the embedding's own, then wide enough for structures of {spans} mm"


def normalisation(fingerprint: Fingerprint) -> tuple[dict[Modality, Normalisation], str]:
    """CT by the dataset's foreground, where HU mean the same everywhere; MR by each image's own."""
    facts = fingerprint.intensities.get("CT")
    ct = (
        Normalisation(
            scope="dataset",
            lower=facts.percentile_00_5,
            upper=facts.percentile_99_5,
            mean=facts.mean,
            std=max(facts.std, 1.0),
        )
        if facts
        # Vertebrae in public CT: median 115 to 350 HU, cortex to about 1200.
        else Normalisation(scope="dataset", lower=-150.0, upper=1200.0, mean=250.0, std=250.0)
    )
    mr = Normalisation(scope="image", lower=0.005, upper=0.995, mean=0.0, std=1.0)
    reason = (
        f"CT: foreground percentiles 0.5 and 99.5 ({ct.lower:.0f} ... {ct.upper:.0f} HU)"
        if facts
        else "no CT here: usual range of vertebrae"
    )
    return {
        "CT": ct,
        "MR": mr,
    }, f"{reason}; MR: each image's own 0.5 and 99.5 % quantiles, mean and deviation"


def mirroring(labels: LabelSpace) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], str]:
    """Left/right flips, with side-specific labels changing places; never upside down or front to back."""
    index = {integer: i for i, integer in enumerate(labels.integers, start=1)}
    names = {name.lower(): i for i, name in enumerate(labels.names)}
    pairs: list[tuple[int, int]] = []
    single: list[str] = []
    for name, i in names.items():
        if "left" not in name and "right" not in name:
            continue
        other = names.get(name.replace("left", "right") if "left" in name else name.replace("right", "left"))
        if other is None or len(labels.members[i]) != len(labels.members[other]):
            single.append(name)
        elif i < other:
            pairs.extend(
                (index[a], index[b])
                for a, b in zip(labels.members[i], labels.members[other], strict=True)
                if a != b
            )
    if single:
        return (), (), f"off: {', '.join(single)} has no counterpart on the other side"
    swapped = f", {len(pairs)} pairs of side-specific labels change places" if pairs else ""
    return (2,), tuple(pairs), f"left/right only{swapped}; the other flips do not occur in patients"


def _vector(values: np.ndarray) -> Vector3:
    s, p, l = (float(value) for value in values)  # noqa: E741
    return s, p, l


def _times(shape: Shape3) -> str:
    return "x".join(str(n) for n in shape)
