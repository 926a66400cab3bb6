"""The device whose results are compared with the CPU's."""

import os
from collections.abc import Iterator

import pytest
import torch

ON = "AUTOSPINE_GPU_TESTS_ON"
"""Environment variable that names another device; `cpu` tries the tests themselves, and compares nothing."""


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    """The GPU, with products and convolutions of float32 in float32; skips where there is none."""
    device = torch.device(os.environ.get(ON, "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield device
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed
    if device.type == "cuda":
        torch.cuda.empty_cache()
