"""Engines to compare, each in a process of its own, and the measurements that run there."""

import json
import tempfile
import time
import timeit
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from tqdm import tqdm

from feedsieve.scoring.backends import BackendSpec, compile_openvino
from feedsieve.scoring.encoder import Encoder
from feedsieve.scoring.model_store import load_scorer
from feedsieve.scoring.padding import padded
from loadtests.harness import baselines, messages
from loadtests.harness.baselines import Baselines

ONE_BY_ONE = "transformers, one text at a time"
EAGER = "transformers, batches sorted by length"
FP32 = "onnxruntime fp32, 12 layers, batches sorted by length"  # the ratios' baseline
INT8 = "onnxruntime int8, Optimum's dynamic, batches sorted by length"
OURS = "feedsieve, 12 layers"
SERVED = "feedsieve, as served"
BATCHES = (1, 8, 64)
LENGTHS = (16, 32, 64, 96, 128)  # tokens; our encoders read at least 160
LOOK_UP = {"Gather", "EmbedLayerNormalization", "QEmbedLayerNormalization"}  # rows of a table
PASS_ON = {"DequantizeLinear", "QuantizeLinear", "Cast", "Transpose", "Reshape", "Identity"}
ROUNDS = 10
GEMM_SIZE = 2048  # rows and columns: reaches the peak in under a second
Engine = Encoder | baselines.Transformers | baselines.OnnxRuntime


