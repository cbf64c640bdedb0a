"""`python -m loadtests.sections.backends`: speed and correctness of each backend on this CPU."""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feedsieve.command import run_command
from feedsieve.scoring import model_store
from feedsieve.scoring.backend_timings import MIN_GAIN, cpu_name
from feedsieve.scoring.backends import BACKENDS, open_backend
from feedsieve.scoring.encoder import MODEL_FILE, Encoder, EncoderDescription
from feedsieve.settings import settings
from loadtests.harness import page
from loadtests.harness.engine import in_turns, seconds, started
from loadtests.harness.messages import read_texts


def measure(folder: Path, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Return figures by backend, and the one chosen, for the encoder in `folder`.

    Figures are messages a second, lowest and mean cosine, and why the backend is rejected, if so.
    """
    encoder = Encoder(folder)
    chosen, threads = encoder.backend.spec.name, encoder.threads
    del encoder
    names = [spec.name for spec in BACKENDS[EncoderDescription.read(folder).precision]]
    with started(dict.fromkeys(names, (Encoder, folder, threads))) as engines:
        figures = {name: engines[name].call(_use_backend, name) for name in names}
        loaded = {
            name: engines[name] for name in names if figures[name]["lowest_cosine"] is not None
        }
        for engine in loaded.values():
            engine.call(seconds, texts)  # compiles for every shape
        results = in_turns(loaded, rounds, seconds=(seconds, texts))
    for name, runs in results.items():
        figures[name]["messages_a_second"] = len(texts) / statistics.median(runs["seconds"])
    return {"chosen": chosen, "backends": figures}


def _use_backend(encoder: Encoder, name: str) -> dict[str, Any]:
    """Switch to a backend, correct or not, and return its agreement with the reference."""
    precision = encoder.description.precision
    spec = next(spec for spec in BACKENDS[precision] if spec.name == name)
    figures = {"about": spec.about, "lowest_cosine": None, "mean_cosine": None}
    try:
        encoder.backend = open_backend(spec, encoder.folder / MODEL_FILE, encoder.threads)
        embeddings = encoder.encode_reference()
    except Exception as error:  # the libraries raise many kinds
        return figures | {"refused": str(error).strip().splitlines()[-1]}
    assert encoder.reference is not None
    agreement = encoder.reference.compare(embeddings)
    cosines = {"lowest_cosine": agreement.lowest_cosine, "mean_cosine": agreement.mean_cosine}
    return figures | cosines | {"refused": agreement.broken(precision)}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.sections.backends",
        description="Print the speed of each backend with the encoder of FEEDSIEVE_MODEL on this"
        " CPU, and its agreement with the model's reference embeddings. Takes one or two minutes."
        " With ONEDNN_MAX_CPU_ISA=AVX2, for example, it measures a CPU with fewer instructions.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    data = "messages, for example a labelled CSV; the sample corpus by default"
    parser.add_argument("--data", type=Path, metavar="FILE", help=data)
    parser.add_argument("--messages", type=int, default=300, help="number of messages")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    options = parser.parse_args()
    return run_command("loadtests.sections.backends", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    _classifier, encoder = model_store.find_pair(settings().model)
    texts = read_texts(options.data)[: options.messages]
    figures = measure(model_store.folder(encoder), texts, options.rounds)
    print(page.render("backends", alike=MIN_GAIN, **figures))
    level = settings().onednn_max_cpu_isa or "all"
    print(f"{len(texts)} messages, median of {options.rounds} rounds; {cpu_name()}, level {level}")


if __name__ == "__main__":
    raise SystemExit(main())
