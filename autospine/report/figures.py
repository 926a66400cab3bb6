"""Figures without global matplotlib state, saved as complete files or not at all."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autospine.storage.atomic import replacing


def new_figure(width: float, height: float, *, dpi: int, background: str) -> Figure:
    """Make an empty figure that is drawn without a display.

    Args:
        width: Width in inches.
        height: Height in inches.
        dpi: Pixels per inch.
        background: Colour of the background, as matplotlib takes it.
    """
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; if writing fails, a file at `path` stays as it was."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=figure.get_facecolor())