class EngineProcess(ProcessPoolExecutor):
    """A process that holds the engine that `load` returns there."""

    _engine: Engine  # in the process

    def __init__(self, load: Callable[..., Engine], *arguments: Any) -> None:
        super().__init__(1, get_context("spawn"), self._load, (load, *arguments))

    @classmethod
    def _load(cls, load: Callable[..., Engine], *arguments: Any) -> None:
        cls._engine = load(*arguments)

    @classmethod
    def _call(cls, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(cls._engine, *arguments)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return `function(engine, *arguments)`, called in the process."""
        return self.submit(self._call, function, *arguments).result()


@contextmanager
def started(loads: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, EngineProcess]]:
    """Yield a process for each engine; `loads` are functions that load one, and arguments."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(EngineProcess(*load)) for name, load in loads.items()}


def in_turns(
    engines: Mapping[str, EngineProcess], rounds: int, **calls: tuple[Any, ...]
) -> dict[str, defaultdict[str, list[Any]]]:
    """Return results by engine and call; engines take turns, so other load affects all of them."""
    results = {name: defaultdict[str, list[Any]](list) for name in engines}
    for name, engine in tqdm(list(engines.items()) * rounds, "engines", unit="turn"):
        for call, (function, *arguments) in calls.items():
            results[name][call].append(engine.call(function, *arguments))
    return results


def load_engine(name: str, of: Baselines, model: str) -> Engine:
    """Load an engine by name; `model` is the tag of the served classifier."""
    if name in (ONE_BY_ONE, EAGER):
        return baselines.Transformers(of, 1 if name == ONE_BY_ONE else baselines.TOKENS_A_BATCH)
    if name in (FP32, INT8):
        return baselines.OnnxRuntime(of.fp32 if name == FP32 else of.int8, of)
    return Encoder(of.ours) if name == OURS else load_scorer(model).encoder


def describe(engine: Engine, texts: list[str]) -> dict[str, Any]:
    """Warm the engine up; return its dimension, library, precision, and tokens per text."""
    dimension = engine.encode(texts[:32]).shape[1]
    about = {"dimension": dimension, "tokens": [len(ids) for ids in engine.tokenize(texts)]}
    if not isinstance(engine, Encoder):
        return about | {"engine": engine.library, "precision": engine.precision}
    return about | {"engine": engine.backend.spec.name, "precision": engine.description.precision}


def seconds(engine: Engine, texts: list[str]) -> float:
    """Return the duration of one call for all texts."""
    start = time.perf_counter()
    engine.encode(texts)
    return time.perf_counter() - start


def seconds_each(engine: Engine, texts: list[str]) -> list[float]:
    """Return the duration of a call for each text."""
    return [seconds(engine, [text]) for text in texts]


def texts_of_lengths(engine: Engine, texts: list[str]) -> dict[int, list[str]]:
    """Return a largest batch of texts for each number of tokens in LENGTHS."""

    def count_tokens(text: str) -> int:
        return len(engine.tokenize([text])[0])

    return {n: messages.of_length(texts, n, max(BATCHES), count_tokens) for n in LENGTHS}


def grid(engine: Engine, texts: dict[int, list[str]], least: float) -> dict[str, float]:
    """Return messages a second by `batch×length`, each measured for at least `least` seconds."""
    rates = {}
    for length, of_length in texts.items():
        for batch in BATCHES:
            rates[f"{batch}×{length}"] = _rate(engine.encode, cycle(of_length), batch, least)
    return rates


def rates_without_server(
    model: str, texts: Sequence[str], run: int, batch: int, least: float
) -> dict[str, float]:
    """Return messages a second of the encoder and of the whole scorer, in batches of `batch`."""
    scorer, stream = load_scorer(model, cascade=False), messages.different(texts, run)
    rates = {}
    for name, work in {"encoder": scorer.encoder.encode, "scorer": scorer.score}.items():
        work(list(islice(stream, batch)))  # warm-up
        rates[name] = _rate(work, stream, batch, least)
    return rates


def _rate(work: Callable[..., Any], stream: Iterator[str], batch: int, least: float) -> float:
    """Return texts a second of `work` in batches, measured for at least `least` seconds."""
    done, elapsed = 0, 0.0
    while elapsed < least:
        texts = list(islice(stream, batch))
        start = time.perf_counter()
        work(texts)
        elapsed += time.perf_counter() - start
        done += batch
    return done / elapsed


class Shape(NamedTuple):
    """Size of a BERT: layers, hidden size, and weights in all matrices that tokens pass."""

    layers: int
    hidden: int
    weights: int

    @classmethod
    def of(cls, file: Path, hidden: int) -> "Shape":
        """Read the shape from an ONNX file whose embeddings have `hidden` floats."""
        graph = onnx.load(str(file)).graph
        producers = {name: node for node in graph.node for name in node.output}
        tables = set()
        for node in graph.node:
            for name in node.input if node.op_type in LOOK_UP else ():
                while name in producers and producers[name].op_type in PASS_ON:
                    name = producers[name].input[0]
                tables.add(name)
        shapes = [tuple(one.dims) for one in graph.initializer if one.name not in tables]
        matrices = [shape for shape in shapes if len(shape) == 2 and min(shape) > 1]
        # Of a layer's matrices only the second feed-forward one has more rows than columns.
        layers = sum(rows > columns for rows, columns in matrices)
        return cls(layers, hidden, sum(rows * columns for rows, columns in matrices))

    def flops(self, tokens: Sequence[int]) -> int:
        """Return the operations in matrix products for texts of these numbers of tokens."""
        attention = 4 * self.layers * self.hidden
        return sum(2 * self.weights * count + attention * count**2 for count in tokens)


def operator_shares(engine: Engine, texts: list[str], file: Path) -> dict[str, float]:
    """Return each operator's share of the time, 0 to 1, largest first, for one padded batch."""
    tokens = engine.tokenize(texts)
    inputs = padded(tokens, max(map(len, tokens)))
    spec = engine.backend.spec if isinstance(engine, Encoder) else None
    if spec and spec.library == "openvino":
        times = _profile_openvino(spec, file, inputs)
    else:
        times = _profile_onnxruntime(dict(spec.settings if spec else {}), file, inputs)
    total = sum(times.values())
    return {name: time / total for name, time in times.most_common()}


def _profile_onnxruntime(
    settings: dict[str, str], file: Path, inputs: dict[str, Any]
) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        for _ in range(ROUNDS + 1):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    times: Counter[str] = Counter()
    for event in kernels[len(kernels) // (ROUNDS + 1) :]:  # skips the warm-up
        times[event["args"]["op_name"]] += event["dur"]
    return times


def _profile_openvino(spec: BackendSpec, file: Path, inputs: dict[str, Any]) -> Counter[str]:
    request = compile_openvino(spec, file, threads=1, PERF_COUNT=True).create_infer_request()
    request.infer(inputs)
    times: Counter[str] = Counter()
    for _ in range(ROUNDS):
        request.infer(inputs)
        for node in request.profiling_info:
            times[node.node_type] += node.real_time.total_seconds()
    return +times


def gemm_peak() -> float:
    """Return the best GFLOPS of products of 32-bit matrices on all cores, by NumPy."""
    factor = np.random.default_rng(0).random((GEMM_SIZE, GEMM_SIZE), np.float32)
    product = np.empty_like(factor)
    seconds = timeit.repeat(lambda: np.matmul(factor, factor, out=product), number=1, repeat=30)
    return 2 * GEMM_SIZE**3 / min(seconds) / 1e9
