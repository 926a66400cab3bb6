"""Time the network against the same layers from torch's own modules in float32, in turn in one process.

Run from the project root: `python tests/benchmarks/network.py --size 64 --feature-size 16 --window 4`.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autospine.network import AdaptiveSwinUNETR, AttentionSettings, FusionSettings

CLASSES = 8


class NaiveResidual(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(c_in, c_out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv3d(c_out, c_out, 3, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3 = (nn.InstanceNorm3d(c_out) for _ in range(3))
        self.conv3 = nn.Conv3d(c_in, c_out, 1, bias=False) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.leaky_relu(self.norm1(self.conv1(x)), 0.01)))
        return F.leaky_relu(y + (x if self.conv3 is None else self.norm3(self.conv3(x))), 0.01)


class NaiveUp(nn.Module):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(c_in, c_out, 2, 2, bias=False)
        self.block = NaiveResidual(2 * c_out, c_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.block(torch.cat((self.up(x), skip), dim=1))


class NaiveSwinBlock(nn.Module):
    """Explicit attention on (B, S, P, L, C); the shift mask is rebuilt in each call."""

    def __init__(self, c: int, heads: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = heads, window, shifted
        self.norm1, self.norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.qkv, self.proj = nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.mlp = nn.Sequential(nn.Linear(c, 4 * c), nn.GELU(), nn.Linear(4 * c, c))
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 3, heads))

    def forward(self, x: Tensor) -> Tensor:
        w = min(self.window, x.shape[1])
        shift = w // 2 if self.shifted and x.shape[1] > w else 0
        pad = -x.shape[1] % w
        y = F.pad(self.norm1(x), (0, 0, 0, pad, 0, pad, 0, pad)).roll((-shift,) * 3, (1, 2, 3))
        windows, region = self._cut(y, w), torch.zeros(1, *y.shape[1:4], 1)
        for axis in (1, 2, 3):
            region = region * 2 + (torch.arange(y.shape[1]) >= y.shape[1] - shift).float().view(
                [-1 if a == axis else 1 for a in range(5)]
            )
        regions = self._cut(region, w)
        mask = (regions != regions.transpose(1, 2)).float() * -100
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        place = torch.stack(torch.meshgrid(*(torch.arange(w),) * 3, indexing="ij"), -1).view(-1, 3)
        offset = place[:, None] - place[None] + self.window - 1
        index = (offset * torch.tensor([(2 * self.window - 1) ** 2, 2 * self.window - 1, 1])).sum(-1)
        scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + self.bias[index].permute(2, 0, 1)
        out = (scores + mask.repeat(x.shape[0], 1, 1)[:, None]).softmax(-1) @ v
        out = self._join(self.proj(out.transpose(1, 2).flatten(2)), y, w)
        s, p, left = x.shape[1:4]
        x = x + out.roll((shift,) * 3, (1, 2, 3))[:, :s, :p, :left]
        return x + self.mlp(self.norm2(x))

    @staticmethod
    def _cut(x: Tensor, w: int) -> Tensor:
        b, s, p, left, c = x.shape
        x = x.view(b, s // w, w, p // w, w, left // w, w, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return x.reshape(-1, w**3, c)

    @staticmethod
    def _join(x: Tensor, like: Tensor, w: int) -> Tensor:
        b, s, p, left, c = like.shape
        x = x.view(b, s // w, p // w, left // w, w, w, w, c).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return x.reshape(like.shape)


class NaiveSwinUNETR(nn.Module):
    """SwinUNETR-V2 from torch's own modules, for cubes."""

    def __init__(self, f: int, window: int, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.embed = nn.Conv3d(1, f, 2, 2)
        self.residuals = nn.ModuleList(NaiveResidual(f * 2**i, f * 2**i) for i in range(4))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(NaiveSwinBlock(f * 2**i, heads[i], window, s) for s in (False, True)))
            for i in range(4)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(8 * f * 2**i) for i in range(4))
        self.mergings = nn.ModuleList(nn.Linear(8 * f * 2**i, 2 * f * 2**i, bias=False) for i in range(4))
        widths = (f, f, 2 * f, 4 * f, 8 * f, 16 * f)
        self.encoders = nn.ModuleList(
            NaiveResidual(a, b) for a, b in ((1, f), (f, f), (2 * f,) * 2, (4 * f,) * 2)
        )
        self.bottleneck = NaiveResidual(16 * f, 16 * f)
        self.decoders = nn.ModuleList(NaiveUp(widths[i + 1], widths[i]) for i in range(5))
        self.head = nn.Conv3d(f, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.embed(image)
        hidden = [x]
        for residual, block, norm, merging in zip(
            self.residuals, self.blocks, self.norms, self.mergings, strict=True
        ):
            y = block(residual(x).permute(0, 2, 3, 4, 1))
            cells = [y[:, i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
            x = merging(norm(torch.cat(cells, dim=-1))).permute(0, 4, 1, 2, 3)
            hidden.append(x)
        hidden = [F.layer_norm(h.permute(0, 2, 3, 4, 1), h.shape[1:2]).permute(0, 4, 1, 2, 3) for h in hidden]
        skips = [encoder(h) for encoder, h in zip(self.encoders, [image, *hidden[:3]], strict=True)]
        y = self.bottleneck(hidden[4])
        for decoder, skip in reversed(list(zip(self.decoders, [*skips, hidden[3]], strict=True))):
            y = decoder(y, skip)
        return self.head(y)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice."""
    logits = logits.float()
    probabilities = logits.softmax(1).flatten(2)
    target = F.one_hot(labels, CLASSES).permute(0, 4, 1, 2, 3).flatten(2).float()
    dice = 2 * (probabilities * target).sum(2) / (probabilities + target).sum(2).clamp_min(1e-6)
    return F.cross_entropy(logits, labels) + 1 - dice.mean()


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Print medians in milliseconds and the ratio to the naive composition."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("size", 64), ("feature-size", 16), ("window", 4), ("rounds", 9), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    f, n = options.feature_size, options.size
    heads = tuple(max(f // 8, 1) * 2**i for i in range(4))
    shared = {"feature_size": f, "num_heads": heads, "window_size": options.window}
    kernels = ((2, 2, 2), (4, 4, 4), (6, 6, 6))
    adaptive = {"fusion": FusionSettings(kernel_sizes=kernels), "attention": AttentionSettings()}
    networks: dict[str, nn.Module] = {"naive, float32": NaiveSwinUNETR(f, options.window, heads)}
    for name, parts in (("plain", {}), ("adaptive", adaptive)):
        for dtype in (torch.float32, torch.bfloat16):
            network = AdaptiveSwinUNETR(1, CLASSES, **shared, **parts)
            network.compute_dtype = dtype
            networks[f"{name}, {str(dtype).removeprefix('torch.')}"] = network
    image, labels = torch.randn(1, 1, n, n, n), torch.randint(0, CLASSES, (1, n, n, n))
    forward: dict[str, list[float]] = {name: [] for name in networks}
    step: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(options.rounds + 1):
        for name, network in networks.items():
            with torch.no_grad():
                forward[name].append(milliseconds(lambda net=network: net(image)))
            step[name].append(milliseconds(lambda net=network: loss_of(net(image), labels).backward()))
            network.zero_grad()
    reference = "naive, float32"
    for title, times in (("forward", forward), ("training step", step)):
        medians = {name: statistics.median(values[1:]) for name, values in times.items()}
        for name, median in medians.items():
            print(  # noqa: T201
                f"{title:14s} {name:20s} {median:8.0f} ms  x{medians[reference] / median:.2f}"
            )


if __name__ == "__main__":
    main()
