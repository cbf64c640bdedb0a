"""The parts of docs/performance.md and its plots, as SVG that is reproducible."""

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from feedsieve.files import open_atomically
from feedsieve.scoring.backend_timings import cpu_name
from loadtests.harness.processes import ROOT
from train.report.doc_page import plot, replace_section

PAGE = "performance.md"
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16")  # and those of AMX
PACKAGES = ("bentoml", "onnxruntime", "openvino", "numpy", "torch", "transformers")


def _figure(value: float | None) -> str:
    """Return a number to three significant digits, or a dash for None."""
    if value is None:
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


_templates = Environment(
    loader=FileSystemLoader(ROOT / "loadtests" / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters["figure"] = _figure
_templates.filters["mib"] = lambda size: f"{size / 2**20:,.0f}"  # of bytes
_templates.filters["number"] = lambda value, digits=0: f"{value:,.{digits}f}"


def describe_machine() -> dict[str, Any]:
    """Return what matters when figures of two machines are compared; `memory` is in bytes."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    flags = next((line.split()[2:] for line in lines if line.startswith("flags")), [])
    versions = {one.name: one.version for one in distributions()}
    return {
        "processor": cpu_name(),
        "flags": [flag for flag in sorted(flags) if flag in FLAGS or flag.startswith("amx_")],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],  # of the last minute
        "memory": psutil.virtual_memory().total,
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: versions.get(name) for name in PACKAGES},
    }


def render(template: str, **values: Any) -> str:
    """Return the Markdown of `loadtests/templates/{template}.md.j2`."""
    return _templates.get_template(f"{template}.md.j2").render(values)


def write(folder: Path, name: str, text: str, sections: Sequence[str]) -> None:
    """Replace a section of the page in `folder`, which is created if need be. Raises OSError."""
    path = folder / PAGE
    old = path.read_text(encoding="utf-8") if path.exists() else render("head") + "\n"
    for section in sections:
        if f"<!-- {section} -->\n" not in old:
            old += f"\n<!-- {section} -->\n<!-- /{section} -->\n"
    folder.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        file.write(replace_section(old, name, text))


def lines(path: Path, series: Mapping[str, Mapping[int, float]], xlabel: str, ylabel: str) -> None:
    """Draw a line per series on logarithmic axes."""
    with plot(path, xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log") as axes:
        for name, values in series.items():
            if values:
                axes.plot(list(values), list(values.values()), marker="o", markersize=4, label=name)
        ticks = sorted({number for values in series.values() for number in values})
        axes.set_xticks(ticks, [f"{number:,}" for number in ticks])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)


def points(path: Path, named: Mapping[str, tuple[float, float]], xlabel: str, ylabel: str) -> None:
    """Draw a labelled point per name."""
    with plot(path, xlabel=xlabel, ylabel=ylabel) as axes:
        for name, (x, y) in named.items():
            axes.plot(x, y, marker="o")
            axes.annotate(name, (x, y), xytext=(6, 6), textcoords="offset points")
        axes.margins(0.2)
        axes.grid(alpha=0.3)


def bars(path: Path, values: Mapping[str, float], xlabel: str) -> None:
    """Draw a horizontal bar per name."""
    with plot(path, (7, 0.6 + 0.45 * len(values)), xlabel=xlabel) as axes:
        drawn = axes.barh(list(values), list(values.values()), height=0.6)
        axes.bar_label(drawn, fmt="%.0f", padding=3)
        axes.margins(x=0.1)
        axes.invert_yaxis()
        axes.grid(alpha=0.3, axis="x")
