"""Check and time the network against MONAI's SwinUNETR on a GPU: mixed precision, batches of two.

Run by `make bench-gpu`. Needs the `bench` extra and a CUDA device. Prints one JSON object last, and with
`--write FILE` writes the table to that file.
"""

import argparse
import json
import statistics
import sys
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from network import loss_of, monai, ours

from autospine.network.weights import load_monai

Call = Callable[[], Any]
WARM_UP = 5
GPU = torch.device("cuda")
LARGEST_DIFFERENCE = 1e-4
"""Relative, of float32 logits: two ways to add up the same numbers."""


def forward_of(network: nn.Module, image: Tensor) -> Callable[[], Tensor]:
    """An inference call in bfloat16."""

    def call() -> Tensor:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            logits: Tensor = network(image)
        return logits

    return call


def step_of(network: nn.Module, image: Tensor, labels: Tensor) -> Call:
    """A training step: forward, loss, backward, AdamW."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def call() -> None:
        optimiser.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(image)
        loss_of(logits, labels).backward()
        optimiser.step()

    return call


def milliseconds(call: Call) -> float:
    """Time of one call on the GPU."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def in_turn(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Median milliseconds of calls that take turns."""
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(milliseconds(call))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_gigabytes(make: Callable[[], nn.Module], image: Tensor, labels: Tensor) -> float:
    """Memory of two training steps of a new network, without what was there before."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step = step_of(make(), image, labels)
    step()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def difference(peer: nn.Module, plain: nn.Module, image: Tensor) -> float:
    """Relative difference of the float32 logits of networks with the same weights."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        expected, found = peer(image), plain(image)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    return float((found - expected).norm() / expected.norm())


def measure(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds and gigabytes of every contender, and the figures of merit."""
    torch.manual_seed(0)
    n, batch = options.size, options.batch
    image = torch.randn(batch, 1, n, n, n, device=GPU)
    labels = torch.randint(0, options.classes, (batch, n, n, n), device=GPU)

    def theirs() -> nn.Module:
        return monai(options, options.window).to(GPU)

    def own(**changes: bool) -> nn.Module:
        return ours(options, options.window, **changes).to(GPU)

    peer, plain = theirs().eval(), own().eval()
    load_monai(plain, peer.state_dict(), exact=True)
    merits = {"float32_difference": difference(peer, plain, image[:1])}
    with torch.inference_mode():
        exact = peer(image[:1]).argmax(1)
    half = forward_of(plain, image[:1])().argmax(1)
    merits["argmax_agreement"] = (exact == half).float().mean().item()
    compiled = torch.compile(own())
    forwards = {
        "forward: MONAI": forward_of(peer, image),
        "forward: AutoSpine": forward_of(plain, image),
        "forward: AutoSpine with both mechanisms": forward_of(own(mechanisms=True).eval(), image),
        "forward: AutoSpine, compiled": forward_of(torch.compile(own().eval()), image),
    }
    steps = {
        "training step: MONAI": step_of(theirs(), image, labels),
        "training step: AutoSpine": step_of(own(), image, labels),
        "training step: AutoSpine, compiled": step_of(compiled, image, labels),
    }
    times = in_turn(forwards, options.rounds) | in_turn(steps, options.rounds)
    del forwards, steps, compiled, peer, plain
    for name, make in (("MONAI", theirs), ("AutoSpine", own)):
        times[f"peak memory of a training step: {name} (GB)"] = peak_gigabytes(make, image, labels)
    peaks = [value for name, value in times.items() if name.startswith("peak")]
    merits |= {
        "gpu_forward_vs_monai": times["forward: MONAI"] / times["forward: AutoSpine"],
        "gpu_forward_compiled_vs_monai": times["forward: MONAI"] / times["forward: AutoSpine, compiled"],
        "gpu_train_vs_monai": times["training step: MONAI"] / times["training step: AutoSpine"],
        "gpu_train_compiled_vs_monai": times["training step: MONAI"]
        / times["training step: AutoSpine, compiled"],
        "gpu_train_milliseconds": times["training step: AutoSpine"],
        "gpu_memory_ratio": peaks[1] / peaks[0],
        "gpu_mechanisms_overhead": times["forward: AutoSpine with both mechanisms"]
        / times["forward: AutoSpine"]
        - 1,
    }
    return times, merits


def report(options: argparse.Namespace, times: dict[str, float], merits: dict[str, float]) -> str:
    """The Markdown page of all that was measured."""
    setting = (
        f"{date.today()}, {torch.cuda.get_device_name()}; "
        + ", ".join(f"{name} {version(name)}" for name in ("torch", "monai"))
        + f". One channel, {options.classes} classes, {options.size}³, batch {options.batch}, feature size "
        f"{options.feature_size}, window {options.window}, bfloat16 autocast; medians of {options.rounds} "
        "rounds. Times are in milliseconds."
    )
    lines = ["# The network on a GPU", "", "```sh", "make bench-gpu", "```", "", setting, "", "| | |"]
    lines += ["|---|--:|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in times.items()]
    lines += [f"| `{name}` | {value:.4g} |" for name, value in merits.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write the page, print the figures of merit as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (
        ("size", 128),
        ("batch", 2),
        ("feature-size", 48),
        ("classes", 14),
        ("window", 7),
        ("rounds", 20),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit(
            "This measures a GPU, and PyTorch sees none; run it where torch.cuda.is_available()."
        )
    warnings.filterwarnings("ignore")
    times, merits = measure(options)
    if options.write:
        options.write.write_text(report(options, times, merits), encoding="utf-8")
    print(json.dumps({name: round(value, 5) for name, value in merits.items()}))  # noqa: T201
    if merits["float32_difference"] > LARGEST_DIFFERENCE:
        raise SystemExit(f"The logits differ from MONAI's by {merits['float32_difference']:.1e}.")


if __name__ == "__main__":
    main()
