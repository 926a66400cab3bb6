"""Validation after each epoch, with networks that know what they should say."""

import makers
import numpy as np
import pytest
import torch

from autospine.core.labels import IGNORE_INDEX, parse_labels
from autospine.inference.tiles import count_tiles
from trainers.epoch_validation import (
    FEWEST_TILES,
    FOREGROUND_SHARE,
    EpochValidation,
    choose_tiles,
    prepare_validation,
    show_classes,
)
from trainers.metrics_log import HELD_OUT, HELD_OUT_CLASSES

PATCH = (16, 16, 16)


def store(folder, name: str, indices: np.ndarray):
    """A case whose image shows its stored indices."""
    return makers.store_case(folder, name, indices.astype(float), indices)


@pytest.fixture
def cases(tmp_path):
    """A column of both classes on a grid that tiles reach out of, and one of them alone."""
    upper = makers.column((40, 18, 12))
    return [store(tmp_path, "a", makers.column()), store(tmp_path, "b", np.where(upper == 1, upper, 0))]


class Oracle:
    """Predicts from the image alone, which shows the stored indices, and -5 outside the case."""

    def __init__(self, says=lambda indices: indices) -> None:
        self._says = says
        self.tiles = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.tiles += len(images)
        said = self._says(images[:, 0].round().clamp_min(0).long())
        return 10 * torch.nn.functional.one_hot(said, 3).movedim(-1, 1).float()


def validation(cases, **training) -> EpochValidation:
    made = prepare_validation(cases, makers.LABELS, makers.configuration(training=training), seed=3)
    assert made is not None
    return made


def test_few_tiles_are_all_of_them_and_count_every_voxel_once(cases):
    total = sum(count_tiles(case.shape, PATCH) for case in cases)
    assert total <= FEWEST_TILES
    tiles = choose_tiles(cases, PATCH, FEWEST_TILES, seed=0)
    assert len(tiles) == total
    assert {tile.weight for tile in tiles} == {1.0}
    for number, case in enumerate(cases):
        counted = np.zeros(case.shape, dtype=int)
        for tile in tiles:
            if tile.case == number:
                assert tile.box.shape == PATCH
                counted[tile.counted.slices] += 1
        assert (counted == 1).all()


def test_of_many_tiles_those_with_a_class_come_first_and_stand_for_all(tmp_path):
    indices = np.zeros((160, 64, 64), dtype=np.uint8)
    indices[:, :8, :8] = 1
    case = store(tmp_path, "a", indices)
    assert count_tiles(case.shape, PATCH) == 19 * 7 * 7
    tiles = choose_tiles([case], PATCH, 8, seed=0)
    shown = [tile for tile in tiles if tile.box.start[1:] == (0, 0)]
    assert (len(tiles), len(shown)) == (8, round(FOREGROUND_SHARE * 8))
    assert sum(tile.weight for tile in shown) == pytest.approx(19)
    assert sum(tile.weight for tile in tiles) == pytest.approx(19 * 7 * 7)
    assert choose_tiles([case], PATCH, 8, seed=0) == tiles
    assert choose_tiles([case], PATCH, 8, seed=1) != tiles


def test_what_a_network_knows_has_dice_1(cases):
    made = validation(cases, batch_size=2, iterations_per_epoch=1000)
    columns = made.finish_epoch(Oracle())
    assert columns == {HELD_OUT: 1.0, HELD_OUT_CLASSES: {"bone": 1.0, "canal": 1.0}}


def test_the_dice_is_that_of_all_voxels_together(tmp_path):
    """Half of the canal is called bone, in two cases of several tiles."""
    shapes = {"a": (32, 16, 32), "b": (16, 16, 32)}
    cases = [store(tmp_path, name, makers.column(shape)) for name, shape in shapes.items()]

    def mistaken(indices: torch.Tensor) -> torch.Tensor:
        said = indices.clone()
        said[:, ::2] -= (indices[:, ::2] == 2).long()
        return said

    columns = validation(cases, batch_size=3, iterations_per_epoch=1000).finish_epoch(Oracle(mistaken))
    labels = [case.read_all()[1] for case in cases]
    bone, canal = (sum(int((each == index).sum()) for each in labels) for index in (1, 2))
    missed = canal / 2  # the canal is the same in every row
    expected = {"bone": 2 * bone / (2 * bone + missed), "canal": 2 * (canal - missed) / (2 * canal - missed)}
    assert columns[HELD_OUT_CLASSES] == pytest.approx(expected, abs=1e-5)
    assert columns[HELD_OUT] == pytest.approx(sum(expected.values()) / 2, abs=1e-5)


