"""The whole of training: labelled messages in, two models in the store and a report out."""

import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from export import pipeline as export
from export import sources
from export.reference import write_reference_scores
from export.sources import Source
from feedsieve import models
from feedsieve.backend_selection import figures as backend_figures
from feedsieve.backlog import READ_AT_ONCE, score_backlog
from feedsieve.classifier import Classifier, ClassifierDescription
from feedsieve.encoder import Encoder
from feedsieve.features import Features
from feedsieve.files import open_whole
from feedsieve.scorer import Scorer
from feedsieve.settings import settings
from feedsieve.store import FeedItem, MessageStore
from feedsieve.text import fingerprint
from train import card as cards
from train import classifier as fitting
from train import precision, stack, tracking
from train.audit import audit, suspects, what_if
from train.behaviour import checks as behaviour
from train.behaviour.outcome import Outcome
from train.behaviour.requirements import REQUIREMENTS
from train.card import Card, Data, installed_versions
from train.classifier import Fitted
from train.compute import HERE, Compute, computing
from train.data import Split, read_labeled, split
from train.distil import FEW, Student, imitate, layers_of, texts_to_imitate
from train.duplicates import near_duplicate_groups
from train.embedding import Embedder
from train.evaluate import evaluate
from train.feature_store import FeatureStore, NoFeatures
from train.finetune import FineTuned, finetune
from train.record import record, versions
from train.report import FILE as REPORT_FILE
from train.report import write_report
from train.slices import by_slice, precisions_at

METRICS_FILE = "metrics.json"
HELD_OUT_FILE = "held_out.csv"  # scores of the training part, for train.audit
REPORTED = (REPORT_FILE, METRICS_FILE, HELD_OUT_FILE)
FEED_PREVIEW = 20
EXPERIMENT = "train"  # of MLflow


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
    track: bool  # in MLflow
    features: Path | None = None  # Feast's repository, if it has the embeddings
    cluster: str | None = None  # of Dask, if this process is not to compute alone
    distil: str | None = None  # how many layers of a fine-tuned encoder to keep, or which

    @property
    def reproducing(self) -> list[str]:
        """The arguments that decide what comes out."""
        encoder = ["--encoder", sources.public_name(self.encoder)]
        flags = ["--finetune"] if self.finetune else []
        if self.distil:
            flags += ["--distil", self.distil]
        where = []
        if self.cluster:  # whose address is nobody else's
            where = ["--cluster", self.cluster if "://" not in self.cluster else "tcp://HOST:PORT"]
        chosen = ["--features"] if self.features else [*encoder, *flags]
        return [*chosen, *where, "--seed", str(self.seed)]

    @property
    def parameters(self) -> dict[str, Any]:
        """What a run in MLflow has of it."""
        chosen = fitting.PARAMETERS["finetuned" if self.finetune else "frozen"]
        return {
            "encoder": sources.public_name(self.encoder),
            "finetune": self.finetune,
            "distil": self.distil or f"{FEW} at most",
            "features": self.features is not None,
            "cluster": self.cluster is not None,
            "behave": self.behave,
            "seed": self.seed,
            **{f"lightgbm.{name}": value for name, value in chosen.items()},
        }


@dataclass(frozen=True)
class _Messages:
    """The labelled messages: what is learnt from, and what is judged on."""

    frame: pd.DataFrame
    parts: Split
    groups: np.ndarray  # of the training part's messages; near-duplicates share one
    described: Data

    @classmethod
    def read(cls, path: Path, seed: int) -> "_Messages":
        frame = read_labeled(path)
        parts = split(frame, seed)
        groups = near_duplicate_groups(parts.train["msg"].tolist(), progress=False)
        messages = cls(frame, parts, groups, Data.of(frame, parts))
        list(fitting.folds(messages.labels, groups, seed))  # too few are better known now
        return messages

    @property
    def texts(self) -> list[str]:
        """Those of the training part."""
        return self.parts.train["msg"].tolist()

    @property
    def labels(self) -> np.ndarray:
        """Those of the training part, 0 or 1."""
        return self.parts.train["label"].to_numpy()

    @property
    def test_texts(self) -> list[str]:
        return self.parts.test["msg"].tolist()


@dataclass(frozen=True)
class _Saved:
    """The pair in the model store, and what it says of the test part."""

    scorer: Scorer
    test_scores: np.ndarray
    metrics: dict[str, Any]
    card: Card


def train(options: Options) -> dict[str, Any]:
    """Train, save both models, score the message store, write the report; return the metrics.

    Raises what its steps raise: `InvalidData`, `UnknownSource`, `BadWeights`, `BadExport`,
    `RunningAlready`, `CannotKeep`, `StoreUnavailable`, `NoFeatures`, `NoModel`,
    `TrackingUnavailable`, `NoEngine`, `NoSuchLayers`, OSError.
    """
    started = time.monotonic()
    options.report.mkdir(parents=True, exist_ok=True)
    messages = _Messages.read(options.data, options.seed)
    # Opened first: a store that cannot be opened is better known now than after training.
    store = open_store(options.db) if options.db else None
    asked = options.parameters | messages.described.parameters | versions()
    with (
        computing(options.cluster) as compute,
        tracking.run(EXPERIMENT, asked) if options.track else nullcontext() as run,
    ):
        return _train(options, messages, store, run, compute, started)


