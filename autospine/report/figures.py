"""Common ground of the figures: no global matplotlib state, whole files or none."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autospine.storage.atomic import replacing


def new_figure(width: float, height: float, *, dpi: int, background: str) -> Figure:
    """An empty figure of this size in inches, drawn without a display."""
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; `path` is either complete or as it was."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=figure.get_facecolor())