def test_an_epoch_predicts_few_tiles_and_others_count_from_before(cases):
    made = validation(cases, batch_size=2, iterations_per_epoch=11)
    assert made.tiles_per_epoch == 3 < len(made.tiles)
    knows, knows_nothing = Oracle(), Oracle(torch.zeros_like)
    assert made.finish_epoch(knows)[HELD_OUT] == 1.0
    assert knows.tiles == len(made.tiles)
    assert made.finish_epoch(knows)[HELD_OUT] == 1.0
    assert knows.tiles == len(made.tiles) + 3
    course = [made.finish_epoch(knows_nothing)[HELD_OUT] for _ in range(len(made.tiles) // 3 + 1)]
    assert course == sorted(course, reverse=True)
    assert course[0] > course[-1] == 0.0


def test_a_resumed_validation_goes_on_where_it_was(cases):
    first, knows = validation(cases, iterations_per_epoch=15), Oracle()
    first.finish_epoch(knows)
    again = validation(cases, iterations_per_epoch=15)
    again.restore(first.state())
    assert again.next_tile == first.next_tile
    nothing = Oracle(torch.zeros_like)
    assert again.finish_epoch(nothing) == first.finish_epoch(nothing)
    other = validation(cases[:1], iterations_per_epoch=15)
    other.restore(first.state())
    assert (other.next_tile, other.latest) == (0, {})
    other.restore({})
    assert (other.next_tile, other.latest) == (0, {})


def test_a_class_that_is_held_out_nowhere_has_no_dice_unless_it_is_predicted(cases):
    made = validation(cases[1:], iterations_per_epoch=1000)
    assert made.finish_epoch(Oracle())[HELD_OUT_CLASSES] == {"bone": 1.0, "canal": None}
    columns = made.finish_epoch(Oracle(lambda indices: torch.full_like(indices, 2)))
    assert columns == {HELD_OUT: 0.0, HELD_OUT_CLASSES: {"bone": 0.0, "canal": 0.0}}


def test_ignored_voxels_do_not_count(tmp_path):
    indices = makers.column()
    indices[:6] = IGNORE_INDEX
    image = np.where(indices == IGNORE_INDEX, 2, indices).astype(float)
    case = makers.store_case(tmp_path, "a", image, indices)
    assert validation([case], iterations_per_epoch=1000).finish_epoch(Oracle())[HELD_OUT] == 1.0


def test_regions_are_predicted_above_one_half(tmp_path):
    labels = parse_labels({"background": 0, "spine": [1, 2], "disc": [2]}, [1, 2])
    case = store(tmp_path, "a", makers.column())
    configuration = makers.configuration(training={"iterations_per_epoch": 1000})
    made = prepare_validation([case], labels, configuration, seed=0)
    oracle = Oracle()

    def regions(images: torch.Tensor) -> torch.Tensor:
        said = oracle(images).argmax(1)
        return torch.stack([said > 0, said == 2], dim=1).float() - 0.5

    columns = made.finish_epoch(regions)
    assert columns == {HELD_OUT: 1.0, HELD_OUT_CLASSES: {"spine": 1.0, "disc": 1.0}}


def test_what_is_not_finite_has_no_dice(cases):
    made, knows = validation(cases, iterations_per_epoch=1000), Oracle()
    columns = made.finish_epoch(lambda images: torch.where(images[:1] > 0, knows(images), float("nan")))
    assert columns == {HELD_OUT: None, HELD_OUT_CLASSES: {"bone": None, "canal": None}}


def test_cases_without_any_class_are_not_validated(cases, tmp_path):
    empty = np.zeros((16, 16, 16), dtype=np.uint8)
    empty[0] = IGNORE_INDEX
    unlabelled = makers.store_case(tmp_path, "c", empty.astype(float), empty)
    assert show_classes([unlabelled, *cases])
    assert not show_classes([unlabelled])
    for none in ([], [unlabelled]):
        assert prepare_validation(none, makers.LABELS, makers.configuration(), seed=0) is None
