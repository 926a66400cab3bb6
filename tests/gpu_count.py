"""Count what a GPU would be asked to do, on a machine without one.

Networks and training take their GPU branch on every device that is not the CPU, the meta device among them,
where operators have shapes and no numbers. So the real step of training and the real pass of a prediction
run here under a dispatch mode that sees every operator: launches, synchronisations, copies between host and
device, bytes, and the tensors alive at once. Nothing of it is a time that was measured.

How each figure is counted:

- A *launch* is an operator that computes or copies; views and allocations are none. An operator over a list
  of tensors (`torch._foreach_*`, fused AdamW) counts as often as PyTorch's multi-tensor kernel is launched
  for such a list. Convolutions, norms and attention launch several kernels of their own for what is one here.
- A *synchronisation* is a number that the host reads (`item`, `bool(tensor)`, `tolist`), an operator whose
  result has a size that only the device knows, or a blocking copy between host and device.
- *Bytes* are those of the inputs that are read and of the outputs that are written, each once per operator;
  dimensions that are only expanded count once.
- The *roofline* of an operator is the longer of its bytes over `BYTES_PER_SECOND` and its floating-point
  operations over `OPERATIONS_PER_SECOND`; that of a step is their sum. No step can be faster without
  operators being joined.

The meta device differs from a GPU in three points, which are mended here. Its convolutions forget that
channels lie last, behind which the network would copy (36 copies of a step at 128^3): their results get the
layout that cuDNN gives them. It has no fused attention: the operators of PyTorch's memory-efficient kernel
are called by name, with the bias padded as PyTorch does. It knows neither autocast nor fused optimisers:
the network's own number format takes the place of the first, and the second is counted and not run.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from math import prod
from typing import Any
from unittest.mock import patch

import makers
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._prims_common import suggest_memory_format
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from autospine.core.labels import parse_labels
from autospine.memory.trace import Ledger
from autospine.network.swin.swin_plan import token_grids
from autospine.network.swin.swin_settings import FusionSettings
from planners import rules
from trainers.learner import Learner
from trainers.losses import Loss

META = torch.device("meta")

BYTES_PER_SECOND = 4.3e12
"""Memory bandwidth that copies reach on an H200, 90 % of the 4.8 TB/s of NVIDIA's data sheet."""

OPERATIONS_PER_SECOND = 790e12
"""Dense bfloat16 operations per second that large matrix products reach on an H200, 80 % of the 989 TFLOP/s
of NVIDIA's data sheet."""

PHASES = ("forward", "loss", "backward", "optimizer")
"""Parts of a training step; the last one is all that follows the backward pass."""

CHUNK = 65536
MOST_TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
MOST_BLOCKS = 320
"""Numbers per block, and tensors (by how many lists there are) and blocks per launch, of PyTorch's
multi-tensor kernels (aten/src/ATen/native/cuda/MultiTensorApply.cuh)."""

ALIGNMENT = 8
"""Multiple to which PyTorch pads the rows of the memory-efficient kernel's bias."""

_FREE = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "lift_fresh",
}
_READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount"}
"""Operators whose result, or its size, the host has to read."""

_WRITES_ONLY = {"copy_", "fill_", "zero_", "_foreach_copy_"}
"""Operators that do not read the tensor that they change."""

_LIKE = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}
"""Operators that read nothing of the tensor that they are given."""


