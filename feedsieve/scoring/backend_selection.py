"""Select the backend: the fastest on this CPU that reproduces the reference outputs.

Backends are timed once for each CPU, model and set of library versions; the order is cached. The
chosen one is compared with the reference outputs at every load, so a wrong backend is never used.
"""

import ctypes
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from feedsieve.errors import FeedsieveError
from feedsieve.scoring.backend_timings import Trial, TrialCache, cpu_name, rank
from feedsieve.scoring.backends import BACKENDS, Backend, BackendSpec, open_backend
from feedsieve.scoring.reference import ReferenceRun

WITHOUT_REFERENCE = ("openvino-f32", "onnxruntime-f32")  # for models older than reference outputs
FASTEST = "the fastest that is right on this CPU"
_MAX_ERROR = 120  # characters of a library's message

_log = logging.getLogger("feedsieve")


class InvalidModel(FeedsieveError, ValueError):
    """No library can load the ONNX file: it is damaged. The message has their reasons."""


class NoCorrectBackend(FeedsieveError):
    """No backend reproduces the reference outputs; the message names the broken bounds."""


@dataclass(frozen=True)
class Selection:
    """The chosen backend, the reason, and the trials of all backends."""

    chosen: Trial
    reason: str
    trials: tuple[Trial, ...]
    cpu: str

    @property
    def passed_over(self) -> dict[str, str]:
        """The rejected backends, and why."""
        return {trial.backend: trial.refused for trial in self.trials if trial.refused}

    def figures(self) -> dict[str, Any]:
        """Return the selection as reports, `/version` and the metrics show it."""
        return {
            "backend": self.chosen.backend,
            "reason": self.reason,
            "cpu": self.cpu,
            "lowest_cosine": self.chosen.lowest_cosine,
            "mean_cosine": self.chosen.mean_cosine,
            "passed_over": self.passed_over,
        }


