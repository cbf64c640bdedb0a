"""`python -m labeling.next`: write a batch of messages to label next."""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from tqdm import tqdm

from feedsieve.command import run_command
from feedsieve.files import UnwritableFile
from feedsieve.message import Message
from feedsieve.scoring.model_store import ModelNotFound, load_scorer
from feedsieve.serving.backfill import backfill
from feedsieve.settings import settings
from feedsieve.store.database import without_password
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint, storable
from labeling.batch import InvalidBatch, Item, write_batch
from labeling.choose import candidates, choose, doubt, vectors
from train.data.chosen import Chosen, chosen
from train.data.labelled import read_rows
from train.data.near_duplicates import near_duplicate_groups
from train.data.usable_model import ModelOfSample, usable_model
from train.data.validation import InvalidData

BATCH = "batch.csv"
_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Scores:
    """The current model's scores of the messages in a store."""

    model: str
    threshold: float
    by_fingerprint: dict[str, float]


def in_time(messages: Sequence[Message]) -> list[Message]:
    """Return messages by time, those without one first, in natural order of identifiers."""
    beginning = datetime.min.replace(tzinfo=UTC)

    def key(message: Message) -> tuple[datetime, list[tuple[int, str]]]:
        pieces = _DIGITS.split(message.id)
        return message.time or beginning, [
            (int(piece), "") if piece.isdecimal() and piece.isascii() else (-1, piece)
            for piece in pieces
        ]

    return sorted(messages, key=key)


def next_batch(
    messages: Sequence[Message],
    labeled: Sequence[str],
    count: int,
    seed: int,
    by: str = "model",
    scores: Scores | None = None,
) -> list[Item]:
    """Return up to `count` messages to label, with scores if there are any.

    None is a near-duplicate of another or of a text in `labeled`. `by` is "time" or "model"; the
    latter chooses by `scores`, or for variety without them.
    """
    ordered = in_time(messages)
    texts = [*labeled, *(message.text for message in ordered)]
    groups = near_duplicate_groups(texts)
    pool = candidates(groups, np.arange(len(texts)) < len(labeled))
    known = scores.by_fingerprint if scores else {}
    values = np.array([known.get(fingerprint(message.text), np.nan) for message in ordered])
    if by == "time" or len(pool) <= count:
        rows = pool[:count]
    else:
        doubts = None
        if scores:
            doubts = np.full(len(texts), -np.inf)
            doubts[len(labeled) :] = doubt(values, scores.threshold)
        rows = choose(pool, vectors(texts, seed), count, seed, doubts)
    return [
        Item(message.id, message.text, None if np.isnan(score) else float(score), model)
        for message, score, model in (
            (ordered[row], values[row], scores.model if scores else "")
            for row in (rows - len(labeled)).tolist()
        )
    ]


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    return run_command("labeling.next", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    data = chosen(options.db)
    print(f"on {data.whose}: messages of {without_password(data.db)}")
    out = options.out or data.folder / BATCH
    if out.exists() and not options.force:
        raise UnwritableFile(f"{out} already exists; name another file, or use --force")
    messages = (store := MessageStore.open(data.db)).read_all()
    if not messages:
        raise InvalidBatch(f"{store.location} has no messages; `feedsieve import` adds some")
    labeled = known_texts(store, options.labeled or data.labels)
    scores = None
    if options.by == "model":
        scores = current_scores(store, data)
    batch = next_batch(messages, labeled, options.count, options.seed, options.by, scores)
    write_batch(batch, out)
    how = "for variety: there is no model yet"
    if options.by == "time":
        how = "in order of time"
    elif scores:
        how = f"by uncertainty of {scores.model}"
    print(f"{out}: {len(batch):,} of {len(messages):,} messages, chosen {how}")
    if len(batch) < options.count:
        print("all other messages are labelled or near-duplicates of labelled ones")


def known_texts(store: MessageStore, path: Path | None) -> list[str]:
    """Return the labelled texts of a file and of the store. Raises `InvalidData`."""
    labeled = labeled_texts(path)
    known = set(labeled)
    stored = [label.message.text for label in store.labels()]
    return labeled + [text for text in stored if text not in known]


def labeled_texts(path: Path | None) -> list[str]:
    """Return the labelled texts of a file that training can read; none if it does not exist.

    Raises `InvalidData`.
    """
    if path is None:
        return []
    if not path.exists():
        print(f"{path} does not exist: no message counts as labelled")
        return []
    columns, rows, problems = read_rows(path)
    if problems:
        raise InvalidData(path, problems)
    if not rows and "msg" not in columns:
        raise InvalidData(path, ["missing columns: msg"])
    return [storable(row["msg"]) for row in rows if row.get("msg")]


def current_scores(store: MessageStore, data: Chosen) -> Scores | None:
    """Score new messages and return all scores of the current model, or None without a model.

    A model of the sample chat is none for other `data`; that is printed.
    """
    try:
        scorer = load_scorer(usable_model(data), settings().threads)
    except ModelOfSample as error:
        print(error)
        return None
    except ModelNotFound:
        return None
    with tqdm(desc="score", unit=" messages") as progress:
        backfill(store, scorer, progress=progress.update)
    return Scores(scorer.model, scorer.threshold, store.scores_by(scorer.model))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling.next",
        description="Choose the messages to label next: mostly those about which the champion, or"
        " without one the newest model, is uncertain, or without a model a variety. Near-duplicates"
        " of labelled messages and of"
        " each other are left out.",
    )
    parser.add_argument(
        "--db", metavar="MESSAGES.db", help="message store or chat dump (FEEDSIEVE_DB)"
    )
    parser.add_argument(
        "--labeled",
        type=Path,
        metavar="LABELED.csv",
        help="labels beside those in the store; their messages are not chosen again (those of your"
        " own data in data/, or of the sample, unless --db names a store)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="BATCH.csv",
        help=f"the batch (data/{BATCH}; of the sample: data/sample/{BATCH})",
    )
    parser.add_argument(
        "--count", type=_positive, default=200, help="number of messages (%(default)s)"
    )
    parser.add_argument(
        "--by",
        choices=("model", "time"),
        default="model",
        help="model: mostly uncertain messages, or a variety if there is no model; time: the oldest"
        " (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=7, help="same seed, same batch (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace an existing BATCH.csv")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
