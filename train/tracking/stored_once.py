"""Files that several runs share, in a run of their own that is found by their digest."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from train.tracking import mlflow_run
from train.tracking.mlflow_run import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient


def store_once(
    client: "MlflowClient",
    experiment: str,
    name: str,
    files: Sequence[Path],
    folder: str,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Return the run of `experiment` whose artifacts in `folder` are these files.

    Unless there is one, create it, with this `name` and `tags`. Raises MLflow's errors.
    """
    number = mlflow_run.experiment_id(client, experiment)
    content = digest(files)
    same = client.search_runs([number], f"tags.digest = '{content}'", max_results=1)
    if same:
        return str(same[0].info.run_id)
    created = Run(client, client.create_run(number, run_name=name).info.run_id)
    created.log_files(*files, folder=folder)
    # Last, so that half an upload is never found.
    created.log(tags={**(tags or {}), "digest": content})
    created.end("FINISHED")
    return created.id


def digest(files: Sequence[Path]) -> str:
    """Return the SHA-256, in hexadecimal digits, of the names and contents of `files`."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{content}  {path.name}\n".encode())
    return total.hexdigest()
