import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest

from autospine.io.library_chatter import without_chatter, without_warnings


def test_warnings_come_back_after_reading_in_several_threads():
    """Each thread ends while another is still at it."""
    before = list(warnings.filters)
    inside, outside = threading.Barrier(2), threading.Barrier(2)

    def first():
        with without_warnings():
            inside.wait(10)
        outside.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    with without_warnings():
        inside.wait(10)
        outside.wait(10)
        warnings.warn("an oddity", UserWarning, stacklevel=1)
    thread.join()
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="an oddity"):
        warnings.warn("an oddity", UserWarning, stacklevel=1)


CHATTER = b"** ERROR: NWAD: wrote only 0 of 4096 bytes to file\n"


def test_what_is_no_chatter_is_shown_a_moment_later(capfd):
    with without_chatter():
        os.write(2, b"half of " + CHATTER + b"a line\n" + CHATTER)
        with without_chatter():
            os.write(2, CHATTER + b"another\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "half of a line\nanother\n"
    os.write(2, CHATTER)
    assert capfd.readouterr().err == CHATTER.decode()


def test_an_error_within_passes_and_standard_error_is_as_before(capfd):
    with pytest.raises(KeyError), without_chatter():
        os.write(2, b"said\n")
        raise KeyError
    os.write(2, b"said afterwards\n")
    assert capfd.readouterr().err == "said\nsaid afterwards\n"


def test_without_standard_error_nothing_is_held_back():
    run = """
import os
from autospine.io.library_chatter import without_chatter
os.close(2)
with without_chatter():
    print("done")
"""
    done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


WRITING = """
import resource, signal, sys
from pathlib import Path
import makers
import numpy as np
from autospine.core.errors import ImageError
from autospine.io.images import write_array

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    write_array(Path(sys.argv[1]) / "a.nii", np.ones((20, 20, 20), np.int16), makers.grid((20, 20, 20)))
except ImageError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="limits of POSIX")
def test_a_file_that_cannot_be_written_is_said_in_our_words_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WRITING, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "free some space or choose another folder" in done.stdout
    assert done.stderr == ""
