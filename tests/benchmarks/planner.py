"""Predicted against measured memory of training steps, and how long predicting and planning take.

Run by `make bench-planner`. Prints one JSON object last, and with `--write FILE` puts the table between that
file's `<!-- measured -->` marks. With a CUDA device the figures of `planner_gpu.py` are added.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Literal

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import makers

sys.path.insert(0, str(Path(__file__).parent))
from network import processor
from result_page import write_measured
from unit.planners import facts

from autospine.core.errors import PlanError
from autospine.core.types import Shape3, Vector3
from autospine.memory.footprint import TrainingMemory
from autospine.network.cnn3d_plan import CNNPlan
from autospine.network.network_plan import NetworkPlan
from autospine.network.swin.swin_plan import SwinPlan, token_grids
from autospine.network.swin.swin_settings import AttentionSettings, FusionPlacement, FusionSettings
from autospine.network.unet_plans import ResEncPlan, UNetPlan, UNetTransformerPlan
from autospine.plan import Plan, Precision
from autospine.system.allocation import reuse_freed_memory
from planners import rules
from planners.calibration_factor import predict
from planners.networks.network_request import BUILT_IN
from planners.overrides import Overrides
from planners.planner import make_plan
from planners.sizing import Budget
from trainers.learner import Learner

GIB = 1024**3
RATE = 1e-3
ISOTROPIC = ((2, 2, 2),) * 5
THICK = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2))
UNIT: Vector3 = (1.0, 1.0, 1.0)
ADAPTIVE = AttentionSettings(saliency=(True, True, False, False), temperature=(True, True, False, False))
BUDGETS_GIB = (0.5, 1, 2, 4, 6, 8, 11, 16, 24, 40, 80)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is trained for two steps."""

    name: str
    network: NetworkPlan
    patch: Shape3
    precision: Precision = "bfloat16"
    classes: int = 5
    batch_size: int = 1
    fitted: bool = False
    """Whether the constants were fitted to it."""

    @property
    def plan(self) -> Plan:
        """A plan of one configuration."""
        recipe = {"batch_size": self.batch_size, "precision": self.precision}
        configuration = makers.configuration(network=self.network, patch_size=self.patch, training=recipe)
        return makers.plan(configuration, labels=facts.plain_labels(self.classes - 1))


def swin(
    feature_size: int,
    patch: Shape3,
    *,
    strides: tuple[Shape3, ...] = ISOTROPIC,
    placement: FusionPlacement | None = "embedding",
    attention: AttentionSettings | Literal["plain", "identity"] = ADAPTIVE,
    checkpointing: bool = False,
    largest_window: int = 4,
) -> SwinPlan:
    """Swin UNETR as planned, with the kernels of a phantom."""
    windows, _ = rules.windows(token_grids(patch, strides), largest_window)
    s, p, left = strides[0]
    kernels = tuple((n * s, n * p, n * left) for n in (1, 2, 3))
    fusion = placement and FusionSettings(kernels=kernels, weighting="trainable", placement=placement)
    return SwinPlan(
        name="adaptive_swin_unetr",
        feature_size=feature_size,
        depths=(2, 2, 2, 2),
        num_heads=rules.heads(feature_size),
        window_sizes=windows,
        strides=strides,
        use_v2=True,
        fusion=fusion,
        attention=attention,
        checkpointing=checkpointing,
    )


def unet(
    kind: Literal["unet3d", "resenc_unet", "unet3d_transformer"],
    width: int,
    patch: Shape3,
    *,
    spacing_mm: Vector3 = UNIT,
    checkpointing: bool = False,
) -> NetworkPlan:
    """A U-Net with nnU-Net's topology."""
    strides, kernels, _ = rules.unet_levels(spacing_mm, patch)
    common = {
        "features": rules.unet_features(width, len(strides)),
        "strides": strides,
        "kernels": kernels,
        "checkpointing": checkpointing,
    }
    if kind == "resenc_unet":
        return ResEncPlan(name=kind, blocks=rules.resenc_blocks(len(strides)), **common)
    if kind == "unet3d_transformer":
        heads = rules.transformer_heads(common["features"][-1])
        return UNetTransformerPlan(name=kind, layers=rules.TRANSFORMER_LAYERS, heads=heads, **common)
    return UNetPlan(name=kind, **common)


def cnn(width: int, patch: Shape3, *, checkpointing: bool = False) -> CNNPlan:
    """The plain network at full resolution."""
    steps, _ = rules.dilations(UNIT, patch)
    return CNNPlan(name="cnn3d", features=width, dilations=steps, checkpointing=checkpointing)


