"""What runs the encoder's ONNX file: OpenVINO where it is installed, onnxruntime everywhere.

Both run the same file. OpenVINO's products of 8 bits are the faster ones, with whatever the CPU has
for them: AMX, VNNI or plain AVX2. The figures are in docs/decisions/engine.md. Only the one that is
used is imported: each takes tenths of a second and tens of megabytes.
"""

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

_log = logging.getLogger("feedsieve")

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
Name = Literal["openvino", "onnxruntime"]
Begun = Callable[[], np.ndarray]  # to be called once: waits, and returns (texts, dimension)


class Engine(Protocol):
    """Runs an encoder; safe to use from several threads."""

    name: Name

    def begin(self, inputs: dict[str, np.ndarray]) -> Begun:
        """Begin with what `feedsieve.encoder.padded` returns; return what waits for embeddings."""


def start(path: Path, precision: str, threads: int, name: Name | None = None) -> Engine:
    """Return the engine of that name with the ONNX file `path`, or the fastest that can run it.

    It runs as many batches at once as there are `threads`, each in one. Where `precision` is
    "int8", what is not of 8 bits may be computed in 16. Raises OSError if the file is absent, the
    engine's own error if it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is absent")
    if name == "openvino" or (name is None and find_spec("openvino")):
        try:
            return OpenVino(path, precision, threads)
        except RuntimeError as error:
            if name:
                raise
            _log.warning("OpenVINO cannot run %s (%s)", path.name, str(error).splitlines()[0])
    return OnnxRuntime(path, threads)


class OpenVino:
    """OpenVINO on CPU."""

    name: Name = "openvino"

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        from openvino import Tensor

        self._tensor = Tensor
        self._model = compiled_by_openvino(path, precision, threads)
        self._idle: deque[Any] = deque()  # requests, which are used again
        # What converts arrays is set up when it is first used, and if two threads use it first they
        # wait for each other for ever: one holds its lock, the other the interpreter's.
        self.begin({name: np.ones((1, 1), np.int64) for name in INPUTS})()
        _log.info(
            "the encoder runs on OpenVINO %s, in %s and %s, which uses %s of this CPU",
            version("openvino"),
            precision,
            self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
            ", ".join(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        )

    def begin(self, inputs: dict[str, np.ndarray]) -> Begun:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        # Copies: whoever began need not wait, nor keep anything. Arrays given to `start_async` are
        # copied as well, and take 60 µs more.
        for name, array in inputs.items():
            request.set_tensor(name, self._tensor(array))
        request.start_async()

        def embeddings() -> np.ndarray:
            request.wait()
            found = np.array(request.get_tensor(OUTPUT).data)
            self._idle.append(request)
            return found

        return embeddings


def compiled_by_openvino(path: Path, precision: str, threads: int, **settings: Any) -> Any:
    """Return the model in the ONNX file `path` as it is served, but for `settings` of OpenVINO."""
    core = _core()
    # What is not of 8 bits: products of attention, sums and norms
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    served = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "int8" and has_bf16 else "f32",
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # a machine may be shared
    }
    return core.compile_model(core.read_model(path), "CPU", served | settings)


@cache
def _core() -> Any:
    """Return the one OpenVINO of this process, which lives as long as the process.

    Where all had gone, the next signal ended the process: the stack for signals, which OpenVINO had
    set up, was gone as well.
    """
    import openvino

    return openvino.Core()


class OnnxRuntime:
    """onnxruntime on CPU."""

    name: Name = "onnxruntime"

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._pool = ThreadPoolExecutor(threads, "encoder")
        _log.info("the encoder runs on onnxruntime %s", onnxruntime.__version__)

    def begin(self, inputs: dict[str, np.ndarray]) -> Begun:
        running = self._pool.submit(self._session.run, [OUTPUT], inputs)
        return lambda: running.result()[0]
