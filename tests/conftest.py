"""Fixtures shared by all tests."""

import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # the suite runs one test process per core

# A busy machine is no fault of the code. The suite tries the same examples each time, so that a change is
# judged by what it changed; `make test-all` looks for new ones with the profile "exploring".
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("exploring", deadline=None)
settings.load_profile("repeatable")


# A shell without job control starts what runs in its background with Ctrl-C ignored. This process and those
# that tests start would inherit that, and tests of Ctrl-C would wait for an interruption that never comes.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts() -> None:
    """Let Ctrl-C interrupt every test, even after one that imports a library that takes it for itself."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Give each test the same random numbers, whichever tests its process ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that holds Dataset001_SpineReal/ and real/; skips where it is absent."""
    found = os.environ.get("AUTOSPINE_REAL_DATA")
    folder = Path(found) if found else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / "Dataset001_SpineReal").is_dir():
        pytest.skip(f"no real data under {folder}: set AUTOSPINE_REAL_DATA to the folder that holds it")
    return folder
