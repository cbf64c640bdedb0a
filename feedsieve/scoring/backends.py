"""Backends: OpenVINO or onnxruntime, and the precision in which each runs the encoder's ONNX file.

Which backend is right and fastest depends on the CPU, and is measured (backend_selection.py). Only
the library of a backend in use is imported: each takes tenths of a second and tens of megabytes.
Figures are in docs/decisions/engine.md.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

INPUTS = ("input_ids", "attention_mask")
OUTPUT = "embedding"
Library = Literal["openvino", "onnxruntime"]


@dataclass(frozen=True)
class BackendSpec:
    """A way to run an ONNX file: a library and its settings."""

    name: str
    library: Library
    about: str  # the precision, for tables and logs
    settings: Mapping[str, Any] = field(default_factory=dict)
    fold_weights: bool = False  # int8 weights become f32 before OpenVINO compiles
    is_fallback: bool = False  # never the fastest: tried only if no other is right

    @property
    def is_installed(self) -> bool:
        """True if the library is installed. OpenVINO has no wheel for some machines."""
        return find_spec(self.library) is not None


_F32, _BF16 = {"INFERENCE_PRECISION_HINT": "f32"}, {"INFERENCE_PRECISION_HINT": "bf16"}
# All in f32: an int8 file is rounded as it defines, but multiplied in f32, so no int8 instruction
# can saturate. LP_TRANSFORMS_MODE and SNIPPETS_MODE are not documented by OpenVINO; a version
# without them raises, and the backend is passed over.
_ALL_F32 = (
    BackendSpec(
        "openvino-f32", "openvino", "f32", {**_F32, "LP_TRANSFORMS_MODE": False}, fold_weights=True
    ),
    BackendSpec(
        "onnxruntime-f32",
        "onnxruntime",
        "f32",
        {"session.disable_quant_qdq": "1"},
        is_fallback=True,
    ),
)
# By the precision of the file. Those that round less come first: rank() prefers them.
BACKENDS: dict[str, tuple[BackendSpec, ...]] = {
    "int8": (
        BackendSpec("openvino-int8", "openvino", "int8, rest f32", _F32),
        BackendSpec("openvino-int8-bf16", "openvino", "int8, rest bf16", _BF16),
        BackendSpec(
            "openvino-int8-bf16-no-snippets",
            "openvino",
            "int8, rest bf16, without OpenVINO's snippets",
            {**_BF16, "SNIPPETS_MODE": "DISABLE"},
            is_fallback=True,
        ),
        _ALL_F32[0],
        BackendSpec("onnxruntime-int8", "onnxruntime", "int8, rest f32"),
        _ALL_F32[1],
    ),
    "fp32": _ALL_F32,
}


class PendingEmbeddings(Protocol):
    """A future of the embeddings of one batch."""

    def result(self) -> np.ndarray:
        """Wait and return 32-bit floats, (texts, dimension). Call it once."""


class Backend(Protocol):
    """A loaded encoder; safe to use from several threads."""

    spec: BackendSpec

    def submit(self, inputs: dict[str, np.ndarray]) -> PendingEmbeddings:
        """Submit one padded batch, from `padding.padded`; return a future of its embeddings."""


def open_backend(spec: BackendSpec, path: Path, threads: int) -> Backend:
    """Load the ONNX file `path`. Up to `threads` batches run in parallel, each in one thread.

    Raises FileNotFoundError, ImportError if the library is absent, and RuntimeError for a file that
    the library cannot run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is absent")
    library = OpenVino if spec.library == "openvino" else OnnxRuntime
    return library(spec, path, threads)


class OpenVino:
    """OpenVINO on CPU."""

    def __init__(self, spec: BackendSpec, path: Path, threads: int) -> None:
        from openvino import Tensor

        self.spec = spec
        self._tensor = Tensor
        self._model = compile_openvino(spec, path, threads)
        self._idle: deque[Any] = deque()  # infer requests, which are reused
        # The first use sets up the array converter. Two threads that do so together deadlock: one
        # holds the converter's lock, the other the interpreter's.
        self.submit({name: np.ones((1, 1), np.int64) for name in INPUTS}).result()

    def submit(self, inputs: dict[str, np.ndarray]) -> PendingEmbeddings:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        # This copies, but so does `start_async`, which takes 60 µs more.
        for name, array in inputs.items():
            request.set_tensor(name, self._tensor(array))
        request.start_async()
        return _InferRequest(request, self._idle)


class _InferRequest:
    """A running infer request, returned to the idle ones once it is read."""

    def __init__(self, request: Any, idle: deque[Any]) -> None:
        self._request = request
        self._idle = idle

    def result(self) -> np.ndarray:
        self._request.wait()
        embeddings = np.array(self._request.get_tensor(OUTPUT).data)
        self._idle.append(self._request)
        return embeddings


def compile_openvino(spec: BackendSpec, path: Path, threads: int, **settings: Any) -> Any:
    """Return OpenVINO's compiled model; `settings` are added to those of `spec`.

    Raises RuntimeError, also for a setting that the installed version or the CPU does not support.
    """
    core = _core()
    model = core.read_model(path)
    if spec.fold_weights:
        from openvino.passes import ConstantFolding, Manager

        manager = Manager()
        manager.register_pass(ConstantFolding())
        manager.run_passes(model)
    wanted = spec.settings.get("INFERENCE_PRECISION_HINT", "f32")
    if wanted.upper() not in ("F32", *core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")):
        raise RuntimeError(f"this CPU has no {wanted}")  # OpenVINO would emulate it, slowly
    shared = {
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # the machine may be shared
    }
    return core.compile_model(model, "CPU", shared | dict(spec.settings) | settings)


@cache
def _core() -> Any:
    """Return the one OpenVINO core of this process, never deleted.

    Deleting the last core removes the signal stack, and the next signal ends the process.
    """
    import openvino

    return openvino.Core()


class OnnxRuntime:
    """onnxruntime on CPU."""

    def __init__(self, spec: BackendSpec, path: Path, threads: int) -> None:
        import onnxruntime

        self.spec = spec
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        for key, value in spec.settings.items():
            options.add_session_config_entry(key, value)
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._pool = ThreadPoolExecutor(threads, "encoder")

    def submit(self, inputs: dict[str, np.ndarray]) -> PendingEmbeddings:
        return self._pool.submit(self._run, inputs)

    def _run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        # One text at a time: the batch size changes the last bits of an embedding.
        texts = range(len(inputs[INPUTS[0]]))
        rows = [{name: array[at : at + 1] for name, array in inputs.items()} for at in texts]
        return np.concatenate([self._session.run([OUTPUT], row)[0] for row in rows])


def library_versions() -> dict[str, str]:
    """Return the versions of the installed libraries."""
    libraries: tuple[Library, ...] = ("openvino", "onnxruntime")
    return {name: version(name) for name in libraries if find_spec(name)}
