import pytest

from autospine.pipeline.training import sharers_of_cores


@pytest.mark.parametrize(
    ("fold", "at_once", "processes", "sharers"),
    [
        ("all", 1, 1, 1),
        ("all", 2, 1, 2),
        ("all", 8, 1, 5),  # eight GPUs, five folds
        ("0", 8, 1, 1),
        ("full", 8, 1, 1),
        ("all", 1, 4, 4),
        ("0", 1, 4, 4),
    ],
)
def test_cores_are_shared_by_what_trains_at_the_same_time(fold, at_once, processes, sharers):
    assert sharers_of_cores(fold, at_once, processes) == sharers
