"""Speed of each backend with the served encoder, and its agreement with the reference outputs.

Each backend is loaded in a process of its own, and they take turns. `python -m loadtests.backends`
prints the table for this CPU; with ONEDNN_MAX_CPU_ISA=AVX2, say, for a CPU with fewer instructions.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feedsieve import models
from feedsieve.backend_selection import ALIKE, cpu_name
from feedsieve.backends import BACKENDS, open_backend
from feedsieve.encoder import MODEL_FILE, Encoder, EncoderDescription
from feedsieve.message import UnreadableFile
from feedsieve.settings import settings
from loadtests import page
from loadtests.messages import read_texts
from train import command
from train.failures import in_one_line

_encoder: Encoder  # of a process that measures one backend


def measure(folder: Path, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Return each backend's figures by name, and which one is chosen for the encoder in `folder`.

    A backend has messages a second, lowest and mean cosine, and why it is refused, if it is.
    """
    specs = BACKENDS[EncoderDescription.read(folder).precision]
    encoder = Encoder(folder)
    chosen, threads = encoder.backend.spec.name, encoder.threads
    del encoder
    found: dict[str, dict[str, Any]] = {}
    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        spawn = get_context("spawn")
        processes = {}
        for spec in specs:
            process = stack.enter_context(ProcessPoolExecutor(1, spawn))
            found[spec.name] = process.submit(_load, folder, spec.name, threads).result()
            if found[spec.name]["lowest_cosine"] is not None:
                processes[spec.name] = process
                process.submit(_seconds, texts).result()  # compiles for every shape
        with tqdm(total=rounds * len(processes), desc="backends", unit="run") as progress:
            for name, process in list(processes.items()) * rounds:
                seconds.setdefault(name, []).append(process.submit(_seconds, texts).result())
                progress.update()
    for name, times in seconds.items():
        found[name]["messages_a_second"] = len(texts) / statistics.median(times)
    return {"chosen": chosen, "backends": found}


def section(found: dict[str, Any]) -> str:
    """Return the part of the page. A refused backend has its reason in place of a remark."""
    rows = [
        [
            f"**{name}**" if name == found["chosen"] else name,
            one["about"],
            page.figure(one.get("messages_a_second")),
            "–" if one["lowest_cosine"] is None else f"{one['lowest_cosine']:.5f}",
            "–" if one["mean_cosine"] is None else f"{one['mean_cosine']:.5f}",
            one["refused"] or ("chosen" if name == found["chosen"] else "right"),
        ]
        for name, one in found["backends"].items()
    ]
    return f"""### By backend

The served encoder's file by each backend, and the cosines of its embeddings to the model's
reference outputs. A server uses the fastest that is right when it measures them at its first start;
within {100 * ALIKE:.0f} % they count as equally fast, and the one that rounds less is used.

{page.table(HEAD, rows)}
"""


HEAD = ("backend", "precision", "messages a second", "lowest cosine", "mean", "")


def _load(folder: Path, name: str, threads: int) -> dict[str, Any]:
    """Load one backend, right or wrong, in this process; return what is known of it."""
    global _encoder
    _encoder = Encoder(folder, threads)
    precision = _encoder.description.precision
    [spec] = [spec for spec in BACKENDS[precision] if spec.name == name]
    about = {"about": spec.about, "lowest_cosine": None, "mean_cosine": None}
    try:
        _encoder.backend = open_backend(spec, folder / MODEL_FILE, threads)
        embeddings = _encoder.encode_reference()
    except Exception as error:  # the libraries have many of their own
        return about | {"refused": str(error).strip().splitlines()[-1]}
    assert _encoder.reference is not None
    agreement = _encoder.reference.compare(embeddings)
    return about | {
        "lowest_cosine": agreement.lowest_cosine,
        "mean_cosine": agreement.mean_cosine,
        "refused": agreement.broken(precision),
    }


def _seconds(texts: Sequence[str]) -> float:
    began = time.perf_counter()
    _encoder.encode(texts)
    return time.perf_counter() - began


def main() -> int:
    options = _parser().parse_args()
    return in_one_line(
        "loadtests.backends", lambda: _run(options), (*command.FAILURES, UnreadableFile)
    )


def _run(options: argparse.Namespace) -> None:
    _classifier, encoder = models.find_pair(settings().model)
    texts = read_texts(options.data)[: options.messages]
    print(section(measure(models.folder(encoder), texts, options.rounds)))
    level = settings().onednn_max_cpu_isa or "all"
    print(f"{len(texts)} messages, median of {options.rounds} rounds; {cpu_name()}, level {level}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.backends",
        description="Print the speed of each backend with the encoder of FEEDSIEVE_MODEL on this"
        " CPU, and its agreement with the model's reference outputs. Takes a minute or two.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, metavar="FILE",
        help="messages to measure with, such as a labelled CSV; without it the sample corpus",
    )  # fmt: skip
    parser.add_argument("--messages", type=int, default=300, help="how many of them")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
