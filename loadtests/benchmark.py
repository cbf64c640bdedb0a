"""`python -m loadtests.benchmark`: measure engine and service, and write docs/performance.md."""

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from feedsieve.command import run_command
from feedsieve.files import open_atomically
from feedsieve.scoring import model_store
from feedsieve.scoring.encoder import MODEL_FILE, EncoderDescription
from feedsieve.settings import settings
from loadtests.harness import page
from loadtests.harness.messages import read_texts

SECTIONS = ("engine", "layers", "service", "overload", "feed", "messages", "start")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmark",
        description="Measure scoring and reading, compare them with other servers, and write"
        " docs/performance.md. Takes about an hour on a machine that is otherwise idle, and"
        " installs the other servers the first time.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, names, figures = parser.add_argument, SECTIONS, Path("reports/benchmark.json")
    only = f"sections to measure, of {', '.join(names)}; the page keeps the others"
    data = "messages, for example a labelled CSV; the sample corpus by default"
    chat = "a chat in order, for repeating messages; the sample corpus by default"
    models = "stored classifiers to compare by layers; the served one by default"
    add("--only", nargs="+", choices=names, default=names, metavar="SECTION", help=only)
    add("--quick", action="store_true", help="check that it works: few messages, no repeats")
    add("--data", type=Path, metavar="FILE", help=data)
    add("--db", type=Path, metavar="FILE", help=chat)
    add("--models", nargs="+", metavar="TAG", help=models)
    add("--encoder", default="wheel", metavar="SOURCE", help="encoder of the other engines")
    add("--out", type=Path, default=Path("docs"), metavar="DIR", help="folder of the page")
    add("--figures", type=Path, default=figures, metavar="FILE", help="the figures as JSON")
    options = parser.parse_args()
    return run_command("loadtests.benchmark", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    classifier, encoder = model_store.find_pair(settings().model)
    # Imported here: PyTorch and the others take ten seconds, and --help needs none of them.
    from loadtests.harness.engine import Shape
    from loadtests.harness.plan import Plan
    from loadtests.sections import engines, feed, messages, service, start

    sections_by_name = {
        "engine": (engines.measure, engines.render),
        "layers": (engines.measure_layers, engines.render_layers),
        "service": (service.measure, service.render),
        "overload": (service.measure_overload, service.render_overload),
        "feed": (feed.measure, feed.render),
        "messages": (messages.measure, messages.render),
        "start": (start.measure, start.render),
    }
    folder = model_store.folder(encoder)
    description, about = EncoderDescription.read(folder), page.describe_machine()
    layers = Shape.of(folder / MODEL_FILE, description.dimension).layers
    with tempfile.TemporaryDirectory(prefix="feedsieve-benchmark-") as temporary:
        plan = Plan(
            texts=read_texts(options.data),
            chat=read_texts(options.db),
            model=classifier,
            served=f"{layers} layers in {description.precision}",
            models=options.models or [classifier],
            encoder=options.encoder,
            max_tokens=description.max_tokens,
            quick=options.quick,
            folder=Path(temporary),
        )
        options.figures.parent.mkdir(parents=True, exist_ok=True)
        old = options.figures.read_text(encoding="utf-8") if options.figures.exists() else "{}"
        sections = json.loads(old)
        for name in options.only:
            measure, render = sections_by_name[name]
            print(f"{name}: measuring", flush=True)
            started = time.monotonic()
            figures = measure(plan)
            cost = {"machine": about, "seconds": time.monotonic() - started}
            sections |= {name: cost | figures}
            with open_atomically(options.figures) as file:
                json.dump(sections, file, ensure_ascii=False, indent=2)
            text = render(figures, options.out / "images")
            print(text, flush=True)
            footer = page.render("footer", date=datetime.now(UTC), plan=plan, **cost)
            page.write(options.out, name, f"{text.strip()}\n\n{footer}", SECTIONS)
    print(f"see {options.out / page.PAGE} and {options.figures}")


if __name__ == "__main__":
    raise SystemExit(main())
