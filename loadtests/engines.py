"""How fast texts become embeddings: what we serve beside other ways to run the encoder.

Each engine is loaded in a process of its own, and they take turns, so that whatever else the
machine does is shared out among them.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from feedsieve import models
from feedsieve.encoder import Encoder
from loadtests import baselines, messages, page, plots
from loadtests.baselines import MODEL_FILE, Baselines
from loadtests.flops import Shape
from loadtests.machine import gemm_peaks
from loadtests.operators import by_operator
from loadtests.plan import Plan

ONE_BY_ONE = "transformers, one text at a time"
EAGER = "transformers, batches sorted by length"
FP32 = "onnxruntime fp32, 12 layers, batches sorted by length"  # the baseline of the ratios
INT8 = "onnxruntime int8, Optimum's dynamic, batches sorted by length"
SERVED = "feedsieve, as served"
BATCHES = (1, 8, 64)
LENGTHS = (16, 32, 64, 96, 128)  # tokens; the shortest maximum of an encoder of ours is 160
PROFILED_BATCH, PROFILED_LENGTH = 16, 96
MOST_OPERATORS = 8  # in the table
LEAST_SECONDS = 0.5  # that a figure of the grid is measured for


class Engine(Protocol):
    """Turns texts into token ids and unit-length embeddings."""

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]: ...
    def encode(self, texts: Sequence[str]) -> np.ndarray: ...


def measure(plan: Plan, of: Baselines) -> dict[str, Any]:
    """Return the figures of every engine. Raises `NoModel`."""
    _classifier, encoder_tag = models.find_pair(plan.model)
    served = models.folder(encoder_tag)
    names = (ONE_BY_ONE, EAGER, FP32, INT8, SERVED)
    rounds, corpus = plan.few_or_many(1, 5), plan.few_or_many(64, 512)
    singles = plan.few_or_many(20, 200)
    texts = list(islice(messages.different(plan.texts, plan.next_run()), corpus))
    found: dict[str, Any] = {name: {} for name in names}
    with ExitStack() as stack:
        peaks = stack.enter_context(_process()).submit(gemm_peaks).result()
        processes = {
            name: stack.enter_context(_process(_load, name, of, plan.model)) for name in names
        }
        for name, process in processes.items():
            found[name] = process.submit(_about, texts).result()
        grid = processes[SERVED].submit(_texts_of_lengths, list(plan.texts)).result()
        steps = rounds * len(names) * 3
        with tqdm(total=steps, desc="engines", unit="step") as progress:
            for name, process in list(processes.items()) * rounds:
                one = found[name]
                one.setdefault("seconds", []).append(process.submit(_seconds, texts).result())
                progress.update()
                one.setdefault("single", []).extend(process.submit(_each, texts[:singles]).result())
                progress.update()
                if name != ONE_BY_ONE:
                    cells = process.submit(_grid, grid).result()
                    for key, rate in cells.items():
                        one.setdefault("grid", {}).setdefault(key, []).append(rate)
                progress.update()
        profiled = grid[PROFILED_LENGTH][:PROFILED_BATCH]
        operators = {
            FP32: processes[FP32].submit(_operators, profiled, "onnxruntime", of.fp32 / MODEL_FILE),
            SERVED: processes[SERVED].submit(_operators, profiled, None, served / MODEL_FILE),
        }
        shared = {name: future.result() for name, future in operators.items()}
    twelve = Shape.of(of.fp32 / MODEL_FILE, of.dimension)
    own = Shape.of(served / MODEL_FILE, found[SERVED]["dimension"])
    for name, one in found.items():
        _finish(one, own if name == SERVED else twelve, len(texts))
    return {
        "peaks": peaks,
        "messages": len(texts),
        "rounds": rounds,
        "engines": found,
        "operators": shared,
    }


def _finish(one: dict[str, Any], shape: Shape, texts: int) -> None:
    """Replace what was measured by medians and what follows from them."""
    lengths, seconds = one.pop("tokens"), statistics.median(one["seconds"])
    one["layers"] = shape.layers
    one["messages_a_second"] = texts / seconds
    one["tokens_a_second"] = sum(lengths) / seconds
    one["gflops"] = shape.flops(lengths) / seconds / 1e9
    single = np.percentile(one.pop("single"), (50, 99)) * 1000
    one["single_p50"], one["single_p99"] = single.tolist()  # ms
    one["grid"] = {key: statistics.median(rates) for key, rates in one.get("grid", {}).items()}


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
"""


