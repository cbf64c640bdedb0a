"""Choose the backend: the fastest, as measured on this CPU, that gives the reference outputs.

A wrong backend is never used, whatever a measurement of another day or another machine said: the
chosen one is compared with the reference outputs each time that a model is loaded. Which backends
are right and how fast they are is measured once for a CPU, the libraries' versions and a model, and
cached.
"""

import ctypes
import gc
import json
import logging
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from feedsieve.backends import BACKENDS, Backend, BackendSpec, library_versions, open_backend
from feedsieve.files import open_whole
from feedsieve.padding import batches, padded, padded_length
from feedsieve.reference import FILE as REFERENCE_FILE
from feedsieve.reference import ReferenceEmbeddings
from feedsieve.settings import settings

_log = logging.getLogger("feedsieve")

WITHOUT_REFERENCE = ("openvino-f32", "onnxruntime-f32")  # for models older than reference outputs
ALIKE = 0.1  # a backend that rounds more must be faster by this share to be preferred
PROBED = 4  # one reference batch in so many is timed: lengths of every kind, in little time
TIMED_RUNS = 3  # of the probe at least; the fastest counts
TIMED_SECONDS = 0.1  # at least, or a small encoder's runs would all be noise
MOST_CACHED = 50  # measurements kept on disk
FASTEST = "the fastest that is right on this CPU"
CACHE_VERSION = 1  # raise it when what is measured changes
_LONGEST_ERROR = 120  # characters of a library's message that a log line quotes


class UnreadableModel(ValueError):
    """No library can load the ONNX file: it is damaged. The message has their reasons."""


class NoBackend(RuntimeError):
    """No backend gives the reference outputs here; the message says which bounds were broken."""


@dataclass(frozen=True)
class Trial:
    """One backend on this CPU: seconds for the probe, agreement, and why it is refused.

    The agreement of a slower one is not measured: None.
    """

    backend: str
    seconds: float | None = None
    lowest_cosine: float | None = None
    mean_cosine: float | None = None
    refused: str | None = None


@dataclass(frozen=True)
class Selection:
    """The chosen backend, and what is known of all of them."""

    chosen: Trial
    reason: str
    trials: tuple[Trial, ...]
    cpu: str
    versions: Mapping[str, str]

    @property
    def passed_over(self) -> dict[str, str]:
        """The refused backends, and why."""
        return {trial.backend: trial.refused for trial in self.trials if trial.refused}


def figures(selection: Selection) -> dict[str, Any]:
    """Return the selection as reports, `/version` and the metrics show it."""
    chosen = selection.chosen
    return {
        "backend": chosen.backend,
        "reason": selection.reason,
        "cpu": selection.cpu,
        "lowest_cosine": chosen.lowest_cosine,
        "mean_cosine": chosen.mean_cosine,
        "passed_over": selection.passed_over,
    }


class ReferenceRun:
    """The reference texts as a backend reads them: token ids in padded batches."""

    def __init__(
        self, reference: ReferenceEmbeddings, tokens: Sequence[Sequence[int]], max_tokens: int
    ) -> None:
        """`tokens` are the ids of each reference text."""
        self.reference = reference
        lengths = [padded_length(len(ids), max_tokens) for ids in tokens]
        self._rows = list(batches(lengths))
        self._inputs = [
            padded([tokens[row] for row in rows], lengths[rows[0]]) for rows in self._rows
        ]

    def embed(self, backend: Backend) -> np.ndarray:
        """Return the embeddings of all reference texts by `backend`, (texts, dimension)."""
        pending = [backend.submit(inputs) for inputs in self._inputs]
        embeddings = np.empty_like(self.reference.expected)
        for rows, batch in zip(self._rows, pending, strict=True):
            embeddings[rows] = batch.result()
        return embeddings

    def seconds(self, backend: Backend) -> float:
        """Return how long `backend` takes for some of the batches, once it is warm."""
        probe = self._inputs[::PROBED]
        times: list[float] = []
        while len(times) <= TIMED_RUNS or sum(times[1:]) < TIMED_SECONDS:
            started = time.perf_counter()
            for batch in [backend.submit(inputs) for inputs in probe]:
                batch.result()
            times.append(time.perf_counter() - started)
        return min(times[1:])  # the first one compiles


