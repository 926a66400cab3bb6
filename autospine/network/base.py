"""The base of all networks: checks of the image, and the number format of a pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.amp import is_autocast_available
from torch.utils.checkpoint import checkpoint

from autospine.core.errors import ImageError, PlanError
from autospine.core.tensor_types import ImageBatch, LogitBatch
from autospine.core.types import Shape3

AMPERE = (8, 0)
"""CUDA's compute capability from which 3D convolutions in 16 bits take channels last."""


class SegmentationNetwork(nn.Module, ABC):
    """A network from images to logits of the same size.

    Computation runs in `compute_dtype` if it is set, else in the dtype of an enclosing autocast, else in the
    parameters' dtype; layers cast their weights themselves.

    Args:
        in_channels: Channels of the image.
        divisor: Number that each axis (S, P, L) of the image must be a multiple of.
        checkpointing: Recompute each stage in the backward pass to save memory.
    """

    coarse_widths: tuple[int, ...] = ()
    """Channels of the decoder's feature maps below full resolution, finest first; none without a decoder."""

    keeps_layout: bool = False
    """Whether feature maps (B, C, S, P, L) have the memory format that the image is given; see
    `reads_channels_last`."""

    def __init__(self, in_channels: int, divisor: Shape3, *, checkpointing: bool) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.divisor = divisor
        self.checkpointing = checkpointing
        self.compute_dtype: torch.dtype | None = None

    def forward(self, image: ImageBatch) -> LogitBatch:
        """Return the logits of each class, in the compute dtype.

        Args:
            image: Normalised intensities; axes are multiples of `divisor`.

        Raises:
            PlanError: If the image's channels or size do not fit.
            ImageError: If an intensity is not finite; checked on a CPU, outside of compiled graphs.
        """
        return self._pass(image, None)

    def with_coarse(self, image: ImageBatch) -> tuple[LogitBatch, list[Tensor]]:
        """Return the logits and the decoder's feature maps (B, C, s, p, l) of `coarse_widths`.

        Raises:
            PlanError, ImageError: As `forward`.
        """
        coarse: list[Tensor] = []
        logits = self._pass(image, coarse)
        return logits, coarse[::-1]

    @abstractmethod
    def logits(self, x: ImageBatch, coarse: list[Tensor] | None) -> LogitBatch:
        """Return the logits (B, K, S, P, L) of an image (B, C, S, P, L), in its dtype.

        The decoder's feature maps below full resolution are appended to `coarse`, coarsest first.
        """

    def parameters_of_maps(self) -> list[tuple[nn.Module, str]]:
        """Return parameters that are used in the format of the feature maps alone, as modules and names.

        All of them may be cast at once before a pass; none by default.
        """
        return []

    def _pass(self, image: ImageBatch, coarse: list[Tensor] | None) -> LogitBatch:
        self.check(image)
        dtype = self.dtype_for(image)
        with without_autocast(image.device.type):
            if self.keeps_layout and reads_channels_last(image.device, dtype):
                # A copy, since an image of one channel has both formats at once.
                image = image.to(dtype, memory_format=torch.channels_last_3d, copy=True)
            return self.logits(image.to(dtype), coarse)

    def check(self, image: ImageBatch) -> None:
        """Refuse an image that the network cannot take; see `forward`."""
        check_image(image, self.in_channels, self.divisor)

    def dtype_for(self, image: ImageBatch) -> torch.dtype:
        """Return the number format of a pass."""
        return self.compute_dtype or pass_dtype(image, next(self.parameters()).dtype)

    def run(self, stage: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Return a stage's output, recomputed in the backward pass if checkpointing is on."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
        return stage(*inputs)


def check_image(image: Float[Tensor, "*axes"], in_channels: int, divisor: Shape3) -> None:
    """Refuse an image that the network cannot take.

    Raises:
        PlanError: If its axes, channels or size do not fit.
        ImageError: If an intensity is not finite. Checked on a CPU only, where it does not synchronise a
            device, and outside of compiled graphs.
    """
    if image.ndim != 5 or image.shape[1] != in_channels:
        raise PlanError(
            f"expected an image (B, {in_channels}, S, P, L), found shape {tuple(image.shape)}; "
            "give the channels that the network was built for"
        )
    if any(length % d for length, d in zip(image.shape[2:], divisor, strict=True)):
        raise PlanError(
            f"expected image axes (S, P, L) to be multiples of {divisor}, found {tuple(image.shape[2:])}; "
            "pad the patch or change the strides"
        )
    is_checked = image.device.type == "cpu" and not torch.compiler.is_compiling()
    if is_checked and not bool(torch.isfinite(image.sum(dtype=torch.float64))):
        raise ImageError(
            "expected finite intensities, found NaN or infinity in the network's input; "
            "mend the image or its normalisation"
        )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def reads_channels_last(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether maps with channels last make 3D convolutions faster: in 16 bits, on a GPU from Ampere on.

    There cuDNN's tensor cores read channels last: what has channels first is copied before and after each
    convolution, or in some versions not taken at all (PyTorch's issues 57115 and 166643). GPUs before Ampere
    are reported to lack 3D convolutions for this format (194616), and a CPU has channels first.
    """
    if device.type == "cpu" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= AMPERE


def pass_dtype(image: Float[Tensor, "*axes"], otherwise: torch.dtype) -> torch.dtype:
    """Return the dtype of an enclosing autocast for the image's device, else the other."""
    kind = image.device.type
    if is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return otherwise


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Return a context without autocast; devices that have none, as the meta device, need no context."""
    if is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()
