"""Reading of weight files that others have written; nothing in them can run code."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from autospine.core.errors import FormatError

CONTAINERS = ("state_dict", "model", "model_state_dict", "network", "net")
"""Keys under which training scripts keep the weights, beside the optimiser and the epoch."""

RECORD_SINCE_2025 = ".format_version"
"""Entry that torch.save writes since 2.7 (pytorch pull request 147788, February 2025)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """The tensors of a file of weights."""

    tensors: dict[str, Tensor]
    """Tensors by their names in the file."""

    is_old: bool
    """Whether torch of before 2025 wrote it; never so for safetensors, which do not tell."""


class _Aside:
    """Stands for a NumPy number that a training script has put beside the weights."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_NUMPY = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")


def read_weights(path: Path) -> WeightFile:
    """Read the tensors of a checkpoint, a plain state dict or a safetensors file.

    Checkpoints are read with torch's restricted unpickler, which knows tensors and plain containers only.
    NumPy numbers, which many training scripts store as their best score, are passed over.

    Raises:
        FormatError: If it is no such file, is damaged, would run code, or holds no tensors.
    """
    if not path.is_file():
        raise FormatError(f"expected a file of weights at {path}, found none; name one")
    if path.suffix == ".safetensors":
        try:
            return WeightFile(tensors=load_file(path), is_old=False)
        except (SafetensorError, OSError) as error:
            raise FormatError(f"expected safetensors in {path}, found {error}; copy it again") from None
    try:
        content = _unpickled(path)
    except pickle.UnpicklingError as error:
        raise FormatError(_refusal(path, str(error))) from None
    except Exception:
        # Bytes that are no pickle can make the unpickler stumble in any way.
        raise FormatError(_not_weights(path)) from None
    return WeightFile(tensors=tensors_of(content, str(path)), is_old=_is_old(path))


def tensors_of(content: object, where: str) -> dict[str, Tensor]:
    """Return the named tensors of a state dict, taken out of the containers that it may lie in.

    Raises:
        FormatError: If there are none.
    """
    while isinstance(content, Mapping):
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            if tensors:
                return tensors
            break
        content = inner
    found = f"only {', '.join(map(str, content)) or 'nothing'}" if isinstance(content, Mapping) else "none"
    raise FormatError(
        f"expected named tensors in {where}, found {found}; "
        f"give a state dict, or a checkpoint that has one under {', '.join(CONTAINERS)}"
    )


def _unpickled(path: Path) -> Any:
    inert: list[Any] = [(_Aside, name) for name in _NUMPY]
    with torch.serialization.safe_globals(inert), warnings.catch_warnings():
        # About files of TorchScript, which are refused all the same.
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _refusal(path: Path, error: str) -> str:
    """Say what the file wanted to run, where it is a pickle."""
    wanted = re.search(r"GLOBAL ([\w.]+)", error)
    if wanted is None:
        return _not_weights(path)
    return (
        f"expected nothing but tensors in {path}, found {wanted[1]}, which could run code; "
        "where you trust the file, save its state dict alone with torch.save and import that"
    )


def _not_weights(path: Path) -> str:
    return (
        f"expected weights in {path}, as torch.save or safetensors write them, found another or a damaged "
        "file; name a checkpoint, or copy it again"
    )


def _is_old(path: Path) -> bool:
    """Whether the entry is missing that torch has written since 2025."""
    if not zipfile.is_zipfile(path):
        return True
    with zipfile.ZipFile(path) as archive:
        return not any(name.endswith(RECORD_SINCE_2025) for name in archive.namelist())
