"""Jobs: the whole of a training on a worker of a cluster.

The worker takes the data from MLflow and leaves models, figures and report there, so it shares
nothing else with this machine.
"""

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feedsieve.bulk.score_file import ClusterUnavailable
from train.behaviour.suite import SUITES, Suite, read_suite
from train.options import DEFAULT_ENCODER, Options
from train.report.file_names import FILES

if TYPE_CHECKING:
    from distributed import Client

    from train.compute.dask_job import Job, Machine

_SETTINGS = "MLFLOW_TRACKING_"  # start of their names


def submit(client: "Client", options: Options) -> "Job":
    """Train on a worker, one with a GPU if there is one, as `pipeline.train` would here.

    Data, models and figures go through MLflow, so `train.promote` and `feedsieve deploy` work here
    afterwards. The messages of the store are not scored.

    Raises ClusterUnavailable, TrackingUnavailable, JobFailed for options that a job cannot have,
    and what `pipeline.read` raises.
    """
    from train.compute import dask_job
    from train.pipeline import read
    from train.tracking import data_versions, mlflow_run

    if refused := _refused(options):
        raise dask_job.JobFailed(refused)
    machines = dask_job.machines(client)
    machine = dask_job.choose(machines)
    tracking = mlflow_run.connect()
    uri = _for_workers(tracking.tracking_uri, machines)
    data, _store = read(options)
    with mlflow_run.available(tracking.tracking_uri):
        stored = data_versions.upload(tracking, data)
    settings = {name: value for name, value in os.environ.items() if name.startswith(_SETTINGS)}
    # The worker's own Feast repository is not this machine's.
    settings |= {"MLFLOW_TRACKING_URI": uri, "FEEDSIEVE_FEATURES": ""}
    return dask_job.Job(client, machine, [*_arguments(options), "--as-of", stored], settings)


def fetch_report(metrics: Mapping[str, Any], folder: Path) -> None:
    """Copy the report of a job with these metrics from MLflow.

    Raises VersionNotFound, TrackingUnavailable and OSError.
    """
    from train.tracking import mlflow_run, registry

    run = registry.with_tag(metrics["classifier_tag"]).run_id
    folder.mkdir(parents=True, exist_ok=True)
    client = mlflow_run.connect()
    with mlflow_run.available(client.tracking_uri):
        for name in FILES:
            client.download_artifacts(run, name, str(folder))


def _refused(options: Options) -> str | None:
    """Return why a job cannot have these options."""
    for name in ("features", "cluster"):
        if getattr(options, name):
            return f"a job trains on one worker and embeds there: leave out --{name}"
    if not options.track:
        return "a job takes its data from MLflow: leave out --no-track"
    if options.encoder != DEFAULT_ENCODER and not options.encoder.startswith(("hf:", "/")):
        return "--encoder: give the absolute path of a folder on the worker"
    if options.behave and not _is_packaged(options.behave):
        return f"{options.behave.name} is not on the worker: leave out --behave, run train.behave"
    return None


def _is_packaged(suite: Suite) -> bool:
    name = Path(suite.name).stem
    return name in SUITES and suite == read_suite(name)


def _arguments(options: Options) -> list[str]:
    """Return the arguments of `python -m train`, without those of data and report."""
    arguments = ["--encoder", options.encoder, "--seed", str(options.seed)]
    if options.finetune:
        arguments.append("--finetune")
    if options.distil:
        arguments += ["--distil", options.distil]
    if options.behave:
        arguments += ["--behave", Path(options.behave.name).stem]
    return arguments


def _for_workers(uri: str, machines: "Sequence[Machine]") -> str:
    """Return MLflow's address as workers reach it. Raises ClusterUnavailable."""
    if uri.startswith("http"):
        return uri
    from train.tracking.mlflow_run import sqlite_file, without_password

    others = sorted({machine.name for machine in machines} - {socket.gethostname()})
    file = sqlite_file(uri)
    if others or file is None:
        raise ClusterUnavailable(
            f"{', '.join(others) or 'workers'} cannot reach MLflow at {without_password(uri)}: set"
            " MLFLOW_TRACKING_URI to a server's address (`mlflow server`)"
        )
    return f"sqlite:///{file.resolve()}"