@dataclass(slots=True)
class Tally:
    """What an operator, or many of them, ask of the device."""

    launches: int = 0
    syncs: int = 0
    host_to_device: int = 0
    """Copies from the host."""

    bytes: int = 0
    """Bytes read and written on the device."""

    operations: int = 0
    """Floating-point operations of convolutions, matrix products and attention."""

    seconds: float = 0.0
    """Roofline."""

    def add(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.launches += other.launches
        self.syncs += other.syncs
        self.host_to_device += other.host_to_device
        self.bytes += other.bytes
        self.operations += other.operations
        self.seconds += other.seconds


@dataclass(kw_only=True, slots=True)
class GpuCount:
    """What was counted."""

    by_operator: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    """Tally of each phase and operator."""

    optimizer_calls: int = 0
    """Operators inside of the optimiser's step, each a call from Python."""

    sync_operators: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of synchronisations of each phase and operator."""

    bias_gradient: int = 0
    """Most bytes of gradients of position biases that attention wrote at once."""

    peak: int = 0
    """Most bytes at once of tensors that were made while counting."""

    def total(self, *phases: str) -> Tally:
        """Return the sum over these phases; over all without any."""
        return self._sum(lambda phase, _: not phases or phase in phases)

    def of(self, *operators: str) -> Tally:
        """Return the sum over operators of these names, such as `convolution`."""
        return self._sum(lambda _, operator: operator in operators)

    def _sum(self, chosen: Callable[[str, str], bool]) -> Tally:
        total = Tally()
        for key, tally in self.by_operator.items():
            if chosen(*key):
                total.add(tally)
        return total


class Spy(Ledger):
    """Dispatch mode that fills a `GpuCount`; it answers what a host would read with ones."""

    def __init__(self) -> None:
        super().__init__()
        self.count = GpuCount()
        self.phase = PHASES[0]
        self.in_optimizer = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.partition("::")[2]
        result = self._result(func, name, types, args, kwargs)
        tally = _tally(func, name, args, kwargs, result)
        if tally is not None:
            self.count.by_operator[self.phase, name].add(tally)
            self.count.optimizer_calls += self.in_optimizer
            if tally.syncs:
                self.count.sync_operators[self.phase, name] += tally.syncs
        if name == "_scaled_dot_product_efficient_attention_backward" and result[3] is not None:
            self.count.bias_gradient = max(self.count.bias_gradient, _bytes(result[3]))
        self.count.peak = self.peak
        return result

    def _result(
        self, func: Any, name: str, types: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        if name == "_local_scalar_dense" and args[0].is_meta:
            return torch.ones((), dtype=args[0].dtype).item()
        if name == "_fused_adamw_" and args[0][0].is_meta:
            return None
        if name == "_to_copy" and args[0].is_meta and _device(kwargs, args[0]).type == "cpu":
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if name == "nonzero" and args[0].is_meta:
            return args[0].new_empty((args[0].numel(), args[0].ndim), dtype=torch.int64)
        if name == "bincount" and args[0].is_meta:
            return args[0].new_empty(args[2], dtype=torch.int64)  # its `minlength`, beyond which nothing is
        result = super().__torch_dispatch__(func, types, args, kwargs)
        return _as_cudnn(name, args, result)


def _tally(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Tally | None:
    """Return what an operator asks of the device; None if it is nothing."""
    written = {id(x) for x in tree_leaves(kwargs.get("out"))}
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and id(x) not in written]
    made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
    on_device = [x for x in (*given, *made) if x.is_meta]
    is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
    if not on_device or is_view or name in _FREE:
        return None
    if name in _READS:
        return Tally(launches=1, syncs=1, bytes=sum(map(_bytes, given)))
    if len({x.device.type for x in (*given, *made) if x.ndim or name in ("_to_copy", "copy_")}) > 1:
        blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
        sent = (name == "_to_copy" and not args[0].is_meta) or (name == "copy_" and not args[1].is_meta)
        # Whatever is copied to the host is waited for, be it later.
        return Tally(
            launches=1, syncs=int(blocking or not sent), host_to_device=int(sent), bytes=_bytes(on_device[0])
        )
    marked = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
    given_marks = zip(args, marked, strict=False)
    changed = [x for x in tree_leaves([a for a, m in given_marks if m]) if isinstance(x, Tensor)]
    new = [x for x in made if not any(x is c for c in changed)]
    read = given[len(changed) :] if name in _WRITES_ONLY else [] if name in _LIKE else given
    moved = sum(map(_bytes, [*read, *new, *changed]))
    if name in ("index_select", "index", "gather", "embedding"):
        moved = 2 * sum(map(_bytes, made)) + sum(_bytes(x) for x in given if not x.is_floating_point())
    plain = getattr(torch.ops.aten, name.rstrip("_"), func._overloadpacket)  # addmm_ does what addmm does
    count = flop_registry.get(plain)
    operations = 0 if count is None else int(count(*args, **kwargs, out_val=result))
    return Tally(
        launches=_launches(args),
        bytes=moved,
        operations=operations,
        seconds=max(moved / BYTES_PER_SECOND, operations / OPERATIONS_PER_SECOND),
    )


def _launches(args: Sequence[Any]) -> int:
    """Return the launches of an operator: one, or those of the multi-tensor kernel for lists of tensors."""
    lists = [x for x in args if isinstance(x, list | tuple) and x and all(isinstance(t, Tensor) for t in x)]
    if (len(lists) == 1 and len(lists[0]) < MOST_TENSORS[1]) or not lists:
        return 1
    sizes, most = [t.numel() for t in lists[0]], MOST_TENSORS[min(len(lists), 5)]
    launches = tensors = blocks = 0
    for i, size in enumerate(sizes):
        tensors += 1
        for chunk in range(chunks := -(-size // CHUNK)):
            blocks += 1
            full = tensors == most and chunk == chunks - 1
            if full or blocks == MOST_BLOCKS or (i == len(sizes) - 1 and chunk == chunks - 1):
                launches, blocks, tensors = launches + 1, 0, 0 if chunk == chunks - 1 else 1
    return launches


def _bytes(x: Tensor) -> int:
    """Return the bytes of a tensor's numbers, without those that are only expanded."""
    return prod(n for n, step in zip(x.shape, x.stride(), strict=True) if step or n == 0) * x.element_size()


def _device(kwargs: Mapping[str, Any], like: Tensor) -> torch.device:
    return torch.device(kwargs.get("device") or like.device)


def _as_cudnn(name: str, args: Sequence[Any], result: Any) -> Any:
    """Return the results of a convolution in the memory format that cuDNN gives them."""
    if name == "convolution":
        return _last(result) if has_last(*args[:2]) else result
    if name == "convolution_backward" and has_last(*args[1:3]):
        return tuple(x if x is None or x.ndim < 4 else _last(x) for x in result)
    return result


def has_last(*tensors: Tensor) -> bool:
    """Return whether a convolution of input and weight runs with channels last (ATen's ConvUtils.h)."""
    formats = {suggest_memory_format(x) for x in tensors}
    return bool(formats & {torch.channels_last, torch.channels_last_3d})


def _last(x: Tensor) -> Tensor:
    kind = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
    # Its storage stays, so that its bytes count once.
    return x.as_strided(x.shape, torch.empty(x.shape, device=META, memory_format=kind).stride())


@contextmanager
def counted() -> Iterator[Spy]:
    """Count what a GPU would be asked to do within the block, on tensors of the meta device.

    The block's training steps change their phase by themselves.
    """
    spy = Spy()
    hooks = [
        register_optimizer_step_pre_hook(lambda *_: setattr(spy, "in_optimizer", True)),
        register_optimizer_step_post_hook(lambda *_: setattr(spy, "in_optimizer", False)),
        register_module_forward_pre_hook(
            lambda module, _: setattr(spy, "phase", "loss") if isinstance(module, Loss) else None
        ),
    ]
    backward = Tensor.backward

    def passed(tensor: Tensor, *args: Any, **kwargs: Any) -> None:
        spy.phase = "backward"
        backward(tensor, *args, **kwargs)
        spy.phase = "optimizer"

    try:
        with patch.object(Tensor, "backward", passed), gpu_like(), spy:
            yield spy
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def gpu_like() -> Iterator[None]:
    """Let the meta device take what a GPU takes."""
    autocast, original = torch.autocast, F.scaled_dot_product_attention
    kinds = ["cpu", "cuda", "meta"]

    def no_autocast(kind: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if kind == "meta" else autocast(kind, *args, **kwargs)

    def attention(query: Tensor, *others: Any, **settings: Any) -> Tensor:
        return (_efficient_attention if query.is_meta else original)(query, *others, **settings)

    with (
        patch.object(torch, "autocast", no_autocast),
        patch.object(F, "scaled_dot_product_attention", attention),
        patch("torch.utils._foreach_utils._get_foreach_kernels_supported_devices", lambda: kinds),
        patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: kinds),
    ):
        yield


def _efficient_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """Call the memory-efficient kernel as PyTorch does on a GPU."""
    bias = attn_mask
    if bias is not None:
        n = bias.shape[-1]
        if n % ALIGNMENT:
            bias = F.pad(bias, (0, -n % ALIGNMENT))[..., :n]
        bias = bias.expand(*query.shape[:3], n)
    needs_gradient = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    out: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, needs_gradient, 0.0, False, scale=scale
    )[0]
    return out


