"""Time the network against MONAI's SwinUNETR and its OpenVINO export, in turn in one process.

Run by `make bench-network`. Needs the `bench` extra. Prints one JSON object last, and with `--write FILE`
puts the table between that file's `<!-- measured -->` marks.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autospine.network import AdaptiveSwinUNETR, AttentionSettings, FusionSettings
from autospine.network.weights import load_monai
from autospine.phantom import PhantomSettings, by_structure, generate
from autospine.system.allocation import reuse_freed_memory

sys.path.insert(0, str(Path(__file__).parents[1]))
from checkpoints import as_monai
from result_page import write_measured

Call = Callable[[], Any]
STAGES_WITH_ATTENTION = (True, True, False, False)
"""Where the planner turns adaptive attention on."""
TRAINING_EDGE = 64
"""Voxels of the patches of the short training."""
SINGLE, HALF = "float32", "bfloat16"
FLASH = "MONAI with use_flash_attention"
KEPT, GIVEN_BACK = ", freed memory kept", ", freed memory given back"
KERNELS = ((2, 2, 2), (4, 4, 4), (6, 6, 6))


def ours(options: argparse.Namespace, window: int, *, mechanisms: bool = False) -> AdaptiveSwinUNETR:
    """The network at the benchmark's size; plain, it is MONAI's."""
    switches = STAGES_WITH_ATTENTION
    attention = AttentionSettings(saliency=switches, temperature=switches) if mechanisms else "plain"
    return AdaptiveSwinUNETR(
        1,
        options.classes,
        feature_size=options.feature_size,
        window_size=window,
        use_v2=False,
        legacy_bias_slice=True,
        fusion=FusionSettings(kernels=KERNELS) if mechanisms else None,
        attention=attention,
    )


def monai(options: argparse.Namespace, window: int, *, flash: bool = False) -> nn.Module:
    """MONAI's network of the same size.

    Args:
        options: of the benchmark.
        window: Edge of the windows.
        flash: Whether its attention is torch's fused one, which it then is in inference alone.
    """
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(
        1,
        options.classes,
        feature_size=options.feature_size,
        window_size=window,
        use_flash_attention=flash,
    )


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice."""
    logits = logits.float()
    probabilities = logits.softmax(1).flatten(2)
    target = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).flatten(2).float()
    dice = 2 * (probabilities * target).sum(2) / (probabilities + target).sum(2).clamp_min(1e-6)
    return F.cross_entropy(logits, labels) + 1 - dice.mean()


def forward_of(network: nn.Module, image: Tensor, *, bfloat16: bool) -> Callable[[], Tensor]:
    """An inference call."""

    def call() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits: Tensor = network(image)
        return logits

    return call


def step_of(network: nn.Module, image: Tensor, labels: Tensor, *, bfloat16: bool) -> Call:
    """A training step: forward, loss, backward, AdamW."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def call() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network(image)
        loss_of(logits, labels).backward()
        optimiser.step()

    return call


def openvino_of(network: nn.Module, image: Tensor, threads: int) -> Call:
    """MONAI's network converted to OpenVINO, which computes in bfloat16."""
    import openvino

    with torch.inference_mode():
        # With a dynamic size its padding of windows comes out wrong.
        model = openvino.convert_model(network, example_input=image, input=list(image.shape))
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled, array = openvino.Core().compile_model(model, "CPU", settings), image.numpy()
    return lambda: compiled(array)


class Elsewhere:
    """A process of its own, in which freed memory is given back; it works when it is called, and then only.

    Args:
        options: of the benchmark.
        window: of the networks.
    """

    def __init__(self, options: argparse.Namespace, window: int) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, options, window), daemon=True)
        self._process.start()

    def __enter__(self) -> "Elsewhere":
        self._connection.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()

    def call(self, name: str) -> Call:
        """The contender of this name, there."""

        def call() -> None:
            self._connection.send(name)
            self._connection.recv()

        return call


def serve(connection: Any, options: argparse.Namespace, window: int) -> None:
    """Call contenders by name for another process, until it ends."""
    torch.set_num_threads(options.threads)
    calls = contenders(options, window)[0]
    connection.send("ready")
    while True:
        calls[connection.recv()]()
        connection.send("done")


