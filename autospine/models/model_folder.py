"""The folder of a trained model, and the localizer: a coarse model that locates the spine for a finer one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from autospine.core.colours import structure_of
from autospine.core.errors import AutospineError, FormatError, ModelError, PlanError
from autospine.core.types import Shape3, Vector3
from autospine.evaluation.stored_scores import read_cross_validation
from autospine.io.images import Volume
from autospine.plan import Configuration, Plan, build_network
from autospine.storage.digest import digest_of_file, digest_of_voxels, sha256_of, sha256_of_file
from autospine.storage.file_names import same_name
from autospine.storage.serialization import read_json, stored_as
from autospine.storage.tensors import load_facts, load_shapes, load_tensors, save_tensors
from autospine.storage.trained_models import (
    FULL,
    PLAN,
    STARTER_CLASSES,
    STARTER_MM,
    WEIGHTS,
    check_folds,
    find_folds,
    fold_folder,
    fold_weights,
)
from autospine.system.log import get_logger

logger = get_logger(__name__)

PRECISION = "precision"
"""Key in the header of weights: the number format that they were trained in."""

LOCALIZER = "finder"
"""Folder of the localizer in that of an exported model."""

LOCALIZERS = ("lowres", "fast")
"""Configurations whose model may be the localizer of a finer one that was trained beside it."""

FINER = 3.0
"""A localizer is worth running if one of its voxels holds at least so many of the model's."""

TRAINED_ON = "trained_on.json"
"""File in the folder of a fold. It names cases, which may identify patients, and is never exported."""