Sizes = int | tuple[int, int, int]
"""Edge, or edges (S, P, L), of a patch in voxels."""


def swin_learner(*, size: Sizes = 128, batch: int = 2, width: int = 48, classes: int = 5) -> Learner:
    """Return the learner of the adaptive Swin UNETR as it is planned for a GPU, on the meta device.

    Args:
        size: Multiples of 32.
        batch: Patches per step.
        width: Feature size, a multiple of 12.
        classes: Channels of the logits, background included.
    """
    patch_size, strides = edges(size), ((2, 2, 2),) * 5
    windows, _ = rules.windows(token_grids(patch_size, strides), rules.GPU().largest_window)
    network = makers.network_plan(
        feature_size=width,
        depths=(2, 2, 2, 2),
        num_heads=rules.heads(width),
        window_sizes=tuple(windows),
        strides=strides,
        fusion=FusionSettings(
            kernels=((2, 2, 2), (4, 4, 4), (6, 6, 6)), weighting="trainable", placement="embedding"
        ),
    )
    configuration = makers.configuration(
        network=network, patch_size=patch_size, training={"batch_size": batch, "precision": "bfloat16"}
    )
    labels = parse_labels({"background": 0} | {f"class {i}": i for i in range(1, classes)})
    with META, counted():
        return Learner(makers.plan(configuration, labels=labels), configuration, seed=0, device=META)


