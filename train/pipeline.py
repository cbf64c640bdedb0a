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
from feedsieve.store import FeedItem, MessageStore
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
    encoder_tag, embedder, figures = _export(options.encoder, parts.train, options.seed)
    texts, labels = parts.train["msg"].tolist(), parts.train["label"].to_numpy()
    features = embedder.embed(texts, "embed")
    groups = near_duplicate_groups(texts, progress=False)
    fitted = fitting.fit(features, labels, groups, options.seed)
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
        scorer = Scorer(embedder.encoder, Classifier.load(place), tag)
        test_scores = _score(scorer, parts.test["msg"].tolist(), "test")
        metrics: dict[str, Any] = {
            "test": evaluate(parts.test["label"], test_scores, fitted.threshold),
            "validation": fitted.validation,
            "threshold": fitted.threshold,
            "rounds": fitted.booster.num_trees(),
            **figures,
            "encoder_tag": encoder_tag,
            "classifier_tag": tag,
            "seed": options.seed,
        }
        replace(description, metrics=metrics).write(place)
    preview: list[FeedItem] = []
    try:
        if store:
            scores = [*scorer.classifier.score(features), *test_scores]
            marks = map(fingerprint, [*texts, *parts.test["msg"]])
            score_store(store, scorer, dict(zip(marks, scores, strict=True)))
            preview = store.feed(tag, FEED_PREVIEW).items
    finally:  # the model is saved by now, and is to have its report whatever befell the store
        metrics["seconds"] = round(time.monotonic() - started, 1)
        _report(options.report, metrics, parts.test, test_scores, preview)
    return metrics


def _export(source: str, frame: pd.DataFrame, seed: int) -> tuple[str, Embedder, dict[str, Any]]:
    """Export the encoder, choose its precision on `frame`, save it; return tag and figures too."""
    with tempfile.TemporaryDirectory(prefix="feedsieve-train-") as folder:
        encoders = export.export_encoder(
            sources.load(source), Path(folder), frame["msg"].tolist(), settings().threads
        )
        for exported in encoders.values():
            print(export.describe(exported))
        embedders = {name: Embedder(exported) for name, exported in encoders.items()}
        comparison = precision.compare(embedders, frame, seed)
        print(comparison)
        tag = export.save_encoder(Path(folder) / comparison.chosen)
    figures = {
        "precision": comparison.as_table(),
        "export": {name: exported.description.check for name, exported in encoders.items()},
    }
    return tag, embedders[comparison.chosen], figures


def _report(
    folder: Path,
    metrics: dict[str, Any],
    test: pd.DataFrame,
    scores: np.ndarray,
    preview: Sequence[FeedItem],
) -> None:
    write_report(
        folder,
        metrics=metrics,
        labels=test["label"],
        scores=scores,
        threshold=metrics["threshold"],
        texts=test["msg"].tolist(),
        identifiers=test["msg_id"].tolist(),
        feed_preview=[(item.id, item.text, item.score) for item in preview],
        comparison=metrics["precision"],
    )
    _write_metrics(folder / METRICS_FILE, metrics)


def score_store(store: MessageStore, scorer: Scorer, known: dict[str, float]) -> None:
    """Score what `store` holds, with a bar; `known` scores are by fingerprint."""
    with tqdm(total=store.count(), desc="score the store", unit="message") as progress:
        score_backlog(store, scorer, known, progress.update)


def _open(location: str) -> MessageStore:
    with tqdm(desc="open the store", unit="message", delay=1) as bar:

        def show(taken: int) -> None:
            bar.update(taken - bar.n)

        return MessageStore.open(location, progress=show)


def _score(scorer: Scorer, texts: Sequence[str], name: str) -> np.ndarray:
    with tqdm(total=len(texts), desc=name, unit="message") as progress:
        return scorer.score(texts, progress.update)


def _write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(
        json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    unfinished.replace(path)
