"""Check and time the network against MONAI's SwinUNETR on a GPU: mixed precision, batches of two.

Part of `make bench-gpu`; needs the `bench` extra. MONAI is timed with and without its `use_flash_attention`,
and both networks compiled too. Each row is printed as it is measured, and one that fails (a compiler, a full
card) leaves the others. Prints one JSON object last; its ratios are to MONAI at its best.
"""

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from network import loss_of, ours

from autospine.network.weights import load_monai

Call = Callable[[], Any]
WARM_UP = 3
LARGEST_DIFFERENCE = 1e-4
"""Relative, of float32 logits: two ways to add up the same numbers."""

MECHANISMS = "AutoSpine with both mechanisms"


def monai(options: argparse.Namespace, *, flash: bool = False) -> nn.Module:
    """MONAI's network of the same size."""
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(
        1,
        options.classes,
        feature_size=options.feature_size,
        window_size=options.window,
        use_flash_attention=flash,
    )


class Contest:
    """Times networks of one size on one batch.

    Args:
        options: Sizes and device.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.options, self.device = options, torch.device(options.device)
        n, batch = options.size, options.batch
        self.image = torch.randn(batch, 1, n, n, n, device=self.device)
        self.labels = torch.randint(0, options.classes, (batch, n, n, n), device=self.device)
        self.contenders: dict[str, Callable[[], nn.Module]] = {
            "MONAI": lambda: monai(options),
            "MONAI with flash attention": lambda: monai(options, flash=True),
            "AutoSpine": lambda: ours(options, options.window),
            MECHANISMS: lambda: ours(options, options.window, mechanisms=True),
        }

    def measure(self, name: str, *, compiled: bool) -> dict[str, float]:
        """Milliseconds of a forward pass and of a training step, and the memory of that step."""
        network: Any = self.contenders[name]().to(self.device)
        if compiled:
            network = torch.compile(network)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        row = {"training_ms": self._milliseconds(self._step(network.train()))}
        if self.device.type == "cuda":
            row["training_gb"] = torch.cuda.max_memory_allocated() / 1e9
        row["forward_ms"] = self._milliseconds(self._forward(network.eval()))
        return {key: round(value, 3) for key, value in row.items()}

    def differences(self) -> dict[str, float]:
        """How far logits and labels are from MONAI's with the same weights."""
        image = self.image[:1]
        peer, plain = (self.contenders[name]().to(self.device).eval() for name in ("MONAI", "AutoSpine"))
        load_monai(plain, peer.state_dict(), exact=True)
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = False
        with torch.inference_mode():
            expected, found = peer(image), plain(image)
        matmul.allow_tf32, cudnn.allow_tf32 = before
        half = self._forward(plain, image)()
        return {
            "float32_difference": float((found - expected).norm() / expected.norm()),
            "argmax_agreement": float((expected.argmax(1) == half.argmax(1)).float().mean()),
        }

    def _forward(self, network: nn.Module, image: Tensor | None = None) -> Call:
        """An inference call in bfloat16."""

        def call() -> Tensor:
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16):
                logits: Tensor = network(self.image if image is None else image)
            return logits

        return call

    def _step(self, network: nn.Module) -> Call:
        """A training step: forward, loss, backward, AdamW."""
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

        def call() -> None:
            optimiser.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16):
                logits = network(self.image)
            loss_of(logits, self.labels).backward()
            optimiser.step()

        return call

    def _milliseconds(self, call: Call) -> float:
        """Median time of a call."""
        times = []
        for position in range(WARM_UP + self.options.rounds):
            self._wait()
            began = time.perf_counter()
            call()
            self._wait()
            if position >= WARM_UP:
                times.append(time.perf_counter() - began)
        return 1000 * statistics.median(times)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def figures(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ratios to MONAI at its best, in each of time and memory; without rows that have failed."""
    merits: dict[str, float] = {}
    for key in ("training_ms", "forward_ms", "training_gb"):
        known = {name: row[key] for name, row in rows.items() if key in row}
        peers = [value for name, value in known.items() if name.startswith("MONAI")]
        own = {name: value for name, value in known.items() if not name.startswith("MONAI")}
        merits |= {f"{key}: {name}": value for name, value in known.items()}
        if peers:
            merits |= {f"{key}: MONAI's best / {name}": min(peers) / value for name, value in own.items()}
    return merits


def main() -> None:
    """Measure every contender, eager and compiled, and print the figures of merit."""
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = {"size": 128, "batch": 2, "feature-size": 48, "classes": 14, "window": 7, "rounds": 20}
    for name, default in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "This measures a GPU, and PyTorch sees none; run it where torch.cuda.is_available()."
        )
    warnings.filterwarnings("ignore")
    contest = Contest(options)
    exact = contest.differences()
    print(json.dumps(exact), flush=True)  # noqa: T201
    rows: dict[str, dict[str, float]] = {}
    for compiled in (False, True):
        for name in contest.contenders:
            title = f"{name}, compiled" if compiled else name
            try:
                rows[title] = contest.measure(name, compiled=compiled)
                print(json.dumps({"network": title, **rows[title]}), flush=True)  # noqa: T201
            except Exception as error:  # whatever a compiler, a driver or a full card raises
                said = f"{type(error).__name__}: {str(error)[:300]}"
                print(json.dumps({"network": title, "failed": said}), flush=True)  # noqa: T201
    print(json.dumps({key: round(value, 5) for key, value in (exact | figures(rows)).items()}))  # noqa: T201
    if exact["float32_difference"] > LARGEST_DIFFERENCE:
        raise SystemExit(f"The logits differ from MONAI's by {exact['float32_difference']:.1e}.")


if __name__ == "__main__":
    main()
