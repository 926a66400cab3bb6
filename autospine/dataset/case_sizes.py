"""The memory that work on a case takes, told from the headers of its files."""

from collections.abc import Sequence
from math import prod

from autospine.cluster.executor import Need, Task
from autospine.core.errors import AutospineError
from autospine.dataset.raw import Case
from autospine.io.images import open_image

VOXEL_BYTES = 2
"""Bytes of a voxel of most images, which are stored as 16-bit integers."""

COPIES = 8
"""Memory of reading, measuring or preprocessing a case, in multiples of its image: the image as
it was read and as 32-bit numbers, its labels, and what is made of them."""

PROCESS_BYTES = 600 * 1024**2
"""Memory of a process that has imported PyTorch, before it reads a case."""


def image_bytes(case: Case) -> int:
    """Return the size of a case's image in memory; 0 if its header cannot be read."""
    total = 0
    for path in case.images:
        try:
            if path.is_dir():
                total += sum(file.stat().st_size for file in path.iterdir())
            else:
                total += VOXEL_BYTES * prod(open_image(path).grid.shape)
        except (AutospineError, OSError):
            return 0
    return total


def case_need(case: Case) -> Need:
    """Return what reading and working on a case takes."""
    return Need(memory_bytes=PROCESS_BYTES + COPIES * image_bytes(case))


def case_tasks(cases: Sequence[Case], *, elsewhere: bool) -> list[Task]:
    """Return a task for each case.

    Args:
        cases: The cases.
        elsewhere: Whether they run on a cluster, whose workers are chosen by the memory that cases need.
    """
    return [
        Task(name=case.name, argument=case, need=case_need(case) if elsewhere else Need()) for case in cases
    ]
