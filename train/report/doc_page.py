"""Pages of the documentation that commands write figures into, and their plots."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from feedsieve.files import open_atomically


def replace_section(text: str, name: str, content: str) -> str:
    """Return the Markdown `text` with `content` between the comments `name` and `/name`.

    They are appended if `text` does not have them.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    if begin not in text:
        text += begin + end
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{content.strip()}\n{end}{after}"


def write_section(page: Path, name: str, content: str) -> None:
    """Replace a section of a file, which is created if need be. Raises OSError."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    page.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(page) as file:
        file.write(replace_section(old, name, content))


@contextmanager
def plot(path: Path, size: tuple[float, float] = (7, 4.5), **options: Any) -> Iterator[Axes]:
    """Yield axes to draw on, and write them to `path` as SVG afterwards. Raises OSError.

    Equal plots have equal bytes.
    """
    figure = Figure(figsize=size, layout="constrained")
    yield figure.add_subplot(**options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "feedsieve"}), open_atomically(path) as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