def settings() -> tuple[Setting, ...]:
    """All that is measured."""
    long, cube, thick = (96, 64, 64), (64, 64, 64), (16, 128, 128)
    half: Precision = "bfloat16"
    single: Precision = "float32"

    def of(
        name: str,
        network: NetworkPlan,
        patch: Shape3,
        precision: Precision = half,
        classes: int = 5,
        batch_size: int = 1,
        *,
        fitted: bool = False,
    ) -> Setting:
        return Setting(
            name=name,
            network=network,
            patch=patch,
            precision=precision,
            classes=classes,
            batch_size=batch_size,
            fitted=fitted,
        )

    saving = swin(16, long, checkpointing=True)
    return (
        of("Swin UNETR, 16", swin(16, long), long, fitted=True),
        of("Swin UNETR, 16", swin(16, long), long, single, 26, fitted=True),
        of("Swin UNETR, 16, checkpointing", saving, long, fitted=True),
        of("Swin UNETR, 12", swin(12, long), long, single, 2, fitted=True),
        of("Swin UNETR, 24", swin(24, cube), cube, single, 5, 2, fitted=True),
        of("Swin UNETR, 32", swin(32, thick, strides=THICK), thick, half, 20, fitted=True),
        of("Swin UNETR, 48", swin(48, cube, largest_window=8), cube, half, 8, 2, fitted=True),
        of(
            "Swin UNETR, 48, checkpointing", swin(48, cube, checkpointing=True), cube, single, 14, fitted=True
        ),
        of("Swin UNETR, 16", swin(16, (96, 96, 64)), (96, 96, 64), half, 12),
        of("Swin UNETR, 16, checkpointing", saving, long, half, 26, 2),
        of("Swin UNETR, 24", swin(24, (32, 160, 96), strides=THICK), (32, 160, 96), half, 3),
        of("Swin UNETR, 32, stem", swin(32, cube, placement="stem"), cube, single, 2),
        of("Swin UNETR, 24, both", swin(24, long, placement="both", checkpointing=True), long, half, 9),
        of("Swin UNETR, 32, plain", swin(32, long, placement=None, attention="plain"), long, half, 2),
        of("Swin UNETR, 16, identity", swin(16, long, attention="identity"), long, half, 7),
        of("3D U-Net, 16", unet("unet3d", 16, long), long, half, 5, 2, fitted=True),
        of("3D U-Net, 32", unet("unet3d", 32, cube, checkpointing=True), cube, single, 14),
        of("U-Net with Transformer, 16", unet("unet3d_transformer", 16, cube), cube, single, 5),
        of("ResEnc U-Net, 32", unet("resenc_unet", 32, cube), cube, half, 5, fitted=True),
        of("ResEnc U-Net, 16", unet("resenc_unet", 16, thick, spacing_mm=(3.0, 0.6, 0.6)), thick, single, 4),
        of("3D CNN, 16", cnn(16, cube), cube, single, 20, fitted=True),
        of("3D CNN, 24", cnn(24, cube, checkpointing=True), cube, half, 8, 2),
    )


def resident_bytes(key: str) -> int:
    """A line of the process' status."""
    # Not getrusage: its peak outlives exec, so that it may be the parent's.
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def print_peak(setting: Setting, threads: int) -> None:
    """Train two steps and print by how many bytes they have raised the memory."""
    torch.set_num_threads(threads)
    reuse_freed_memory()  # as AutoSpine's commands do
    plan = setting.plan
    images = torch.randn(setting.batch_size, 1, *setting.patch)
    labels = torch.randint(0, setting.classes, (setting.batch_size, *setting.patch), dtype=torch.uint8)
    before = resident_bytes("VmRSS")
    learner = Learner(plan, plan.configurations[0], seed=0, device=torch.device("cpu"))
    learner.step(images, labels, RATE)
    learner.step(images, labels, RATE)
    print(resident_bytes("VmHWM") - before)  # noqa: T201