def select_backend(
    model: Path,
    precision: str,
    threads: int,
    reference: ReferenceRun | None,
    wanted: str | None = None,
    excluded: Mapping[str, str] | None = None,
) -> tuple[Backend, Selection]:
    """Return the loaded backend for the ONNX file `model`, and how it was selected.

    `precision` is the file's. Without `reference` nothing can be checked, so the backend computes
    in f32. `wanted` names the only backend to consider. `excluded` maps backends to the reason not
    to use them.

    Raises NoCorrectBackend, InvalidModel if no library can load the file, and FileNotFoundError.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model} is absent")
    selector = _Selector(model, precision, threads, reference, excluded or {})
    if reference is None:
        names = _unchecked(model.parent.name, wanted)
        return selector.first_correct(names, "the model has no reference outputs")
    if wanted:
        return selector.first_correct([wanted], f"FEEDSIEVE_BACKEND={wanted}")
    return selector.fastest_correct(TrialCache(model, precision))


def _unchecked(encoder: str, wanted: str | None) -> Sequence[str]:
    """Return the backends for a model without reference outputs. Raises NoCorrectBackend."""
    command = "python -m export --add-reference CLASSIFIER"
    if wanted and wanted not in WITHOUT_REFERENCE:
        raise NoCorrectBackend(
            f"FEEDSIEVE_BACKEND={wanted} cannot be checked: the encoder {encoder} has no"
            f" reference outputs; `{command}` adds them"
        )
    _log.warning(
        "the encoder %s has no reference outputs to check a faster backend with, so it runs in"
        " f32; `%s` adds them",
        encoder,
        command,
    )
    return [wanted] if wanted else WITHOUT_REFERENCE


class _Selector:
    """The backends of one model on this CPU."""

    def __init__(
        self,
        model: Path,
        precision: str,
        threads: int,
        reference: ReferenceRun | None,
        excluded: Mapping[str, str],
    ) -> None:
        self._model = model
        self._precision = precision
        self._threads = threads
        self._reference = reference
        self._excluded = excluded
        self._specs = {spec.name: spec for spec in BACKENDS[precision]}
        self._was_opened = bool(excluded)  # an excluded backend did load the file

    def fastest_correct(self, cache: TrialCache) -> tuple[Backend, Selection]:
        """Return the fastest backend that reproduces the reference. Raises NoCorrectBackend."""
        cached = cache.read()
        if names := rank(cached):
            with suppress(NoCorrectBackend, InvalidModel):  # others may be right: measure again
                return self.first_correct(names, FASTEST, cached)
        started = time.monotonic()
        trials = [self._time(spec) for spec in self._specs.values() if not spec.is_fallback]
        fallbacks = [spec.name for spec in self._specs.values() if spec.is_fallback]
        backend, selection = self.first_correct([*rank(trials), *fallbacks], FASTEST, trials)
        if not self._excluded:
            cache.write(selection.trials)
        _log.info("timed the backends in %.1f s", time.monotonic() - started)
        return backend, selection

    def first_correct(
        self, names: Sequence[str], reason: str, known: Sequence[Trial] = ()
    ) -> tuple[Backend, Selection]:
        """Return the first of the backends `names` that reproduces the reference.

        `known` are trials to report, and to update. Raises NoCorrectBackend, InvalidModel.
        """
        trials = {trial.backend: trial for trial in known}
        for name in self._excluded.keys() & trials.keys():
            trials[name] = replace(trials[name], refused=self._excluded[name])
        for name in names:
            backend, trial = self._check(name)
            seconds = trials[name].seconds if name in trials else None
            trials[name] = replace(trial, seconds=seconds)
            if backend:
                selection = Selection(trials[name], reason, (*trials.values(),), cpu_name())
                _log_selection(selection)
                return backend, selection
        reasons = "; ".join(f"{trial.backend}: {trial.refused}" for trial in trials.values())
        if not self._was_opened and len(trials) > 1:  # one may fail by itself, on this CPU
            raise InvalidModel(f"no backend can load {self._model}: {reasons}")
        raise NoCorrectBackend(
            f"no backend gives the encoder's reference outputs on this CPU ({cpu_name()}): "
            f"{reasons}"
        )

    def _time(self, spec: BackendSpec) -> Trial:
        """Load a backend, time it, and drop it."""
        assert self._reference is not None
        try:
            return Trial(spec.name, self._reference.seconds(self._open(spec)))
        except Exception as error:  # the libraries have many of their own
            return Trial(spec.name, refused=_summary(error))
        finally:
            _release_memory()

    def _check(self, name: str) -> tuple[Backend | None, Trial]:
        """Load a backend and compare it with the reference; return no backend if it is wrong."""
        if name not in self._specs:
            raise NoCorrectBackend(
                f"{name} does not run a file in {self._precision}; {', '.join(self._specs)} do"
            )
        try:
            backend = self._open(self._specs[name])
            if self._reference is None:
                return backend, Trial(name)
            agreement = self._reference.compare(backend)
        except Exception as error:  # the libraries have many of their own
            return None, Trial(name, refused=_summary(error))
        broken = agreement.broken(self._precision)
        cosines = agreement.lowest_cosine, agreement.mean_cosine
        return None if broken else backend, Trial(name, None, *cosines, broken)

    def _open(self, spec: BackendSpec) -> Backend:
        if spec.name in self._excluded:
            raise RuntimeError(self._excluded[spec.name])
        if not spec.is_installed:
            raise RuntimeError(f"{spec.library} is not installed")
        backend = open_backend(spec, self._model, self._threads)
        self._was_opened = True
        return backend


def _log_selection(selection: Selection) -> None:
    chosen = selection.chosen
    passed_over = "; ".join(f"{name}: {why}" for name, why in selection.passed_over.items())
    cosine = ""
    if chosen.lowest_cosine is not None:
        cosine = f", lowest cosine to the reference outputs {chosen.lowest_cosine:.5f}"
    _log.info(
        "the encoder runs on %s (%s)%s, CPU %s%s",
        chosen.backend,
        selection.reason,
        cosine,
        selection.cpu,
        f"; passed over: {passed_over}" if passed_over else "",
    )


def _release_memory() -> None:
    """Return the memory of a dropped backend, up to 300 MB, to the system."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)


def _summary(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:_MAX_ERROR] or type(error).__name__
