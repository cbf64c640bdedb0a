"""`python -m train.features`: compute features of stored messages and publish them in Feast."""

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
from feedsieve import text
from feedsieve.command import run_command
from feedsieve.files import one_run_at_a_time, open_atomically
from feedsieve.scoring import handcrafted, model_store
from feedsieve.scoring.encoder import Encoder, EncoderDescription
from feedsieve.settings import settings
from feedsieve.store.store import MessageStore, Post
from train.classifier.handcrafted import handcrafted_features
from train.cli.arguments import add_cluster
from train.compute.base import LOCAL, Compute
from train.compute.choose import computing
from train.data.chosen import chosen
from train.feast.feature_store import (
    COPIES,
    EMBEDDING,
    EVENT_TIME,
    HANDCRAFTED_VIEW,
    MISSING,
    REPOSITORY,
    TEXT,
    FeatureStore,
    FeaturesUnavailable,
)
from train.fill_store import open_store

try:
    import pyarrow as pa
    import pyarrow.compute as pc

    from train.feast import parquet
    from train.feast.parquet import COMPUTED_AT, TIMESTAMP
except ImportError as error:  # an optional dependency
    sys.exit(f"train.features: {MISSING} ({error})")

CHECKED_MESSAGES = 1000  # for checking an encoder that is exported here


@dataclass(frozen=True)
class Computed:
    """The outcome of a run."""

    encoder: str  # its tag
    messages: int
    new: Mapping[str, int]  # messages computed, by view


def compute(db: str, encoder: str | None, repository: Path, where: Compute = LOCAL) -> Computed:
    """Bring the features of all messages in `db` up to date, offline and online.

    `encoder` is a tag in the model store or a source to export. The default is the encoder of the
    current model, else the newest in the model store, else the wheel's.

    Raises FeaturesUnavailable, AlreadyRunning, StoreUnavailable, ModelNotFound, ClusterUnavailable,
    OSError, and what `export` raises.
    """
    features = FeatureStore(repository)
    store = open_store(db)
    posts = store.posts()
    if not posts:
        raise FeaturesUnavailable(
            f"{store.location} has no messages; import some with `feedsieve import`"
        )
    folder = features.folder / ".feast"
    with one_run_at_a_time(folder):
        tag = _find_encoder(encoder, store, posts)
        print(f"encoder: {tag}")
        model = model_store.folder(tag)
        encode = where.encoder(Encoder(model, settings().threads), model).encode

        def embed(texts: Sequence[str], progress: Callable[[int], object]) -> dict[str, Any]:
            return {"embedding": list(encode(texts, progress)), "encoder": [tag] * len(texts)}

        def extract(texts: Sequence[str], progress: Callable[[int], object]) -> dict[str, Any]:
            columns = handcrafted_features(texts, where).T
            progress(len(texts))
            return dict(zip(handcrafted.HANDCRAFTED, columns, strict=True))

        partition = parquet.PARTITION * where.processes  # the time per file stays the same
        functions = {EMBEDDING: embed, HANDCRAFTED_VIEW: extract}
        folders = {
            EMBEDDING: folder / EMBEDDING / tag.partition(":")[2],
            HANDCRAFTED_VIEW: folder / HANDCRAFTED_VIEW / _code_version(handcrafted, text),
        }
        new = {
            view: parquet.fill(folders[view], store, posts, function, view, partition)
            for view, function in functions.items()
        }
        parquet.write(folder / COPIES / "part-00000.parquet", _count_copies(posts))
        _write_current(features.folder, tag, folders | {COPIES: folder / COPIES})
        changed = features.apply()
        for view, files in folders.items():
            until = None if view in changed else features.materialized_until(view)
            if since := _oldest_event(files, until):
                features.materialize(view, since)
    return Computed(tag, len(posts), new)


