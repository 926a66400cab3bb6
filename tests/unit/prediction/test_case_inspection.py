"""An image that a model has learnt from is known by its voxels, whatever it is called."""

from pathlib import Path

import makers
import numpy as np

from autospine.dataset.raw import Case
from autospine.io.images import Volume
from autospine.models.model_folder import TrainingImage
from autospine.prediction.case_inspection import training_case_of
from autospine.storage.digest import digest_of_voxels

IMAGE = np.random.default_rng(0).integers(-900, 900, (6, 5, 4)).astype(np.int16)
GRID = makers.grid(IMAGE.shape, (2.0, 1.0, 1.0))


def case(name: str) -> Case:
    return Case(name=name, images=(Path("x"),), labels=None, modality=None, subject=name, site=None)


def volume(image=IMAGE, grid=GRID) -> Volume:
    return Volume(array=image[None], grid=grid, stored=grid)


def known(digest: str) -> dict[str, TrainingImage]:
    return {"learnt": TrainingImage(digest=digest, shape=GRID.shape, spacing_mm=GRID.spacing_mm)}


def test_the_content_decides_and_not_the_name():
    images = known(digest_of_voxels(IMAGE))
    assert training_case_of(case("renamed"), volume(), images) == "learnt"
    assert training_case_of(case("renamed"), volume(IMAGE.astype(np.float32)), images) == "learnt"
    assert training_case_of(case("learnt"), volume(IMAGE + 1), images) is None
    assert training_case_of(case("learnt"), volume(IMAGE[:5], makers.grid((5, 5, 4))), images) is None


def test_without_its_content_name_size_and_spacing_decide():
    images = known("")
    assert training_case_of(case("learnt"), volume(IMAGE + 1), images) == "learnt"
    assert training_case_of(case("renamed"), volume(), images) is None
    assert training_case_of(case("learnt"), volume(grid=makers.grid(IMAGE.shape)), images) is None
    assert training_case_of(case("learnt"), volume(), {}) is None
