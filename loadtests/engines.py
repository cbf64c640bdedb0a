"""How fast texts become embeddings: what we serve beside other ways to run the encoder.

Each engine is loaded in a process of its own, and they take turns, so that whatever else the
machine does is shared out among them.
"""

import statistics
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from feedsieve import models
from loadtests import backends, contender, messages, page, plots
from loadtests.baselines import MODEL_FILE, Baselines
from loadtests.contender import (
    BATCHES,
    EAGER,
    FP32,
    INT8,
    LENGTHS,
    ONE_BY_ONE,
    OURS,
    SERVED,
    Contender,
)
from loadtests.flops import Shape
from loadtests.machine import gemm_peaks
from loadtests.medians import medians
from loadtests.plan import Plan

PROFILED_BATCH, PROFILED_LENGTH = 16, 96
MOST_OPERATORS = 8  # in the table


def measure(plan: Plan, of: Baselines) -> dict[str, Any]:
    """Return the figures of every engine. Raises `NoModel`."""
    _classifier, encoder_tag = models.find_pair(plan.model)
    served = models.folder(encoder_tag)
    names = (ONE_BY_ONE, EAGER, FP32, INT8, OURS, SERVED)
    rounds, corpus = plan.few_or_many(1, 3), plan.few_or_many(64, 512)
    singles = plan.few_or_many(20, 200)
    least = plan.few_or_many(0.05, 0.5)  # seconds
    texts = list(islice(messages.different(plan.texts, plan.next_run()), corpus))
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        peaks = process.submit(gemm_peaks).result()
    with ExitStack() as stack:
        contenders = {name: stack.enter_context(Contender(name, of, plan.model)) for name in names}
        found = {name: one.ask(contender.describe, texts) for name, one in contenders.items()}
        grid = contenders[SERVED].ask(contender.texts_of_lengths, list(plan.texts))
        runs: dict[str, dict[str, list[Any]]] = {name: defaultdict(list) for name in names}
        with tqdm(total=rounds * len(names) * 3, desc="engines", unit="step") as progress:
            for name, one in list(contenders.items()) * rounds:
                runs[name]["seconds"].append(one.ask(contender.seconds, texts))
                progress.update()
                runs[name]["single"] += one.ask(contender.seconds_each, texts[:singles])
                progress.update()
                if name != ONE_BY_ONE:  # it knows no batches
                    runs[name]["grid"].append(one.ask(contender.grid, grid, least))
                progress.update()
        profiled = grid[PROFILED_LENGTH][:PROFILED_BATCH]
        operators = {
            name: contenders[name].ask(contender.operators, profiled, folder / MODEL_FILE)
            for name, folder in ((FP32, of.fp32), (OURS, of.ours), (SERVED, served))
        }
    twelve = Shape.of(of.fp32 / MODEL_FILE, of.dimension)
    own = Shape.of(served / MODEL_FILE, found[SERVED]["dimension"])
    return {
        "peaks": peaks,
        "messages": len(texts),
        "rounds": rounds,
        "engines": {
            name: _merged(found[name], runs[name], own if name == SERVED else twelve)
            for name in names
        },
        "operators": operators,
        "backends": backends.measure(served, texts, rounds),
    }


def _merged(about: dict[str, Any], runs: dict[str, list[Any]], shape: Shape) -> dict[str, Any]:
    """Return the medians of an engine's runs, and what follows from them."""
    tokens, seconds = about["tokens"], statistics.median(runs["seconds"])
    median, p99 = (1000 * np.percentile(runs["single"], (50, 99))).tolist()
    return {
        "engine": about["engine"],
        "precision": about["precision"],
        "layers": shape.layers,
        "seconds": runs["seconds"],
        "messages_a_second": len(tokens) / seconds,
        "tokens_a_second": sum(tokens) / seconds,
        "gflops": shape.flops(tokens) / seconds / 1e9,
        "single_p50": median,  # ms
        "single_p99": p99,
        "grid": medians(runs["grid"]) if runs["grid"] else {},
    }


def section(found: dict[str, Any]) -> str:
    """Return the section of the page. Ratios are to `FP32`."""
    engines, peaks = found["engines"], found["peaks"]
    base = engines[FP32]
    rows = [
        [
            _title(name, one),
            str(one["layers"]),
            page.figure(one["messages_a_second"]),
            page.figure(one["tokens_a_second"]),
            f"{one['messages_a_second'] / base['messages_a_second']:.2f}",
            page.figure(one["single_p50"]),
            page.figure(one["single_p99"]),
            page.figure(one["gflops"]),
            f"{100 * one['gflops'] / peaks['fp32']:.0f} %",
        ]
        for name, one in engines.items()
    ]
    grid = {name: one["grid"] for name, one in engines.items() if one["grid"]}
    cells = [
        [f"{batch} × {length}"]
        + [page.figure(rates[f"{batch}×{length}"]) for rates in grid.values()]
        + [f"{grid[SERVED][f'{batch}×{length}'] / grid[FP32][f'{batch}×{length}']:.2f}"]
        for batch in BATCHES
        for length in LENGTHS
    ]
    return f"""## Engine

{found["messages"]:,} different messages to embeddings in one call, tokenizing included, and some of
them each by itself. Medians of {found["rounds"]} rounds, in which the engines take turns, each in a
process of its own.

- Ratios are to *{FP32}*.
- Operations are those of matrix products, of tokens without padding. Square matrix products reach
  {page.figure(peaks["fp32"])} GFLOPS here in 32-bit floats and {page.figure(peaks["bf16"])} in
  bfloat16; shares are of the first, so that fewer bits may give more than all of it.

{page.table(HEAD, rows)}

![Messages a second by engine](images/engine.svg)

### By batch and length

Messages a second by texts in a call × tokens in each. Ratios are of what is served to
*{FP32}*.

{page.table(("texts × tokens", *grid, "ratio"), cells)}

### By operator

Shares of the time that the engine's profiler sees, of a batch of {PROFILED_BATCH} texts of
{PROFILED_LENGTH} tokens.

{_operators_table(found["operators"])}

{backends.section(found["backends"])}"""


HEAD = (
    "engine", "layers", "messages a second", "tokens a second", "ratio",
    "one message: median, ms", "p99, ms", "GFLOPS", "share of the peak",
)  # fmt: skip


def _title(name: str, one: dict[str, Any]) -> str:
    return f"{name}: {one['engine']}, {one['precision']}" if name in (OURS, SERVED) else name


def _operators_table(found: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, shares in found.items():
        largest = list(shares.items())[:MOST_OPERATORS]
        said = ", ".join(f"{operator} {100 * share:.0f} %" for operator, share in largest)
        rows.append([name, said])
    return page.table(("engine", "operators"), rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write the plot of messages a second by engine. Raises OSError."""
    rates = {_title(name, one): one["messages_a_second"] for name, one in found["engines"].items()}
    plots.bars(folder / "engine.svg", rates, "messages a second")