def select_backend(
    model: Path,
    precision: str,
    threads: int,
    reference_run: ReferenceRun | None,
    wanted: str | None = None,
    excluded: Mapping[str, str] | None = None,
) -> tuple[Backend, Selection]:
    """Return the backend to run the ONNX file `model` with, loaded, and why it was chosen.

    `precision` is the file's. Without `reference_run` nothing can be compared, so the backend is
    one that computes in f32. `wanted` names the only backend to consider. `excluded` maps backends
    to the reason why they are not to be used.

    Raises NoBackend, UnreadableModel if no library can load the file, and FileNotFoundError.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model} is absent")
    selector = _Selector(model, precision, threads, reference_run, excluded or {})
    if reference_run is None:
        return selector.without_reference(wanted)
    if wanted:
        return selector.first_right([selector.spec(wanted)], f"FEEDSIEVE_BACKEND={wanted}")
    return selector.fastest_right()


class _Selector:
    """One model on this CPU, and its backends."""

    def __init__(
        self,
        model: Path,
        precision: str,
        threads: int,
        run: ReferenceRun | None,
        excluded: Mapping[str, str],
    ) -> None:
        self._model = model
        self._precision = precision
        self._threads = threads
        self._run = run
        self._excluded = excluded
        self._cpu = cpu_name()
        self._versions = library_versions()
        self._was_opened = bool(excluded)  # by whoever excluded it

    def spec(self, name: str) -> BackendSpec:
        """Return the backend of that name. Raises NoBackend if it does not run such a file."""
        specs = {spec.name: spec for spec in BACKENDS[self._precision]}
        if name not in specs:
            raise NoBackend(
                f"{name} does not run a file in {self._precision}; {', '.join(specs)} do"
            )
        return specs[name]

    def without_reference(self, wanted: str | None) -> tuple[Backend, Selection]:
        """Return a backend in f32, since no other can be checked. Raises NoBackend."""
        encoder, command = self._model.parent.name, "python -m export --add-reference CLASSIFIER"
        if wanted and wanted not in WITHOUT_REFERENCE:
            raise NoBackend(
                f"FEEDSIEVE_BACKEND={wanted} cannot be checked: the encoder {encoder} has no"
                f" reference outputs; `{command}` adds them"
            )
        _log.warning(
            "the encoder %s has no reference outputs to check a faster backend with, so it runs in"
            " f32; `%s` adds them",
            encoder,
            command,
        )
        failures = []
        for name in [wanted] if wanted else WITHOUT_REFERENCE:
            spec = self.spec(name)
            backend, failure = self._open(spec)
            if backend:
                trial = Trial(spec.name)
                return backend, self._selection(trial, "the model has no reference outputs", [])
            failures.append(Trial(spec.name, refused=failure))
        raise self._no_backend(failures)

    def first_right(
        self, specs: Sequence[BackendSpec], reason: str, known: Sequence[Trial] = ()
    ) -> tuple[Backend, Selection]:
        """Return the first of `specs` that gives the reference outputs. Raises NoBackend."""
        trials = {
            trial.backend: replace(trial, refused=self._excluded.get(trial.backend, trial.refused))
            for trial in known
        }
        for spec in specs:
            backend, failure = self._open(spec)
            trial = self._check(backend) if backend else Trial(spec.name, refused=failure)
            seconds = trials[spec.name].seconds if spec.name in trials else None
            trials[spec.name] = replace(trial, seconds=seconds)
            if backend and not trial.refused:
                return backend, self._selection(trials[spec.name], reason, list(trials.values()))
        raise self._no_backend(list(trials.values()))

    def fastest_right(self) -> tuple[Backend, Selection]:
        """Return the fastest backend that gives the reference outputs. Raises NoBackend."""
        known = self._cached()
        ranking = _ranking(known)
        if ranking:
            specs = [self.spec(name) for name in ranking if name not in self._excluded]
            with suppress(NoBackend):  # then the ones that were not measured may be right
                return self.first_right(specs, FASTEST, known)
        return self._measure()

    def _measure(self) -> tuple[Backend, Selection]:
        """Time every backend, keep the fastest that is right, and cache what was measured."""
        started = time.monotonic()
        best: Backend | None = None
        trials: list[Trial] = []
        for spec in sorted(BACKENDS[self._precision], key=lambda spec: spec.is_fallback):
            if spec.is_fallback and best is not None:
                break
            backend, trial = self._time(spec)
            if backend and _ranking([*trials, trial])[0] == spec.name:
                trial = replace(self._check(backend), seconds=trial.seconds)
                best = best if trial.refused else backend
            trials.append(trial)
            del backend
            _release_memory()
        if not self._excluded:
            self._cache(trials)
        if best is None:
            raise self._no_backend(trials)
        _log.info("the backends were measured, in %.1f s", time.monotonic() - started)
        chosen = next(trial for trial in trials if trial.backend == best.spec.name)
        return best, self._selection(chosen, FASTEST, trials)

    def _time(self, spec: BackendSpec) -> tuple[Backend | None, Trial]:
        assert self._run is not None
        backend, failure = self._open(spec)
        if backend is None:
            return None, Trial(spec.name, refused=failure)
        try:
            return backend, Trial(spec.name, self._run.seconds(backend))
        except Exception as error:  # the libraries have many of their own
            return None, Trial(spec.name, refused=_in_short(error))

    def _check(self, backend: Backend) -> Trial:
        """Compare `backend` with the reference outputs."""
        assert self._run is not None
        name = backend.spec.name
        try:
            agreement = self._run.reference.compare(self._run.embed(backend))
        except Exception as error:  # the libraries have many of their own
            return Trial(name, refused=_in_short(error))
        figures = agreement.lowest_cosine, agreement.mean_cosine
        return Trial(name, None, *figures, refused=agreement.broken(self._precision))

    def _open(self, spec: BackendSpec) -> tuple[Backend | None, str | None]:
        if spec.name in self._excluded:
            return None, self._excluded[spec.name]
        if not spec.is_installed:
            return None, f"{spec.library} is not installed"
        try:
            backend = open_backend(spec, self._model, self._threads)
            self._was_opened = True
            return backend, None
        except Exception as error:  # the libraries have many of their own
            return None, _in_short(error)

    def _selection(self, chosen: Trial, reason: str, trials: Sequence[Trial]) -> Selection:
        selection = Selection(chosen, reason, tuple(trials), self._cpu, self._versions)
        passed_over = "; ".join(f"{name}: {why}" for name, why in selection.passed_over.items())
        figures = ""
        if chosen.lowest_cosine is not None:
            figures = f", lowest cosine to the reference outputs {chosen.lowest_cosine:.5f}"
        _log.info(
            "the encoder runs on %s (%s)%s, CPU %s%s",
            chosen.backend,
            reason,
            figures,
            self._cpu,
            f"; passed over: {passed_over}" if passed_over else "",
        )
        return selection

    def _no_backend(self, trials: Sequence[Trial]) -> NoBackend | UnreadableModel:
        reasons = "; ".join(f"{trial.backend}: {trial.refused}" for trial in trials)
        if not self._was_opened and len(trials) > 1:  # one may fail by itself, on this CPU
            return UnreadableModel(f"no backend can load {self._model}: {reasons}")
        return NoBackend(
            f"no backend gives the encoder's reference outputs on this CPU ({self._cpu}): {reasons}"
        )

    def _cache_file(self) -> Path:
        reference = self._model.with_name(REFERENCE_FILE).read_bytes()
        parts = [
            CACHE_VERSION,
            self._cpu,
            settings().onednn_max_cpu_isa,
            self._versions,
            self._precision,
            blake2b(reference).hexdigest(),
        ]
        key = blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
        return settings().cache / "backends" / f"{key}.json"

    def _cached(self) -> list[Trial]:
        """Return what was measured before, nothing if that is absent or unreadable."""
        try:
            content = json.loads(self._cache_file().read_text(encoding="utf-8"))
            return [Trial(**trial) for trial in content["trials"]]
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def _cache(self, trials: Sequence[Trial]) -> None:
        file = self._cache_file()
        content = {
            "cpu": self._cpu,
            "versions": self._versions,
            "trials": [asdict(trial) for trial in trials],
        }
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with open_whole(file) as out:
                json.dump(content, out, indent=2)
            files = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for old in files[:-MOST_CACHED]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("the measured backends are not cached: %s", error)


def cpu_name() -> str:
    """Return the CPU's model name, or its architecture where the system does not say it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _ranking(trials: Sequence[Trial]) -> list[str]:
    """Return the names of the right backends, the one to prefer first."""
    ranked: list[Trial] = []
    for trial in trials:
        if trial.refused or trial.seconds is None:
            continue
        place = next((at for at, other in enumerate(ranked) if _is_faster(trial, other)), None)
        ranked.insert(len(ranked) if place is None else place, trial)
    return [trial.backend for trial in ranked]


def _is_faster(trial: Trial, other: Trial) -> bool:
    assert trial.seconds is not None and other.seconds is not None
    return trial.seconds < other.seconds * (1 - ALIKE)


def _release_memory() -> None:
    """Give the memory of a backend that is gone, up to 300 MB, back to the system."""
    gc.collect()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


def _in_short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:_LONGEST_ERROR] or type(error).__name__