def count_step(learner: Learner, *, size: Sizes = 128, batch: int = 2, sample: bool = False) -> GpuCount:
    """Count a training step after the first one, which makes the optimiser's state.

    Args:
        learner: Learner on the meta device.
        size: Multiples of 32.
        batch: Patches per step.
        sample: Whether the monitors sample the step.
    """
    learner.network.compute_dtype = torch.bfloat16  # type: ignore[assignment]
    images = torch.zeros(batch, 1, *edges(size))
    labels = torch.zeros(batch, *edges(size), dtype=torch.uint8)
    for _ in range(2):
        with counted() as spy:
            learner.step(images, labels, 0.01, sample)
    return spy.count


def count_tile(network: nn.Module, *, size: Sizes = 128, batch: int = 1) -> GpuCount:
    """Count the pass of tiles of a prediction through a network on the meta device, in bfloat16."""
    network.eval().compute_dtype = torch.bfloat16  # type: ignore[assignment]
    image = torch.zeros(batch, 1, *edges(size), device=META)
    # In inference mode the spy would see `conv3d` and `linear`, and not what they are made of.
    with counted() as spy, torch.no_grad():
        network(image)
    return spy.count


def edges(size: Sizes) -> tuple[int, int, int]:
    return (size, size, size) if isinstance(size, int) else size
