"""The messages that behaviour is tested on, as the files beside this one have them."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from train.behaviour.changes import CHANGES

_FOLDER = Path(__file__).parent


class Pair(NamedTuple):
    """A message, and what became of it."""

    before: str
    after: str


class Labeled(NamedTuple):
    """A message and its label, 0 or 1."""

    text: str
    label: int


def same_meaning() -> dict[str, list[Pair]]:
    """Return, by change, the pairs whose scores should be alike."""
    messages = _read("bases.toml")["message"]
    return {
        name: [
            Pair(message["text"], changed)
            for message in messages
            if (changed := change(message["text"], message["language"])) != message["text"]
        ]
        for name, change in CHANGES.items()
    }


def less_of_an_offer() -> dict[str, list[Pair]]:
    """Return, by what an offer was made into, the pairs whose scores should fall.

    Raises `ValueError` where a text has not what is to be replaced in it.
    """
    pairs: dict[str, list[Pair]] = {}
    for offer in _read("pairs.toml")["offer"]:
        text = offer.pop("text")
        for name, replacements in offer.items():
            pairs.setdefault(name, []).append(Pair(text, _replaced(text, replacements)))
    return pairs


def must_be_known() -> dict[str, list[Labeled]]:
    """Return, by kind, the messages whose label a model must know."""
    return {
        name: [Labeled(text, kind["label"]) for text in kind["texts"]]
        for name, kind in _read("messages.toml").items()
    }


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / name).read_text(encoding="utf-8"))


def _replaced(text: str, replacements: list[list[str]]) -> str:
    for old, new in replacements:
        if old not in text:
            raise ValueError(f"{text!r} has no {old!r} to replace")
        text = text.replace(old, new)
    return text
