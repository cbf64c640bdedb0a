"""The data that trainings saw, as artifacts in MLflow, so that others can train on it again.

Each distinct content is in a run of its own in the experiment `data`, once; the run of a training
names it in the tag `data_run`.
"""

import gzip
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from feedsieve.errors import FeedsieveError
from train.data.dataset import Dataset
from train.tracking import mlflow_run
from train.tracking.mlflow_run import EXPERIMENT_OF_TRAININGS, Run
from train.tracking.stored_once import digest, store_once

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "data"
FOLDER = "data"  # of a run's artifacts
LABELLED_FILE = "labelled.jsonl.gz"
UNLABELLED_FILE = "unlabelled.jsonl.gz"
SOURCE_FILE = "source.json"
DATA_RUN = "data_run"  # tag of a training
_TIME_COLUMN = "labeled_at"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SHOWN = 5  # versions in an error


class DataVersionNotFound(FeedsieveError, LookupError):
    """MLflow does not have this data; the message says what it has."""


def upload(client: "MlflowClient", data: Dataset) -> str:
    """Store the labelled and unlabelled messages of `data` unless MLflow has them.

    Return the run that has them. Raises MLflow's errors and OSError.
    """
    with tempfile.TemporaryDirectory(prefix="feedsieve-data-") as temporary:
        labelled, unlabelled = Path(temporary, LABELLED_FILE), Path(temporary, UNLABELLED_FILE)
        _write(labelled, data.frame.to_dict("records"))
        _write(unlabelled, ({"msg": text} for text in data.unlabelled))
        source = Path(temporary, SOURCE_FILE)
        source.write_text(json.dumps({"name": data.name, "is_of_sample": data.is_of_sample}))
        tags = {
            "fingerprint": data.fingerprint,
            "name": data.name,
            "messages": str(len(data.frame)),
            "positives": str(int(data.frame["label"].sum())),
            "unlabelled": str(len(data.unlabelled)),
        }
        with mlflow_run.transferring():
            return store_once(
                client,
                EXPERIMENT,
                data.fingerprint[:12],
                [labelled, unlabelled, source],
                FOLDER,
                tags,
            )


def log(run: Run, data: Dataset) -> None:
    """Store `data` as that of the training `run`. Raises MLflow's errors and OSError."""
    run.log(tags={DATA_RUN: upload(run.client, data)})


def fetch(as_of: datetime | str) -> Dataset:
    """Return the data of an earlier training.

    That is the last one that began until a time, or one whose data's fingerprint begins with these
    digits; or the data in the run that `upload` returned.
    Raises DataVersionNotFound and TrackingUnavailable.
    """
    client = mlflow_run.connect()
    with mlflow_run.available(client.tracking_uri):
        if isinstance(as_of, datetime):
            stored = _of_training_before(client, as_of)
            missing = f"no training until {as_of:{_TIME}} has stored its data"
        else:
            stored = _with_fingerprint(client, as_of)
            missing = f"no training has stored data of the fingerprint {as_of}"
        if stored is None:
            raise DataVersionNotFound(f"{missing}; {_known(client)}")
        return _download(client, stored)


def of_encoder(tag: str) -> Dataset:
    """Return the data of the training that made an encoder.

    Raises DataVersionNotFound and TrackingUnavailable.
    """
    client = mlflow_run.connect()
    with mlflow_run.available(client.tracking_uri):
        # Not those that have read its embeddings from Feast.
        condition = f"tags.encoder_tag = '{tag}' AND params.finetune = 'True'"
        trainings = _runs(client, EXPERIMENT_OF_TRAININGS, f"{condition} AND tags.{DATA_RUN} != ''")
        stored = _data_of(client, trainings[0]) if trainings else None
        if stored is None:
            raise DataVersionNotFound(f"MLflow does not have the data of the training of {tag}")
        return _download(client, stored)


def _with_fingerprint(client: "MlflowClient", digits: str) -> Any:
    if exact := _runs(client, EXPERIMENT, f"attributes.run_id = '{digits}'"):
        return exact[0]
    found = _runs(client, EXPERIMENT, f"tags.fingerprint LIKE '{digits}%' AND tags.digest != ''")
    names = {run.data.tags["fingerprint"] for run in found}
    if len(names) > 1:
        raise DataVersionNotFound(
            f"{len(names)} versions of the data begin with {digits}: {', '.join(sorted(names))}"
        )
    return found[0] if found else None


def _of_training_before(client: "MlflowClient", time: datetime) -> Any:
    until = int(time.timestamp() * 1000)
    condition = f"tags.{DATA_RUN} != '' AND attributes.start_time <= {until}"
    trainings = _runs(client, EXPERIMENT_OF_TRAININGS, condition, most=1)
    return _data_of(client, trainings[0]) if trainings else None


def _data_of(client: "MlflowClient", training: Any) -> Any:
    """Return the run that has the data of a training, or None if somebody has deleted it."""
    from mlflow.exceptions import MlflowException

    try:
        stored = client.get_run(training.data.tags[DATA_RUN])
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return None if stored.info.lifecycle_stage == "deleted" else stored


def _runs(
    client: "MlflowClient", experiment: str, condition: str, most: int = 100
) -> Sequence[Any]:
    """Return runs, the newest first."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return []
    order = ["attributes.start_time DESC"]
    return list(
        client.search_runs([found.experiment_id], condition, max_results=most, order_by=order)
    )


def _download(client: "MlflowClient", stored: Any) -> Dataset:
    tags = stored.data.tags
    with tempfile.TemporaryDirectory(prefix="feedsieve-data-") as temporary:
        with mlflow_run.transferring():
            folder = Path(client.download_artifacts(stored.info.run_id, FOLDER, temporary))
        files = [folder / name for name in (LABELLED_FILE, UNLABELLED_FILE, SOURCE_FILE)]
        if digest(files) != tags["digest"]:
            raise DataVersionNotFound(
                f"what MLflow has of the data {tags['fingerprint']} is damaged"
            )
        labelled, unlabelled = map(_read, files[:2])
        source = json.loads(files[2].read_text(encoding="utf-8"))
    return Dataset.of(
        _frame(labelled),
        unlabelled=[row["msg"] for row in unlabelled],
        **source,
    )


def _write(path: Path, rows: Iterable[Mapping[Any, Any]]) -> None:
    """Write rows as JSON, one a line. Parquet would need a library that training has no use for."""
    with gzip.GzipFile(path, "wb", mtime=0) as file:  # without the time, equal rows are equal bytes
        for row in rows:
            values = {
                name: (None if pd.isna(value) else value.isoformat())
                if name == _TIME_COLUMN
                else value
                for name, value in row.items()
            }
            file.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")


def _read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as the frame of `read_labeled` that they were."""
    frame = pd.DataFrame(rows)
    if _TIME_COLUMN in frame:
        frame[_TIME_COLUMN] = pd.to_datetime(frame[_TIME_COLUMN], utc=True, format="ISO8601")
    return frame


def _known(client: "MlflowClient") -> str:
    lines = []
    for run in _runs(client, EXPERIMENT_OF_TRAININGS, f"tags.{DATA_RUN} != ''", most=_SHOWN):
        if stored := _data_of(client, run):
            start = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
            lines.append(f"{stored.data.tags['fingerprint'][:12]} ({start:{_TIME}})")
    return f"the last trainings have {', '.join(lines)}" if lines else "MLflow has no data"