def medians(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median seconds of each call; all are called in turn, and the first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
            print(f"{name}: {times[name][-1]:.2f} s", file=sys.stderr)  # noqa: T201
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def contenders(options: argparse.Namespace, window: int) -> tuple[dict[str, Call], nn.Module, Tensor]:
    """Calls by name, MONAI's network and the image. The forward passes have the same weights."""
    torch.manual_seed(0)
    n = options.size
    image = torch.randn(1, 1, n, n, n)
    labels = torch.randint(0, options.classes, (1, n, n, n))
    peer, plain = monai(options, window).eval(), ours(options, window).eval()
    load_monai(plain, peer.state_dict(), exact=True)
    fused = monai(options, window, flash=True).eval()
    fused.load_state_dict(peer.state_dict())
    adaptive = ours(options, window, mechanisms=True).eval()
    adaptive.load_state_dict(plain.state_dict(), strict=False)
    calls: dict[str, Call] = {}
    for precision, half in ((SINGLE, False), (HALF, True)):
        calls |= {
            f"forward: MONAI, {precision}": forward_of(peer, image, bfloat16=half),
            f"forward: {FLASH}, {precision}": forward_of(fused, image, bfloat16=half),
            f"forward: AutoSpine, {precision}": forward_of(plain, image, bfloat16=half),
            f"forward: AutoSpine with both mechanisms, {precision}": forward_of(
                adaptive, image, bfloat16=half
            ),
        }
        for name, make in (("MONAI", monai), ("AutoSpine", ours)):
            step = step_of(make(options, window), image, labels, bfloat16=half)
            calls[f"training step: {name}, {precision}"] = step
    return calls, peer, image


def measure(options: argparse.Namespace, window: int) -> dict[str, float]:
    """Seconds of every contender, and the agreement with MONAI, at one window size."""
    here, peer, image = contenders(options, window)
    result = {}
    with Elsewhere(options, window) as there:
        for kind in ("forward", "training step"):
            calls = {name: call for name, call in here.items() if name.startswith(f"{kind}: AutoSpine")}
            if kind == "forward":
                exported = openvino_of(peer, image, options.threads)
                openvino_labels = torch.from_numpy(exported()[0]).argmax(1)
                calls[f"forward: MONAI in OpenVINO, {HALF}"] = exported
                for name in (f"forward: {FLASH}, {SINGLE}", f"forward: {FLASH}, {HALF}"):
                    calls[f"{name}{KEPT}"] = here[name]
            for name in (f"{kind}: MONAI, {SINGLE}", f"{kind}: MONAI, {HALF}"):
                calls |= {name: there.call(name), f"{name}{KEPT}": here[name]}
            for name in (f"{kind}: AutoSpine, {SINGLE}", f"{kind}: AutoSpine, {HALF}"):
                calls[f"{name}{GIVEN_BACK}"] = there.call(name)
            result |= medians(calls, options.rounds)
    names = (f"MONAI, {SINGLE}", f"AutoSpine, {HALF}", f"AutoSpine, {SINGLE}")
    exact, half, single = (here[f"forward: {name}"]() for name in names)
    result["agreement"] = (exact.argmax(1) == half.argmax(1)).float().mean().item()
    result["openvino_agreement"] = (exact.argmax(1) == openvino_labels).float().mean().item()
    result["difference"] = ((single - exact).norm() / exact.norm()).item()
    return result


def trained_agreement(options: argparse.Namespace) -> tuple[float, float]:
    """Agreement with MONAI on an unseen phantom after a short training, and the mean Dice it has reached.

    What lies beyond the phantom does not count.
    """
    torch.manual_seed(0)
    network = ours(options, 7)
    *training, unseen = [phantom(seed) for seed in range(5)]
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(options.training_steps):
        which = int(torch.randint(0, len(training), (), generator=generator))
        image, labels = crop(*training[which], TRAINING_EDGE, generator, beyond=0)
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(image)
        loss_of(logits, labels).backward()
        optimiser.step()
    peer = monai(options, 7).eval()
    peer.load_state_dict(as_monai(network))
    image, labels = crop(*unseen, options.size, generator, beyond=-1)
    exact = forward_of(peer, image, bfloat16=False)().argmax(1)
    half = forward_of(network.eval(), image, bfloat16=True)().argmax(1)
    inside = labels >= 0
    return (exact == half)[inside].float().mean().item(), mean_dice(half, labels)


def phantom(seed: int) -> tuple[Tensor, Tensor]:
    """A lumbar CT: intensities about -1 to 3, and the indices of its structures."""
    settings = PhantomSettings(spacing_mm=(2.0, 2.0, 2.0), contrast="CT", region="lumbar")
    drawn = generate(settings, seed)
    image = torch.from_numpy(np.asarray(drawn.image, np.float32).clip(-250, 750) / 250)
    return image, torch.from_numpy(by_structure(drawn.labels).astype(np.int64))


def mean_dice(predicted: Tensor, labels: Tensor) -> float:
    """Mean over the classes that there are, background left out."""
    scores = []
    for index in labels[labels > 0].unique():
        one, other = (predicted == index) & (labels >= 0), labels == index
        scores.append(2 * float((one & other).sum()) / float(one.sum() + other.sum()))
    return statistics.mean(scores)


def crop(
    image: Tensor, labels: Tensor, n: int, generator: torch.Generator, *, beyond: int
) -> tuple[Tensor, Tensor]:
    """A cube about a random foreground voxel; where the volume ends, labels are `beyond`."""
    places = labels.nonzero()
    centre = places[int(torch.randint(0, len(places), (), generator=generator))]
    low = image.min().item()
    image, labels = F.pad(image, (n,) * 6, value=low), F.pad(labels, (n,) * 6, value=beyond)
    start = [int(c) + n - n // 2 for c in centre]
    cut = tuple(slice(a, a + n) for a in start)
    return image[cut][None, None].contiguous(), labels[cut][None].contiguous()


def peak_bytes(options: argparse.Namespace, name: str) -> int:
    """Bytes by which two training steps raise the resident memory of a process of their own.

    AutoSpine keeps freed memory there, as it is run. MONAI gives it back, with which it takes half as much.
    """
    command = [sys.executable, __file__, "--memory-of", name]
    for option in ("size", "feature_size", "classes", "threads"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def print_peak(options: argparse.Namespace) -> None:
    """Run two training steps of one contender and print by how many bytes they have raised the memory."""
    network = monai(options, 7) if options.memory_of.startswith("MONAI") else ours(options, 7)
    if isinstance(network, AdaptiveSwinUNETR):
        reuse_freed_memory()  # more memory rather than less, but as it is run
    before = psutil.Process().memory_info().rss - 4 * sum(p.numel() for p in network.parameters())
    n = options.size
    labels = torch.randint(0, options.classes, (1, n, n, n))
    step = step_of(network, torch.randn(1, 1, n, n, n), labels, bfloat16="bfloat16" in options.memory_of)
    step()
    step()
    # Not getrusage: its peak outlives exec, so that it may be the parent's.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    print(peak - before)  # noqa: T201


def ratios(times: dict[str, float], memory: dict[str, int]) -> dict[str, float]:
    """The figures of merit: how many times faster, share of memory, share of time added.

    Names without an ending compare with MONAI at its best: with its `use_flash_attention`, which acts in
    inference alone, and in a process that keeps freed memory, as AutoSpine's commands do. Other endings say
    that MONAI's attention is its default (`_default_attention`), that both also give freed memory back, as
    PyTorch does by itself (`_memory_given_back`), or that each is as its users run it, AutoSpine keeping
    freed memory (`_as_run`). OpenVINO manages its own memory, and is compared with AutoSpine as it is run.
    """

    def ratio(kind: str, peer: str, own: str = HALF, back: str = "") -> float:
        return times[f"{kind}: {peer}"] / times[f"{kind}: AutoSpine, {own}{back}"]

    def compared(peer: str, peers: str, back: str) -> dict[str, float]:
        single, half = f"{peer}, {SINGLE}{peers}", f"{peer}, {HALF}{peers}"
        return {
            "forward_bf16_vs_monai_fp32": ratio("forward", single, HALF, back),
            "forward_bf16_vs_monai_bf16": ratio("forward", half, HALF, back),
            "forward_fp32_vs_monai_fp32": ratio("forward", single, SINGLE, back),
        }

    def trained(peers: str, back: str) -> dict[str, float]:
        return {
            "train_vs_monai_fp32": ratio("training step", f"MONAI, {SINGLE}{peers}", HALF, back),
            "train_vs_monai_bf16": ratio("training step", f"MONAI, {HALF}{peers}", HALF, back),
        }

    others = {
        f"{name}{ending}": value
        for ending, found in (
            ("_default_attention", compared("MONAI", KEPT, "")),
            ("_memory_given_back", compared("MONAI", "", GIVEN_BACK) | trained("", GIVEN_BACK)),
            ("_as_run", compared("MONAI", "", "") | trained("", "")),
        )
        for name, value in found.items()
    }
    mechanisms = times[f"forward: AutoSpine with both mechanisms, {HALF}"]
    return {
        **compared(FLASH, KEPT, ""),
        **trained(KEPT, ""),
        "forward_bf16_vs_openvino_bf16": ratio("forward", f"MONAI in OpenVINO, {HALF}"),
        "train_memory_ratio": memory[f"AutoSpine, {HALF}"] / memory[f"MONAI, {HALF}"],
        "train_memory_ratio_vs_fp32": memory[f"AutoSpine, {HALF}"] / memory[f"MONAI, {SINGLE}"],
        "mechanisms_overhead": mechanisms / times[f"forward: AutoSpine, {HALF}"] - 1,
        "argmax_agreement": times["agreement"],
        **others,
    }


def table(
    measured: dict[int, dict[str, float]], memory: dict[str, int], merits: dict[str, float], setting: str
) -> str:
    """The Markdown of all that was measured."""
    windows = list(measured)
    lines = [setting, "", "| seconds, medians | " + " | ".join(f"window {w}" for w in windows) + " |"]
    lines.append("|---|" + "--:|" * len(windows))
    for name in measured[windows[0]]:
        if ": " in name:
            cells = " | ".join(f"{measured[w][name]:.2f}" for w in windows)
            lines.append(f"| {name} | {cells} |")
    lines += ["", "| peak memory of a training step, window 7 | GB |", "|---|--:|"]
    lines += [f"| {name} | {value / 1e9:.2f} |" for name, value in memory.items()]
    lines += ["", "| window 7 | |", "|---|--:|"]
    lines += [f"| `{name}` | {value:.4g} |" for name, value in merits.items()]
    return "\n".join(lines)


def processor() -> str:
    """The processor's name and whether it multiplies bfloat16."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in facts.splitlines() if line.startswith("model name")]
    kinds = [kind for kind in ("amx_bf16", "avx512_bf16") if kind in facts]
    return f"{names[0] if names else platform.processor()} ({', '.join(kinds) or 'no bfloat16 products'})"


def main() -> None:
    """Measure, write the table, print the figures of merit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("size", 96),
        ("feature-size", 24),
        ("classes", 14),
        ("rounds", 5),
        ("threads", 2),
        ("training-steps", 150),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--windows", type=int, nargs="+", default=[7, 6], help="the first is reported")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print_peak(options)
        return
    reuse_freed_memory()  # as AutoSpine's commands do
    measured = {window: measure(options, window) for window in options.windows}
    names = [f"{name}, {precision}" for name in ("MONAI", "AutoSpine") for precision in (SINGLE, HALF)]
    memory = {name: peak_bytes(options, name) for name in names}
    first = measured[options.windows[0]]
    agreement, dice = trained_agreement(options)
    merits = ratios(first, memory) | {
        "argmax_agreement_trained": agreement,
        "trained_dice": dice,
        "float32_difference": first["difference"],
        "openvino_argmax_agreement": first["openvino_agreement"],
    }
    setting = (
        f"{date.today()}, {processor()}, {options.threads} threads; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "monai", "openvino"))
        + f". One channel, {options.classes} classes, {options.size}³, feature size {options.feature_size}, "
        f"blocks of the first version; medians of {options.rounds} rounds."
    )
    if options.write:
        write_measured(options.write, table(measured, memory, merits, setting))
    print(json.dumps({name: round(value, 4) for name, value in merits.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
