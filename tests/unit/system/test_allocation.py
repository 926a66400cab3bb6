import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autospine.system.allocation import (
    describe_full_memory,
    is_out_of_memory,
    lacks_gpu_memory,
    reuse_freed_memory,
)

FULL_GPU = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
)
FULL_RAM = (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
OTHERS = (
    RuntimeError("CUDA error: no kernel image is available"),
    RuntimeError("out of resource: shared memory, Required: 131072"),
    ValueError("out of memory"),
)


@pytest.mark.parametrize("error", [*FULL_GPU, *FULL_RAM, *OTHERS], ids=str)
def test_want_of_memory_is_recognised_in_the_words_of_every_library(error):
    assert lacks_gpu_memory(error) == (error in FULL_GPU)
    assert is_out_of_memory(error) == (error not in OTHERS)
    said = describe_full_memory(error)
    assert (said is None) == (error in OTHERS)
    assert ("--device cpu" in (said or "")) == (error in FULL_GPU)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt belongs to glibc")
def test_freed_memory_needs_no_new_pages() -> None:
    assert reuse_freed_memory()
    for _ in range(8):
        torch.ones(1 << 26, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(1 << 26, dtype=torch.uint8)
    pages = 8 * (1 << 26) // resource.getpagesize()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages / 4


KEPT = """
import numpy as np
import psutil

from autospine.system.allocation import return_freed_memory

assert return_freed_memory()
before = psutil.Process().memory_info().rss
for size in (24, 30, 28, 31):
    block, small = np.ones(size << 20, dtype=np.uint8), np.ones(1000)
    del block
assert psutil.Process().memory_info().rss - before < 8 << 20
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt belongs to glibc")
def test_freed_volumes_are_given_back() -> None:
    # In a process of its own: the test above has told this one to keep everything.
    subprocess.run([sys.executable, "-c", KEPT], check=True)


BETWEEN = """
import psutil
import torch

from autospine.system.allocation import as_in_prediction, prepare_memory

cpu, process = torch.device("cpu"), psutil.Process()


def kept():
    torch.ones(1 << 26, dtype=torch.uint8)
    return process.memory_info().rss


before = process.memory_info().rss
prepare_memory(cpu)
assert kept() - before > 48 << 20
with as_in_prediction(cpu):
    assert process.memory_info().rss - before < 16 << 20, "what training has kept is given back"
    assert kept() - before < 16 << 20
assert kept() - before > 48 << 20
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt belongs to glibc")
def test_in_the_middle_of_training_prediction_gives_memory_back() -> None:
    subprocess.run([sys.executable, "-c", BETWEEN], check=True)


HUGE = """
import torch

from autospine.system.allocation import use_huge_pages

use_huge_pages()
large = torch.ones(1 << 26)
rollup = open("/proc/self/smaps_rollup", encoding="ascii").read()
(line,) = (line for line in rollup.splitlines() if line.startswith("AnonHugePages:"))
assert int(line.split()[1]) << 10 > large.nbytes / 2, line
"""


def _huge_pages_can_be_asked_for() -> bool:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return path.is_file() and "[never]" not in path.read_text(encoding="ascii")


@pytest.mark.skipif(not _huge_pages_can_be_asked_for(), reason="the kernel hands out none")
def test_large_tensors_lie_in_huge_pages() -> None:
    # In a process of its own: PyTorch reads its variable once, at the first tensor.
    subprocess.run([sys.executable, "-c", HUGE], check=True)