HEAD = (
    "engine", "layers", "messages a second", "tokens a second", "ratio",
    "one message: median, ms", "p99, ms", "GFLOPS", "share of the peak",
)  # fmt: skip


def _title(name: str, one: dict[str, Any]) -> str:
    return f"{name}: {one['engine']}, {one['precision']}" if name == SERVED else name


def _operators_table(found: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, shares in found.items():
        largest = list(shares.items())[:MOST_OPERATORS]
        said = ", ".join(f"{operator} {100 * share:.0f} %" for operator, share in largest)
        rows.append([name, said or "the engine has no profiler known here"])
    return page.table(("engine", "operators"), rows)


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write the plot of messages a second by engine. Raises OSError."""
    rates = {_title(name, one): one["messages_a_second"] for name, one in found["engines"].items()}
    plots.bars(folder / "engine.svg", rates, "messages a second")


# What runs in the process of an engine.

_engine: Engine


def _process(start: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), start, arguments)


def _load(name: str, of: Baselines, model: str) -> None:
    global _engine
    if name == ONE_BY_ONE:
        _engine = baselines.Transformers(of, tokens_a_batch=1)
    elif name == EAGER:
        _engine = baselines.Transformers(of)
    elif name == SERVED:
        _engine = models.load_scorer(model).encoder
    else:
        _engine = baselines.OnnxRuntime(of.fp32 if name == FP32 else of.int8, of)


def _about(texts: list[str]) -> dict[str, Any]:
    """Return how many tokens each text has, and what the engine says of itself; it is warm then."""
    embeddings = _engine.encode(texts[:32])
    said: dict[str, Any] = {"tokens": [len(ids) for ids in _engine.tokenize(texts)]}
    said["dimension"] = embeddings.shape[1]
    if isinstance(_engine, Encoder):
        said["engine"] = _engine_name(_engine)
        said["precision"] = _engine.description.precision
    return said


def _engine_name(encoder: Encoder) -> str:
    return encoder.engine.name if hasattr(encoder, "engine") else "onnxruntime"


def _seconds(texts: list[str]) -> float:
    began = time.perf_counter()
    _engine.encode(texts)
    return time.perf_counter() - began


def _each(texts: list[str]) -> list[float]:
    return [_seconds([text]) for text in texts]


def _texts_of_lengths(texts: list[str]) -> dict[int, list[str]]:
    def count_tokens(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in _engine.tokenize(texts)]

    return {
        length: messages.of_length(texts, length, max(BATCHES), count_tokens) for length in LENGTHS
    }


def _grid(texts: dict[int, list[str]]) -> dict[str, float]:
    """Return messages a second by `batch×length`."""
    rates = {}
    for length, ones in texts.items():
        for batch in BATCHES:
            done, began = 0, time.perf_counter()
            while (taken := time.perf_counter() - began) < LEAST_SECONDS:
                first = done % len(ones)
                _engine.encode(ones[first : first + batch])
                done += batch
            rates[f"{batch}×{length}"] = done / taken
    return rates


def _operators(texts: list[str], engine: str | None, file: Any) -> dict[str, float]:
    if engine is None:
        assert isinstance(_engine, Encoder)
        engine = _engine_name(_engine)
    return by_operator(engine, file, _engine.tokenize(texts))
