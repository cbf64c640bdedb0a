"""The data of a command that is given none: your own as soon as there is some, else the sample."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pandas as pd

from feedsieve.errors import FeedsieveError
from feedsieve.settings import OWN_DB, OWN_LABELS, SAMPLE_FOLDER, in_sample_folder, settings
from feedsieve.store.database import without_password
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint
from train.data.labelled import read_labeled, read_rows
from train.data.stored_labels import read_stored

# SHA-256 of the labels that `data.generate` writes, the newest first. Former versions wrote them
# into data/, where somebody's messages may be by now.
SAMPLE_DIGESTS = (
    "f8c471599cddd1786a68bc7ba145075160b01798de543acb7a24f571b4aea490",
    "4e7512c7222a8f52a63b3173681ec7f1051e8107d3b284e826e2ecd2d954528d",
)
SAMPLE_MESSAGES = 4000


class NoData(FeedsieveError):
    """There are neither own messages or labels nor the sample; the message says what to do."""


class LabelsOfOthers(FeedsieveError, ValueError):
    """Labels of other messages than those of the store; the message says what to do."""


@dataclass(frozen=True)
class Chosen:
    """A message store, and the file of labels beside it if there is one."""

    db: str
    labels: Path | None  # without it, the labels in the store are the data
    is_sample: bool

    def __str__(self) -> str:
        labels = f"labels of {self.labels}" if self.labels else "the labels in it"
        return f"{self.whose}: messages of {without_password(self.db)}, {labels}"

    @property
    def whose(self) -> str:
        return "the sample chat" if self.is_sample else "your own data"

    @property
    def folder(self) -> Path:
        """Where commands write what they make of this data: `data/` or `data/sample/`."""
        return SAMPLE_FOLDER if in_sample_folder(self.db) else OWN_LABELS.parent

    def read_labels(self) -> pd.DataFrame:
        """Return the labelled messages, as `read_labeled` does.

        Raises NoLabels, InvalidData and StoreUnavailable.
        """
        if self.labels:
            return read_labeled(self.labels)
        return read_stored(MessageStore.open(self.db))


def chosen(db: str | None = None, *, may_be_new: bool = False) -> Chosen:
    """Return the store of the settings and the labels beside it, or just the store `db`.

    Raises NoData if there is none of them, unless the store `may_be_new`: an empty one would be the
    user's own, and the sample not used any more. Raises LabelsOfOthers, StoreUnavailable and
    InvalidData.
    """
    if db:
        return Chosen(db, None, in_sample_folder(db))
    if not (may_be_new or settings().has_own_data or settings().is_sample):
        raise NoData(
            f"there is no data: neither {OWN_DB} nor {OWN_LABELS} nor the sample chat in"
            f" {SAMPLE_FOLDER}/; `feedsieve import FILE` brings messages in, and `python -m"
            " data.generate` makes the sample"
        )
    place, in_sample = settings().db, settings().is_sample
    labels = SAMPLE_FOLDER / OWN_LABELS.name if in_sample else OWN_LABELS
    is_beside = in_sample or Path(place) == Path(OWN_DB)  # other stores have their labels in them
    if not is_beside or not labels.exists():
        return Chosen(place, None, in_sample)
    is_sample = in_sample or _are_of_sample(labels, MessageStore.open(place))
    return Chosen(place, labels, is_sample)


def _are_of_sample(labels: Path, store: MessageStore) -> bool:
    """Return whether labels and store are both the sample, as former versions left them in data/.

    Raises LabelsOfOthers if one is and the other is not, or if most labels that have a message's
    identifier have another text.
    """
    is_sample = sha256(labels.read_bytes()).hexdigest() in SAMPLE_DIGESTS
    _columns, rows, _problems = read_rows(labels)
    texts = {post.id: post.fingerprint for post in store.posts()}
    same = [
        texts[identifier] == fingerprint(row.get("msg", ""))
        for row in rows
        if (identifier := row.get("msg_id", "").strip()) in texts
    ]
    way_out = (
        f"move it to {SAMPLE_FOLDER}/, or name your labels and messages with --data and --db where"
        " the command has them"
    )
    if sum(same) * 2 < len(same):
        raise LabelsOfOthers(
            f"{labels} has labels of other messages than {store.location}: of {len(same):,} with an"
            f" identifier that is in both, {len(same) - sum(same):,} have another text; {way_out}"
        )
    if is_sample and (not any(same) or len(texts) > SAMPLE_MESSAGES):
        raise LabelsOfOthers(
            f"{labels} has the invented labels of the sample, and {store.location} has other"
            f" messages; {way_out}"
        )
    return is_sample
