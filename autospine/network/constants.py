"""Tensors that are computed once and kept."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar, cast

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def constant(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function of hashable arguments that makes tensors, so that equal calls share a result.

    The tensors are ordinary ones, made on the CPU, whatever mode or default device the first caller runs
    under: one made in inference mode could not be used in training later.
    """

    @lru_cache(maxsize=256)
    @wraps(function)
    def make(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.inference_mode(False), torch.device("cpu"):
            return function(*args, **kwargs)

    return cast(Callable[Arguments, Result], make)
