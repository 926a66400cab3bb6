"""Calls by which `versions.py` compares two checkouts; both run this file, each with its own modules.

So it may import only what both of them have. `serve` prints the names of its calls, then the seconds of each
call whose name it reads: those of the processor, since other programs may run beside it. `memory-float32` and
`memory-bfloat16` print by how many bytes two training steps have raised the memory of this process, the
weights included. `losses` prints the losses of a small training.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import makers
import torch
from network import forward_of, ours, step_of
from processes import held_bytes, peak_bytes

import autospine
from autospine.core.labels import parse_labels
from autospine.network import FusionSettings
from autospine.system.allocation import reuse_freed_memory
from trainers.learner import Learner

Call = Callable[[], object]
WINDOW = 7
RATE = 0.01
STEPS, SMALL_EDGE, SMALL_WIDTH, SMALL_CLASSES = 40, 32, 12, 5
"""The training whose losses are compared: steps, edge of its patch, channels and classes."""


def learner_of(size: int, width: int, classes: int, precision: str) -> Learner:
    """A learner of the adaptive Swin UNETR on the CPU."""
    network = replace(
        makers.network_plan(),
        feature_size=width,
        depths=(2, 2, 2, 2),
        num_heads=(3, 6, 12, 24),
        window_sizes=tuple((min(4, size // 2**i),) * 3 for i in range(1, 5)),
        strides=((2, 2, 2),) * 5,
        fusion=FusionSettings(kernels=((2, 2, 2), (4, 4, 4), (6, 6, 6))),
    )
    configuration = makers.configuration(
        network=network, patch_size=(size,) * 3, training={"precision": precision, "batch_size": 1}
    )
    labels = parse_labels({"background": 0} | {f"class {i}": i for i in range(1, classes)})
    plan = makers.plan(configuration, labels=labels)
    return Learner(plan, configuration, seed=0, device=torch.device("cpu"))


def batch_of(size: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth image, and labels that follow from its intensities."""
    coarse = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(coarse, size=(size,) * 3, mode="trilinear")
    limits = torch.linspace(-0.7, 0.7, classes - 1)
    return image, torch.bucketize(image[:, 0], limits).byte()


def learner_step(options: argparse.Namespace, classes: int, precision: str) -> Call:
    """A training step as users run it: network, loss, gradients, clipping, AdamW, averaged weights."""
    learner = learner_of(options.size, options.feature_size, classes, precision)
    image, stored = batch_of(options.size, classes)
    return lambda: learner.step(image, stored, RATE)


def losses() -> list[float]:
    """The losses of the steps of a small training in float32."""
    learner = learner_of(SMALL_EDGE, SMALL_WIDTH, SMALL_CLASSES, "float32")
    image, stored = batch_of(SMALL_EDGE, SMALL_CLASSES)
    return [learner.step(image, stored, RATE).loss for _ in range(STEPS)]


def calls(options: argparse.Namespace) -> dict[str, Call]:
    """Calls by name: those of `make bench-network`, and the training step as users run it."""
    torch.manual_seed(0)
    n = options.size
    image, labels = torch.randn(1, 1, n, n, n), torch.randint(0, options.classes, (1, n, n, n))
    plain, adaptive = (ours(options, WINDOW, mechanisms=mechanisms).eval() for mechanisms in (False, True))
    made: dict[str, Call] = {}
    for precision in ("float32", "bfloat16"):
        half = precision == "bfloat16"
        network = ours(options, WINDOW)
        made |= {
            f"forward, {precision}": forward_of(plain, image, bfloat16=half),
            f"forward with both mechanisms, {precision}": forward_of(adaptive, image, bfloat16=half),
            f"training step of the network, {precision}": step_of(network, image, labels, bfloat16=half),
        }
    return made | {
        f"training step as users run it, {classes} classes, {precision}": learner_step(
            options, classes, precision
        )
        for classes in sorted({5, options.classes})
        for precision in ("float32", "bfloat16")
    }


def serve(options: argparse.Namespace) -> None:
    """Call what is asked for, until the asking process ends."""
    made = calls(options)
    print(json.dumps(list(made)), flush=True)  # noqa: T201
    for line in sys.stdin:
        began = time.process_time()
        made[line.strip()]()
        print(time.process_time() - began, flush=True)  # noqa: T201


def main() -> None:
    """Serve calls, or print losses or the memory of a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("serve", "losses", "memory-float32", "memory-bfloat16"))
    for name in ("size", "feature-size", "classes"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--checkout", type=Path, required=True)
    options = parser.parse_args()
    found = Path(autospine.__file__)
    if not found.is_relative_to(options.checkout):
        raise SystemExit(f"expected AutoSpine of {options.checkout}, found {found}")
    reuse_freed_memory()  # as AutoSpine's commands do
    if options.task == "serve":
        serve(options)
        return
    if options.task == "losses":
        print(json.dumps(losses()))  # noqa: T201
        return
    before = held_bytes()
    step = learner_step(options, options.classes, options.task.removeprefix("memory-"))
    step()
    step()
    print(peak_bytes() - before)  # noqa: T201


if __name__ == "__main__":
    main()
