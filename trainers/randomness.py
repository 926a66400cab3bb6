"""Random numbers: seeds, generator states for checkpoints, and deterministic training."""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf, isinf
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed the global generators of torch (on every device), NumPy and Python.

    Patches do not depend on them: they have generators of their own (`autospine.data.sampling.patch_rng`).
    """
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the global generators as tensors by library, for a checkpoint.

    Args:
        device: Device whose generator is included, if it is a GPU.
    """
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    mersenne = (*numpy["state"]["key"].tolist(), numpy["state"]["pos"], numpy["has_gauss"], numpy["gauss"])
    # float64 holds the 32-bit words exactly; infinity stands for the absence of a cached Gaussian number.
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words, inf if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.tensor(mersenne, dtype=torch.float64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Restore the states that `random_state` returned.

    Args:
        state: States by library; generators that are missing in it keep their present state.
        device: Device whose generator is restored, if it is a GPU and has a state.
    """
    if "torch" in state:
        torch.set_rng_state(state["torch"])
    if "python" in state:
        version, *words, gauss = state["python"].tolist()
        random.setstate((int(version), tuple(int(w) for w in words), None if isinf(gauss) else gauss))
    if "numpy" in state:
        *keys, position, has_gauss, cached = state["numpy"].tolist()
        np.random.set_state(
            ("MT19937", np.array(keys, dtype=np.uint32), int(position), int(has_gauss), cached)
        )
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Compute with this many threads within the block; None leaves their number as it is.

    On a CPU the number of threads decides in which order many sums are taken, and so their last bits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deterministic() -> Iterator[None]:
    """Restrict torch to deterministic algorithms within the block.

    They are slower on a GPU. On a CPU with a fixed number of threads nearly all algorithms are deterministic.
    """
    # cuBLAS reads it when it is first used; NVIDIA documents this value as reproducible.
    os.putenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    memory: Any = torch.utils.deterministic  # its attribute is a property of a module, unknown to mypy
    filled = memory.fill_uninitialized_memory
    before = (torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    # What torch allocates for our operators is written before it is read; to fill it first takes time.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
        memory.fill_uninitialized_memory = filled
