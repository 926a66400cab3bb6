"""The format of weights and training states: safetensors with JSON in the header, which cannot run code."""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from autospine.core.errors import FormatError, VersionError, WorkspaceError
from autospine.storage.atomic import replacing
from autospine.storage.file_names import check_file

FORMAT_VERSION = 1

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of tensors by their names in the format's header."""


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write named tensors and JSON facts so that the file is either complete or unchanged.

    Args:
        path: Name of the file, ending in `.safetensors`.
        tensors: Tensors of any shape by name; stored contiguously.
        facts: Values that JSON can hold, by name.

    Raises:
        WorkspaceError: If it cannot be written, for instance because the disk is full.
    """
    stored = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    header = {
        "format_version": str(FORMAT_VERSION),
        "facts": json.dumps(facts),
        "crc32": _checksum(stored),
    }
    try:
        with replacing(path) as temporary:
            save_file(stored, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise WorkspaceError(
            f"expected to write {path}, found {error}; free disk space or mend the folder's permissions, and "
            "run the same command again: what was there before is unchanged"
        ) from None


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read the tensors, by name, and the facts of a file that `save_tensors` wrote.

    Raises:
        FormatError: If the file is missing, damaged or of another version.
    """
    with _opened(path) as file:
        facts, checksum = _facts(file, path), file.metadata().get("crc32")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no __iter__)
    if checksum is not None and checksum != _checksum(tensors):
        raise FormatError(
            f"expected weights at {path}, found some that changed after they were written; "
            "train or copy the model again"
        )
    return tensors, facts


def load_facts(path: Path) -> dict[str, Any]:
    """Read the JSON facts alone of a file that `save_tensors` wrote.

    Raises:
        FormatError: If the file is missing, damaged or of another version.
    """
    with _opened(path) as file:
        return _facts(file, path)


def load_shapes(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file on the meta device: names, shapes and types without values.

    Raises:
        FormatError: If the file is missing, damaged or of another version, or has types that no network has.
    """
    with _opened(path) as file:
        names: list[str] = file.keys()
        parts = {name: file.get_slice(name) for name in names}
        types = {name: part.get_dtype() for name, part in parts.items()}
        if odd := sorted(set(types.values()) - set(_TYPES)):
            raise FormatError(
                f"expected tensors of {', '.join(_TYPES)} in {path}, found {', '.join(odd)}; "
                "train or copy the model again"
            )
        return {
            name: torch.empty(part.get_shape(), dtype=_TYPES[types[name]], device="meta")
            for name, part in parts.items()
        }


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the optimiser's state of each parameter as tensors named `optimizer.<parameter>.<entry>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{entry}": torch.as_tensor(value)
        for index, entries in state.items()
        for entry, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore the state that `flatten_optimizer` returned."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".")
            state.setdefault(int(index), {})[entry] = tensor
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        check_file(path)
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise FormatError(
            f"expected weights at {path}, found {error}; train or copy the model again"
        ) from None


def _facts(file: Any, path: Path) -> dict[str, Any]:
    header = file.metadata() or {}
    if header.get("format_version") != str(FORMAT_VERSION):
        raise VersionError(
            f"expected format_version {FORMAT_VERSION} in {path}, found {header.get('format_version')}; "
            "use the AutoSpine version that wrote it"
        )
    try:
        facts = json.loads(header["facts"])
    except (KeyError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise FormatError(
            f"expected facts in the header of {path}, found none; train or copy the model again"
        )
    return facts