def _find_encoder(encoder: str | None, store: MessageStore, posts: Sequence[Post]) -> str:
    """Return the tag of the encoder to use, exported into the model store if need be."""
    if encoder is None:
        with suppress(model_store.ModelNotFound):
            return model_store.find_pair(settings().model)[1]
        with suppress(model_store.ModelNotFound):
            return _resolve(model_store.ENCODER)
        encoder = "wheel"
    if encoder.partition(":")[0] == model_store.ENCODER:
        return _resolve(encoder)
    texts = [message.text for post in posts[:CHECKED_MESSAGES] if (message := store.get(post.id))]
    with tempfile.TemporaryDirectory(prefix="feedsieve-features-") as folder:
        source = sources.load(encoder)
        exported = export.export_encoder(source, Path(folder), texts, settings().threads).fastest
        print(export.describe(exported))
        return export.save_encoder(exported.folder)


def _resolve(tag: str) -> str:
    """Return the tag with its version."""
    return f"{model_store.ENCODER}:{model_store.folder(tag).name}"


def is_finetuned(encoder: Path) -> bool:
    """Return whether the exported encoder was trained on labels, so that embeddings leak them."""
    return EncoderDescription.read(encoder).source.endswith(FINE_TUNED)


def _code_version(*modules: ModuleType) -> str:
    """Return a hexadecimal digest of the code of `modules`."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in modules)
    return blake2b(code, digest_size=8).hexdigest()


def _count_copies(posts: Sequence[Post]) -> pa.Table:
    """Return the number of copies of each text so far, at each time it was posted."""
    table = pd.DataFrame(
        {TEXT: [post.fingerprint for post in posts], EVENT_TIME: [post.time for post in posts]},
        dtype=object,  # pandas' own timestamps do not cover all years
    )
    table["copies so far"] = table.groupby(TEXT).cumcount() + 1
    table = table.drop_duplicates([TEXT, EVENT_TIME], keep="last")
    return pa.table(
        {
            TEXT: table[TEXT].tolist(),
            EVENT_TIME: pa.array(table[EVENT_TIME].tolist(), TIMESTAMP),
            COMPUTED_AT: pa.array([datetime.now(UTC)] * len(table), TIMESTAMP),
            "copies so far": table["copies so far"].tolist(),
        }
    )


def _write_current(repository: Path, encoder_tag: str, folders: Mapping[str, Path]) -> None:
    """Write the file that definitions.py reads."""
    current = {
        "encoder": encoder_tag,
        "finetuned": is_finetuned(model_store.folder(encoder_tag)),
        "folders": {view: str(path.relative_to(repository)) for view, path in folders.items()},
    }
    with open_atomically(repository / ".feast" / "current.json") as file:
        file.write(json.dumps(current, indent=2) + "\n")


def _oldest_event(folder: Path, until: datetime | None) -> datetime | None:
    """Return the oldest event time among rows computed after `until`; None if there are none.

    Messages are imported in any order, so new rows may be older than all that is online.
    """
    table = parquet.read(folder, [EVENT_TIME, COMPUTED_AT])
    if until:
        table = table.filter(pc.field(COMPUTED_AT) > pa.scalar(until, TIMESTAMP))
    return pc.min(table[EVENT_TIME]).as_py()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    return run_command("train.features", lambda: _features(options), options.repo or REPOSITORY)


def _features(options: argparse.Namespace) -> None:
    data = chosen(options.db)
    repository = options.repo or settings().features or REPOSITORY
    print(f"on {data}")
    with computing(options.cluster) as where:
        done = compute(data.db, options.encoder, repository, where)
    new = ", ".join(f"{view} of {count:,}" for view, count in done.new.items())
    print(f"{done.messages:,} messages have features by {done.encoder}; computed now: {new}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.features",
        description="Compute the features that messages lack, write them to Parquet, apply Feast's"
        " definitions and copy new features into the online store. An interrupted run resumes.",
    )
    parser.add_argument(
        "--db",
        metavar="MESSAGES.db",
        help="message store (default: FEEDSIEVE_DB, your own or else the sample's)",
    )
    parser.add_argument(
        "--encoder",
        metavar="ENCODER",
        help="a tag in the model store, or a source to export (see python -m train). Default: the"
        " encoder of the current model, else the newest, else the wheel's",
    )
    parser.add_argument(
        "--repo",
        type=Path,
        metavar="DIR",
        help=f"the Feast repository (FEEDSIEVE_FEATURES, or {REPOSITORY})",
    )
    add_cluster(parser, "its workers embed messages and compute handcrafted features")
    return parser


if __name__ == "__main__":
    sys.exit(main())
