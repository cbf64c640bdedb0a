"""Features in Parquet files: each computed once, and each file there whole or not at all."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from feedsieve.store import MessageStore, Post
from feedsieve.text import fingerprint
from train.feature_store import EVENT_TIME, MESSAGE

PARTITION = 1000  # messages in a file
OF_TEXT, COMPUTED_AT = "embedded_text", "computed_at"
MOMENT = pa.timestamp("us", "UTC")

Make = Callable[[Sequence[str], Callable[[int], object]], dict[str, Any]]
"""Returns columns for texts, and tells the other argument how many more are done."""


def fill(
    folder: Path,
    store: MessageStore,
    posts: Sequence[Post],
    make: Make,
    name: str,
    partition: int = PARTITION,
) -> int:
    """Write what `folder` has not of `posts` yet, with a progress bar; return of how many messages.

    A message whose text was changed counts as a new one; what was computed before stays. A run that
    is ended loses what it computed for at most `partition` messages, those of one file. Raises
    OSError.
    """
    known = read(folder, [MESSAGE, OF_TEXT])
    pairs = set(zip(*(known[column].to_pylist() for column in (MESSAGE, OF_TEXT)), strict=True))
    missing = [post for post in posts if (post.id, post.fingerprint) not in pairs]
    with tqdm(total=len(missing), desc=name, unit="message") as progress:
        for start in range(0, len(missing), partition):
            part = missing[start : start + partition]
            texts = [message.text for post in part if (message := store.get(post.id))]
            columns = {
                MESSAGE: [post.id for post in part],
                OF_TEXT: list(map(fingerprint, texts)),
                EVENT_TIME: pa.array([post.time for post in part], MOMENT),
                COMPUTED_AT: pa.array([datetime.now(UTC)] * len(part), MOMENT),
                **make(texts, progress.update),
            }
            write(_next(folder), pa.table(columns))
    return len(missing)


def read(folder: Path, columns: Sequence[str]) -> pa.Table:
    """Return columns of all files in `folder`, of no rows if there are none. Raises OSError."""
    if not _files(folder):
        return pa.table({column: [] for column in columns})
    return pq.read_table(folder, columns=list(columns))


def write(path: Path, table: pa.Table) -> None:
    """Write a file that is there whole, or not at all; one that is there is replaced.

    Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent.with_suffix(".unfinished")  # beside the folder: all in it is read
    pq.write_table(table, unfinished)
    unfinished.replace(path)


def _next(folder: Path) -> Path:
    """Return a file that is not there, also if some that were there before are not."""
    numbers = [int(path.stem.rpartition("-")[2]) for path in _files(folder)]
    return folder / f"part-{max(numbers, default=-1) + 1:05}.parquet"


def _files(folder: Path) -> list[Path]:
    return list(folder.glob("*.parquet"))
