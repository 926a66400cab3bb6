import time
from concurrent.futures import ThreadPoolExecutor

from autospine.storage.locks import alone


def test_the_second_one_says_so_and_waits(tmp_path, caplog):
    caplog.set_level("INFO", logger="autospine")
    lock, done = tmp_path / "folder" / "work.lock", []

    def work() -> None:
        with alone(lock, "counts"):
            done.append("second")

    with ThreadPoolExecutor(1) as other:
        with alone(lock, "counts"):
            assert "waiting" not in caplog.text
            second = other.submit(work)
            while "another process counts; waiting for it" not in caplog.text and not second.done():
                time.sleep(0.01)
            done.append("first")
        second.result(60)
    assert done == ["first", "second"]


def test_a_lock_is_free_after_an_error(tmp_path, caplog):
    caplog.set_level("INFO", logger="autospine")
    for _ in range(2):
        try:
            with alone(tmp_path / "work.lock", "counts"):
                raise KeyError
        except KeyError:
            pass
    assert "waiting" not in caplog.text
