"""AutoSpine: self-configuring 3D spine segmentation in CT and MR."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autospine.api import Model, ModelInfo, Probabilities, load_model, read_probabilities
    from autospine.batch import predict_folder
    from autospine.core.errors import (
        AutospineError,
        DatasetError,
        FailedCasesError,
        FormatError,
        ImageError,
        ModelError,
    )

__version__ = "0.1.0"

_HOMES = {
    **dict.fromkeys(
        ("Model", "ModelInfo", "Probabilities", "load_model", "read_probabilities"), "autospine.api"
    ),
    "predict_folder": "autospine.batch",
    **dict.fromkeys(
        ("AutospineError", "DatasetError", "FailedCasesError", "FormatError", "ImageError", "ModelError"),
        "autospine.core.errors",
    ),
}
"""Module that each name comes from."""

__all__ = [
    "AutospineError",
    "DatasetError",
    "FailedCasesError",
    "FormatError",
    "ImageError",
    "Model",
    "ModelError",
    "ModelInfo",
    "Probabilities",
    "__version__",
    "load_model",
    "predict_folder",
    "read_probabilities",
]


def __getattr__(name: str) -> Any:
    # Importing PyTorch takes seconds, which `import autospine` should not.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
