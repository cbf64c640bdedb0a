"""Which texts are measured: different ones without end, or a chat that repeats as chats do."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

from feedsieve.message import UnreadableFile
from feedsieve.readers import read_messages
from feedsieve.text import plain

SAMPLE = 4000  # messages of the sample corpus, as `make sample` writes them
SEED = 7
CountTokens = Callable[[Sequence[str]], list[int]]


def read_texts(path: Path | None) -> list[str]:
    """Return the texts of a file in its order; without one, of the sample corpus.

    Raises UnreadableFile, also if there are none.
    """
    if path is None:
        from data.generate import compose  # the clients' process has no use for it

        return [message.text for message in compose(SAMPLE, SEED)]
    texts = [message.text for message in read_messages(path)]
    if not texts:
        raise UnreadableFile(f"{path}: expected messages, and there are none")
    return texts


def variations(texts: Sequence[str]) -> Iterator[str]:
    """Yield `texts` over and over, with other digits and a number, so that no two are the same."""
    rng = random.Random(SEED)
    for number in count():
        varied = re.sub(r"\d", lambda _digit: rng.choice("0123456789"), texts[number % len(texts)])
        yield f"{varied} №{number}"


def different(texts: Sequence[str], run: int) -> Iterator[str]:
    """Yield variations of `texts` that no other run has: no cache can help."""
    return (f"{text}/{run}" for text in variations(texts))


def repeating(texts: Sequence[str], run: int) -> Iterator[str]:
    """Yield `texts` in their order, over and over, each time round and each run marked.

    So a text comes again as often, and after as many others, as it does in the chat, and never
    because the chat has ended and begins anew.
    """
    for turn in count():
        for text in texts:
            yield f"{text} №{turn}/{run}"


def of_length(
    texts: Sequence[str], tokens: int, how_many: int, count_tokens: CountTokens
) -> list[str]:
    """Return texts of about `tokens` tokens each, made of the words of `texts` in their order.

    `count_tokens` says how many tokens the encoder reads of each text.
    """
    words = (word for turn in count() for word in plain(texts[turn % len(texts)]).split())
    made = []
    for _ in range(how_many):
        text = next(words)
        while count_tokens([text])[0] < tokens:
            text = f"{text} {next(words)}"
        made.append(text)
    return made