TRUSTED_DICE = 0.5
"""Cross-validated mean Dice from which a model is trusted to locate the spine. A `lowres` model, which is
trained for this, is trusted without a cross-validation, too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingImage:
    """The first channel of a case that a fold was trained on."""

    digest: str
    """Digest of its voxels (see `digest_of_voxels`); empty where earlier versions preprocessed it."""

    shape: Shape3
    """Voxels along S, P, L."""

    spacing_mm: Vector3
    """Voxel size along S, P, L."""


@stored_as("what a fold was trained on")
@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedOn:
    """Content of `trained_on.json`: digests of all that weights depend on but chance and time."""

    format_version: int
    plan: dict[str, str]
    """Digest of each part of the plan."""

    cases: dict[str, str]
    """Digest of each training case's raw files."""

    images: dict[str, TrainingImage] = field(default_factory=dict)
    """Image of each training case; none in earlier versions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFolder:
    """`results/DATASET/CONFIGURATION`: a plan and one trained network per fold."""

    path: Path
    plan: Plan
    configuration: Configuration
    folds: tuple[str, ...]
    """Names of the folds whose training is complete: `0` ... `4`, or `full`."""

    bundle: Path | None = None
    """Archive that the model was unpacked from into a temporary folder."""

    @property
    def name(self) -> str:
        """Path under which the user can find the model again."""
        return str(self.bundle or self.path)

    def networks(self, folds: Sequence[str] | None = None) -> list[nn.Module]:
        """Load the trained networks, in evaluation mode on the CPU.

        Args:
            folds: Names of the folds; by default `ensemble`.

        Raises:
            ModelError: If a fold is not there or its weights do not fit the plan.
        """
        return [self._network(path) for path in self.weights(folds)]

    def weights(self, folds: Sequence[str] | None = None) -> list[Path]:
        """Return the files of some folds' weights, by default those of `ensemble`.

        Raises:
            ModelError: If a fold is not there.
        """
        check_folds(self.path, self.folds, folds or ())
        return [fold_folder(self.path, fold) / WEIGHTS for fold in folds or self.ensemble]

    @property
    def ensemble(self) -> tuple[str, ...]:
        """Folds that predict together by default: those of the cross-validation, else `full`."""
        return tuple(fold for fold in self.folds if fold != FULL) or self.folds

    def training_images(self, folds: Sequence[str] | None = None) -> dict[str, TrainingImage]:
        """Return the images that any of some folds was trained on, by case; none where it is not known.

        An exported model does not name its cases.
        """
        images: dict[str, TrainingImage] = {}
        for path in self.weights(folds):
            try:
                images |= read_json(path.with_name(TRAINED_ON), TrainedOn).images
            except FormatError:  # absent or damaged
                continue
        return images

    def trained_configuration(self, folds: Sequence[str] | None = None) -> Configuration:
        """Return the configuration with the number format that some folds, by default all, were trained in.

        A GPU without bfloat16 trains a plan of that format in float16, and the networks then predict in it.
        """
        formats = {load_facts(path).get(PRECISION) for path in self.weights(folds)}
        if formats != {"float16"}:
            return self.configuration
        return replace(self.configuration, training=replace(self.configuration.training, precision="float16"))

    def digest(self, folds: Sequence[str] | None = None) -> str:
        """Return the SHA-256 over the plan and `weights`."""
        paths = (self.path / PLAN, *self.weights(folds))
        return sha256_of(bytes.fromhex(_remembered(sha256_of_file, path)) for path in paths)

    def check_weights(self) -> None:
        """See whether the weights of every fold can be loaded, one fold after the other.

        Raises:
            FormatError: If a file is damaged.
            ModelError: If a fold's weights are not those of the plan's network, or not finite.
        """
        for path in self.weights(self.folds):
            self._tensors(path)

    def _network(self, path: Path) -> nn.Module:
        tensors = self._tensors(path)
        network = build_network(self.plan, self.configuration)
        network.load_state_dict(tensors)
        return network.eval()

    def _tensors(self, path: Path) -> dict[str, Tensor]:
        """Read the weights of a fold, which have to be finite and those of the plan's network."""
        self._check_shapes(path)
        tensors = load_tensors(path)[0]
        if odd := [name for name, tensor in tensors.items() if not _is_finite(tensor)]:
            raise ModelError(
                f"expected finite weights in {path}, found NaN or infinity in {len(odd)} tensors, such as "
                f"{odd[0]}; train the model again, or ask whoever made it"
            )
        return tensors

    def _check_shapes(self, path: Path) -> None:
        """Refuse weights of another network before memory is allocated: the plan may name any width."""
        shapes = load_shapes(path)
        try:
            with torch.device("meta"):
                network = build_network(self.plan, self.configuration)
                network.load_state_dict(shapes)
        except AutospineError:
            raise
        except Exception as error:  # the plan may be anybody's, and hold any number
            first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
            raise ModelError(
                f"expected weights of the plan's network in {path}, found others: {first}; copy or export "
                "the model again"
            ) from None
        for name, tensor in network.state_dict().items():
            stored = shapes[name].dtype
            if tensor.dtype != stored and (tensor.dtype, stored) != (torch.float32, torch.float16):
                raise ModelError(
                    f"expected {name} of {tensor.dtype} in {path}, found {shapes[name].dtype}; copy or "
                    "export the model again"
                )


def _is_finite(tensor: Tensor) -> bool:
    """Return whether no value is NaN or infinite; a finite sum says so in a quarter of the time."""
    return bool(tensor.sum().isfinite() or tensor.isfinite().all())


def open_model(path: Path) -> ModelFolder:
    """Read a model folder's plan and find its complete folds.

    Raises:
        ModelError: If it is no model folder, or no fold is complete.
    """
    folds = find_folds(path)
    try:
        plan = read_json(path / PLAN, Plan)
    except PlanError as error:
        raise PlanError(f"expected a model of this AutoSpine in {path}, found another's: {error}") from None
    # Training leaves one configuration in the plan, so that the folder may be renamed.
    name = plan.configurations[0].name if len(plan.configurations) == 1 else path.resolve().name
    return ModelFolder(path=path, plan=plan, configuration=plan.configuration(name), folds=folds)


def weights_digest(path: Path) -> str:
    """Return the BLAKE2b digest (128 bits) of a file of weights, by which records identify them."""
    return _remembered(digest_of_file, path)


