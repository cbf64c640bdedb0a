"""Scores all messages of the store with a new model."""

import numpy as np
from tqdm import tqdm

from feedsieve.scoring.scorer import Scorer
from feedsieve.serving.backfill import READ_AT_ONCE, backfill
from feedsieve.store.feed import FeedItem
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint
from train.classifier.save import SavedModel
from train.compute.base import LOCAL, Compute
from train.data.dataset import Dataset
from train.encoder.fit_encoder import FittedEncoder
from train.feast.feature_store import FeatureStore

FEED_PREVIEW = 20  # messages


def open_store(location: str) -> MessageStore:
    """Open the message store, with a bar while a chat dump is read. Raises StoreUnavailable."""
    with tqdm(desc="open the store", unit="message", delay=1) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        return MessageStore.open(location, progress=show)


def fill_store(
    store: MessageStore, model: SavedModel, data: Dataset, encoder: FittedEncoder, compute: Compute
) -> list[FeedItem]:
    """Score the messages of `store`, and return the first ones of the feed.

    Embeddings and scores that exist already are not computed again. Raises StoreUnavailable,
    FeaturesUnavailable and ClusterUnavailable.
    """
    scorer, texts = model.scorer, data.texts
    train_scores = scorer.score_embedded(texts, encoder.embedder.embed(texts, "embed"))
    fingerprints = map(fingerprint, [*texts, *data.test_texts])
    scores = dict(zip(fingerprints, [*train_scores, *model.test_scores], strict=True))
    if encoder.features:
        scores = _score_online(encoder.features, store, scorer) | scores
    score_store(store, scorer, scores, compute)
    return store.feed(scorer.model, FEED_PREVIEW).items


def score_store(
    store: MessageStore, scorer: Scorer, scores: dict[str, float], compute: Compute = LOCAL
) -> None:
    """Score the messages of `store`, with a bar; `scores` has known ones by fingerprint."""
    at_once = READ_AT_ONCE * compute.processes
    with tqdm(total=store.count(), desc="score the store", unit="message") as progress:
        backfill(store, scorer, scores, progress.update, at_once=at_once)


def _score_online(features: FeatureStore, store: MessageStore, scorer: Scorer) -> dict[str, float]:
    """Return scores, by fingerprint, of the texts in `store` whose embeddings are online."""
    embeddings = features.embeddings_now([post.id for post in store.posts()])
    scores: dict[str, float] = {}
    after = ""
    while batch := store.unscored(scorer.model, READ_AT_ONCE, after):
        texts = {key: text for key, text in batch if key in embeddings}
        if texts:
            rows = np.stack([embeddings[key] for key in texts])
            found = scorer.score_embedded(list(texts.values()), rows)
            scores |= zip(texts, found.tolist(), strict=True)
        after = batch[-1][0]
    return scores
