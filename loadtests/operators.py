"""Which operators of an encoder take the time, as its engine's own profiler tells."""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from feedsieve.encoder import padded

ROUNDS = 10
OPENVINO = {  # as it is served, and profiled
    "INFERENCE_PRECISION_HINT": "f32",
    "NUM_STREAMS": 1,
    "INFERENCE_NUM_THREADS": 1,
    "PERF_COUNT": True,
}


def _onnxruntime(file: Path, inputs: dict[str, Any]) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = f"{folder}/profile"
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        for _ in range(ROUNDS + 1):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    times: Counter[str] = Counter()
    for event in kernels[len(kernels) // (ROUNDS + 1) :]:  # without the first run
        times[event["args"]["op_name"]] += event["dur"]
    return times


def _openvino(file: Path, inputs: dict[str, Any]) -> Counter[str]:
    import openvino  # there only where the service has chosen it

    compiled = openvino.Core().compile_model(str(file), "CPU", OPENVINO)
    request = compiled.create_infer_request()
    request.infer(inputs)
    times: Counter[str] = Counter()
    for _ in range(ROUNDS):
        request.infer(inputs)
        for node in request.profiling_info:
            times[node.node_type] += node.real_time.total_seconds()
    return +times


PROFILERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def by_operator(engine: str, file: Path, tokens: Sequence[Sequence[int]]) -> dict[str, float]:
    """Return the share of the time, 0 to 1, by operator, largest first, of one padded batch.

    Empty for an engine that is not in `PROFILERS`.
    """
    if engine not in PROFILERS:
        return {}
    times = PROFILERS[engine](file, padded(tokens))
    whole = sum(times.values())
    return {name: time / whole for name, time in times.most_common()}
