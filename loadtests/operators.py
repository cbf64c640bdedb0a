"""Which operators of an encoder take the time, as its engine's own profiler tells."""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from feedsieve.backends import BackendSpec, compile_openvino
from feedsieve.padding import padded

ROUNDS = 10


def _onnxruntime(spec: BackendSpec | None, file: Path, inputs: dict[str, Any]) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    for key, value in spec.settings.items() if spec else ():
        options.add_session_config_entry(key, value)
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


def _openvino(spec: BackendSpec, file: Path, inputs: dict[str, Any]) -> Counter[str]:
    served = compile_openvino(spec, file, threads=1, PERF_COUNT=True)
    request = served.create_infer_request()
    request.infer(inputs)
    times: Counter[str] = Counter()
    for _ in range(ROUNDS):
        request.infer(inputs)
        for node in request.profiling_info:
            times[node.node_type] += node.real_time.total_seconds()
    return +times


def by_operator(
    spec: BackendSpec | None, file: Path, tokens: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Return the share of the time, 0 to 1, by operator, largest first, of one padded batch.

    Without `spec` it is onnxruntime as it comes.
    """
    inputs = padded(tokens, max(map(len, tokens)))
    if spec and spec.library == "openvino":
        times = _openvino(spec, file, inputs)
    else:
        times = _onnxruntime(spec, file, inputs)
    whole = sum(times.values())
    return {name: time / whole for name, time in times.most_common()}
