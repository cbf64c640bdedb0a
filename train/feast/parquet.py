"""Features in Parquet files, computed once and written atomically."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from feedsieve.store.store import MessageStore, Post
from feedsieve.text import fingerprint
from train.feast.feature_store import EVENT_TIME, MESSAGE

PARTITION = 1000  # messages per file
OF_TEXT, COMPUTED_AT = "embedded_text", "computed_at"
TIMESTAMP = pa.timestamp("us", "UTC")

Extract = Callable[[Sequence[str], Callable[[int], object]], dict[str, Any]]
"""Returns columns for texts; calls the second argument with the number of texts just done."""


def fill(
    folder: Path,
    store: MessageStore,
    posts: Sequence[Post],
    extract: Extract,
    name: str,
    partition: int = PARTITION,
) -> int:
    """Extract and write the features that `folder` lacks of `posts`; return the number of messages.

    A message whose text has changed counts as new; its earlier row stays. `name` labels the
    progress bar. An interrupted run loses at most one file of `partition` messages. Raises OSError.
    """
    table = read(folder, [MESSAGE, OF_TEXT])
    present = set(zip(*(table[column].to_pylist() for column in (MESSAGE, OF_TEXT)), strict=True))
    missing = [post for post in posts if (post.id, post.fingerprint) not in present]
    with tqdm(total=len(missing), desc=name, unit="message") as progress:
        for start in range(0, len(missing), partition):
            part = missing[start : start + partition]
            texts = [message.text for post in part if (message := store.get(post.id))]
            columns = {
                MESSAGE: [post.id for post in part],
                OF_TEXT: list(map(fingerprint, texts)),
                EVENT_TIME: pa.array([post.time for post in part], TIMESTAMP),
                COMPUTED_AT: pa.array([datetime.now(UTC)] * len(part), TIMESTAMP),
                **extract(texts, progress.update),
            }
            write(_next_file(folder), pa.table(columns))
    return len(missing)


def read(folder: Path, columns: Sequence[str]) -> pa.Table:
    """Return columns of all files in `folder`, without rows if there are none. Raises OSError."""
    if not _files(folder):
        return pa.table({column: [] for column in columns})
    return pq.read_table(folder, columns=list(columns))


def write(path: Path, table: pa.Table) -> None:
    """Write or replace a file atomically. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent.with_suffix(".unfinished")  # outside the folder, all of which is read
    pq.write_table(table, unfinished)
    unfinished.replace(path)


def _next_file(folder: Path) -> Path:
    """Return a new file name, also if earlier files are missing."""
    numbers = [int(path.stem.rpartition("-")[2]) for path in _files(folder)]
    return folder / f"part-{max(numbers, default=-1) + 1:05}.parquet"


def _files(folder: Path) -> list[Path]:
    return list(folder.glob("*.parquet"))
