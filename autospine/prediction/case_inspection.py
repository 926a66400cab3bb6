"""The inspection of an image before it is predicted: is it what the model expects?"""

from collections.abc import Mapping

import numpy as np

from autospine.core.modality import check_values
from autospine.core.types import Modality
from autospine.dataset.raw import Case
from autospine.io.images import Volume
from autospine.models.model_folder import TrainingImage
from autospine.storage.digest import digest_of_voxels
from autospine.storage.file_names import same_name


def find_oddities(case: Case, volume: Volume, modality: Modality) -> list[str]:
    """Return what was repaired, decided or is unusual about an image, for the log and the record.

    Args:
        case: Case that the image belongs to.
        volume: The image.
        modality: Modality that it is predicted as.
    """
    notes = list(volume.notes)
    if case.modality is None:
        notes.append(f"taken for {modality} by its intensities")
    return [*notes, *check_values(volume.array, modality)]


def training_case_of(case: Case, volume: Volume, images: Mapping[str, TrainingImage]) -> str | None:
    """Return the training case that shows the same image, whatever its name; None if none does.

    Where the content of a training image is not known, its name, size and spacing have to agree.

    Args:
        case: Case that the image belongs to.
        volume: The image.
        images: Images of the training cases, by name.
    """
    grid, alike = volume.grid, {name: of for name, of in images.items() if of.shape == volume.grid.shape}
    if not alike:  # an image is hashed only where that may tell something
        return None
    digest = digest_of_voxels(volume.array[0])
    for name, image in alike.items():
        if image.digest == digest:
            return name
    for name, image in alike.items():
        named_so = not image.digest and same_name(name) == same_name(case.name)
        if named_so and np.allclose(image.spacing_mm, grid.spacing_mm, rtol=1e-3):
            return name
    return None
