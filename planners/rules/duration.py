"""How long a training takes on a GPU, and how many steps it is worth.

A step reads and writes the network's maps, and multiplies. Bytes are in proportion to voxels times channels,
operations to voxels times the square of the channels; a GPU needs its time for both, and gets only a part of
what its data sheet promises:

    seconds = voxels (620 bytes · width / bandwidth + 840 · width² / arithmetic) / 0.45
"""

from typing import NamedTuple

from autospine.system.hardware import GIB
from planners.rules.device import GPU

BYTES_PER_CHANNEL = 620.0
"""Bytes that a training step moves per voxel and channel at full resolution: counted, operator by operator,
of the adaptive Swin UNETR with 48 channels on two patches of 128 cubed."""

OPERATIONS_PER_SQUARE = 840.0
"""Floating-point operations per voxel and square of the channels at full resolution, counted likewise."""

EFFICIENCY = 0.45
"""Share of its data sheet's speed that a GPU reaches; not measured: such a step would take 39 ms on an H200
by the data sheet, and is expected to take 85 to 110."""

SHORTEST_STEP = 0.035
"""Seconds that the processor needs to begin the operations of a step, however small it is; not measured."""

VALIDATED = 0.05
"""Share of the time of the steps that held-out tiles after each epoch take: 15 % of as many patches, forwards
alone."""

SEEN_VOXELS = 1000 * 250 * 2 * 128**3
"""Voxels that a training sees at most: nnU-Net's 1000 epochs of 250 steps on two patches of 128 cubed."""

PASSES = 10_000
"""Times that a training sees the dataset's voxels at most, however few these are; a rule of thumb."""

LEAST_STEPS = 25_000
"""Steps of a training on a GPU that a small dataset does not reduce further; a rule of thumb."""

MOST_HOURS = 24.0
"""Longest training of a fold, by the estimate: five folds in five days."""


class Throughput(NamedTuple):
    """Speed of a GPU by its data sheet."""

    name: str
    """Name, as far as it is part of the one that CUDA reports."""

    gigabytes: int
    """Memory in its name."""

    bandwidth: float
    """Bytes per second of its memory."""

    arithmetic: float
    """16-bit operations per second, dense, with sums in float32."""

    source: str
    """NVIDIA's document that both numbers are from, or how they were estimated."""


_TURING = "Turing GPU Architecture white paper (WP-09183-001)"
_AMPERE = "Ampere GA102 GPU Architecture white paper V2.0"
_ADA = "Ada GPU Architecture white paper V2"
_BLACKWELL = "RTX Blackwell GPU Architecture white paper V1"
_ESTIMATED = "{} tensor cores x 64 products and sums x {} GHz boost; bandwidth of the product page"
"""An estimate, for cards of which NVIDIA states no such number: a tensor core of GeForce cards of Ampere and
Ada multiplies 64 pairs a clock with sums in float32, as the numbers of the other cards say."""

GPUS = (
    Throughput("RTX 2080 Ti", 11, 616e9, 53.8e12, _TURING),
    Throughput("RTX 3060", 12, 360e9, 25.5e12, _ESTIMATED.format(112, 1.777)),
    Throughput("RTX 3070", 8, 448e9, 40.6e12, _AMPERE),
    Throughput("RTX 3090", 24, 936e9, 71e12, _AMPERE),
    Throughput("RTX 4070", 12, 504e9, 58.3e12, _ESTIMATED.format(184, 2.475)),
    Throughput("RTX 4080", 16, 717e9, 97.5e12, _ADA),
    Throughput("RTX 4090", 24, 1008e9, 165.2e12, _ADA),
    Throughput("RTX 5090", 32, 1792e9, 209.5e12, _BLACKWELL),
    Throughput("RTX A6000", 48, 768e9, 154.8e12, _AMPERE),
    Throughput("L40S", 48, 864e9, 362e12, "L40S data sheet"),
    Throughput("Tesla T4", 16, 320e9, 65e12, "T4 data sheet"),
    Throughput("V100", 32, 900e9, 125e12, "V100 data sheet, SXM2"),
    Throughput("A100", 80, 2039e9, 312e12, "A100 data sheet, 80 GB SXM"),
    Throughput("H100", 80, 3350e9, 989e12, "H100 data sheet, SXM; half of its number with sparsity"),
    Throughput("H200", 141, 4800e9, 989e12, "H200 data sheet, SXM; half of its number with sparsity"),
    Throughput("B200", 180, 8000e9, 2250e12, "HGX B200 data sheet; half of its number with sparsity"),
)

USUAL = ("RTX 3070", "RTX 3060", "Tesla T4", "RTX 3090", "V100", "RTX A6000", "A100", "H200", "B200")
"""The GPU that is taken where only the memory is known, by ascending memory: one of the slower."""


def throughput_of(name: str, memory_bytes: int) -> tuple[Throughput, str]:
    """Return the speed of a GPU, and how its row was found.

    Args:
        name: Name that CUDA reports; empty where the GPU is in another machine.
        memory_bytes: Memory budget, by which a usual GPU is taken where the name is not in the table.
    """
    known = {gpu.name: gpu for gpu in GPUS}
    # A laptop has the name of a faster card.
    named = [gpu for gpu in GPUS if gpu.name in name and "Laptop" not in name]
    if named:
        return max(named, key=lambda gpu: len(gpu.name)), f"for {name}"
    large_enough = [known[usual] for usual in USUAL if known[usual].gigabytes * GIB >= memory_bytes]
    gpu = large_enough[0] if large_enough else known[USUAL[-1]]
    return gpu, f"for a usual GPU of this memory, {gpu.name},"


def step_seconds(gpu: Throughput, width: int, voxels: int) -> float:
    """Return the estimated seconds of a training step.

    Args:
        gpu: Speed of the GPU.
        width: Channels of the network at full resolution.
        voxels: Voxels of the whole batch.
    """
    moved = BYTES_PER_CHANNEL * width / gpu.bandwidth
    multiplied = OPERATIONS_PER_SQUARE * width**2 / gpu.arithmetic
    return max(SHORTEST_STEP, voxels * (moved + multiplied) / EFFICIENCY)


def epochs_worth(device: GPU, voxels: int, dataset_voxels: int, seconds: float) -> tuple[int, str]:
    """Return the epochs of a training on a GPU: the device's, or fewer where these gain nothing.

    Args:
        device: Defaults of a GPU.
        voxels: Voxels of a batch.
        dataset_voxels: Voxels of all cases.
        seconds: Estimated seconds of a step.
    """
    per_epoch = device.iterations_per_epoch
    limits = {
        "the device's default": float(device.epochs * per_epoch),
        f"until it has seen {SEEN_VOXELS:.2g} voxels, as nnU-Net's training does": SEEN_VOXELS / voxels,
        f"until it has seen the dataset's voxels {PASSES} times, but {LEAST_STEPS} steps at least": max(
            LEAST_STEPS, PASSES * dataset_voxels / voxels
        ),
        f"what {MOST_HOURS:g} hours by the estimate hold": MOST_HOURS * 3600 / (seconds * (1 + VALIDATED)),
    }
    reason = min(limits, key=lambda each: limits[each])
    return max(1, int(limits[reason] // per_epoch)), reason


def fold_hours(epochs: int, steps: int, seconds: float) -> float:
    """Return the hours of a fold of so many epochs of so many steps."""
    return epochs * steps * seconds * (1 + VALIDATED) / 3600
