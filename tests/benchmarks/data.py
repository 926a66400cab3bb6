"""Time preprocessing against nnU-Net v2 and augmentation against batchgenerators, and the wait for data.

Run by `make bench-data`, which installs nnU-Net without what only its training needs. Prints one JSON object
last, and with `--write FILE` puts the tables between that file's `<!-- measured -->` marks.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before anything starts threads: what is compared is the work of one thread per worker.
os.environ |= {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "OMP_NUM_THREADS": "1"}

import numpy as np
import torch

PATCH = (96, 160, 160)
LABELS = 20
CROP_OF_NNUNET = -1
"""What nnU-Net writes where the image holds nothing."""
INTERIOR = 8
"""Voxels from the faces within which the two treat edges differently."""

OURS, NNUNET = "AutoSpine", "nnU-Net"


# Preprocessing


def make_raw(folder: Path, shape: tuple[int, int, int]) -> None:
    """One phantom CT of this many voxels of 1 mm, with the labels of its largest structures as 1 ... 20."""
    from autospine.io.images import Grid, write_array
    from autospine.phantom import PhantomSettings, generate

    size = (float(shape[0]), float(shape[1]), float(shape[2]))
    settings = PhantomSettings(
        region="thoracolumbar",
        modality="CT",
        spacing_mm=(1.0, 1.0, 1.0),
        size_mm=size,
        orientation="LPS",
        oblique_deg=0.0,
        metal=False,
        table=False,
    )
    drawn = generate(settings, 0)
    counts = np.bincount(drawn.labels.ravel(), minlength=256)
    counts[0] = 0
    table = np.zeros(256, dtype=np.uint8)
    table[np.sort(np.argsort(counts)[-LABELS:])] = np.arange(1, LABELS + 1)
    grid = Grid(
        shape=drawn.labels.shape,
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    write_array(folder / "imagesTr" / "case_0000.nii.gz", drawn.image, grid)
    write_array(folder / "labelsTr" / "case.nii.gz", table[drawn.labels], grid)
    names = {"background": 0, **{f"structure {i}": i for i in range(1, LABELS + 1)}}
    described = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": 1, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")


def preprocess_ours(raw: Path, spacing: float) -> Callable[[Path], object]:
    """AutoSpine's preprocessing of the case into a folder."""
    from autospine.dataset.raw import load_dataset
    from autospine.plan import Normalisation
    from autospine.preprocessing.preprocess import PreprocessingSettings, preprocess_case, set_up_worker
    from autospine.preprocessing.store import FORMAT_VERSION

    set_up_worker()
    dataset = load_dataset(raw)
    settings = PreprocessingSettings(
        format_version=FORMAT_VERSION,
        spacing_mm=(spacing, spacing, spacing),
        patch_size=PATCH,
        labels=dataset.labels,
        normalisation={
            "CT": Normalisation(scope="dataset", lower=-150.0, upper=1200.0, mean=250.0, std=250.0)
        },
    )
    return lambda folder: preprocess_case(dataset.cases[0], settings, folder)


