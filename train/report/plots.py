"""The report's plots as SVG in the colours of the page, light or dark."""

import io
import re
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve

from train.evaluation.metrics import BINS, reliability

POSITIVE = "#3d7eea"
NEGATIVE = "#e08a2c"
_INK = "#010203"  # placeholder for the page's text colour
_FAINT = "#030201"  # placeholder for the page's line colour
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "lines.linewidth": 2,
}
_SIZE = (5.4, 4.2)  # inches


def precision_recall(
    labels: NDArray[np.int64], scores: NDArray[np.float64], threshold: float
) -> str:
    """Plot precision over recall, with the chosen threshold marked.

    `labels` (0 or 1) and `scores` (0 to 1) are both `(n,)`.
    """
    positives = int(labels.sum())
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot(xlabel="recall", ylabel="precision", ylim=(0, 1.03))
        axes.set_xlim(0, 1.03)
        if positives:
            precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=True)
            axes.step(recall, precision, where="post", color=POSITIVE)
            share = positives / len(labels)
            axes.axhline(share, color=_INK, alpha=0.5, linewidth=1, linestyle=(0, (4, 4)))
            axes.annotate("at random", (0.01, share), (0, 4), textcoords="offset points", size=9)
            shown = scores >= threshold
            hits = int(labels[shown].sum())
            if shown.any():
                point = (hits / positives, hits / int(shown.sum()))
                axes.plot(*point, "o", markersize=9, color=NEGATIVE)
                left, low = point[0] > 0.5, point[1] > 0.5
                axes.annotate(
                    f"threshold {threshold:.3f}",
                    point,
                    (-10 if left else 10, -14 if low else 10),
                    textcoords="offset points",
                    ha="right" if left else "left",
                )
        else:
            axes.text(
                0.5, 0.5, "no message is labelled positive", ha="center", transform=axes.transAxes
            )
        return _svg(figure, "precision-recall")


def calibration(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> str:
    """Plot the reliability curve, and the number of messages in each bin."""
    bins = reliability(labels, scores)
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        curve, counts = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        curve.set(ylabel="share of positives", xlim=(0, 1), ylim=(0, 1.03))
        curve.plot((0, 1), (0, 1), color=_INK, alpha=0.5, linewidth=1, linestyle=(0, (4, 4)))
        filled = bins.count > 0
        curve.plot(bins.score[filled], bins.positive[filled], "o-", color=POSITIVE)
        counts.set(ylabel="messages", xlabel="score")
        bars = counts.bar(
            (np.arange(BINS) + 0.5) / BINS, bins.count, width=0.9 / BINS, color=POSITIVE, alpha=0.6
        )
        counts.bar_label(bars, [f"{count:,}" for count in bins.count], size=9, padding=1)
        counts.set_ylim(0, max(bins.count) * 1.35)
        counts.set_yticks([])
        counts.grid(False)
        return _svg(figure, "calibration")


def histogram(labels: NDArray[np.int64], scores: NDArray[np.float64], threshold: float) -> str:
    """Plot the distribution of scores for each label, in percent of the label's messages."""
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot(xlabel="score", xlim=(0, 1), ylabel="share of the label, %")
        for label, name, colour in ((0, "negative", NEGATIVE), (1, "positive", POSITIVE)):
            values = scores[labels == label]
            if len(values):
                axes.hist(
                    values,
                    bins=np.linspace(0, 1, 21).tolist(),
                    weights=np.full(len(values), 100 / len(values)),
                    color=colour,
                    alpha=0.55,
                    label=f"{name} ({len(values):,})",
                )
        axes.axvline(threshold, color=_INK, linewidth=1, linestyle=(0, (4, 4)))
        axes.annotate(
            f"threshold {threshold:.3f}",
            (threshold, 1),
            (-6 if threshold > 0.5 else 6, -10),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if threshold > 0.5 else "left",
        )
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2)
        return _svg(figure, "histogram")


def standalone(drawing: str) -> str:
    """Return a plot for a file of its own, dark on white."""
    paper = '<rect width="100%" height="100%" fill="white"/>'
    drawing = drawing.replace(">", f">{paper}", 1)
    return drawing.replace("currentColor", "#222").replace("var(--line)", "#ccc")


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as a repeatable `<svg>` for a page, with ids that are unique by `name`."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=nothing)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", drawing)  # unused
    drawing = re.sub(r"<style.*?</style>", "", drawing, flags=re.DOTALL)  # would apply to the page
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'<svg (.*?)width="[^"]+" height="[^"]+"', r"<svg \1", drawing, count=1)
    drawing = re.sub(r"font-family: [^;]*", "font-family: inherit", drawing)
    return drawing.replace(_INK, "currentColor").replace(_FAINT, "var(--line)")
