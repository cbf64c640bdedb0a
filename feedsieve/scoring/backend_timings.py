"""Trials of backends: time and agreement on this CPU, and their cache on disk."""

import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

from feedsieve.files import open_atomically
from feedsieve.scoring.backends import library_versions
from feedsieve.scoring.reference import REFERENCE_FILE
from feedsieve.settings import settings

MIN_GAIN = 0.1  # a backend that rounds more must be faster by this share to be preferred
CACHE_VERSION = 1  # raise it when the measurement changes

_log = logging.getLogger("feedsieve")


MAX_FILES = 50  # of timings on disk; each export adds one


@dataclass(frozen=True)
class Trial:
    """One backend on this CPU. The agreement of slower backends is not measured: None."""

    backend: str
    seconds: float | None = None  # for the probe
    lowest_cosine: float | None = None  # to the reference embeddings
    mean_cosine: float | None = None
    refused: str | None = None  # why the backend is not used


class TrialCache:
    """The trials of one model on this CPU, with the installed library versions."""

    def __init__(self, model: Path, precision: str) -> None:
        """`model` is an ONNX file with reference outputs in its folder."""
        self._about = {"cpu": cpu_name(), "versions": library_versions()}
        expected = model.with_name(REFERENCE_FILE).read_bytes()
        key = [
            CACHE_VERSION,
            self._about["cpu"],
            settings().onednn_max_cpu_isa,
            self._about["versions"],
            precision,
            blake2b(expected).hexdigest(),
        ]
        name = blake2b(json.dumps(key).encode(), digest_size=8).hexdigest()
        self._file = settings().cache / "backends" / f"{name}.json"

    def read(self) -> list[Trial]:
        """Return the cached trials; none if the file is absent or damaged."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            return [Trial(**trial) for trial in content["trials"]]
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def write(self, trials: Sequence[Trial]) -> None:
        """Cache `trials`. Log a warning if that fails."""
        content = self._about | {"trials": [asdict(trial) for trial in trials]}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with open_atomically(self._file) as file:
                json.dump(content, file, indent=2)
            files = sorted(self._file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for old in files[:-MAX_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("backend timings are not cached: %s", error)


def rank(trials: Sequence[Trial]) -> list[str]:
    """Return the names of the usable backends, best first.

    Faster is better, but of two within `MIN_GAIN` the one that comes first in `trials`. Backends
    without a time come last.
    """
    ranked: list[Trial] = []
    for trial in trials:
        if not trial.refused:
            slower = (at for at, other in enumerate(ranked) if _is_faster(trial, other))
            ranked.insert(next(slower, len(ranked)), trial)
    return [trial.backend for trial in ranked]


def _is_faster(trial: Trial, other: Trial) -> bool:
    if trial.seconds is None or other.seconds is None:
        return other.seconds is None and trial.seconds is not None
    return trial.seconds < other.seconds * (1 - MIN_GAIN)


def cpu_name() -> str:
    """Return the CPU's model name, or its architecture where the system has no model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
