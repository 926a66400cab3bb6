"""A small raw dataset of one CT and one MR case, written as NIfTI."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from autospine.core.labels import parse_labels
from autospine.network.swin.swin_plan import SwinPlan
from autospine.plan import FORMAT_VERSION, Augmentation, Configuration, Normalisation, Plan, TrainingPlan

SPACING = (2.0, 1.5, 1.0)


def write_image(path: Path, array: np.ndarray, spacing_mm=SPACING) -> Path:
    """(S, P, L) array -> a file in LPS."""
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    SimpleITK.WriteImage(image, str(path))
    return path


def column(shape=(24, 32, 40)) -> np.ndarray:
    """Three stacked bodies with label 5 and a canal with label 9."""
    labels = np.zeros(shape, dtype=np.uint8)
    for start in (2, 9, 16):
        labels[start : start + 6, 6:18, 12:28] = 5
    labels[:, 19:24, 17:23] = 9
    return labels


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "Dataset001_Tiny"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = column()
    ct = np.where(labels == 5, 400, 30) + rng.normal(0, 20, labels.shape)
    mr = np.where(labels == 9, 900, 300) + rng.normal(0, 20, labels.shape)
    for name, image in (("ct_a", ct), ("mr_b", mr)):
        write_image(folder / "imagesTr" / f"{name}_0000.nii.gz", image.astype(np.int16))
        write_image(folder / "labelsTr" / f"{name}.nii.gz", labels)
    description = {
        "channel_names": {"0": "image"},
        "labels": {"background": 0, "vertebra": 5, "canal": 9},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    (folder / "cases.csv").write_text("case,modality,site,subject\nct_a,CT,x,one\nmr_b,MR,y,two\n")
    return folder


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    def make(spacing_mm=(1.5, 1.5, 1.5), ct_mean=100.0) -> Plan:
        configuration = Configuration(
            name="fullres",
            cases="fullres",
            spacing_mm=spacing_mm,
            patch_size=(32, 32, 32),
            network=SwinPlan(
                name="swin_unetr",
                feature_size=12,
                depths=(2, 2, 2, 2),
                num_heads=(3, 6, 12, 24),
                window_sizes=((4, 4, 4),) * 4,
                strides=((2, 2, 2),) * 5,
                use_v2=True,
                fusion=None,
                attention="plain",
                checkpointing=False,
            ),
            training=TrainingPlan(
                epochs=1,
                iterations_per_epoch=1,
                batch_size=1,
                learning_rate=1e-3,
                weight_decay=0.01,
                warmup_fraction=0.1,
                gradient_clip=1.0,
                ema_decay=0.99,
                lambda_ce=0.5,
                oversample_foreground_fraction=0.5,
                precision="float32",
            ),
            augmentation=Augmentation(
                rotation_deg=(10.0, 10.0, 15.0),
                scale=(0.9, 1.1),
                elastic_mm=2.0,
                spatial_probability=0.5,
                intensity_probability=0.2,
                mirror_axes=(2,),
                mirror_pairs=(),
            ),
            memory_bytes=0,
        )
        return Plan(
            format_version=FORMAT_VERSION,
            dataset="Dataset001_Tiny",
            channels=("image",),
            labels=parse_labels({"background": 0, "vertebra": 5, "canal": 9}),
            file_ending=".nii.gz",
            normalisation={
                "CT": Normalisation(scope="dataset", lower=-200, upper=1000, mean=ct_mean, std=200),
                "MR": Normalisation(scope="image", lower=0.005, upper=0.995, mean=0, std=1),
            },
            configurations=(configuration,),
            memory_budget_bytes=0,
            rationale=(),
        )

    return make
