"""Count what a compiled training step would ask of a GPU, on a machine without one.

On a GPU most trainings run compiled. PyTorch's compiler, Inductor, traces the network, joins operators into
kernels of its own and leaves convolutions, matrix products and attention to libraries. Everything up to the
joined kernels is done here as on an H200, from a trace on the meta device whose tensors are then said to lie
on a GPU; only the kernels themselves are not written. Nothing of it is a time that was measured.

How each figure is counted:

- A *launch* is a kernel of Inductor's schedule, joined or single, or the call of a library. Views and outputs
  of a call that returns several tensors are none.
- *Bytes* are those that Inductor counts of a kernel: what is read and written in memory, each once.
- What is not compiled, the casts of parameters and the optimiser, is counted as in `gpu_count`.

Two things differ from a GPU. Inductor folds constants there, and not here. The format of a convolution's
result is cuDNN's by `gpu_count`'s rule, because a PyTorch without CUDA would not know it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from gpu_count import (
    BYTES_PER_SECOND,
    META,
    OPERATIONS_PER_SECOND,
    GpuCount,
    Sizes,
    Tally,
    counted,
    edges,
    gpu_like,
    has_last,
)
from torch import Tensor
from torch._inductor import compile_fx, config
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import MultiOutput
from torch._inductor.scheduler import NopKernelSchedulerNode
from torch._inductor.virtualized import V
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_aggregate
from torch.nn.modules.module import _global_forward_pre_hooks
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from trainers.learner import JOINING, Learner

CUDA = torch.device("cuda", 0)

H200 = SimpleNamespace(
    name="NVIDIA H200",
    gcnArchName="",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    warp_size=32,
    total_memory=141 * 10**9,
)
"""Properties of the GPU by NVIDIA's documentation of compute capability 9.0."""


def count_compiled_step(learner: Learner, *, size: Sizes = 128, batch: int = 2) -> GpuCount:
    """Count a compiled training step after the first one; the arguments are those of `count_step`.

    Tracing and scheduling a network takes a minute or more.
    """
    learner.network.compute_dtype = torch.bfloat16  # type: ignore[assignment]
    images = torch.zeros(batch, 1, *edges(size))
    labels = torch.zeros(batch, *edges(size), dtype=torch.uint8)
    counters: list[CompiledCounter] = []

    def compiled(function: Callable[..., Any]) -> CompiledCounter:
        phase = ("forward", "loss", "backward")[len(counters)]
        counters.append(CompiledCounter(function, phase))
        return counters[-1]

    with as_on_h200(), patch.object(learner, "_forward", compiled(learner.network)):
        learner._loss.join_passes(compiled)
        for _ in range(2):
            with counted() as spy:
                for counter in counters:
                    counter.count = spy.count
                learner.step(images, labels, 0.01)
        learner._loss.join_passes(None)
    return spy.count


