import resource
import sys

import pytest
import torch

from autospine.network import reuse_freed_memory


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
