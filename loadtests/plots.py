"""The page's plots, as SVG that is the same for the same figures."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from feedsieve.files import open_whole


def lines(path: Path, found: Mapping[str, Mapping[int, float]], across: str, upward: str) -> None:
    """Draw a line for each name, through values by a number that doubles. Raises OSError."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel=across, ylabel=upward, xscale="log", yscale="log")
    for name, values in found.items():
        if values:
            axes.plot(list(values), list(values.values()), marker="o", markersize=4, label=name)
    ticks = sorted({number for values in found.values() for number in values})
    axes.set_xticks(ticks, [f"{number:,}" for number in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    _write(figure, path)


def points(path: Path, found: Mapping[str, tuple[float, float]], across: str, upward: str) -> None:
    """Draw a point for each name. Raises OSError."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel=across, ylabel=upward)
    for name, (x, y) in found.items():
        axes.plot(x, y, marker="o")
        axes.annotate(name, (x, y), xytext=(6, 6), textcoords="offset points")
    axes.margins(0.2)
    axes.grid(alpha=0.3)
    _write(figure, path)


def bars(path: Path, found: Mapping[str, float], across: str) -> None:
    """Draw a bar for each name. Raises OSError."""
    figure = Figure(figsize=(7, 0.6 + 0.45 * len(found)), layout="constrained")
    axes = figure.add_subplot(xlabel=across)
    drawn = axes.barh(list(found), list(found.values()), height=0.6)
    axes.bar_label(drawn, fmt="%.0f", padding=3)
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.grid(alpha=0.3, axis="x")
    _write(figure, path)


def _write(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "feedsieve"}), open_whole(path) as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
