"""`python -m train.features`: compute what Feast has not of the messages yet, and make it known."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from export import pipeline as export
from export import sources
from export.sources import FINE_TUNED
from feedsieve import models, text, traits
from feedsieve.encoder import Encoder, EncoderDescription
from feedsieve.files import one_run_at_a_time, open_whole
from feedsieve.settings import settings
from feedsieve.store import MessageStore, Post
from train import command
from train.compute import HERE, Compute, computing
from train.embedding import traits_of
from train.feature_store import (
    COPIES,
    EMBEDDING,
    EVENT_TIME,
    MISSING,
    REPOSITORY,
    TEXT,
    TRAITS,
    FeatureStore,
    NoFeatures,
)  # fmt: skip
from train.pipeline import open_store

try:
    import pyarrow as pa
    import pyarrow.compute as pc

    from train import parquet
    from train.parquet import COMPUTED_AT, MOMENT
except ImportError as error:  # an extra
    sys.exit(f"train.features: {MISSING} ({error})")

CHECKED_ON = 1000  # messages, if an encoder has to be exported first


@dataclass(frozen=True)
class Computed:
    """What a run did: by which encoder, for how many messages, how many of them new to a view."""

    encoder: str
    messages: int
    new: Mapping[str, int]


def compute(db: str, encoder: str | None, repository: Path, where: Compute = HERE) -> Computed:
    """Bring the features of all messages in `db` up to date, offline and online.

    `encoder` is a tag in the model store or a source to export; by default it is the encoder of the
    current model, else the newest in the model store, else that of the wheel. Raises NoFeatures,
    RunningAlready, StoreUnavailable, NoModel, NoEngine, OSError and what `export` raises.
    """
    features = FeatureStore(repository)
    store = open_store(db)
    posts = store.posts()
    if not posts:
        raise NoFeatures(f"{store.location} has no messages; `feedsieve import` brings some in")
    place = features.folder / ".feast"
    with one_run_at_a_time(place):
        tag = _find_encoder(encoder, store, posts)
        print(f"encoder: {tag}")
        files = models.folder(tag)
        encode = where.encoder(Encoder(files, settings().threads), files).encode

        def embeddings(texts: Sequence[str], progress: Callable[[int], object]) -> dict[str, Any]:
            return {"embedding": list(encode(texts, progress)), "encoder": [tag] * len(texts)}

        def named(texts: Sequence[str], progress: Callable[[int], object]) -> dict[str, Any]:
            table = traits_of(texts, where)
            progress(len(texts))
            return dict(zip(traits.TRAITS, table.T, strict=True))

        partition = parquet.PARTITION * where.processes  # as long as one process takes for one
        makers = {
            EMBEDDING: (tag.partition(":")[2], embeddings),
            TRAITS: (_code(traits, text), named),
        }
        folders = {view: place / view / version for view, (version, _make) in makers.items()}
        new = {
            view: parquet.fill(folders[view], store, posts, make, view, partition)
            for view, (_version, make) in makers.items()
        }
        parquet.write(place / COPIES / "part-00000.parquet", _copies(posts))
        _write_current(features.folder, tag, folders | {COPIES: place / COPIES})
        moved = features.apply()
        for view, folder in folders.items():
            until = None if view in moved else features.materialized_until(view)
            if since := _oldest(folder, until):
                features.materialize(view, since)
    return Computed(tag, len(posts), new)


def _find_encoder(given: str | None, store: MessageStore, posts: Sequence[Post]) -> str:
    """Return the tag of the encoder to use, which is in the model store by then."""
    if given is None:
        with suppress(models.NoModel):
            return models.find_pair(settings().model)[1]
        with suppress(models.NoModel):
            return _exact(models.ENCODER)
        given = "wheel"
    if given.partition(":")[0] == models.ENCODER:
        return _exact(given)
    texts = [message.text for post in posts[:CHECKED_ON] if (message := store.get(post.id))]
    with tempfile.TemporaryDirectory(prefix="feedsieve-features-") as folder:
        source = sources.load(given)
        exported = export.export_encoder(source, Path(folder), texts, settings().threads).fastest
        print(export.describe(exported))
        return export.save_encoder(exported.folder)


def _exact(tag: str) -> str:
    return f"{models.ENCODER}:{models.folder(tag).name}"


def has_learnt_labels(encoder: Path) -> bool:
    """Return whether the exported encoder in a folder has, so that its embeddings tell them."""
    return EncoderDescription.read(encoder).source.endswith(FINE_TUNED)


def _code(*modules: ModuleType) -> str:
    """Return hexadecimal digits that change with the code of `modules`."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    return blake2b(code, digest_size=8).hexdigest()


