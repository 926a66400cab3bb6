"""The planner's rules: from measured facts to numbers, one small function each.

Each returns its value with the reason in words. Formulas, defaults and sources are explained in
docs/concepts/planning.md. Triples are in array order (superior, posterior, left).
"""

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
    spacing_mm: Vector3, shape: Shape3, divisor: Shape3, fits: Callable[[Shape3], bool]
) -> tuple[Shape3 | None, str]:
    """The largest patch on the way from the smallest to the median case that fits.

    The patch grows by its divisor, always along the axis that reaches least far in mm (S counts less by
    `S_EMPHASIS`) and is not yet as long as the median case. The order does not depend on memory, so more
    memory never gives a smaller patch. None if not even the smallest fits.
    """
    weight = (S_EMPHASIS, 1.0, 1.0)
    patch = list(divisor)
    limit = [ceil((1 - SPARE) * n / d) * d for n, d in zip(shape, divisor, strict=True)]
    best, stopped = None, "the median case is covered"
    while True:
        candidate = (patch[0], patch[1], patch[2])
        if not fits(candidate):
            stopped = f"{_times(candidate)} would exceed the budget"
            break
        best = candidate
        growable = [axis for axis in range(3) if patch[axis] < limit[axis]]
        if not growable:
            break
        axis = min(growable, key=lambda a: patch[a] * spacing_mm[a] / weight[a])
        patch[axis] += divisor[axis]
    return best, f"grown towards the median case {_times(shape)}; {stopped}"


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
