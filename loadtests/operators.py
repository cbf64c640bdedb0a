"""Which operators of an encoder take the time, as its engine's own profiler tells."""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from feedsieve.encoder import padded
from feedsieve.engines import Name, compiled_by_openvino

ROUNDS = 10


def _onnxruntime(file: Path, _precision: str, inputs: dict[str, Any]) -> Counter[str]:
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


def _openvino(file: Path, precision: str, inputs: dict[str, Any]) -> Counter[str]:
    served = compiled_by_openvino(file, precision, threads=1, PERF_COUNT=True)
    request = served.create_infer_request()
    request.infer(inputs)
    times: Counter[str] = Counter()
    for _ in range(ROUNDS):
        request.infer(inputs)
        for node in request.profiling_info:
            times[node.node_type] += node.real_time.total_seconds()
    return +times


PROFILERS = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def by_operator(
    engine: Name, file: Path, precision: str, tokens: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return the share of the time, 0 to 1, by operator, largest first, of one padded batch."""
    times = PROFILERS[engine](file, precision, padded(tokens, max(map(len, tokens))))
    whole = sum(times.values())
    return {name: time / whole for name, time in times.most_common()}