def _remembered(digest: Callable[[Path], str], path: Path) -> str:
    """Return a digest of a file, which is computed once for as long as the file stays the same."""
    status = path.stat()
    # A file that is replaced is another inode, however fast that happens and however large it is.
    return _computed(digest, path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _computed(digest: Callable[[Path], str], path: Path, inode: int, size: int, modified: int) -> str:
    return digest(path)


def save_weights(folder: Path, network: nn.Module, facts: dict[str, object]) -> None:
    """Write a fold's final weights; a fold counts as complete when they are there."""
    save_tensors(folder / WEIGHTS, network.state_dict(), facts)


def find_localizer(model: ModelFolder) -> ModelFolder | None:
    """Return the localizer of a model, if there is one for the same channels.

    An exported model has it inside its folder, others have it beside them.
    """
    beside = [model.path.parent / name for name in LOCALIZERS]
    for folder in (model.path / LOCALIZER, *(folder for folder in beside if _is_trusted(folder))):
        if not fold_weights(folder):
            continue
        try:
            coarse = open_model(folder)
        except AutospineError as error:  # nobody has asked for this model, so that it must not stop the work
            logger.warning("%s cannot locate the spine: %s", folder, error)
            continue
        same = coarse.plan.channels == model.plan.channels
        if same and prod(coarse.configuration.spacing_mm) >= FINER * prod(model.configuration.spacing_mm):
            return coarse
    return None


def starter_locates(model: ModelFolder) -> bool:
    """Return whether the starter may locate the spine for a model: one of spines alone, of finer voxels."""
    spines = all(starter_class(name) for name in model.plan.labels.names)
    fine = FINER * prod(model.configuration.spacing_mm) <= STARTER_MM**3
    return spines and fine and len(model.plan.channels) == 1


def starter_class(name: str) -> str | None:
    """Return the class of the starter that a class is, or is one level of; None if the starter has none."""
    structure = structure_of(name)
    return structure if structure in STARTER_CLASSES else None


def _is_trusted(folder: Path) -> bool:
    """Return whether cross-validation trusts a model to locate the spine."""
    try:
        dice = read_cross_validation(folder).dice
    except FormatError:
        dice = None
    return folder.name == LOCALIZERS[0] if dice is None else dice >= TRUSTED_DICE


def training_case_of(case: str, volume: Volume, images: Sequence[tuple[str, TrainingImage]]) -> str | None:
    """Return the training case that shows the same image, whatever its name; None if none does.

    Where the content of a training image is not known, its name, size and spacing have to agree.

    Args:
        case: Name of the case that the image belongs to.
        volume: The image.
        images: Name and image of each training case, of all models that predict.
    """
    grid = volume.grid
    alike = [(name, image) for name, image in images if image.shape == grid.shape]
    if not alike:  # an image is hashed only where that may tell something
        return None
    digest = digest_of_voxels(volume.array[0])
    for name, image in alike:
        if image.digest == digest:
            return name
    for name, image in alike:
        named_so = not image.digest and same_name(name) == same_name(case)
        if named_so and np.allclose(image.spacing_mm, grid.spacing_mm, rtol=1e-3):
            return name
    return None


def model_paths(given: object) -> list[Path]:
    """Return the paths that a caller from Python has given as a model, or as several in a list.

    Raises:
        ModelError: If there is none, or something else is among them.
    """
    paths: list[Any] = [given]
    if isinstance(given, Iterable) and not isinstance(given, str | Path):
        paths = list(given)
    if not paths:
        raise ModelError("expected at least one model, found an empty list; name a folder or a file")
    if other := [path for path in paths if not isinstance(path, str | Path)]:
        raise ModelError(
            f"expected the path of a model folder or of an .autospine file, found {other[0]!r}; name it"
        )
    return [Path(path) for path in paths]


def named_folds(given: str | int | Sequence[str | int] | None) -> tuple[str, ...] | None:
    """Return the names of the folds that a caller from Python has given; None for the default."""
    if given is None:
        return None
    return (str(given),) if isinstance(given, str | int) else tuple(str(fold) for fold in given)
