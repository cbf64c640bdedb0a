"""Weak scores from phrases, for a chat without labels."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from feedsieve.csv_writing import csv_writer
from feedsieve.errors import FeedsieveError
from feedsieve.files import open_atomically
from feedsieve.message import Message
from feedsieve.text import plain
from labeling.choose import vectors
from train.data.near_duplicates import near_duplicate_groups

COLUMNS = ("msg_id", "msg", "dummy_label")


class NoSeedWords(FeedsieveError, ValueError):
    """The phrases do not separate messages; the message says what to do."""


def holds(texts: Sequence[str], phrase: str) -> NDArray[np.bool_]:
    """Return a mask of the texts that contain the phrase at the start of a word, (texts,).

    Case, emoji and spaces are ignored: "FLAT  to rent" contains "flat to r". No text contains a
    blank phrase.
    """
    prefix = plain(phrase)
    pattern = re.compile(rf"(?<!\w){re.escape(prefix)}")
    return np.array([bool(prefix and pattern.search(plain(text))) for text in texts], dtype=bool)


def count_hits(
    texts: Sequence[str], wanted: Sequence[str], unwanted: Sequence[str]
) -> pd.DataFrame:
    """Return each `phrase`, whether it is `meant` as wanted, and the number of its `messages`."""
    rows = [
        (phrase, meant, int(holds(texts, phrase).sum()))
        for meant, phrases in (("wanted", wanted), ("unwanted", unwanted))
        for phrase in phrases
    ]
    return pd.DataFrame(rows, columns=["phrase", "meant", "messages"])


def weak_scores(
    texts: Sequence[str], wanted: Sequence[str], unwanted: Sequence[str], seed: int
) -> NDArray[np.float64]:
    """Return each text's similarity to texts with a wanted phrase, (texts,), from 0 to 1.

    A cluster of near-duplicates is wanted if more of its messages have a wanted phrase than an
    unwanted one; a message with both counts as unwanted. A logistic regression over word vectors
    separates wanted clusters from all others, which count as negative although some are not; the
    ranking is right nevertheless (Elkan and Noto, KDD 2008). Its uncalibrated probability is the
    score of all messages of a cluster.

    Raises `NoSeedWords` if no cluster is wanted, or all are.
    """
    has_wanted, has_unwanted = (
        np.any([holds(texts, phrase) for phrase in phrases] or [np.zeros(len(texts), bool)], axis=0)
        for phrases in (wanted, unwanted)
    )
    groups = near_duplicate_groups(texts)
    votes = np.bincount(groups, np.where(has_unwanted, -1, has_wanted))
    is_wanted = votes > 0
    if is_wanted.all() or not is_wanted.any():
        raise NoSeedWords(
            f"the phrases make {is_wanted.sum():,} of {len(votes):,} clusters of messages wanted: "
            "there must be some that are and some that are not; choose other phrases"
        )
    _, first = np.unique(groups, return_index=True)
    rows = vectors([texts[number] for number in first], seed)
    # Strong regularisation: it must learn the context of the phrases, not the phrases.
    model = LogisticRegression(C=0.1, class_weight="balanced")
    return model.fit(rows, is_wanted).predict_proba(rows)[:, 1][groups]


def write_scores(messages: Sequence[Message], scores: NDArray[np.float64], path: Path) -> None:
    """Write `msg_id,msg,dummy_label` atomically, highest scores first. Raises OSError.

    The column is not called `label`, so that training rejects the file: scores are not labels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_atomically(path) as file:
        table = csv_writer(file)
        table.writerow(COLUMNS)
        table.writerows(
            (messages[row].id, messages[row].text, f"{scores[row]:.4f}")
            for row in np.argsort(-scores, kind="stable")
        )