def _copies(posts: Sequence[Post]) -> pa.Table:
    """Return how often each text had been posted at each time that it was; `posts` are in order."""
    table = pd.DataFrame(
        {TEXT: [post.fingerprint for post in posts], EVENT_TIME: [post.time for post in posts]},
        dtype=object,  # times of any year
    )
    table["copies so far"] = table.groupby(TEXT).cumcount() + 1
    table = table.drop_duplicates([TEXT, EVENT_TIME], keep="last")
    return pa.table(
        {
            TEXT: table[TEXT].tolist(),
            EVENT_TIME: pa.array(table[EVENT_TIME].tolist(), MOMENT),
            COMPUTED_AT: pa.array([datetime.now(UTC)] * len(table), MOMENT),
            "copies so far": table["copies so far"].tolist(),
        }
    )


def _write_current(repository: Path, encoder_tag: str, folders: Mapping[str, Path]) -> None:
    """Write what definitions.py reads."""
    current = {
        "encoder": encoder_tag,
        "finetuned": has_learnt_labels(models.folder(encoder_tag)),
        "folders": {view: str(path.relative_to(repository)) for view, path in folders.items()},
    }
    with open_whole(repository / ".feast" / "current.json") as file:
        file.write(json.dumps(current, indent=2) + "\n")


def _oldest(folder: Path, until: datetime | None) -> datetime | None:
    """Return the oldest event time of what was computed after `until`, None if nothing was.

    Messages are imported in any order, so what is new may be older than all that is online.
    """
    table = parquet.read(folder, [EVENT_TIME, COMPUTED_AT])
    if until:
        table = table.filter(pc.field(COMPUTED_AT) > pa.scalar(until, MOMENT))
    return pc.min(table[EVENT_TIME]).as_py()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if something is amiss."""
    options = _parser().parse_args(arguments)
    return command.run("train.features", options.repo, lambda: _features(options))


def _features(options: argparse.Namespace) -> None:
    with computing(options.cluster) as where:
        done = compute(options.db or settings().db, options.encoder, options.repo, where)
    new = ", ".join(f"{view} of {count:,}" for view, count in done.new.items())
    print(f"{done.messages:,} messages have features by {done.encoder}; computed now: {new}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.features",
        description="Compute the features that Feast has not of the messages yet, write them to"
        " Parquet, apply the definitions and copy what is new into the online store. A run that"
        " was ended goes on where it was.",
    )
    parser.add_argument("--db", metavar="MESSAGES.db", help="message store (default: FEEDSIEVE_DB)")
    parser.add_argument(
        "--encoder",
        metavar="ENCODER",
        help="a tag of the model store, or a source to export as of python -m train; the default"
        " is the encoder of the current model, else the newest, else that of the wheel",
    )
    parser.add_argument(
        "--repo",
        type=Path,
        default=REPOSITORY,
        metavar="DIR",
        help="the folder of Feast's settings and definitions (%(default)s)",
    )
    command.add_cluster(parser, "its workers embed messages and compute traits")
    return parser


if __name__ == "__main__":
    sys.exit(main())
