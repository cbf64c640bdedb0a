"""docs/performance.md: a part for each section, which stays as it is until measured again."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feedsieve.files import open_whole

PAGE = "performance.md"
HEAD = """# Performance

Written by `python -m loadtests.benchmark` (`make benchmark`): medians of repeated runs. Every
section says when and on what it was measured, and how busy the machine was before. Ratios are
those of processors with the same flags; with others the engines compare otherwise.
"""


def write(folder: Path, name: str, text: str, sections: Sequence[str]) -> None:
    """Put the text of a section into the page, which is made if it is not there. Raises OSError."""
    path = folder / PAGE
    old = path.read_text(encoding="utf-8") if path.exists() else HEAD
    for section in sections:
        if _begin(section) not in old:
            old += f"\n{_begin(section)}{_end(section)}"
    before, _, rest = old.partition(_begin(name))
    _, _, after = rest.partition(_end(name))
    folder.mkdir(parents=True, exist_ok=True)
    with open_whole(path) as file:
        file.write(f"{before}{_begin(name)}{text.strip()}\n{_end(name)}{after}")


def _begin(name: str) -> str:
    return f"<!-- {name} -->\n"


def _end(name: str) -> str:
    return f"<!-- /{name} -->\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured_on(machine: dict[str, Any], seconds: float, is_quick: bool, model: str) -> str:
    """Return on what, when, how long and serving what a section was measured, on one line."""
    versions = ", ".join(f"{name} {said}" for name, said in machine["packages"].items() if said)
    flags = ", ".join(machine["flags"]) or "no flags known"
    quick = "**A quick run, whose figures only show that it runs.** " if is_quick else ""
    return (
        f"{quick}{datetime.now(UTC):%Y-%m-%d}, {seconds / 60:.0f} minutes on {machine['cores']}"
        f" cores of {machine['processor']} ({flags}), {machine['memory'] / 2**30:.0f} GiB,"
        f" {machine['system']}, load {machine['load']:.1f} before; served: {model};"
        f" Python {machine['python']}, {versions}."
    )


def figure(value: float | None) -> str:
    """Return a number with three digits that count, or a dash for none."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def mebibytes(size: float | None) -> str:
    """Return a size in bytes, in MiB."""
    return "–" if size is None else f"{size / 2**20:,.0f}"
