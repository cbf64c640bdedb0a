"""Training: labelled messages in, two models in the model store and a report out."""

import time
from contextlib import nullcontext
from typing import Any

from feedsieve.scoring.features import Features
from feedsieve.store.feed import FeedItem
from feedsieve.store.store import MessageStore
from train.classifier import stacking
from train.classifier.boosting import Fitted
from train.classifier.save import SavedModel, save_classifier
from train.compute.base import Compute
from train.compute.choose import computing
from train.data.dataset import Dataset
from train.data.stored_labels import read_stored
from train.encoder.fit_encoder import FittedEncoder, fit_encoder
from train.fill_store import fill_store, open_store
from train.options import Options
from train.report.files import FILES, write_files
from train.report.model_card import Data
from train.tracking import mlflow_run
from train.tracking.log_training import record, versions

EXPERIMENT = "train"  # of MLflow


def train(options: Options) -> dict[str, Any]:
    """Train, save both models, score the message store, write the report; return the metrics.

    Raises InvalidData, ValueError for too few messages, TrackingUnavailable, OSError, and what
    `fit_encoder` raises.
    """
    started = time.monotonic()
    options.report.mkdir(parents=True, exist_ok=True)
    data, store = _read(options)
    description = Data.of(data.frame, data.parts)
    parameters = options.parameters | description.parameters | versions()
    with (
        computing(options.cluster) as compute,
        mlflow_run.run(EXPERIMENT, parameters) if options.track else nullcontext() as run,
    ):
        encoder = fit_encoder(options, data, store, compute)
        features, fitted = _fit_classifier(options, data, encoder, compute)
        model = save_classifier(options, data, description, encoder, features, fitted)
        encoder.remove_checkpoints()
        preview: list[FeedItem] = []
        try:
            if store:
                preview = fill_store(store, model, data, encoder, compute)
        finally:  # the model is saved, so it gets its report even if the store fails
            model.metrics["seconds"] = round(time.monotonic() - started, 1)
            write_files(options.report, data, fitted, model, preview)
            if run:
                _track(run, options, data, description, model)
    return model.metrics


def _read(options: Options) -> tuple[Dataset, MessageStore | None]:
    """Return the data, and the store if there is one: fail early if it cannot be opened."""
    if options.data:
        data = Dataset.read(options.data)
        return data, open_store(options.db) if options.db else None
    store = open_store(str(options.db))
    return Dataset.of(read_stored(store)), store


def _fit_classifier(
    options: Options, data: Dataset, encoder: FittedEncoder, compute: Compute
) -> tuple[Features, Fitted]:
    texts = data.texts
    embeddings = None if encoder.tuned else encoder.embedder.embed(texts, "embed")
    return stacking.fit(
        texts,
        data.labels,
        data.groups,
        embeddings,
        encoder.tuned,
        options.seed,
        compute,
        data.checked,
    )


def _track(
    run: mlflow_run.Run, options: Options, data: Dataset, description: Data, model: SavedModel
) -> None:
    name = options.data.name if options.data else "labels in the message store"
    with run.recording():
        run.log_dataset(name, description.fingerprint, description.counts)
        record(
            run,
            model.metrics,
            fingerprint=description.fingerprint,
            labels=data.test_labels,
            scores=model.test_scores,
            files=[options.report / name for name in FILES],
        )
