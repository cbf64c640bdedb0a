"""The models of a version as artifacts in MLflow, for machines with a model store of their own.

The run of a training has the files of its classifier. The large files of an encoder are in a run of
their own in the experiment `encoders`, found by their digest: classifiers that share an encoder
store it once, and deleting a training does not take it from the others.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from feedsieve.scoring import model_store
from feedsieve.scoring.encoder import DESCRIPTION_FILE
from feedsieve.scoring.model_store import ModelNotFound
from train.tracking import mlflow_run
from train.tracking.mlflow_run import Run
from train.tracking.stored_once import digest, store_once

FOLDER = "model"  # of a run's artifacts; the source of the version
EXPERIMENT = "encoders"
_CLASSIFIER = f"{FOLDER}/classifier"
_ENCODER = f"{FOLDER}/encoder"
# The encoder's files that differ between trainings even if what it computes does not.
# card.md is written by train.report.model_card, which takes a second to import.
_BY_TRAINING = {"model.yaml", "card.md", DESCRIPTION_FILE}


@dataclass(frozen=True)
class StoredModels:
    """Where MLflow has the models of a version; tags of that version."""

    encoder_run: str = ""  # empty for a version without models
    models_digest: str = ""  # SHA-256 of the names and contents of all files


def upload(run: Run, classifier_tag: str, encoder_tag: str) -> StoredModels:
    """Store both models as artifacts, but an encoder that MLflow has only once.

    Raises ModelNotFound and MLflow's errors; see `Run.recording`.
    """
    classifier = _files(model_store.folder(classifier_tag))
    encoder = _files(model_store.folder(encoder_tag))
    with mlflow_run.transferring():
        run.log_files(*classifier, folder=_CLASSIFIER)
        own = [file for file in encoder if file.name in _BY_TRAINING]
        run.log_files(*own, folder=_ENCODER)
        shared = [file for file in encoder if file.name not in _BY_TRAINING]
        encoder_run = store_once(run.client, EXPERIMENT, encoder_tag, shared, _ENCODER)
    return StoredModels(encoder_run, digest([*encoder, *classifier]))


def fetch(run_id: str, tags: tuple[str, str], stored: StoredModels) -> None:
    """Add the classifier and the encoder of `tags` to this machine's model store if it lacks them.

    `run_id` is that of the training. Raises TrackingUnavailable, and ModelNotFound if MLflow cannot
    give them.
    """
    missing = [tag for tag in tags if not model_store.has(tag)]
    if not missing:
        return
    lacking = f"the model store of this machine has no {' and no '.join(missing)}"
    by_hand = (
        "; `bentoml models export TAG` where it was trained, and here `bentoml models import"
        " /PATH/TO/FILE`, for both models, work without MLflow"
    )
    if not stored.encoder_run:
        raise ModelNotFound(f"{lacking}, nor has MLflow: it has the tags alone{by_hand}")
    client = mlflow_run.connect()
    print(f"fetching {' and '.join(missing)} from MLflow", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="feedsieve-fetch-") as temporary:
        try:
            with mlflow_run.transferring():
                classifier, own, encoder = (
                    Path(client.download_artifacts(run, path, tempfile.mkdtemp(dir=temporary)))
                    for run, path in (
                        (run_id, _CLASSIFIER),
                        (run_id, _ENCODER),
                        (stored.encoder_run, _ENCODER),
                    )
                )
        except Exception as error:  # of MLflow, requests or the system
            reason = mlflow_run.one_line(error)
            raise ModelNotFound(
                f"{lacking}, and MLflow cannot give it ({reason}){by_hand}"
            ) from error
        for file in _files(own):
            file.rename(encoder / file.name)
        if digest([*_files(encoder), *_files(classifier)]) != stored.models_digest:
            raise ModelNotFound(f"{lacking}, and what MLflow has is damaged{by_hand}")
        model_store.add(encoder)  # first: a classifier in the store has its encoder
        model_store.add(classifier)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.is_file())
