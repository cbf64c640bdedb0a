"""Training: labelled messages in, two models in the model store and a report out."""

import time
from contextlib import nullcontext
from dataclasses import replace
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
from train.data.labelled import read_labeled
from train.data.stored_labels import read_stored
from train.encoder.distil import transfer_set
from train.encoder.fit_encoder import FittedEncoder, fit_encoder
from train.feast.feature_store import FeatureStore
from train.feast.leaks import without_leaks
from train.fill_store import fill_store, open_store
from train.options import Options
from train.report.file_names import FILES
from train.report.files import write_files
from train.report.model_card import Data
from train.tracking import data_versions, mlflow_run
from train.tracking.log_training import record, versions

EXPERIMENT = mlflow_run.EXPERIMENT_OF_TRAININGS


def train(options: Options) -> dict[str, Any]:
    """Train, save both models, score the message store, write the report; return the metrics.

    Raises InvalidData, ValueError for too few messages, DataVersionNotFound, TrackingUnavailable,
    OSError, and what `fit_encoder` raises.
    """
    started = time.monotonic()
    options.report.mkdir(parents=True, exist_ok=True)
    data, store = read(options)
    description = Data.of(data.frame, data.parts)
    parameters = options.parameters | description.parameters | versions()
    with (
        computing(options.cluster) as compute,
        mlflow_run.run(EXPERIMENT, parameters) if options.track else nullcontext() as run,
    ):
        if run:
            _track_data(run, data, description)
        encoder = fit_encoder(options, data, compute)
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


def read(options: Options) -> tuple[Dataset, MessageStore | None]:
    """Return the data, and the store if there is one: fail early if it cannot be opened.

    Raises InvalidData, NoLabels, ValueError for too few messages, StoreUnavailable,
    DataVersionNotFound, FeaturesUnavailable and TrackingUnavailable.
    """
    data, store = _read(options)
    if options.features:
        data = without_leaks(data, FeatureStore(options.features))
    return data, store


def _read(options: Options) -> tuple[Dataset, MessageStore | None]:
    store = open_store(options.db) if options.db else None
    if options.as_of:
        data = data_versions.fetch(options.as_of)
        print(f"on {data}", flush=True)
        return data, store
    if options.data:
        frame, name = read_labeled(options.data), options.data.name
    else:
        store = store or open_store(str(options.db))
        frame, name = read_stored(store), "labels in the message store"
    data = Dataset.of(frame, name=name, is_of_sample=options.is_of_sample)
    if store and options.finetune:  # for distillation
        stored = (message.text for message in store.read_all())
        texts = transfer_set(data.texts, stored, data.test_texts, options.seed)
        data = replace(data, unlabelled=texts)
    return data, store


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


def _track_data(run: mlflow_run.Run, data: Dataset, description: Data) -> None:
    with run.recording():
        run.log_dataset(data.name, description.fingerprint, description.counts)
        data_versions.log(run, data)


def _track(
    run: mlflow_run.Run, options: Options, data: Dataset, description: Data, model: SavedModel
) -> None:
    with run.recording():
        record(
            run,
            model.metrics,
            fingerprint=description.fingerprint,
            labels=data.test_labels,
            scores=model.test_scores,
            files=[options.report / name for name in FILES],
        )
