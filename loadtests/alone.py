"""What the engine gives without a server: the same messages in a loop, in a process of its own."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import Any

from feedsieve.models import load_scorer
from loadtests.messages import different


def alone(
    model: str, texts: Sequence[str], run: int, batch: int, seconds: float
) -> dict[str, float]:
    """Return the messages a second that the encoder, and the whole scorer, gives in batches."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(_loops, model, list(texts), run, batch, seconds).result()


def _loops(model: str, texts: list[str], run: int, batch: int, seconds: float) -> dict[str, float]:
    scorer, stream = load_scorer(model, cascade=False), different(texts, run)

    def rate(work: Callable[[list[str]], Any]) -> float:
        work(list(islice(stream, batch)))  # the first call is slow
        done, taken = 0, 0.0
        while taken < seconds:
            some = list(islice(stream, batch))
            began = time.perf_counter()
            work(some)
            taken += time.perf_counter() - began
            done += batch
        return done / taken

    return {"encoder": rate(scorer.encoder.encode), "scorer": rate(scorer.score)}
