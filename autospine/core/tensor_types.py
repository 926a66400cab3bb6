"""Aliases of PyTorch tensors with named axes; see `autospine.core.types` for the axes.

They have a module of their own, so that what needs no network does not import PyTorch, which takes seconds.
"""

from jaxtyping import Float, Integer
from torch import Tensor

ImageBatch = Float[Tensor, "B C S P L"]
LogitBatch = Float[Tensor, "B K S P L"]
LabelBatch = Integer[Tensor, "B S P L"]
