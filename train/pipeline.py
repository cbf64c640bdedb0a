"""The whole of training: labelled messages in, two models in the store and a report out."""

import json
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
from export.sources import Source
from feedsieve import models
from feedsieve.backlog import score_backlog
from feedsieve.classifier import Classifier, ClassifierDescription
from feedsieve.files import open_whole
from feedsieve.scorer import Scorer
from feedsieve.settings import settings
from feedsieve.store import FeedItem, MessageStore
from feedsieve.text import fingerprint
from train import card as cards
from train import classifier as fitting
from train import finetune, precision, stack
from train.audit import audit, suspects, what_if
from train.behaviour import checks as behaviour
from train.behaviour.outcome import Outcome
from train.behaviour.requirements import REQUIREMENTS
from train.card import Card, Data, installed_versions
from train.data import data_fingerprint, read_labeled, split
from train.duplicates import near_duplicate_groups
from train.embedding import Embedder
from train.evaluate import evaluate
from train.finetune import FineTuned
from train.report import write_report
from train.slices import by_slice, precisions_at

METRICS_FILE = "metrics.json"
HELD_OUT_FILE = "held_out.csv"  # scores of the training part, for train.audit
FEED_PREVIEW = 20


@dataclass(frozen=True)
class Options:
    """What one run of training is asked for."""

    data: Path
    db: str | None
    encoder: str
    finetune: bool
    behave: str | None  # whose requirements, if any
    report: Path
    seed: int

    @property
    def reproducing(self) -> list[str]:
        """The arguments that decide what comes out, without paths that are nobody else's."""
        encoder = self.encoder
        if encoder != "wheel" and not encoder.startswith("hf:"):
            encoder = Path(encoder).name
        flags = ["--finetune"] if self.finetune else []
        return ["--encoder", encoder, *flags, "--seed", str(self.seed)]


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
    texts, labels = parts.train["msg"].tolist(), parts.train["label"].to_numpy()
    groups = near_duplicate_groups(texts, progress=False)
    source = sources.load(options.encoder)
    tuned = _finetune(source, texts, labels, groups, options.seed) if options.finetune else None
    encoder_tag, embedder, figures = _export(source, tuned, parts.train, options.seed)
    embeddings = None if tuned else embedder.embed(texts, "embed")
    features, fitted = stack.fit(texts, labels, groups, embeddings, tuned, options.seed)
    description = ClassifierDescription(
        encoder_tag=encoder_tag,
        threshold=fitted.threshold,
        start=fitted.start,
        calibration=fitted.calibration,
        features=features.blocks,
        metrics={},
        data_fingerprint=data_fingerprint(frame),
    )
    with models.new_model(models.CLASSIFIER) as (tag, place):
        Classifier(fitted.booster, features, description).save(place)
        scorer = Scorer(embedder.encoder, Classifier.load(place), tag)
        test_scores = _score(scorer, parts.test["msg"].tolist(), "test")
        metrics: dict[str, Any] = {
            "test": evaluate(parts.test["label"], test_scores, fitted.threshold),
            "ranking": precisions_at(parts.test["label"], test_scores),
            "validation": fitted.validation,
            "threshold": fitted.threshold,
            "rounds": fitted.booster.num_trees(),
            "features": features.blocks,
            **figures,
            **({"finetuning": tuned.history} if tuned else {}),
            "encoder_tag": encoder_tag,
            "classifier_tag": tag,
            "seed": options.seed,
        }
        replace(description, metrics=metrics).write(place)
        card = Card(
            metrics,
            data=Data.of(frame, parts),
            source=source.name,
            max_tokens=scorer.encoder.description.max_tokens,
            slices=by_slice(
                parts.test["msg"].tolist(), parts.test["label"], test_scores, fitted.threshold
            ),
            precision_at=metrics["ranking"],
            behaviour=_behave(scorer, options.behave) if options.behave else None,
            versions=installed_versions(),
            arguments=options.reproducing,
        )
        for folder in (place, models.folder(encoder_tag)):
            cards.write(folder, card)
    if tuned:
        tuned.forget()
    preview: list[FeedItem] = []
    try:
        if store:
            scores = [*scorer.classifier.score(texts, embedder.embed(texts, "embed")), *test_scores]
            marks = map(fingerprint, [*texts, *parts.test["msg"]])
            score_store(store, scorer, dict(zip(marks, scores, strict=True)))
            preview = store.feed(tag, FEED_PREVIEW).items
    finally:  # the model is saved by now, and is to have its report whatever befell the store
        metrics["seconds"] = round(time.monotonic() - started, 1)
        _write_held_out(options.report / HELD_OUT_FILE, parts.train, fitted.held_out)
        doubts = audit(parts.train, fitted.held_out, groups)
        write_report(
            options.report,
            metrics=metrics,
            labels=parts.test["label"],
            scores=test_scores,
            threshold=fitted.threshold,
            texts=parts.test["msg"].tolist(),
            identifiers=parts.test["msg_id"].tolist(),
            feed_preview=[(item.id, item.text, item.score) for item in preview],
            comparison=metrics["precision"],
            slices=card.slices,
            behaviour=card.behaviour.as_table() if card.behaviour else None,
            audit=what_if(labels, fitted.held_out, suspects(doubts), fitted.threshold),
            suspects=len(doubts),
            finetuning=metrics.get("finetuning", ()),
            card=card,
        )
        _write_metrics(options.report / METRICS_FILE, metrics)
    return metrics