def measured_peak(index: int, threads: int) -> int:
    """The same in a fresh process, whose threads do not keep a core busy while they wait."""
    command = [sys.executable, __file__, "--measure", str(index), "--threads", str(threads)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(done.stdout.split()[-1])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting, predicted and measured."""

    setting: Setting
    predicted: TrainingMemory
    seconds: float
    """That the prediction took."""

    measured: int

    @property
    def error(self) -> float:
        """Relative; negative where too little was predicted."""
        return self.predicted.total / self.measured - 1


def measure(index: int, setting: Setting, threads: int) -> Row:
    """Predict and measure."""
    plan = setting.plan
    start = time.perf_counter()
    predicted = predict(plan, plan.configurations[0], gpu=False)
    seconds = time.perf_counter() - start
    row = Row(setting=setting, predicted=predicted, seconds=seconds, measured=measured_peak(index, threads))
    print(f"{setting.name} {setting.patch}: {row.error:+.1%}, {seconds:.2f} s", file=sys.stderr)  # noqa: T201
    return row


def plan_seconds() -> float:
    """The longest that planning for one network takes, over datasets, budgets and networks."""
    lumbar = facts.fingerprint([((300, 400, 400), (1.0, 0.8, 0.8))] * 3, [30.0, 12.0, 8.0])
    sagittal = facts.fingerprint([((16, 512, 512), (4.0, 0.6, 0.6))] * 3, [20.0, 9.0, 6.0], modality="MR")
    labels = facts.plain_labels(3)
    longest = 0.0
    for fingerprint, gib, gpu in product((lumbar, sagittal), BUDGETS_GIB, (False, True)):
        budget = Budget(memory_bytes=int(gib * GIB), gpu=gpu, precision="bfloat16", reason="the benchmark's")
        for network in BUILT_IN if gib == max(BUDGETS_GIB) else BUILT_IN[:1]:
            start = time.perf_counter()
            try:
                make_plan(facts.dataset(labels), fingerprint, budget, Overrides(networks=(network,)))
            except PlanError:
                continue  # too little for any patch, which the planner says
            longest = max(longest, time.perf_counter() - start)
    return longest


def table(rows: list[Row], merits: dict[str, float | None], setting: str) -> str:
    """The Markdown of all that was measured."""
    lines = [setting, "", "| network | patch | classes | batch | activations | parameters (10⁶) | fitted |"]
    lines[-1] += " measured (GB) | predicted (GB) | error |"
    lines.append("|---|---|--:|--:|---|--:|---|--:|--:|--:|")
    for row in rows:
        one, millions = row.setting, row.predicted.weights / 4e6
        cells = (
            one.name,
            "×".join(map(str, one.patch)),
            one.classes,
            one.batch_size,
            one.precision,
            f"{millions:.1f}",
            "yes" if one.fitted else "no",
            f"{row.measured / 1e9:.2f}",
            f"{row.predicted.total / 1e9:.2f}",
            f"{row.error:+.0%}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "| | |", "|---|--:|"]
    lines += [
        f"| `{name}` | {'not measured' if value is None else f'{value:.3g}'} |"
        for name, value in merits.items()
    ]
    return "\n".join(lines)


def figures(rows: list[Row]) -> dict[str, float | None]:
    """The figures of merit on a CPU."""
    errors = [row.error for row in rows]
    held_out = [row.error for row in rows if not row.setting.fitted]
    return {
        "cpu_mean_abs_error": statistics.mean(map(abs, errors)),
        "cpu_worst_under": max(0.0, -min(errors)),
        "cpu_held_out_mean_abs_error": statistics.mean(map(abs, held_out)),
        "cpu_held_out_worst_under": max(0.0, -min(held_out)),
        "predict_seconds_max": max(row.seconds for row in rows),
    }


def gpu_figures() -> dict[str, float | None]:
    """Those of the GPU, where there is one."""
    names = ("gpu_mean_abs_error", "gpu_worst_under", "budget_used_min")
    if not torch.cuda.is_available():
        return dict.fromkeys(names)
    script = str(Path(__file__).with_name("planner_gpu.py"))
    done = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: found[name] for name in names}


def main() -> None:
    """Measure, write the table, print the figures of merit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.measure is not None:
        print_peak(settings()[options.measure], options.threads)
        return
    rows = [measure(i, one, options.threads) for i, one in enumerate(settings())]
    merits = figures(rows) | gpu_figures() | {"plan_seconds_max": plan_seconds()}
    setting = (
        f"{date.today()}, {processor()}, {options.threads} threads, torch {version('torch')}. One channel; "
        "the number after a network's name is its width."
    )
    if options.write:
        write_measured(options.write, table(rows, merits, setting))
    rounded = {name: value if value is None else round(value, 4) for name, value in merits.items()}
    print(json.dumps(rounded))  # noqa: T201


if __name__ == "__main__":
    main()
