from autospine.core.labels import parse_labels
from autospine.inference.case_memory import case_memory
from autospine.inference.slab import slab_bytes
from autospine.inference.tiles import TileGrid
from autospine.inference.to_native import halo_bytes

LABELS = parse_labels({"background": 0, "bone": 300, "canal": 7})


def test_a_case_is_its_image_its_labels_and_what_moves_along_it():
    layout = TileGrid.covering((400, 60, 70), (32, 32, 32))
    memory = case_memory(layout, (500, 80, 90), 2, LABELS)
    stored = 500 * 80 * 90 * (2 * 2 + 2)
    window = 2 * 2 * 96 * 60 * 70
    assert memory.image == stored + window
    assert memory.scores == slab_bytes(layout, 3) + halo_bytes(layout, 3)
    assert memory.total == memory.image + memory.scores


def test_twice_the_length_adds_image_and_labels_alone():
    short, long = (
        case_memory(TileGrid.covering((rows, 60, 70), (32, 32, 32)), (rows, 60, 70), 1, LABELS)
        for rows in (300, 600)
    )
    assert short.scores == long.scores
    assert long.image - short.image == 300 * 60 * 70 * (2 + 2)


def test_whole_rows_take_more():
    layout = TileGrid.covering((100, 60, 70), (32, 32, 32))
    narrow, wide = (case_memory(layout, (100, 60, 70), 1, LABELS, wide=wide) for wide in (False, True))
    assert wide.scores == slab_bytes(layout, 3, wide=True) + halo_bytes(layout, 3) > narrow.scores
    assert wide.image == narrow.image


def test_the_window_is_no_longer_than_the_image():
    layout = TileGrid.covering((40, 10, 10), (32, 8, 8))
    memory = case_memory(layout, (40, 10, 10), 1, LABELS, voxel_bytes=4)
    assert memory.image == 40 * 10 * 10 * (4 + 2) + 2 * 40 * 10 * 10


def test_pieces_are_copied_only_where_they_are_interpolated():
    layout = TileGrid.covering((100, 60, 70), (32, 32, 32))
    same, other = (
        case_memory(layout, (100, 60, 70), 1, LABELS, resampled=resampled) for resampled in (False, True)
    )
    assert same.scores == slab_bytes(layout, 3)
    assert other.scores - same.scores == 4 * 3 * 70 * (60 + 32 * 32 // 4)
