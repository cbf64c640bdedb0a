"""What the figures were measured on: the processor, the versions, what its cores can multiply."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from feedsieve.backend_selection import cpu_name

TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16")
PACKAGES = ("bentoml", "onnxruntime", "openvino", "numpy", "torch", "transformers")
GEMM_SIZE = 2048  # rows and columns: large enough for the peak, small enough for a second
GEMM_TRIES = 30


def describe() -> dict[str, Any]:
    """Return what a reader must know to compare the figures with those of another machine."""
    flags = _flags()
    return {
        "processor": cpu_name(),
        "flags": [flag for flag in flags if flag in TELLING_FLAGS or flag.startswith("amx_")],
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],  # processes that ran or waited to, over the last minute
        "memory": psutil.virtual_memory().total,  # bytes
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def gemm_peaks() -> dict[str, float]:
    """Return the GFLOPS of square matrix products on all cores: fp32 by NumPy, bf16 by PyTorch.

    The best of several tries counts, since whatever else the machine does only takes away.
    """
    import torch  # seconds that whoever only describes the machine need not wait

    numbers = np.random.default_rng(0).random((GEMM_SIZE, GEMM_SIZE), np.float32)
    product = np.empty_like(numbers)
    halves = torch.from_numpy(numbers).bfloat16()
    into = torch.empty_like(halves)
    return {
        "fp32": _gflops(lambda: np.matmul(numbers, numbers, out=product)),
        "bf16": _gflops(lambda: torch.matmul(halves, halves, out=into)),
    }


def _gflops(multiply: Callable[[], object]) -> float:
    seconds = []
    for _ in range(GEMM_TRIES):
        began = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - began)
    return 2 * GEMM_SIZE**3 / min(seconds) / 1e9


def _flags() -> list[str]:
    """Return the processor's flags, as Linux lists them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return next((sorted(line.split()[2:]) for line in lines if line.startswith("flags")), [])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