def _train(
    options: Options,
    messages: _Messages,
    store: MessageStore | None,
    run: tracking.Run | None,
    compute: Compute,
    started: float,
) -> dict[str, Any]:
    texts, labels, groups = messages.texts, messages.labels, messages.groups
    tuned = held = student = None
    if options.features:
        held = FeatureStore(options.features)
        encoder_tag, embedder, figures = _recall(held, messages.parts.train, compute)
    else:
        source = sources.load(options.encoder)
        if options.finetune:
            student = _distil(source, options, messages, store)
            smaller = student.source if student else None
            tuned = finetune(source, texts, labels, groups, options.seed, settings().cache, smaller)
        encoder_tag, embedder, figures = _export(
            source, tuned, messages.parts.train, options.seed, compute
        )
        if tuned:
            figures["finetuning"] = tuned.history
        if student:
            figures["distillation"] = student.described
    embeddings = None if tuned else embedder.embed(texts, "embed")
    features, fitted = stack.fit(texts, labels, groups, embeddings, tuned, options.seed, compute)
    saved = _save(options, messages, embedder, encoder_tag, features, fitted, figures)
    if tuned:
        tuned.forget()
    if student:
        student.forget()
    preview: list[FeedItem] = []
    try:
        if store:
            preview = _fill(store, saved, messages, embedder, held, compute)
    finally:  # the model is saved by now, and is to have its report whatever befell the store
        saved.metrics["seconds"] = round(time.monotonic() - started, 1)
        _report(options.report, messages, fitted, saved, preview)
        if run:
            with run.recording():
                record(
                    run,
                    saved.metrics,
                    fingerprint=messages.described.fingerprint,
                    labels=messages.parts.test["label"].to_numpy(),
                    scores=saved.test_scores,
                    files=[options.report / name for name in REPORTED],
                )
    return saved.metrics


def _distil(
    source: Source, options: Options, messages: _Messages, store: MessageStore | None
) -> Student | None:
    """Return an encoder of the layers that were asked for, None if that is all of them.

    All texts but those of the test part teach it. Raises NoSuchLayers, RunningAlready, CannotKeep.
    """
    count = source.model.config.num_hidden_layers
    kept = layers_of(options.distil, count)
    if len(kept) == count:
        return None
    stored = [message.text for message in store.read_all()] if store else []
    texts = texts_to_imitate(messages.texts, stored, messages.test_texts, options.seed)
    return imitate(source, kept, texts, options.seed, settings().cache)


