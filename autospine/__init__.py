"""AutoSpine: self-configuring 3D spine segmentation in CT and MR."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autospine.api import Model, Probabilities, load_model, read_probabilities

__version__ = "0.1.0"
__all__ = ["Model", "Probabilities", "__version__", "load_model", "read_probabilities"]


def __getattr__(name: str) -> Any:
    # Importing PyTorch takes seconds, which `import autospine` should not.
    if name in __all__:
        from autospine import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
