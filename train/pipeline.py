"""The whole of training: labelled messages in, two models in the store and a report out."""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from export import pipeline as export
from export import sources
from feedsieve import models
from feedsieve.backlog import score_backlog
from feedsieve.classifier import Classifier, ClassifierDescription
from feedsieve.scorer import Scorer
from feedsieve.settings import settings
from feedsieve.store import MessageStore
from feedsieve.text import fingerprint
from train import classifier as fitting
from train import precision
from train.data import data_fingerprint, read_labeled, split
from train.duplicates import near_duplicate_groups
from train.embedding import Embedder
from train.evaluate import evaluate
from train.report import write_report

METRICS_FILE = "metrics.json"
FEED_PREVIEW = 20


@dataclass(frozen=True)
class Options:
    """What one run of training is asked for."""

    data: Path
    db: str | None
    encoder: str
    report: Path
    seed: int


def train(options: Options) -> dict[str, Any]:
    """Train, save both models, score the message store, write the report; return the metrics.

    Raises what its steps raise: `InvalidData`, `UnknownSource`, `BadWeights`, `BadExport`,
    `StoreUnavailable`, OSError.
    """
    started = time.monotonic()
    options.report.mkdir(parents=True, exist_ok=True)
    frame = read_labeled(options.data)
    parts = split(frame, options.seed)
    # Opened first: a store that cannot be opened is better known now than after training.
    store = _open(options.db) if options.db else None
    threads = settings().threads
    known = pd.concat([parts.train, parts.validation], ignore_index=True)
    with tempfile.TemporaryDirectory(prefix="feedsieve-train-") as folder:
        source = sources.load(options.encoder)
        encoders = export.export_encoder(source, Path(folder), known["msg"].tolist(), threads)
        for exported in encoders.values():
            print(export.describe(exported))
        embedders = {name: Embedder(exported) for name, exported in encoders.items()}
        comparison = precision.compare(embedders, known, options.seed)
        print(comparison)
        encoder = encoders[comparison.chosen]
        encoder_tag = export.save_encoder(Path(folder) / comparison.chosen)
    features = embedders[comparison.chosen].embed(known["msg"].tolist(), "embed")
    known_labels = known["label"].to_numpy()
    groups = near_duplicate_groups(known["msg"].tolist(), progress=False)
    fitted = fitting.fit(features, known_labels, groups, options.seed)
    description = ClassifierDescription(
        encoder_tag=encoder_tag,
        threshold=fitted.threshold,
        calibration=fitted.calibration,
        features={"embedding": features.shape[1]},
        metrics={},
        data_fingerprint=data_fingerprint(frame),
    )
    with models.new_model(models.CLASSIFIER) as (tag, place):
        Classifier(fitted.booster, description).save(place)
        scorer = Scorer(encoder, Classifier.load(place), tag)
        test_scores = _score(scorer, parts.test["msg"].tolist(), "test")
        metrics: dict[str, Any] = {
            "test": evaluate(parts.test["label"], test_scores, fitted.threshold),
            "validation": fitted.validation,
            "threshold": fitted.threshold,
            "rounds": fitted.booster.num_trees(),
            "precision": comparison.as_table(),
            "export": {name: exported.description.check for name, exported in encoders.items()},
            "encoder_tag": encoder_tag,
            "classifier_tag": tag,
            "seed": options.seed,
        }
        replace(description, metrics=metrics).write(place)
    preview = []
    try:
        if store:
            scores = np.concatenate([scorer.classifier.score(features), test_scores])
            texts = [*known["msg"], *parts.test["msg"]]
            score_store(store, scorer, dict(zip(map(fingerprint, texts), scores, strict=True)))
            preview = store.feed(tag, FEED_PREVIEW).items
    finally:  # the model is saved by now, and is to have its report whatever befell the store
        metrics["seconds"] = round(time.monotonic() - started, 1)
        write_report(
            options.report,
            metrics=metrics,
            labels=parts.test["label"],
            scores=test_scores,
            threshold=fitted.threshold,
            texts=parts.test["msg"].tolist(),
            identifiers=parts.test["msg_id"].tolist(),
            feed_preview=[(item.id, item.text, item.score) for item in preview],
            comparison=comparison.as_table(),
        )
        _write_metrics(options.report / METRICS_FILE, metrics)
    return metrics


def score_store(store: MessageStore, scorer: Scorer, known: dict[str, float]) -> None:
    """Score what `store` holds, with a bar; `known` scores are by fingerprint."""
    with tqdm(total=store.count(), desc="score the store", unit="message") as progress:
        score_backlog(store, scorer, known, progress.update)


def _open(location: str) -> MessageStore:
    with tqdm(desc="open the store", unit="message", delay=1) as bar:

        def show(taken: int) -> None:
            bar.update(taken - bar.n)

        return MessageStore.open(location, state_folder=settings().state, progress=show)


def _score(scorer: Scorer, texts: Sequence[str], name: str) -> np.ndarray:
    with tqdm(total=len(texts), desc=name, unit="message") as progress:
        return scorer.score(texts, progress.update)


def _write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(
        json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    unfinished.replace(path)
