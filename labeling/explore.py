"""Exploration of a chat: a table of its curated messages, and word counts."""

import ibis
import pandas as pd
from ibis.backends import BaseBackend
from sklearn.feature_extraction.text import CountVectorizer
from sqlalchemy import URL, create_engine

from feedsieve.store.database import find_database
from feedsieve.store.schema import curated_messages
from feedsieve.store.store import MessageStore
from feedsieve.text import plain


def open_session(location: str) -> BaseBackend:
    """Return an Ibis session on the message store at a path or URL.

    The store itself, SQLite or PostgreSQL, runs the queries, and only results come here. New
    messages of a chat dump are imported first. Raises `StoreUnavailable`.
    """
    url = _imported(location)
    if url.get_backend_name() == "sqlite":
        return ibis.sqlite.connect(url.database)
    return ibis.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))


def read_curated(location: str) -> pd.DataFrame:
    """Return the view `curated_messages` of the store at a path or URL, one row per text.

    The columns are those of docs/data.md, and `characters`, the length of the text that models
    read. New messages of a chat dump are imported first. Raises `StoreUnavailable`.
    """
    url = _imported(location)
    engine = create_engine(url)
    try:
        frame = pd.read_sql(curated_messages.select().order_by("id"), engine)
    finally:
        engine.dispose()
    return frame.assign(characters=frame["text"].map(lambda text: len(plain(text))))


def _imported(location: str) -> URL:
    """Import the new messages of a chat dump, and return the database. Raises StoreUnavailable."""
    MessageStore.open(location).close()
    return find_database(location, None)[0]


def count_words(texts: list[str], longest: int = 2) -> pd.DataFrame:
    """Return n-grams of up to `longest` words, and the number of `messages` with each.

    The most frequent come first. The table is empty if no text has a word of two letters.
    """
    table = CountVectorizer(
        ngram_range=(1, longest), binary=True, token_pattern=r"\b[^\W\d_]{2,}\b"
    )
    try:
        counts = table.fit_transform([plain(text) for text in texts])
    except ValueError:  # no words
        return pd.DataFrame({"words": [], "messages": []})
    columns = {"words": table.get_feature_names_out(), "messages": counts.sum(axis=0).A1}
    return pd.DataFrame(columns).sort_values(["messages", "words"], ascending=[False, True])