def _finetune(
    source: Source, texts: Sequence[str], labels: np.ndarray, groups: np.ndarray, seed: int
) -> FineTuned:
    parts = list(fitting.folds(labels, groups, seed, finetune.FOLDS))
    return finetune.finetune(source, texts, labels, parts, seed, settings().cache)


def _export(
    source: Source, tuned: FineTuned | None, frame: pd.DataFrame, seed: int
) -> tuple[str, Embedder, dict[str, Any]]:
    """Export the encoder, choose its precision on `frame`, save it; return tag and figures too."""
    with tempfile.TemporaryDirectory(prefix="feedsieve-train-") as folder:
        encoders = export.export_encoder(
            tuned.source if tuned else source,
            Path(folder),
            frame["msg"].tolist(),
            settings().threads,
        )
        for exported in encoders.values():
            print(export.describe(exported))
        embedders = {name: Embedder(exported) for name, exported in encoders.items()}
        comparison = precision.compare(embedders, frame, seed, tuned)
        print(comparison)
        tag = export.save_encoder(Path(folder) / comparison.chosen)
    figures = {
        "precision": comparison.as_table(),
        "export": {name: exported.description.check for name, exported in encoders.items()},
    }
    return tag, embedders[comparison.chosen], figures


def score_store(store: MessageStore, scorer: Scorer, known: dict[str, float]) -> None:
    """Score what `store` holds, with a bar; `known` scores are by fingerprint."""
    with tqdm(total=store.count(), desc="score the store", unit="message") as progress:
        score_backlog(store, scorer, known, progress.update)


def _behave(scorer: Scorer, requirements: str) -> Outcome:
    with tqdm(total=len(behaviour.all_texts()), desc="behave", unit="message") as progress:
        return behaviour.run(scorer, REQUIREMENTS[requirements], progress.update)


def _open(location: str) -> MessageStore:
    with tqdm(desc="open the store", unit="message", delay=1) as bar:

        def show(taken: int) -> None:
            bar.update(taken - bar.n)

        return MessageStore.open(location, progress=show)


def _score(scorer: Scorer, texts: Sequence[str], name: str) -> np.ndarray:
    with tqdm(total=len(texts), desc=name, unit="message") as progress:
        return scorer.score(texts, progress.update)


def _write_held_out(path: Path, frame: pd.DataFrame, scores: np.ndarray) -> None:
    """Write what models that had not seen a message's label say of it."""
    marks = frame["msg"].map(fingerprint)
    table = pd.DataFrame({"msg_id": frame["msg_id"], "score": scores, "fingerprint": marks})
    with open_whole(path) as file:
        table.to_csv(file, index=False)


def _write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    with open_whole(path) as file:
        file.write(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