class CompiledCounter:
    """A function on the meta device as it would be compiled for a GPU: it gives tensors of the right shapes.

    Args:
        function: Function of tensors, or a network; compiled as one graph.
        phase: Phase of the step that a call belongs to; a backward pass belongs to its own.
    """

    def __init__(self, function: Callable[..., Any], phase: str = "forward") -> None:
        self.count = GpuCount()
        """What each call, and its backward pass, adds to."""

        self._phase = phase
        self._compiled = torch.compile(function, fullgraph=True, dynamic=False, backend=self._backend)

    def __call__(self, *inputs: Any) -> Any:
        # A compiler does nothing where a dispatch mode is on, and traces the spy's hooks.
        with _disable_current_modes(), gpu_like(), patch.dict(_global_forward_pre_hooks, clear=True):
            return self._compiled(*inputs)

    def _backend(self, module: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        # Constants cannot be folded without a GPU's tensors.
        changes = {"joint_custom_pre_pass": _move, "joint_graph_constant_folding": False}
        with config.patch(changes):
            compiled: Callable[..., Any] = compile_fx.compile_fx(module, inputs, inner_compile=self._inner)
        return compiled

    def _inner(self, module: GraphModule, inputs: Sequence[Any], **settings: Any) -> Callable[..., Any]:
        """Schedule a graph, and return a function that adds its tally and gives empty results."""
        is_backward = bool(settings.get("is_backward"))
        with _disable_current_modes(), DebugContext(), config.patch(dict(JOINING)):
            tallies = scheduled(module, inputs, is_backward=is_backward)
        phase = "backward" if is_backward else self._phase
        results = [
            node.meta.get("val") if isinstance(node, Node) else node
            for node in next(iter(reversed(module.graph.nodes))).args[0]
        ]

        def run(arguments: list[Any]) -> list[Any]:
            """Let the call count, and return tensors without numbers."""
            arguments.clear()
            for name, tally in tallies:
                self.count.by_operator[phase, name].add(tally)
            with torch._C._DisableTorchDispatch():
                return [_empty(x, META) if isinstance(x, Tensor) else x for x in results]

        run._boxed_call = True  # type: ignore[attr-defined]
        return run


def scheduled(module: GraphModule, inputs: Sequence[Any], *, is_backward: bool) -> list[tuple[str, Tally]]:
    """Return name and tally of each kernel that Inductor would launch for a graph traced on meta tensors."""
    _move(module.graph)
    module.recompile()
    inputs = [_moved(x) for x in inputs]
    compile_fx.view_to_reshape(module)
    with torch.no_grad():
        mode = compile_fx.fake_tensor_prop(module, inputs, force_allow_non_fake_inputs=True)
    compile_fx._recursive_record_original_output_strides(module)
    with V.set_fake_mode(mode), patch.object(Tensor, "copy_", _copy):
        compile_fx._recursive_post_grad_passes(module, is_inference=False)
    with V.set_fake_mode(mode):
        graph = GraphLowering(module, inputs, shape_env=module.shape_env, graph_id=0, is_backward=is_backward)
        with V.set_graph_handler(graph), V.set_extern_kernel_nodes([]):
            graph.run(*inputs)
            graph.init_wrapper_code()
            graph._update_scheduler()
            rows = [_row(node) for node in graph.scheduler.nodes]
    return [row for row in rows if row is not None]


def _row(node: Any) -> tuple[str, Tally] | None:
    """Return name and tally of a kernel; None if nothing is launched for a node of the schedule."""
    if isinstance(node, NopKernelSchedulerNode) or isinstance(node.node, MultiOutput):
        return None
    moved = node.get_read_write_buffers_sizes()
    origin = getattr(node.node, "fx_node", None)
    if not node.is_extern() or origin is None:
        name = "joined reduction" if node.is_reduction() else "joined"
        return name, Tally(launches=1, bytes=moved, seconds=moved / BYTES_PER_SECOND)
    name = origin.target._schema.name.partition("::")[2]
    result = origin.meta["val"]
    arguments = tree_map(lambda x: x.meta["val"] if isinstance(x, Node) else x, (origin.args, origin.kwargs))
    formula = flop_registry.get(origin.target._overloadpacket)
    operations = 0 if formula is None else int(formula(*arguments[0], **arguments[1], out_val=result))
    seconds = max(moved / BYTES_PER_SECOND, operations / OPERATIONS_PER_SECOND)
    # The network's constants are copied, one by one.
    launches = len(result) if name == "constant" else 1
    return name, Tally(launches=launches, bytes=moved, operations=operations, seconds=seconds)


def _move(graph: Graph) -> None:
    """Let the tensors of a graph that was traced on the meta device lie on a GPU."""

    def named(x: Any) -> Any:
        return CUDA if isinstance(x, torch.device) and x.type == "meta" else x

    for node in graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, named), map_aggregate(node.kwargs, named)
        node.meta.pop("tensor_meta", None)
        if "val" in node.meta:
            node.meta["val"] = tree_map(_moved, node.meta["val"])


def _moved(x: Any) -> Any:
    if not isinstance(x, FakeTensor) or x.device.type != "meta":
        return x
    with torch._C._DisableTorchDispatch():
        empty = _empty(x, META)
    return FakeTensor(x.fake_mode, empty, CUDA)


def _empty(x: Tensor, device: torch.device) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=device)


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """`Tensor.copy_` that asks no GPU."""
    copied: Tensor = torch.ops.aten.copy_.default(target, source, non_blocking)
    return copied


def _memory_format(x: Tensor, weight: Tensor, _: Any) -> torch.memory_format:
    """Return the format of a convolution's results as on a GPU."""
    if not has_last(x, weight):
        return torch.contiguous_format
    return torch.channels_last_3d if x.ndim == 5 else torch.channels_last


@contextmanager
def as_on_h200() -> Iterator[None]:
    """Let the compiler see an H200 with Triton."""
    cuda = "torch._dynamo.device_interface.CudaInterface"
    with (
        patch.object(torch._C, "_conv_determine_backend_memory_format", _memory_format),
        patch("torch._inductor.scheduler.has_triton", lambda *_: True),
        patch("torch.cuda.get_device_properties", lambda *_: H200),
        patch("torch.cuda.get_device_capability", lambda *_: (H200.major, H200.minor)),
        patch("torch.cuda.current_device", lambda: 0),
        patch(f"{cuda}.get_device_properties", lambda *_: H200),
        patch(f"{cuda}.is_available", lambda *_: True),
    ):
        yield
