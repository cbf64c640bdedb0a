"""Track each training as a run in MLflow: parameters, results, and how it ended.

MLflow is imported late, because that takes over a second and reads settings made here.
"""

import fcntl
import json
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

from feedsieve.errors import FeedsieveError
from feedsieve.text import normalise
from train.tracking.git_tags import commit_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
EXPERIMENT_OF_TRAININGS = "train"
DEFAULT_URI = "sqlite:///.mlflow/mlflow.db"
_SETTINGS = {  # of MLflow, where the user has not set them
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # MLflow's defaults, 120 and 7, wait a quarter of an hour for a server that is down.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # errors are raised as well, and reported here in one line
}
_PASSWORD = re.compile(r"//[^/@\s]*@")
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")  # characters that MLflow rejects in names
_LONGEST_ERROR = 500  # characters


class TrackingUnavailable(FeedsieveError):
    """MLflow cannot be used."""


class Terminated(SystemExit):
    """The process received SIGTERM."""


@dataclass
class Run:
    """A run in progress. Its methods raise MLflow's errors; see `recording`."""

    client: "MlflowClient"
    id: str
    lost: bool = False  # part of it could not be recorded

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Turn an error in the block into a warning: the training does not depend on it."""
        try:
            yield
        except Exception as error:  # of MLflow, SQLAlchemy, requests or the system
            self.lost = True
            reason = one_line(error)
            _log.warning("not tracked in MLflow, the results are not affected: %s", reason)
            with suppress(Exception):  # the warning is out already
                self.end("FAILED", f"not all of it was tracked: {reason}")

    def log(
        self,
        *,
        parameters: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        step: int = 0,
    ) -> None:
        """Log parameters, metrics and tags. `step` applies to the metrics."""
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

    def log_dataset(self, name: str, fingerprint: str, parts: Mapping[str, int]) -> None:
        """Log what the run read, as MLflow's dataset: `parts` are numbers of messages by name."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # Built here: MLflow's own classes for frames record columns and the path of the file.
        dataset = Dataset(
            name=name,
            digest=fingerprint,
            source_type="local",
            source=json.dumps({"name": name}),
            profile=json.dumps(parts),
        )
        tag = InputTag("mlflow.data.context", "training")
        self.client.log_inputs(self.id, [DatasetInput(dataset, [tag])])

    def log_files(self, *paths: Path, folder: str | None = None) -> None:
        """Copy files to the run's artifacts, into `folder`."""
        for path in paths:
            self.client.log_artifact(self.id, str(path), folder)

    def log_texts(self, texts: Mapping[str, str]) -> None:
        """Write `texts` to the run's artifacts, by path."""
        for path, text in texts.items():
            self.client.log_text(self.id, text, path)

    def rename(self, name: str) -> None:
        self.client.update_run(self.id, name=name)

    def end(self, status: str, error: str | None = None) -> None:
        """End the run with MLflow's `status`, and the tag `error` if there is one."""
        if error:
            self.client.set_tag(self.id, "error", error)
        self.client.set_terminated(self.id, status)


def in_use() -> bool:
    """Return whether anything may have been tracked: a server is named, or the file exists."""
    file = sqlite_file(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)
    return file is None or file.exists()


def connect() -> "MlflowClient":
    """Return a client for `MLFLOW_TRACKING_URI`, by default a file below the current directory.

    Raises TrackingUnavailable.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # no line for each retry
    import mlflow

    uri = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else DEFAULT_URI
    with available(uri), _exclusive(sqlite_file(uri)):
        return mlflow.MlflowClient(uri)


@contextmanager
def available(uri: str) -> Iterator[None]:
    """Raise TrackingUnavailable in place of any error in the block, which uses MLflow at `uri`.

    Errors of feedsieve are raised as they are.
    """
    try:
        yield
    except FeedsieveError:
        raise
    except Exception as error:
        where = without_password(uri)
        reason = one_line(error)
        raise TrackingUnavailable(f"MLflow at {where} cannot be used ({reason})") from error


@contextmanager
def run(experiment: str, parameters: Mapping[str, Any]) -> Iterator[Run]:
    """Track the block as a run.

    The run ends FINISHED, FAILED after an error, or KILLED after SIGINT or SIGTERM. The tag `error`
    has the first line of the error. SIGTERM raises Terminated in the block.
    Raises TrackingUnavailable before the block starts, and nothing of its own afterwards.
    """
    try:
        client = connect()
        with available(client.tracking_uri):
            # MLflow's own tag of the source has the path of the command.
            tags = {"mlflow.source.name": f"python -m {_command(experiment)}"}
            tags["mlflow.source.type"] = "LOCAL"
            created = client.create_run(
                experiment_id(client, experiment), tags=commit_tags() | tags
            )
            started = Run(client, created.info.run_id)
            started.log(parameters=parameters)
    except TrackingUnavailable as error:
        raise TrackingUnavailable(
            f"{error}; set MLFLOW_TRACKING_URI, or pass --no-track to train without it"
        ) from error
    try:
        with _sigterm_raises():
            yield started
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with started.recording():
            started.end(status, one_line(error))
        raise
    if not started.lost:
        with started.recording():
            started.end("FINISHED")


def runs_page(server: str) -> str:
    """Return the address of the runs of training in a server's page, for a person's browser.

    MLflow opens on traces of language models unless the address says otherwise.
    """
    query = "workflowType=machine_learning"
    client = connect()
    with available(client.tracking_uri):
        found = client.get_experiment_by_name(EXPERIMENT_OF_TRAININGS)
    if found is None:  # before the first training
        return f"{server}/#/experiments?{query}"
    return f"{server}/#/experiments/{found.experiment_id}/runs?{query}"


def experiment_id(client: "MlflowClient", name: str) -> str:
    """Return the id of the experiment `name`, and create it if there is none."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(name):
        return found.experiment_id
    file = sqlite_file(client.tracking_uri)
    artifacts = (file.parent.resolve() / "artifacts").as_uri() if file else None  # the server's own
    try:
        return client.create_experiment(name, artifacts)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return experiment_id(client, name)  # another process has just created it


@contextmanager
def transferring() -> Iterator[None]:
    """Let requests in the block take MLflow's own 120 seconds, unless the user has set a time.

    A server may copy all of a model to its own storage before it answers.
    """
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    if os.environ.get(name) != _SETTINGS[name]:
        yield
        return
    del os.environ[name]
    try:
        yield
    finally:
        os.environ[name] = _SETTINGS[name]


def one_line(error: BaseException) -> str:
    """Return the first line of an error, without passwords in URLs and the user's home folder."""
    first = str(error).strip().partition("\n")[0]
    line = f"{type(error).__name__}: {first}" if first else type(error).__name__
    line = _PASSWORD.sub("//", line).replace(str(Path.home()), "~")
    return normalise(line)[:_LONGEST_ERROR]


def without_password(uri: str) -> str:
    """Return a URI without user and password."""
    return _PASSWORD.sub("//", uri)


def _name(name: str) -> str:
    return _NOT_IN_NAMES.sub("", name)


def _command(experiment: str) -> str:
    return experiment if experiment == "train" else f"train.{experiment}"


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a tracking URI, or None if it is none of SQLite's."""
    if not uri.startswith("sqlite:"):
        return None
    return Path(make_url(uri).database or "")


@contextmanager
def _exclusive(file: Path | None) -> Iterator[None]:
    """Let one process at a time open `file`: MLflow fails if two create its tables together."""
    if not file:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise Terminated in the block, unless it has another handler."""

    def end(number: int, _frame: object) -> NoReturn:
        raise Terminated(128 + number)  # a shell's exit status for a signal

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
