"""Random numbers: seeds, states that checkpoints keep, and training that is the same every time."""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf, isinf
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed torch (on every device), NumPy and Python; patches have generators of their own."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Where the sequences of random numbers are, by library."""
    version, words, gauss = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    mersenne = (*numpy["state"]["key"].tolist(), numpy["state"]["pos"], numpy["has_gauss"], numpy["gauss"])
    state = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor([version, *words, inf if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.tensor(mersenne, dtype=torch.float64),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Go on where `random_state` was taken; sequences that it lacks stay where they are."""
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
def deterministic(wanted: bool) -> Iterator[None]:
    """Let torch use nothing but algorithms that give the same bits every time, where `wanted`.

    They are slower on a GPU; on a CPU with the same number of threads nearly all are of this kind anyway.
    """
    if not wanted:
        yield
        return
    # cuBLAS reads it when it is first used.
    os.putenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn = torch.backends.cudnn
    before = (torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
