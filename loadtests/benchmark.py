"""`python -m loadtests.benchmark`: measure engine and service, and write docs/performance.md."""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from feedsieve import models
from feedsieve.encoder import EncoderDescription
from feedsieve.files import open_whole
from feedsieve.message import UnreadableFile
from feedsieve.settings import settings
from loadtests import baselines, engines, feed, layers, machine, overload, page, service, start
from loadtests.baselines import MODEL_FILE, Baselines
from loadtests.flops import Shape
from loadtests.messages import read_texts
from loadtests.plan import Failed, Plan
from train import command
from train.failures import in_one_line
from train.servers import NoAnswer


class Section(NamedTuple):
    """What can be measured by itself: figures, what the page says of them, and their plots."""

    measure: Callable[[Plan, Callable[[], Baselines]], dict[str, Any]]
    text: Callable[[dict[str, Any]], str]
    draw: Callable[[dict[str, Any], Path], None] | None = None


SECTIONS = {
    "engine": Section(lambda plan, of: engines.measure(plan, of()), engines.section, engines.draw),
    "layers": Section(lambda plan, of: layers.measure(plan, of()), layers.section, layers.draw),
    "service": Section(lambda plan, of: service.measure(plan, of()), service.section, service.draw),
    "overload": Section(lambda plan, _of: overload.measure(plan), overload.section),
    "feed": Section(lambda plan, _of: feed.measure(plan), feed.section, feed.draw),
    "start": Section(lambda plan, _of: start.measure(plan), start.section),
}
FAILURES = (*command.FAILURES, UnreadableFile, NoAnswer, Failed)


def main() -> int:
    options = _parser().parse_args()
    return in_one_line("loadtests.benchmark", lambda: _run(options), FAILURES)


def _run(options: argparse.Namespace) -> None:
    classifier, encoder = models.find_pair(settings().model)
    served = EncoderDescription.read(models.folder(encoder))
    texts = read_texts(options.data)
    chat = read_texts(options.db)
    described = machine.describe()
    shape = Shape.of(models.folder(encoder) / MODEL_FILE, served.dimension)
    about_encoder = f"{shape.layers} layers in {served.precision}"
    with tempfile.TemporaryDirectory(prefix="feedsieve-benchmark-") as folder:
        compared = options.models or [classifier]
        plan = Plan(texts, chat, classifier, about_encoder, compared, options.quick, Path(folder))

        @cache
        def of() -> Baselines:
            place = Path(folder) / "encoders"
            place.mkdir()
            with ProcessPoolExecutor(1, get_context("spawn")) as process:  # exporting takes 3 GB
                asked = options.encoder, place, texts, served.max_tokens
                return process.submit(baselines.write, *asked).result()

        for name in options.only:
            section = SECTIONS[name]
            print(f"{name}: measuring", flush=True)
            began = time.monotonic()
            figures = section.measure(plan, of)
            seconds = time.monotonic() - began
            about = page.measured_on(described, seconds, options.quick, about_encoder)
            _keep(options.figures, name, {"machine": described, "seconds": seconds} | figures)
            if section.draw:
                section.draw(figures, options.out / "images")
            text = section.text(figures)
            page.write(options.out, name, f"{text.strip()}\n\n{about}", list(SECTIONS))
            print(text, flush=True)
    print(f"see {options.out / page.PAGE} and {options.figures}")


def _keep(path: Path, name: str, figures: dict[str, Any]) -> None:
    """Put the figures of a section beside those of the others. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    with open_whole(path) as file:
        json.dump(known | {name: figures}, file, ensure_ascii=False, indent=2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmark",
        description="Measure how fast texts are scored and the feed is read, beside others, and"
        " write docs/performance.md. Takes an hour on a machine that should do nothing else; peers"
        " are installed the first time.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION",
        help=f"which of {', '.join(SECTIONS)}; the page keeps the others",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="only show that it runs: few messages, no repeats"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE",
        help="messages to measure with, such as a labelled CSV; without it the sample corpus",
    )  # fmt: skip
    parser.add_argument(
        "--db", type=Path, metavar="FILE",
        help="a chat with what it repeats, for the mix that repeats; without it the sample's",
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", metavar="TAG",
        help="classifiers of the store to compare by their layers; without it the one that is"
        " served",
    )  # fmt: skip
    parser.add_argument(
        "--encoder", default="wheel", metavar="SOURCE", help="what engines and peers run"
    )
    parser.add_argument("--out", type=Path, default=Path("docs"), metavar="DIR", help="of the page")
    parser.add_argument(
        "--figures", type=Path, default=Path("reports/benchmark.json"), metavar="FILE",
        help="the figures behind the page",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