def preprocess_theirs(raw: Path, spacing: float) -> Callable[[Path], object]:
    """nnU-Net's, with its default resampling; intensities stay in HU, so that they can be compared."""
    os.environ |= {f"nnUNet_{name}": str(raw) for name in ("raw", "preprocessed", "results")}
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.set_num_threads(1)

    def resampling(is_seg: bool, order: int) -> dict[str, object]:
        return {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}

    configuration = {
        "architecture": {"network_class_name": "", "arch_kwargs": {}, "_kw_requires_import": []},
        "data_identifier": "one",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "spacing": [spacing] * 3,
        "normalization_schemes": ["NoNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling(False, 3),
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": resampling(True, 1),
    }
    plans = PlansManager(
        {
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": {}},
            "configurations": {"one": configuration},
        }
    )
    described = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    preprocessor, one = DefaultPreprocessor(verbose=False), plans.get_configuration("one")

    def run(folder: Path) -> None:
        preprocessor.run_case_save(
            str(folder / "case"),
            [str(raw / "imagesTr" / "case_0000.nii.gz")],
            str(raw / "labelsTr" / "case.nii.gz"),
            plans,
            one,
            described,
        )

    return run


def peak_bytes() -> int:
    """The largest resident memory of this process so far.

    Not getrusage: its peak outlives exec, so that it may be the parent's.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def work(options: argparse.Namespace) -> None:
    """Be one worker: import, wait for a line, preprocess, say how much memory that took."""
    make = preprocess_ours if options.worker == OURS else preprocess_theirs
    run = make(options.raw, options.spacing)
    imported = peak_bytes()
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    with redirect_stdout(sys.stderr):
        for number in range(options.cases):
            folder = options.out / str(number)
            folder.mkdir(parents=True)
            run(folder)
    print(json.dumps({"imported": imported, "peak": peak_bytes()}), flush=True)  # noqa: T201


def run_workers(options: argparse.Namespace, name: str, raw: Path, out: Path) -> tuple[float, list[Any]]:
    """Seconds that fresh workers take for their cases side by side, and what each says of its memory."""
    command = [sys.executable, "-W", "ignore", __file__, "--worker", name, "--raw", str(raw)]
    command += ["--spacing", str(options.spacing), "--cases", str(options.cases)]
    workers = [
        subprocess.Popen(
            [*command, "--out", str(out / str(number))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(options.workers)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline().strip() == "ready"
    start = time.perf_counter()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate()[0].splitlines()[-1] for worker in workers]
    return time.perf_counter() - start, [json.loads(line) for line in said]


def agreement(ours: Path, theirs: Path) -> dict[str, float]:
    """How far the stored images and labels of the case agree."""
    import blosc2

    from autospine.core.geometry import Box
    from autospine.preprocessing.store import open_case

    case = open_case(ours, "case")
    whole = Box(start=(0, 0, 0), stop=case.shape)
    image = case.record.encoding.decode(case.stored(whole))[0]
    labels = case.labels(whole)
    other = np.asarray(blosc2.open(str(theirs / "case.b2nd"))[0])
    other_labels = np.asarray(blosc2.open(str(theirs / "case_seg.b2nd"))[0]).astype(np.int16)
    if image.shape != other.shape:
        raise ValueError(f"expected equal shapes, found {image.shape} and {other.shape}")
    other_labels[other_labels == CROP_OF_NNUNET] = 0
    inner = (slice(INTERIOR, -INTERIOR),) * 3
    difference = np.abs(image - other)[inner]
    dice = []
    for index in range(1, LABELS + 1):
        one, two = labels == index, other_labels == index
        if one.any() or two.any():
            dice.append(2 * float((one & two).sum()) / float(one.sum() + two.sum()))
    return {
        "image_mae_hu": float(difference.mean()),
        "image_largest_difference_hu": float(difference.max()),
        "labels_mean_dice": statistics.mean(dice),
        "labels_least_dice": min(dice),
    }


def measure_preprocessing(options: argparse.Namespace, raw: Path, scratch: Path) -> dict[str, float]:
    """Cases per minute and memory of both, in turn, and how far they agree."""
    seconds: dict[str, list[float]] = {OURS: [], NNUNET: []}
    memory: dict[str, list[dict[str, int]]] = {OURS: [], NNUNET: []}
    for turn in range(options.rounds):
        for name in (OURS, NNUNET):
            taken, said = run_workers(options, name, raw, scratch / f"{turn}" / name)
            seconds[name].append(taken)
            memory[name] += said
            report(f"preprocess, {name}: {taken:.2f} s")
    per_minute = {
        name: 60 * options.workers * options.cases / statistics.median(taken)
        for name, taken in seconds.items()
    }
    added = {
        name: statistics.median(one["peak"] - one["imported"] for one in said)
        for name, said in memory.items()
    }
    full = {name: statistics.median(one["peak"] for one in said) for name, said in memory.items()}
    result: dict[str, float] = {
        "preprocess_vs_nnunet": per_minute[OURS] / per_minute[NNUNET],
        "preprocess_memory_vs_nnunet": added[OURS] / added[NNUNET],
        "preprocess_whole_memory_vs_nnunet": full[OURS] / full[NNUNET],
    }
    for name in (OURS, NNUNET):
        result |= {
            f"cases per minute, {name}": per_minute[name],
            f"MB added by a worker's cases, {name}": added[name] / 1e6,
            f"MB of a worker in all, {name}": full[name] / 1e6,
        }
    folders = [scratch / "0" / name / "0" / "0" for name in (OURS, NNUNET)]
    return result | agreement(*folders)


# Augmentation

Patch = tuple[np.ndarray, np.ndarray]


def source_of(case: Any, *, spatial: float, intensity: float, artefacts: bool) -> Callable[[int], Patch]:
    """AutoSpine's augmented patch of a step."""
    from autospine.data import PatchSource
    from autospine.plan import Augmentation
    from planners.rules import artefacts as plan_artefacts

    added = plan_artefacts({"CT"})[0] if artefacts else {}
    strength = Augmentation(
        rotation_deg=(10.0, 10.0, 15.0),
        scale=(0.85, 1.18),
        elastic_mm=2.0,
        spatial_probability=spatial,
        intensity_probability=intensity,
        mirror_axes=(2,),
        mirror_pairs=(),
        **added,
    )
    source = PatchSource((case,), configuration_of(strength), seed=0, cache_bytes=2**31)

    def patch(step: int) -> Patch:
        image, labels, _ = source.patch(step, 0)
        # As a batch needs them: flips are views until then.
        return np.ascontiguousarray(image), np.ascontiguousarray(labels)

    return patch


def configuration_of(strength: Any) -> Any:
    """A configuration of the benchmark's patch size; its network is not used."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from makers import configuration

    made = configuration()
    return replace(
        made,
        patch_size=PATCH,
        augmentation=strength,
        training=replace(made.training, oversample_foreground_fraction=0.5),
    )


def peer_of(case: Any, *, rotation: float, scaling: float, intensity: float) -> Callable[[int], Patch]:
    """The patch of a step through batchgenerators, as nnU-Net's first version chained it.

    Rotation and zoom with cubic interpolation of the image and the nearest label, which is the cheapest that
    nnU-Net's first version offered. The same sites, ranges and probabilities as AutoSpine's, no bending.
    """
    from batchgenerators.transforms.abstract_transforms import Compose
    from batchgenerators.transforms.color_transforms import (
        BrightnessMultiplicativeTransform,
        ContrastAugmentationTransform,
        GammaTransform,
    )
    from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
    from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
    from batchgenerators.transforms.spatial_transforms import MirrorTransform, SpatialTransform

    from autospine.data import augmentation as ranges
    from autospine.data.sampling import Sampler, patch_rng
    from autospine.data.spatial import cut

    angles = np.deg2rad((10.0, 10.0, 15.0))
    dark = case.record.transform.background[0]
    chain = Compose(
        [
            SpatialTransform(
                PATCH,
                patch_center_dist_from_border=None,
                do_elastic_deform=False,
                angle_x=(-angles[0], angles[0]),
                angle_y=(-angles[1], angles[1]),
                angle_z=(-angles[2], angles[2]),
                scale=(0.85, 1.18),
                border_mode_data="constant",
                border_cval_data=dark,
                order_data=3,
                order_seg=0,
                random_crop=False,
                p_scale_per_sample=scaling,
                p_rot_per_sample=rotation,
            ),
            GaussianNoiseTransform(ranges.NOISE_STD, p_per_sample=intensity),
            GaussianBlurTransform(ranges.BLUR_SIGMA, p_per_sample=intensity),
            BrightnessMultiplicativeTransform(ranges.BRIGHTNESS, p_per_sample=intensity),
            ContrastAugmentationTransform(ranges.CONTRAST, p_per_sample=intensity),
            SimulateLowResolutionTransform(
                ranges.LOW_RESOLUTION, order_downsample=0, order_upsample=3, p_per_sample=intensity
            ),
            GammaTransform(ranges.GAMMA, per_channel=True, retain_stats=True, p_per_sample=intensity),
            MirrorTransform((2,)),
        ]
    )
    turned = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (k for k in range(3) if k != axis)
        turn = np.eye(3)
        turn[[a, b], [a, b]], turn[[a, b], [b, a]] = np.cos(angle), np.sin(angle)
        turned = turned @ turn
    larger = np.ceil(turned @ np.asarray(PATCH) * 1.18).astype(int)
    sampler = Sampler((case,), PATCH, 0.5)

    def patch(step: int) -> Patch:
        site = sampler.draw(patch_rng(0, step, 0))
        start = [int(a) - (int(n) - m) // 2 for a, n, m in zip(site.start, larger, PATCH, strict=True)]
        image, labels = cut(case, (start[0], start[1], start[2]), tuple(int(n) for n in larger))
        np.random.seed(step)  # batchgenerators draws from the global generator
        made = chain(data=image[None], seg=labels[None, None].astype(np.float32))
        return made["data"][0], made["seg"][0, 0].astype(np.uint8)

    return patch


def statistics_of(patches: list[Patch]) -> dict[str, float]:
    """What the patches of a pipeline are like as a whole; intensities as normalised."""
    values = np.concatenate([image[:, ::2, ::2, ::2].ravel() for image, _ in patches])
    labels = np.concatenate([found.ravel() for _, found in patches])
    counts = np.bincount(labels, minlength=LABELS + 1) / labels.size
    percentiles = np.percentile(values, (5, 25, 50, 75, 95))
    named = {f"percentile {p}": float(v) for p, v in zip((5, 25, 50, 75, 95), percentiles, strict=True)}
    shares = {f"share of label {i}": float(share) for i, share in enumerate(counts)}
    return {"mean": float(values.mean()), "std": float(values.std()), **named, **shares}


def measure_augmentation(options: argparse.Namespace, case: Any) -> dict[str, float]:
    """Patches per second of both pipelines on one thread, in turn, and how their outputs differ."""
    torch.set_num_threads(1)
    case.load()
    apart = 1 - (1 - 0.2) ** 2  # chance that rotation or zoom, 0.2 each, takes place
    kinds = {
        "always turned": (
            source_of(case, spatial=1.0, intensity=0.15, artefacts=False),
            peer_of(case, rotation=1.0, scaling=1.0, intensity=0.15),
        ),
        # Here what differs is the interpolation and the angles drawn, so that outputs can be compared.
        "turned alone": (
            source_of(case, spatial=1.0, intensity=0.0, artefacts=False),
            peer_of(case, rotation=1.0, scaling=1.0, intensity=0.0),
        ),
        "nnU-Net's probabilities": (
            source_of(case, spatial=apart, intensity=0.15, artefacts=False),
            peer_of(case, rotation=0.2, scaling=0.2, intensity=0.15),
        ),
    }
    with_artefacts = source_of(case, spatial=1.0, intensity=0.15, artefacts=True)
    result: dict[str, float] = {}
    for kind, (ours, theirs) in kinds.items():
        for pipeline in (ours, theirs):
            pipeline(10**6)  # imports and tables
        times: dict[str, list[float]] = {OURS: [], "batchgenerators": []}
        made: dict[str, list[Patch]] = {OURS: [], "batchgenerators": []}
        for step in range(options.patches):
            for name, pipeline in ((OURS, ours), ("batchgenerators", theirs)):
                start = time.perf_counter()
                patch = pipeline(step)
                times[name].append(time.perf_counter() - start)
                made[name].append(patch)
        # Means, since a patch that is not turned takes a small part of the time of one that is.
        seconds = {name: statistics.mean(values) for name, values in times.items()}
        result |= {f"patches per second, {kind}, {name}": 1 / value for name, value in seconds.items()}
        result[f"ratio, {kind}"] = seconds["batchgenerators"] / seconds[OURS]
        ours_are, theirs_are = (statistics_of(patches) for patches in made.values())
        gaps = {key: abs(ours_are[key] - theirs_are[key]) for key in ours_are}
        result[f"largest gap of a statistic, {kind}"] = max(v for k, v in gaps.items() if "share" not in k)
        result[f"largest gap of a label's share, {kind}"] = max(v for k, v in gaps.items() if "share" in k)
        report(f"augment, {kind}: {result[f'ratio, {kind}']:.1f}")
    times_full = []
    for step in range(options.patches):
        start = time.perf_counter()
        with_artefacts(step)
        times_full.append(time.perf_counter() - start)
    result[f"patches per second, always turned, {OURS} with metal and windows"] = 1 / statistics.mean(
        times_full
    )
    return result


# Waiting


def measure_waiting(options: argparse.Namespace, workspace: Path) -> dict[str, float]:
    """Share of the time of training steps on a CPU that passes in waiting for batches."""
    from autospine.data import PatchBatches
    from autospine.pipeline.measuring import fingerprint, make_phantoms
    from autospine.pipeline.planning import plan as make_plan
    from autospine.pipeline.training import preprocess
    from autospine.storage.workspace import Workspace
    from trainers.fold_trainer import CACHE_BYTES
    from trainers.learner import Learner

    make_phantoms(
        workspace / "raw" / "Dataset900_Phantom",
        cases=6,
        test_cases=0,
        region="lumbar",
        scheme="levels",
        modalities=("CT", "MR"),
        seed=0,
        overwrite=False,
        workers=1,
    )
    location = Workspace.locate(workspace).find_dataset("900")
    dataset, measured = fingerprint(location)
    device = torch.device("cpu")
    plan = make_plan(location, device=device, facts=(dataset, measured))
    chosen = plan.configurations[0]
    stored = preprocess(location, dataset, plan, chosen, 1)
    torch.set_num_threads(options.threads)
    learner = Learner(plan, chosen, seed=0, device=device, imported=None)
    warmup = 5
    stop = warmup + options.steps
    with PatchBatches(
        tuple(stored.values()),
        chosen,
        seed=0,
        start=0,
        stop=stop,
        workers=PreprocessingSettings().workers,
        cache_bytes=CACHE_BYTES,
    ) as batches:
        for step, batch in enumerate(batches):
            if step == warmup:
                began, waited = time.perf_counter(), batches.seconds_waited
            learner.step(batch.images, batch.labels, chosen.training.learning_rate)
            if step == stop - 1:
                seconds, waited = time.perf_counter() - began, batches.seconds_waited - waited
    report(f"waiting: {waited:.3f} of {seconds:.2f} s")
    return {
        "data_wait_fraction": waited / seconds,
        "seconds per training step": seconds / options.steps,
        "voxels of a patch": float(np.prod(chosen.patch_size)),
    }


# All of it


def report(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def table(parts: dict[str, dict[str, float]], setting: str) -> str:
    """The Markdown of all that was measured."""
    lines = [setting]
    for title, part in parts.items():
        lines += ["", f"| {title} | |", "|---|--:|"]
        keys = [(f"`{name}`" if "_" in name else name, value) for name, value in part.items()]
        lines += [f"| {name} | {value:.4g} |" for name, value in keys]
    return "\n".join(lines)


def main() -> None:
    """Measure, write the tables, print the figures of merit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("rounds", 3),
        ("workers", 1),
        ("cases", 2),
        ("patches", 20),
        ("steps", 60),
        ("threads", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--shape", type=int, nargs=3, default=(400, 250, 250))
    parser.add_argument("--spacing", type=float, default=1.25)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--raw", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.worker:
        work(options)
        return
    from autospine.preprocessing.store import open_case

    # Only here: a worker must not hold what it does not need.
    sys.path.insert(0, str(Path(__file__).parent))
    from network import processor
    from result_page import write_measured

    with tempfile.TemporaryDirectory(prefix="autospine-bench-") as name:
        scratch = Path(name)
        raw = scratch / "raw" / "Dataset901_Timing"
        make_raw(raw, tuple(options.shape))
        preprocessing = measure_preprocessing(options, raw, scratch / "cases")
        case = open_case(scratch / "cases" / "0" / OURS / "0" / "0", "case")
        augmentation = measure_augmentation(options, case)
        waiting = measure_waiting(options, scratch / "workspace")
    turned, alone, mixed = "always turned", "turned alone", "nnU-Net's probabilities"
    augmentation = {
        "augment_vs_batchgenerators": augmentation[f"ratio, {turned}"],
        "augment_vs_batchgenerators_mixed": augmentation[f"ratio, {mixed}"],
        "augment_largest_gap": augmentation[f"largest gap of a statistic, {alone}"],
        "augment_largest_label_gap": augmentation[f"largest gap of a label's share, {alone}"],
        **augmentation,
    }
    shape = "x".join(str(n) for n in options.shape)
    setting = (
        f"{date.today()}, {processor()}; Python {platform.python_version()}, "
        + ", ".join(f"{n} {version(n)}" for n in ("torch", "nnunetv2", "batchgenerators"))
        + f". A CT of {shape} voxels of 1 mm with {LABELS} labels, resampled to {options.spacing} mm; "
        f"{options.workers} worker(s) of one thread, {options.cases} cases each, "
        f"{options.rounds} rounds; {options.patches} patches of {'x'.join(map(str, PATCH))}; "
        f"{options.steps} steps on {options.threads} threads."
    )
    parts = {"preprocessing": preprocessing, "augmentation": augmentation, "waiting for data": waiting}
    if options.write:
        write_measured(options.write, table(parts, setting))
    merged = {key: value for part in parts.values() for key, value in part.items()}
    print(json.dumps({key: round(value, 4) for key, value in merged.items() if " " not in key}))  # noqa: T201


if __name__ == "__main__":
    main()