def _export(
    source: Source, tuned: FineTuned | None, frame: pd.DataFrame, seed: int, compute: Compute
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
        embedders = {
            name: Embedder(compute.encoder(exported, Path(folder) / name))
            for name, exported in encoders.items()
        }
        comparison: precision.Comparison | precision.Refused
        if encoders.int8_refused:
            comparison = precision.Refused(f"8 bits are refused: {encoders.int8_refused}")
        else:
            comparison = precision.compare(embedders, frame, seed, tuned, compute)
        print(comparison)
        tag = export.save_encoder(Path(folder) / comparison.chosen)
    figures = {
        "precision": comparison.as_table(),
        "export": {name: exported.description.check for name, exported in encoders.items()},
        "backend": backend_figures(encoders[comparison.chosen].selection),
    }
    return tag, embedders[comparison.chosen], figures


def _recall(
    features: FeatureStore, frame: pd.DataFrame, compute: Compute
) -> tuple[str, Embedder, dict[str, Any]]:
    """Return the tag of Feast's encoder, which then knows the embeddings of `frame`; figures too.

    Raises `NoFeatures` and `NoModel`.
    """
    tag = features.encoder_tag
    if features.is_finetuned:
        raise NoFeatures(
            f"the features in {features.folder} are of {tag}, which has learnt labels that training"
            " would meet again; `python -m train.features --encoder wheel` computes those of one"
            " that has not"
        )
    folder = models.folder(tag)
    embedder = Embedder(compute.encoder(Encoder(folder, settings().threads), folder))
    known = features.embeddings_as_of_labels(frame)
    embedder.remember(known)
    print(f"{len(known):,} embeddings by {tag} from {features.folder}")
    description = embedder.encoder.description
    return (
        tag,
        embedder,
        {
            "precision": {"chosen": description.precision, "reason": "that of the features"},
            "export": {description.precision: description.check},
        },
    )


def _save(
    options: Options,
    messages: _Messages,
    embedder: Embedder,
    encoder_tag: str,
    features: Features,
    fitted: Fitted,
    figures: dict[str, Any],
) -> _Saved:
    """Save the classifier, with metrics of the test part, and a card beside both models."""
    description = ClassifierDescription(
        encoder_tag=encoder_tag,
        threshold=fitted.threshold,
        start=fitted.start,
        calibration=fitted.calibration,
        cascade=fitted.cascade,
        features=features.blocks,
        metrics={},
        data_fingerprint=messages.described.fingerprint,
    )
    truth = messages.parts.test["label"]
    with models.new_model(models.CLASSIFIER) as (tag, place):
        Classifier(fitted.booster, features, description).save(place)
        if reference := embedder.encoder.reference:  # absent from encoders of earlier versions
            write_reference_scores(reference, place)
        scorer = Scorer(embedder.encoder, Classifier.load(place), tag)
        scores = _score(scorer, messages.test_texts, "test")
        metrics: dict[str, Any] = {
            "test": evaluate(truth, scores, fitted.threshold),
            "ranking": precisions_at(truth, scores),
            "validation": fitted.validation,
            "threshold": fitted.threshold,
            "rounds": fitted.booster.num_trees(),
            "features": features.blocks,
            **figures,
            "encoder_tag": encoder_tag,
            "classifier_tag": tag,
            "seed": options.seed,
        }
        replace(description, metrics=metrics).write(place)
        encoder = scorer.encoder.description
        card = Card(
            metrics,
            data=messages.described,
            source=encoder.source,
            max_tokens=encoder.max_tokens,
            slices=by_slice(messages.test_texts, truth, scores, fitted.threshold),
            precision_at=metrics["ranking"],
            behaviour=_behave(scorer, options.behave) if options.behave else None,
            versions=installed_versions(),
            arguments=options.reproducing,
        )
        cards.write(place, card)
        if not options.features:  # else it was made, and its card written, before
            cards.write(models.folder(encoder_tag), card)
    return _Saved(scorer, scores, metrics, card)


def _fill(
    store: MessageStore,
    saved: _Saved,
    messages: _Messages,
    embedder: Embedder,
    held: FeatureStore | None,
    compute: Compute,
) -> list[FeedItem]:
    """Score what `store` holds; return the first messages of the feed."""
    texts, scorer = messages.texts, saved.scorer
    scores = [*scorer.score_embedded(texts, embedder.embed(texts, "embed")), *saved.test_scores]
    marks = map(fingerprint, [*texts, *messages.test_texts])
    known = dict(zip(marks, scores, strict=True))
    if held:
        known = _score_online(held, store, scorer) | known
    score_store(store, scorer, known, compute)
    return store.feed(scorer.model, FEED_PREVIEW).items


def _report(
    folder: Path,
    messages: _Messages,
    fitted: Fitted,
    saved: _Saved,
    preview: Sequence[FeedItem],
) -> None:
    _write_held_out(folder / HELD_OUT_FILE, messages.parts.train, fitted.held_out)
    doubts = audit(messages.parts.train, fitted.held_out, messages.groups)
    metrics, card = saved.metrics, saved.card
    write_report(
        folder,
        metrics=metrics,
        labels=messages.parts.test["label"],
        scores=saved.test_scores,
        threshold=fitted.threshold,
        texts=messages.test_texts,
        identifiers=messages.parts.test["msg_id"].tolist(),
        feed_preview=[(item.id, item.text, item.score) for item in preview],
        comparison=metrics["precision"],
        slices=card.slices,
        behaviour=card.behaviour.as_table() if card.behaviour else None,
        audit=what_if(messages.labels, fitted.held_out, suspects(doubts), fitted.threshold),
        suspects=len(doubts),
        finetuning=metrics.get("finetuning", ()),
        card=card,
    )
    _write_metrics(folder / METRICS_FILE, metrics)


def score_store(
    store: MessageStore, scorer: Scorer, known: dict[str, float], compute: Compute = HERE
) -> None:
    """Score what `store` holds, with a bar; `known` scores are by fingerprint."""
    at_once = READ_AT_ONCE * compute.processes
    with tqdm(total=store.count(), desc="score the store", unit="message") as progress:
        score_backlog(store, scorer, known, progress.update, at_once=at_once)


def _score_online(features: FeatureStore, store: MessageStore, scorer: Scorer) -> dict[str, float]:
    """Return scores by fingerprint of the texts in `store` whose embeddings are online."""
    embeddings = features.embeddings_now([post.id for post in store.posts()])
    known: dict[str, float] = {}
    after = ""
    while batch := store.unscored(scorer.model, READ_AT_ONCE, after):
        texts = {mark: text for mark, text in batch if mark in embeddings}
        if texts:
            rows = np.stack([embeddings[mark] for mark in texts])
            scores = scorer.score_embedded(list(texts.values()), rows)
            known |= zip(texts, scores.tolist(), strict=True)
        after = batch[-1][0]
    return known


def _behave(scorer: Scorer, requirements: str) -> Outcome:
    with tqdm(total=len(behaviour.all_texts()), desc="behave", unit="message") as progress:
        return behaviour.run(scorer, REQUIREMENTS[requirements], progress.update)


def open_store(location: str) -> MessageStore:
    """Open the message store, with a bar while a chat dump is read. Raises StoreUnavailable."""
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
