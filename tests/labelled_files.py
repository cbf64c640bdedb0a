"""Files of labelled messages, for tests of reading and splitting."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from train.data.labelled import read_labeled
from train.data.validation import InvalidData

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty"]


def sentences(count: int, seed: int = 0) -> list[str]:
    """Return texts of which no two are near-duplicates."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=12)) for _ in range(count)]


def offers(is_offer: Sequence[bool], test_every: int) -> pd.DataFrame:
    """Return labelled messages that offer a flat or ask for something.

    One in `test_every` is in the test part.
    """
    count = len(is_offer)
    texts = [
        f"{'сдаю квартиру' if offer else 'ищу квартиру'} {text}"
        for offer, text in zip(is_offer, sentences(count), strict=True)
    ]
    return pd.DataFrame(
        {
            "msg_id": np.arange(count).astype(str),
            "msg": texts,
            "label": np.asarray(is_offer).astype(int),
            "subset": np.where(np.arange(count) % test_every == test_every - 1, "test", "train"),
        }
    )


def table(count: int = 30, every: int = 3) -> list[dict[str, str]]:
    """Return rows for a CSV file; every `every`-th is positive."""
    return [
        {"msg_id": f"m{number}", "msg": text, "label": str(int(number % every == 0))}
        for number, text in enumerate(sentences(count))
    ]


def write_csv(path: Path, rows: list[dict[str, str]], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def complaint(path: Path) -> str:
    """Return the message of the error for an invalid file."""
    with pytest.raises(InvalidData) as caught:
        read_labeled(path)
    message = str(caught.value)
    assert str(path) in message
    return message
