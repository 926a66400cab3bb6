"""The memory that a prediction takes, told from the headers of the images before any is read."""

from collections.abc import Iterator, Sequence

from autospine.core.errors import AutospineError
from autospine.core.geometry import Grid, canonical_grid
from autospine.dataset.case_sizes import PROCESS_BYTES, case_need
from autospine.dataset.raw import Case
from autospine.inference.case_memory import CaseMemory, case_memory
from autospine.inference.tiles import TileGrid
from autospine.io.images import open_image
from autospine.memory.estimate import inference_memory
from autospine.models.model_folder import ModelFolder
from autospine.preprocessing.resample import target_shape

NO_CASE = CaseMemory(image=0, scores=0)


def prediction_memory(
    models: Sequence[ModelFolder], cases: Sequence[Case], folds: Sequence[str] | None = None
) -> dict[str, int]:
    """Estimate the bytes of RAM of a process that predicts each case on a CPU, in 32 bits at most.

    A case whose header cannot be read, or that is a folder of DICOM files, counts as in `case_need`.

    Args:
        models: Models that predict together, at least one.
        cases: Cases with their images.
        folds: Names of the folds of every model; by default its complete ones.
    """
    networks, largest_tile = PROCESS_BYTES, 0
    for model in models:
        plan, configuration = model.plan, model.configuration
        of_model = inference_memory(
            configuration.network,
            configuration.patch_size,
            case=NO_CASE,
            precision="float32",
            in_channels=len(plan.channels),
            out_channels=plan.labels.n_channels,
            spacing_mm=configuration.spacing_mm,
            networks=len(model.weights(folds)),
        )
        networks += of_model.weights
        largest_tile = max(largest_tile, of_model.total - of_model.weights)
    needs: dict[str, int] = {}
    for case in cases:
        try:
            file = open_image(case.images[0])
        except (AutospineError, OSError):
            needs[case.name] = case_need(case).memory_bytes
            continue
        # Models that predict together hold their scores at the same time, and the image once.
        volumes = list(_volumes(models, canonical_grid(file.grid), file.voxels.result.itemsize))
        image, scores = max(each.image for each in volumes), sum(each.scores for each in volumes)
        needs[case.name] = networks + largest_tile + image + scores
    return needs


def _volumes(models: Sequence[ModelFolder], grid: Grid, voxel_bytes: int) -> Iterator[CaseMemory]:
    """Yield what a volume takes in each model beside its networks, if no voxel of it is cropped away."""
    for model in models:
        plan, configuration = model.plan, model.configuration
        prepared = target_shape(grid.shape, grid.spacing_mm, configuration.spacing_mm)
        tile_grid = TileGrid.covering(prepared, configuration.patch_size)
        resampled = prepared[:2] != grid.shape[:2]
        yield case_memory(
            *(tile_grid, grid.shape, len(plan.channels), plan.labels, voxel_bytes), resampled=resampled
        )
