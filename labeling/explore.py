"""What a chat consists of: its curated messages as a table, and the words that they are made of."""

import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer
from sqlalchemy import create_engine

from feedsieve.database import find_database
from feedsieve.schema import curated_messages
from feedsieve.store import MessageStore
from feedsieve.text import plain


def read_curated(location: str) -> pd.DataFrame:
    """Return the view `curated_messages` of the store at a path or URL: a row for each text.

    The columns are those of docs/data.md, and `characters`, the length of what models read. What
    a chat dump has new is imported first. Raises `StoreUnavailable`.
    """
    MessageStore.open(location).close()
    url, _ = find_database(location, None)
    engine = create_engine(url)
    try:
        frame = pd.read_sql(curated_messages.select().order_by("id"), engine)
    finally:
        engine.dispose()
    return frame.assign(characters=frame["text"].map(lambda text: len(plain(text))))


def count_words(texts: list[str], longest: int = 2) -> pd.DataFrame:
    """Return `words`, runs of up to `longest` of them, and in how many `messages` they occur.

    The most frequent come first. There are none if no text has a word of two letters.
    """
    table = CountVectorizer(
        ngram_range=(1, longest), binary=True, token_pattern=r"\b[^\W\d_]{2,}\b"
    )
    try:
        counts = table.fit_transform([plain(text) for text in texts])
    except ValueError:  # no words at all
        return pd.DataFrame({"words": [], "messages": []})
    found = {"words": table.get_feature_names_out(), "messages": counts.sum(axis=0).A1}
    return pd.DataFrame(found).sort_values(["messages", "words"], ascending=[False, True])
