"""`python -m labeling.next`: writes the batch of messages that is to be labelled next."""

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

from feedsieve.backlog import score_backlog
from feedsieve.files import UnwritableFile
from feedsieve.message import Message, StoreUnavailable
from feedsieve.models import NoModel, load_scorer
from feedsieve.settings import InvalidSettings, settings
from feedsieve.store import MessageStore
from feedsieve.text import fingerprint, storable
from labeling.batch import BadBatch, Item, write_batch
from labeling.choose import candidates, choose, doubt, vectors
from train.data import InvalidData, read_rows
from train.duplicates import near_duplicate_groups
from train.failures import in_one_line

_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Scores:
    """What the current model says of the messages of a store."""

    model: str
    threshold: float
    by_fingerprint: dict[str, float]


def in_time(messages: Sequence[Message]) -> list[Message]:
    """Return messages by time; those without one first, by identifier, its numbers as numbers."""
    beginning = datetime.min.replace(tzinfo=UTC)

    def place(message: Message) -> tuple[datetime, list[tuple[int, str]]]:
        pieces = _DIGITS.split(message.id)
        return message.time or beginning, [
            (int(piece), "") if piece.isdecimal() and piece.isascii() else (-1, piece)
            for piece in pieces
        ]

    return sorted(messages, key=place)


def next_batch(
    messages: Sequence[Message],
    labeled: Sequence[str],
    count: int,
    seed: int,
    by: str = "model",
    scores: Scores | None = None,
) -> list[Item]:
    """Return up to `count` messages to label, with their scores if there are any.

    No two are near-duplicates, and none is one of a text in `labeled`. `by` is "time", or "model":
    what `choose` makes of the scores, or of the texts alone while there is no model.
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
    """Write a batch; return 0, or 1 after one line on stderr that says what failed."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    failures = (BadBatch, InvalidData, StoreUnavailable, InvalidSettings, NoModel, UnwritableFile)
    return in_one_line("labeling.next", lambda: _run(options), failures)


def _run(options: argparse.Namespace) -> None:
    if options.out.exists() and not options.force:
        raise UnwritableFile(
            f"{options.out} is there already and was left as it is; name another file, or --force"
        )
    labeled = labeled_texts(options.labeled)
    db = options.db or settings().db
    messages = (store := MessageStore.open(db)).read_all()
    if not messages:
        raise BadBatch(f"{db} has no messages; `feedsieve import` brings them in")
    scores = None
    if options.by == "model":
        scores = current_scores(store)
    batch = next_batch(messages, labeled, options.count, options.seed, options.by, scores)
    write_batch(batch, options.out)
    how = "in order of time"
    if options.by == "model":
        how = f"by the doubts of {scores.model}" if scores else "for variety: there is no model yet"
    print(f"{options.out}: {len(batch):,} of {len(messages):,} messages, chosen {how}")
    if len(batch) < options.count:
        print("there are no more that are not labelled, nor near-duplicates of what is")


def labeled_texts(path: Path | None) -> list[str]:
    """Return the texts that have labels; none, after saying so, if there is no such file.

    It may be whatever training reads. Raises `InvalidData`.
    """
    if path is None:
        return []
    if not path.exists():
        print(f"{path} is not there: no message counts as labelled")
        return []
    columns, rows, problems = read_rows(path)
    if problems:
        raise InvalidData(path, problems)
    if not rows and "msg" not in columns:
        raise InvalidData(path, ["missing columns: msg"])
    return [storable(row["msg"]) for row in rows if row.get("msg")]


def current_scores(store: MessageStore) -> Scores | None:
    """Return what the current model says, after it scored what it had not; None without one."""
    try:
        scorer = load_scorer(settings().model, settings().threads)
    except NoModel:
        return None
    with tqdm(desc="score", unit=" messages") as progress:
        score_backlog(store, scorer, progress=progress.update)
    return Scores(scorer.model, scorer.threshold, store.scores_by(scorer.model))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling.next",
        description="Choose the messages to label next: those that the current model doubts,"
        " unlike one another; before there is a model, those that represent all of them. No"
        " near-duplicate of a labelled message is among them, nor of one another.",
    )
    parser.add_argument(
        "--db", metavar="MESSAGES.db", help="message store or chat dump (FEEDSIEVE_DB)"
    )
    parser.add_argument(
        "--labeled", type=Path, metavar="LABELED.csv", help="what is labelled, as training reads it"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/batch.csv"),
        metavar="BATCH.csv",
        help="where the batch goes (%(default)s)",
    )
    parser.add_argument(
        "--count", type=_positive, default=200, help="how many messages (%(default)s)"
    )
    parser.add_argument(
        "--by",
        choices=("model", "time"),
        default="model",
        help="by what the current model doubts, or in order of time (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=7, help="same seed, same batch (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace BATCH.csv if it is there")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
