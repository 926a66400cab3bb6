import random

import pytest
from benchmarks.kill import measure


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_training_loses_at_most_one_epoch_and_ends_with_the_same_weights(tmp_path):
    found = measure(tmp_path, 2, random.Random(1))
    assert found["kill_resume_equal"]
    assert found["most_finished_epochs_lost"] <= 1
    assert found["kills"] == 2
