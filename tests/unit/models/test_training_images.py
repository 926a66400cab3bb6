"""An image that a model has learnt from is known by its voxels, whatever it is called."""

import makers
import numpy as np

from autospine.io.images import Volume
from autospine.models.model_folder import TrainingImage, training_case_of
from autospine.storage.digest import digest_of_voxels

IMAGE = np.random.default_rng(0).integers(-900, 900, (6, 5, 4)).astype(np.int16)
GRID = makers.grid(IMAGE.shape, (2.0, 1.0, 1.0))


def volume(image=IMAGE, grid=GRID) -> Volume:
    return Volume(array=image[None], grid=grid, stored=grid)


def known(digest: str, name: str = "learnt") -> list[tuple[str, TrainingImage]]:
    return [(name, TrainingImage(digest=digest, shape=GRID.shape, spacing_mm=GRID.spacing_mm))]


def test_the_content_decides_and_not_the_name():
    images = known(digest_of_voxels(IMAGE))
    assert training_case_of("renamed", volume(), images) == "learnt"
    assert training_case_of("renamed", volume(IMAGE.astype(np.float32)), images) == "learnt"
    assert training_case_of("learnt", volume(IMAGE + 1), images) is None
    assert training_case_of("learnt", volume(IMAGE[:5], makers.grid((5, 5, 4))), images) is None


def test_without_its_content_name_size_and_spacing_decide():
    images = known("")
    assert training_case_of("learnt", volume(IMAGE + 1), images) == "learnt"
    assert training_case_of("renamed", volume(), images) is None
    assert training_case_of("learnt", volume(grid=makers.grid(IMAGE.shape)), images) is None
    assert training_case_of("learnt", volume(), []) is None


def test_cases_of_one_name_in_two_models_are_both_known():
    other = known(digest_of_voxels(IMAGE + 1))
    images = [*known(digest_of_voxels(IMAGE)), *other]
    assert (
        training_case_of("a", volume(), images)
        == training_case_of("b", volume(IMAGE + 1), images)
        == "learnt"
    )
