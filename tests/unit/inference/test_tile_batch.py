import pytest
import torch

from autospine.inference.tile_batch import LARGEST, TileBatch, choose_tile_batch


def test_tiles_are_doubled_while_each_takes_less_time():
    taken = {1: 1.0, 2: 1.2, 4: 2.0, 8: 3.9}
    assert choose_tile_batch(taken.__getitem__, 100) == TileBatch(size=4, seconds_per_tile=0.5)


def test_one_tile_at_a_time_where_more_do_not_pay():
    assert choose_tile_batch(float, 100) == TileBatch(size=1, seconds_per_tile=1.0)


@pytest.mark.parametrize(("room", "expected"), [(0, 1), (1, 1), (7, 4), (1000, LARGEST)])
def test_no_more_than_there_is_room_for(room, expected):
    assert choose_tile_batch(lambda _: 1.0, room).size == expected


def test_what_does_not_fit_is_not_run():
    def seconds(size):
        if size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 1.0

    assert choose_tile_batch(seconds, 100) == TileBatch(size=4, seconds_per_tile=0.25)


def test_a_single_tile_that_does_not_fit_is_an_error():
    def never(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        choose_tile_batch(never, 100)
