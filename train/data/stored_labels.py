"""The labels in the message store, as a frame for training."""

import pandas as pd

from feedsieve.agreement import agreements
from feedsieve.errors import FeedsieveError, first_few, quote
from feedsieve.sources.columns import PLACE
from feedsieve.store.labels import ResolvedLabel, by_person
from feedsieve.store.store import MessageStore
from train.data.label_tables import warn_of_texts_with_both_labels
from train.data.validation import GROUND_TRUTH, validate

_COLUMNS = ["msg_id", "msg", "label", "labeled_at", GROUND_TRUTH, PLACE]
FEWEST_COMMON = 10  # messages in common from which the agreement of two people is printed


class NoLabels(FeedsieveError):
    """A message store without labels. The message says how they get there."""


def read_stored(store: MessageStore) -> pd.DataFrame:
    """Return the messages that people have labelled, in the form of `read_labeled`.

    `labeled_at` is when the last of those whose label counts gave it, and `ground_truth` says
    whether they checked it. Prints how far people agree,
    and leaves out those messages on which they are tied. Raises NoLabels, and InvalidData as
    `read_labeled` does.
    """
    found = store.labels()
    if not found:
        raise NoLabels(
            f"{store.location} has no labels; import some with `feedsieve labels import FILE`, pull"
            " them with `python -m labeling pull`, or name a file with --data"
        )
    rows = [_row(resolved) for resolved in found if resolved.label]
    warn_of_texts_with_both_labels(rows)
    frame = pd.DataFrame(rows, columns=_COLUMNS, dtype=str)
    print(_summary(store, found))
    return validate(frame, store.location)


def _row(resolved: ResolvedLabel) -> dict[str, str]:
    return {
        "msg_id": resolved.message.id,
        "msg": resolved.message.text,
        "label": str(int(resolved.label == "positive")),
        "labeled_at": max(vote.time for vote in resolved.deciding if vote.time).isoformat(),
        GROUND_TRUTH: str(int(any(vote.is_ground_truth for vote in resolved.deciding))),
        PLACE: "message store",
    }


def _summary(store: MessageStore, found: list[ResolvedLabel]) -> str:
    people = by_person(found)
    positive = sum(resolved.label == "positive" for resolved in found)
    lines = [
        f"{store.location}: {len(found):,} messages labelled by {len(people):,} people,"
        f" {positive:,} of them positive",
        *map(str, agreements(people, FEWEST_COMMON)),
    ]
    if tied := [quote(resolved.message.id) for resolved in found if resolved.label is None]:
        lines.append(f"left out {len(tied):,} on which people are tied: {first_few(tied)}")
    return "\n".join(lines)
