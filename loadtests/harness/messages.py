"""Texts to measure with: an endless stream of different ones, or a chat with its repeats."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from pathlib import Path

from feedsieve.message import InvalidFile
from feedsieve.sources.readers import read_messages
from feedsieve.text import plain

SEED = 7


def read_texts(path: Path | None) -> list[str]:
    """Return the texts of a file or of the sample corpus. Raises InvalidFile, also if empty."""
    if path is None:
        from data.generate import compose  # the clients' process does not need it

        return [message.text for message in compose(4000, SEED)]  # as `make sample`
    texts = [message.text for message in read_messages(path)]
    if not texts:
        raise InvalidFile(f"{path} has no messages")
    return texts


def variations(texts: Sequence[str]) -> Iterator[str]:
    """Yield `texts` over and over with random digits and a number, so that no two are equal."""
    rng = random.Random(SEED)
    for number, text in enumerate(cycle(texts)):
        varied = re.sub(r"\d", lambda _digit: rng.choice("0123456789"), text)
        yield f"{varied} №{number}"


def different(texts: Sequence[str], run: int) -> Iterator[str]:
    """Yield variations of `texts` that differ from those of other runs, so no cache can help."""
    return (f"{text}/{run}" for text in variations(texts))


def repeating(texts: Sequence[str], run: int) -> Iterator[str]:
    """Yield `texts` over and over, with numbers so that they repeat only as in the chat."""
    return (f"{text} №{turn}/{run}" for turn in count() for text in texts)


def of_length(
    texts: Sequence[str], tokens: int, how_many: int, count_tokens: Callable[[str], int]
) -> list[str]:
    """Return texts of about `tokens` tokens each, made of the words of `texts` in order."""
    words = (word for text in cycle(texts) for word in plain(text).split())
    composed = []
    for _ in range(how_many):
        text = next(words)
        while count_tokens(text) < tokens:
            text = f"{text} {next(words)}"
        composed.append(text)
    return composed
