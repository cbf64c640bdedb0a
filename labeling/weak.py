"""A weak score for every message before anyone has labelled one: phrases, and what is like them."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from feedsieve.files import open_whole
from feedsieve.message import Message
from feedsieve.text import plain
from labeling.choose import vectors
from train.duplicates import near_duplicate_groups

COLUMNS = ("msg_id", "msg", "dummy_label")


class NoSeeds(ValueError):
    """The phrases tell no message from another; says what to do."""


def holds(texts: Sequence[str], phrase: str) -> NDArray[np.bool_]:
    """Return which texts have the phrase where a word begins, (texts,).

    Case, emoji and spaces do not matter: "flat to r" is in "FLAT  to rent". A blank phrase is in
    none.
    """
    sought = plain(phrase)
    pattern = re.compile(rf"(?<!\w){re.escape(sought)}")
    return np.array([bool(sought and pattern.search(plain(text))) for text in texts], dtype=bool)


def count_hits(
    texts: Sequence[str], wanted: Sequence[str], unwanted: Sequence[str]
) -> pd.DataFrame:
    """Return in how many `messages` each `phrase` is, and how it is `meant`."""
    rows = [
        (phrase, meant, int(holds(texts, phrase).sum()))
        for meant, phrases in (("wanted", wanted), ("unwanted", unwanted))
        for phrase in phrases
    ]
    return pd.DataFrame(rows, columns=["phrase", "meant", "messages"])


def weak_scores(
    texts: Sequence[str], wanted: Sequence[str], unwanted: Sequence[str], seed: int
) -> NDArray[np.float64]:
    """Return how much each text is like those with a wanted phrase, (texts,), from 0 to 1.

    A cluster of near-duplicates counts as wanted if more of its messages have a wanted phrase than
    an unwanted one; a message with both has an unwanted one. A logistic regression tells wanted
    clusters from all others by their words, as if these were negative (Elkan and Noto, KDD 2008,
    say why the ranking comes out right for all that). Its probability is the score of every message
    of the cluster: not calibrated, since nobody said what is true.

    Raises `NoSeeds` if no cluster is wanted, or all are.
    """
    has_wanted, has_unwanted = (
        np.any([holds(texts, phrase) for phrase in phrases] or [np.zeros(len(texts), bool)], axis=0)
        for phrases in (wanted, unwanted)
    )
    groups = near_duplicate_groups(texts)
    votes = np.bincount(groups, np.where(has_unwanted, -1, has_wanted))
    is_wanted = votes > 0
    if is_wanted.all() or not is_wanted.any():
        raise NoSeeds(
            f"the phrases make {is_wanted.sum():,} of {len(votes):,} clusters of messages wanted: "
            "there must be some that are and some that are not; choose other phrases"
        )
    _, first = np.unique(groups, return_index=True)
    rows = vectors([texts[number] for number in first], seed)
    # So strongly regularised that it cannot learn the phrases alone, but what stands around them.
    model = LogisticRegression(C=0.1, class_weight="balanced")
    return model.fit(rows, is_wanted).predict_proba(rows)[:, 1][groups]


def write_scores(messages: Sequence[Message], scores: NDArray[np.float64], path: Path) -> None:
    """Write `msg_id,msg,dummy_label`, the highest first, whole or not at all. Raises OSError.

    The column is not called `label`, so that training refuses the file: these are no labels.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_whole(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(
            (messages[row].id, messages[row].text, f"{scores[row]:.4f}")
            for row in np.argsort(-scores, kind="stable")
        )
