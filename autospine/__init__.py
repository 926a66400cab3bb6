"""AutoSpine: self-configuring 3D spine segmentation in CT and MR."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autospine.api import Model, load_model

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    # Importing PyTorch takes seconds, which `import autospine` should not.
    if name in ("Model", "load_model"):
        from autospine import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
