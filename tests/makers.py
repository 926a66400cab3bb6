"""Small plans, networks, datasets and stored cases that tests of several parts share."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from autospine.core.geometry import IDENTITY, Box, Grid
from autospine.core.labels import LabelSpace, parse_labels
from autospine.dataset.raw import Case, Dataset
from autospine.io.images import write_array
from autospine.models.model_folder import save_weights
from autospine.network.swin.swin_plan import SwinPlan
from autospine.network.swin.swin_settings import AttentionSettings, FusionSettings
from autospine.plan import (
    FORMAT_VERSION,
    Augmentation,
    Configuration,
    Decision,
    Normalisation,
    Plan,
    TrainingPlan,
    build_network,
)
from autospine.preprocessing import store as storage
from autospine.preprocessing.normalise import IntensityTransform
from autospine.preprocessing.prepare import Encoding, Prepared
from autospine.preprocessing.store import StoredCase
from autospine.storage.serialization import write_json

LABELS = parse_labels({"background": 0, "bone": 3, "canal": 7})


def grid(shape, spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=IDENTITY) -> Grid:
    return Grid(shape=tuple(shape), spacing_mm=spacing_mm, origin_mm=origin_mm, direction=direction)


def segment_names(path: Path) -> dict[int, str]:
    """Names of the segments of a file of 3D Slicer by their label values."""
    header = path.read_bytes().split(b"\n\n")[0].decode("latin-1")
    keys = dict(re.findall(r"^(Segment\d+_\w+):=(.*)$", header, re.MULTILINE))
    numbers = {key.removesuffix("_LabelValue") for key in keys if key.endswith("_LabelValue")}
    return {int(keys[f"{number}_LabelValue"]): keys[f"{number}_Name"] for number in numbers}


def network_plan(**changes) -> SwinPlan:
    """The smallest network that has every part; a patch of 16^3 is enough for it."""
    plan = SwinPlan(
        name="adaptive_swin_unetr",
        feature_size=8,
        depths=(1, 1, 1, 1),
        num_heads=(2, 2, 4, 4),
        window_sizes=((2, 2, 2),) * 4,
        strides=((2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
        use_v2=True,
        fusion=FusionSettings(kernels=((2, 2, 2), (4, 4, 4)), weighting="trainable", placement="embedding"),
        attention=AttentionSettings(
            saliency=(True, True, False, False), temperature=(True, True, False, False)
        ),
        checkpointing=False,
    )
    return replace(plan, **changes)


def configuration(*, training=None, augmentation=None, **changes) -> Configuration:
    recipe = TrainingPlan(
        epochs=2,
        iterations_per_epoch=2,
        batch_size=1,
        learning_rate=1e-3,
        weight_decay=0.05,
        warmup_fraction=0.1,
        gradient_clip=1.0,
        ema_decay=0.999,
        lambda_ce=0.5,
        oversample_foreground_fraction=0.5,
        precision="float32",
    )
    strength = Augmentation(
        rotation_deg=(10.0, 10.0, 15.0),
        scale=(0.9, 1.1),
        elastic_mm=2.0,
        spatial_probability=0.5,
        intensity_probability=0.2,
        mirror_axes=(2,),
        mirror_pairs=(),
    )
    small = Configuration(
        name="fullres",
        cases="fullres",
        spacing_mm=(1.5, 1.5, 1.5),
        patch_size=(16, 16, 16),
        network=network_plan(),
        training=replace(recipe, **(training or {})),
        augmentation=replace(strength, **(augmentation or {})),
        memory_bytes=10**9,
    )
    return replace(small, **changes)


def normalisation(ct_mean=100.0) -> dict[str, Normalisation]:
    return {
        "CT": Normalisation(scope="dataset", lower=-200.0, upper=1000.0, mean=ct_mean, std=200.0),
        "MR": Normalisation(scope="image", lower=0.005, upper=0.995, mean=0.0, std=1.0),
    }


def plan(*configurations: Configuration, labels: LabelSpace = LABELS, **changes) -> Plan:
    made = Plan(
        format_version=FORMAT_VERSION,
        dataset="Dataset007_Small",
        channels=("image",),
        labels=labels,
        file_ending=".nii.gz",
        normalisation=normalisation(),
        configurations=configurations or (configuration(),),
        memory_budget_bytes=2 * 10**9,
        rationale=(Decision(name="fullres.patch_size", value="16x16x16", reason="small"),),
    )
    return replace(made, **changes)


def write_model(folder: Path, *, folds=("full",), **changes) -> Plan:
    """A model folder with untrained networks, one for each fold; `changes` are those of its plan."""
    made = plan(**changes)
    write_json(folder / "plan.json", made)
    for seed, fold in enumerate(folds):
        torch.manual_seed(seed)
        facts = {"fold": fold, "steps": 10, "epochs": 2, "seed": 4}
        save_weights(folder / f"fold_{fold}", build_network(made, made.configurations[0]), facts)
    return made


def store_case(folder: Path, name: str, image: np.ndarray, indices: np.ndarray) -> StoredCase:
    """A preprocessed case: image (S, P, L) in [-5, 5], stored in hundredths, and stored indices."""
    shape = indices.shape
    transform = IntensityTransform(lower=(-5.0,), upper=(5.0,), mean=(0.0,), std=(1.0,))
    encoding = Encoding(scale=(0.01,), offset=(0.0,))
    crop = Box(start=(0, 0, 0), stop=shape)
    prepared = Prepared(
        image=np.rint(image[None] * 100).astype(np.int16),
        encoding=encoding,
        transform=transform,
        crop=crop,
        source_shape=shape,
        spacing_mm=(1.5, 1.5, 1.5),
    )
    record = storage.CaseRecord(
        format_version=storage.FORMAT_VERSION,
        name=name,
        modality="CT",
        subject=name,
        site=None,
        source_shape=shape,
        source_spacing_mm=(1.5, 1.5, 1.5),
        crop=crop,
        shape=shape,
        channels=1,
        spacing_mm=(1.5, 1.5, 1.5),
        encoding=encoding,
        transform=transform,
        label_voxels=storage.count_labels(indices),
        repairs=(),
        key="",
    )
    folder.mkdir(parents=True, exist_ok=True)
    return storage.write_case(folder, record, prepared, indices, (16, 16, 16))


def column(shape=(20, 18, 22)) -> np.ndarray:
    """Stored indices of stacked bodies (1) before a canal (2)."""
    indices = np.zeros(shape, dtype=np.uint8)
    for start in range(1, shape[0] - 4, 6):
        indices[start : start + 5, 3:10, 5:-5] = 1
    indices[:, 11:14, 9:-9] = 2
    return indices


def dataset_of(folder: Path, cases: dict[str, np.ndarray], labels: LabelSpace = LABELS, **changes) -> Dataset:
    """A raw dataset of one channel; the images are ten times the labels, plus noise, in HU."""
    listed = []
    for name, array in cases.items():
        rng = np.random.default_rng(len(listed))
        image = (10 * array.astype(np.int16) + rng.integers(-3, 4, array.shape)).astype(np.int16)
        spacing = (1.5, 1.5, 1.5)
        write_array(folder / "imagesTr" / f"{name}_0000.nii.gz", image, grid(array.shape, spacing))
        write_array(folder / "labelsTr" / f"{name}.nii.gz", array, grid(array.shape, spacing))
        listed.append(
            Case(
                name=name,
                images=(folder / "imagesTr" / f"{name}_0000.nii.gz",),
                labels=folder / "labelsTr" / f"{name}.nii.gz",
                modality="CT",
                site=None,
                subject=name,
            )
        )
    (folder / "dataset.json").write_text("{}")
    made = Dataset(
        folder=folder,
        name=folder.name,
        channels=("image",),
        labels=labels,
        cases=tuple(listed),
        test_cases=(),
        file_ending=".nii.gz",
    )
    return replace(made, **changes)


def install_distribution(folder: Path, name: str, entry_points: str, version: str = "1.0") -> None:
    """Write the metadata of an installed distribution into a folder of sys.path, without its modules."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def cut_short(path: Path) -> Path:
    """Leave the first half of a file, as a download or a copy that was broken off, and return its path."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path
