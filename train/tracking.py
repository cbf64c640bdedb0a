"""Every training is a run in MLflow: what it was asked, what came of it, and how it ended.

MLflow is imported late: that takes more than a second, and reads settings that must be there first.
"""

import fcntl
import logging
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import make_url

from feedsieve.text import normalise
from train.commit import commit_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
DEFAULT_URI = "sqlite:///.mlflow/mlflow.db"
_SETTINGS = {  # of MLflow, unless the user has others
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Its own are 120 and 7: a server that is not there would be waited for for a quarter of an hour
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails is raised as well, and then said in one line
}
_PASSWORD = re.compile(r"//[^/@\s]*@")
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")  # of MLflow's metrics and parameters
_LONGEST_ERROR = 500  # characters


class TrackingUnavailable(RuntimeError):
    """MLflow cannot be used; the message says where it was looked for and why."""


class Terminated(SystemExit):
    """The process was asked to end, by SIGTERM."""


@dataclass
class Run:
    """A run that goes on. What its methods raise is MLflow's; see `recording`."""

    client: "MlflowClient"
    id: str
    lost: bool = False  # something of it could not be recorded

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Warn of an error in the block instead of raising it: by then the models are saved."""
        try:
            yield
        except Exception as error:  # MLflow, SQLAlchemy, requests and the system have many
            self.lost = True
            _log.warning("not tracked in MLflow, which touches nothing else: %s", told(error))
            with suppress(Exception):  # it is said already
                self._end("FAILED", f"not all of it was tracked: {told(error)}")

    def log(
        self,
        *,
        parameters: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Log what is given; of `metrics` the step is `step`, 0 for what is measured once."""
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self.client.log_batch(
            self.id,
            params=[Param(_name(key), str(value)) for key, value in (parameters or {}).items()],
            metrics=[
                Metric(_name(key), float(value), now, step)
                for key, value in (metrics or {}).items()
            ],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()],
        )

    def log_files(self, *paths: Path, folder: str | None = None) -> None:
        """Copy files to the run, into `folder` of its artifacts."""
        for path in paths:
            self.client.log_artifact(self.id, str(path), folder)

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Write `texts` to the run, by the path among its artifacts."""
        for path, text in texts.items():
            self.client.log_text(self.id, text, path)

    def rename(self, name: str) -> None:
        self.client.update_run(self.id, name=name)

    def _end(self, status: str, error: str | None = None) -> None:
        if error:
            self.client.set_tag(self.id, "error", error)
        self.client.set_terminated(self.id, status)


def connect() -> "MlflowClient":
    """Return a client of MLflow where `MLFLOW_TRACKING_URI` says, or below the current directory.

    Raises TrackingUnavailable.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every retry
    import mlflow

    uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else DEFAULT_URI
    with available(uri), _making_tables_alone(_sqlite_file(uri)):
        return mlflow.MlflowClient(uri)


@contextmanager
def available(uri: str) -> Iterator[None]:
    """Raise TrackingUnavailable for whatever goes wrong with MLflow at `uri` in the block."""
    try:
        yield
    except Exception as error:
        where = _PASSWORD.sub("//", uri)
        raise TrackingUnavailable(f"MLflow at {where} cannot be used ({told(error)})") from error


@contextmanager
def run(experiment: str, parameters: Mapping[str, Any]) -> Iterator[Run]:
    """Have a run for as long as the block lasts, and leave in it how the block ended.

    It ends FINISHED, FAILED after an error, or KILLED after SIGINT or SIGTERM; the tag `error` then
    has the first line of the error. SIGTERM raises Terminated in the block.
    Raises TrackingUnavailable before the block begins, and nothing of its own after it.
    """
    try:
        client = connect()
        with available(client.tracking_uri):
            created = client.create_run(_experiment(client, experiment), tags=commit_tags())
            begun = Run(client, created.info.run_id)
            begun.log(parameters=parameters)
    except TrackingUnavailable as error:
        raise TrackingUnavailable(
            f"{error}; MLFLOW_TRACKING_URI says where it is, --no-track goes on without"
        ) from error
    try:
        with _ending_in_order():
            yield begun
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with begun.recording():
            begun._end(status, told(error))
        raise
    if not begun.lost:
        with begun.recording():
            begun._end("FINISHED")


def told(error: BaseException) -> str:
    """Return an error on one line, without the passwords of URLs and the user's home folder."""
    first = str(error).strip().partition("\n")[0]
    line = f"{type(error).__name__}: {first}" if first else type(error).__name__
    line = _PASSWORD.sub("//", line).replace(str(Path.home()), "~")
    return normalise(line)[:_LONGEST_ERROR]


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("", name)


def _experiment(client: "MlflowClient", name: str) -> str:
    """Return the identifier of the experiment `name`, which is made if it is not there."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    file = _sqlite_file(client.tracking_uri)
    place = (file.parent.resolve() / "artifacts").as_uri() if file else None  # None: a server's own
    try:
        return client.create_experiment(name, place)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return _experiment(client, name)  # made by another training that has just begun


def _sqlite_file(uri: str) -> Path | None:
    if not uri.startswith("sqlite:"):
        return None
    return Path(make_url(uri).database or "")


@contextmanager
def _making_tables_alone(file: Path | None) -> Iterator[None]:
    """Let one process at a time open `file`: two would both make its tables, and one would fail."""
    if not file:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM raise Terminated in the block, unless somebody else sees to it."""

    def end(number: int, _frame: object) -> NoReturn:
        raise Terminated(128 + number)  # the status that a shell gives such an end

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
