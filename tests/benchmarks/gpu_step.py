"""The training step of the adaptive Swin UNETR on a GPU, as users run it: `Learner.step` from CPU tensors.

Part of `make bench-gpu`. Each way to run it prints its JSON as it ends, and one that fails leaves the others:
eager, with `cudnn.benchmark`, compiled, in float16, a batch of one. Then come the kernels that take longest,
and the parts whose speed depends on the layout: attention at the numbers of tokens that are planned, with
and without gradients, and a convolution with channels first and last. Prints one JSON object last.
"""

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))
import makers

from autospine.core.labels import parse_labels
from autospine.network.swin.attention_core import attend
from autospine.network.swin.swin_settings import FusionSettings
from autospine.network.swin.windows import window_layout
from autospine.plan import Plan
from trainers.learner import Learner

RATE = 0.01
WARM_UP = 3
KERNELS = 15
GIB = 1024**3
WINDOWS = ((5, 5, 7), (7, 7, 7), (8, 8, 8))
HEADS, WIDTH = 3, 16


def planned(options: argparse.Namespace, precision: str, batch: int) -> Plan:
    """The network and recipe as they are planned for a GPU."""
    size, classes = options.size, options.classes
    network = makers.network_plan(
        feature_size=options.feature_size,
        depths=(2, 2, 2, 2),
        num_heads=(3, 6, 12, 24),
        window_sizes=tuple((n, n, n) for n in (min(8, size // 2**i) for i in range(1, 5))),
        strides=((2, 2, 2),) * 5,
        fusion=FusionSettings(kernels=((2, 2, 2), (4, 4, 4), (6, 6, 6)), weighting="trainable"),
    )
    configuration = makers.configuration(
        network=network,
        patch_size=(size, size, size),
        training={"batch_size": batch, "precision": precision},
    )
    names = {"background": 0} | {f"class {i}": i for i in range(1, classes)}
    return makers.plan(configuration, labels=parse_labels(names))


class Bench:
    """Times calls on the device of the options."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.on_gpu = self.device.type == "cuda"

    def wait(self) -> None:
        """Wait for the device."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, call: Callable[[], object]) -> float:
        """Median time of a call."""
        times = []
        for position in range(WARM_UP + self.options.rounds):
            self.wait()
            began = time.perf_counter()
            call()
            self.wait()
            if position >= WARM_UP:
                times.append(time.perf_counter() - began)
        return 1000 * statistics.median(times)

    def step(
        self, *, precision: str = "bfloat16", batch: int = 0, benchmark: bool = True, compiled: bool = False
    ) -> dict[str, Any]:
        """Time and memory of a step."""
        torch.backends.cudnn.benchmark = benchmark
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        call = self._step(precision, batch or self.options.batch, compiled)
        began = time.perf_counter()
        call()
        self.wait()
        first = time.perf_counter() - began
        row = {"ms": round(self.milliseconds(call), 2), "first_seconds": round(first, 1)}
        if self.on_gpu:
            row["allocated_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
            row["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
        return row

    def kernels(self) -> dict[str, Any]:
        """Milliseconds of one step by kernel, the longest first, and of all of them."""
        call = self._step("bfloat16", self.options.batch, compiled=False)
        for _ in range(WARM_UP):
            call()
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
        with profile(activities=activities) as profiled:
            call()
            self.wait()

        def took(event: Any) -> float:
            return (event.self_device_time_total if self.on_gpu else event.self_cpu_time_total) / 1000

        events = sorted(profiled.key_averages(), key=took, reverse=True)
        longest = {event.key[:90]: [event.count, round(took(event), 3)] for event in events[:KERNELS]}
        return {"ms_of_kernels": round(sum(map(took, events)), 2), "kernels": longest}

    def attention(self) -> dict[str, float]:
        """Milliseconds of attention by number of tokens, without and with gradients."""
        found: dict[str, float] = {}
        for window in WINDOWS:
            grid = tuple(4 * n for n in window)
            layout = window_layout(grid, window, True, self.device)
            n, windows = layout.tokens_per_window, sum(layout.runs)
            dtype = torch.bfloat16 if self.on_gpu else torch.float32
            qkv = torch.randn(1, windows, n, 3, HEADS, WIDTH, device=self.device, dtype=dtype)
            bias = torch.randn(HEADS, n, n, device=self.device, dtype=dtype)

            def forward(qkv: torch.Tensor = qkv, bias: torch.Tensor = bias, layout: Any = layout) -> Any:
                return attend(qkv, WIDTH**-0.5, None, bias, layout)

            def both(qkv: torch.Tensor = qkv, bias: torch.Tensor = bias, layout: Any = layout) -> None:
                inputs = [qkv.detach().requires_grad_(), bias.detach().requires_grad_()]
                attend(inputs[0], WIDTH**-0.5, None, inputs[1], layout).sum().backward()

            with torch.inference_mode():
                found[f"attention_{n}_tokens_forward_ms"] = round(self.milliseconds(forward), 3)
            found[f"attention_{n}_tokens_training_ms"] = round(self.milliseconds(both), 3)
        return found

    def layouts(self) -> dict[str, float]:
        """Milliseconds of a convolution and its gradients, channels first and last, by number format."""
        found: dict[str, float] = {}
        width, size = self.options.feature_size, self.options.size // 2
        for name, dtype in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
            for order, layout in (("first", torch.contiguous_format), ("last", torch.channels_last_3d)):
                x = torch.randn(1, width, size, size, size, device=self.device, dtype=dtype)
                x = x.to(memory_format=layout).requires_grad_()
                conv = nn.Conv3d(width, width, 3, padding=1, bias=False, device=self.device, dtype=dtype)
                conv = conv.to(memory_format=layout)

                def call(x: torch.Tensor = x, conv: nn.Module = conv) -> None:
                    F.relu(conv(x)).sum().backward()

                found[f"convolution_{name}_channels_{order}_ms"] = round(self.milliseconds(call), 3)
        return found

    def _step(self, precision: str, batch: int, compiled: bool) -> Callable[[], object]:
        plan = planned(self.options, precision, batch)
        learner = Learner(plan, plan.configurations[0], seed=0, device=self.device, compiled=compiled)
        generator = torch.Generator().manual_seed(0)
        edges = (self.options.size,) * 3
        images = torch.randn(batch, 1, *edges, generator=generator)
        labels = torch.randint(0, self.options.classes, (batch, *edges), generator=generator).byte()
        return lambda: learner.step(images, labels, RATE)


class Said(logging.Handler):
    """Keeps the warnings of AutoSpine: a network that cannot be compiled is timed uncompiled, and says so."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []
        logging.getLogger("trainers").addHandler(self)
        logging.getLogger("autospine").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning."""
        self._lines.append(record.getMessage())

    def take(self) -> dict[str, str]:
        """Return the warnings since the last call, if there are any."""
        lines, self._lines = self._lines, []
        return {"said": " ".join(lines)} if lines else {}


def sections(bench: Bench) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What is measured, the most telling first."""
    yield "eager", bench.step
    yield "kernels", bench.kernels
    yield "eager, cudnn.benchmark off", lambda: bench.step(benchmark=False)
    yield "compiled", lambda: bench.step(compiled=True)
    yield "attention", bench.attention
    yield "convolution", bench.layouts
    yield "float16", lambda: bench.step(precision="float16")
    yield "batch of one", lambda: bench.step(batch=1)


def main() -> None:
    """Measure everything, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = {"size": 128, "batch": 2, "feature-size": 48, "classes": 5, "rounds": 20}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cuda")
    figures: dict[str, Any] = {}
    said = Said()
    for name, call in sections(Bench(parser.parse_args())):
        try:
            row = call() | said.take()
        except Exception as error:  # whatever a compiler, a driver or a full card raises
            row = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}
        print(json.dumps({"part": name, **row}), flush=True)  # noqa: T201
        figures |= {
            name if key in ("ms", "failed") else f"{name}: {key}": value for key, value in row.items()
        }
    kernels = figures.pop("kernels: kernels", {})
    print(json.dumps(figures | {f"kernel {key}": took for key, (_, took) in kernels.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
