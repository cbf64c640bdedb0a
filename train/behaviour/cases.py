"""Messages for behavioural tests, read from the TOML files of this folder."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from train.behaviour.changes import CHANGES

_FOLDER = Path(__file__).parent


class Pair(NamedTuple):
    """A message before and after a change."""

    before: str
    after: str


class Example(NamedTuple):
    """A message and its label, 0 or 1."""

    text: str
    label: int


def invariance_pairs() -> dict[str, list[Pair]]:
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


def direction_pairs() -> dict[str, list[Pair]]:
    """Return, by change, the pairs of an offer and something else, whose scores should fall.

    Raises `ValueError` if a text lacks a word to replace.
    """
    pairs: dict[str, list[Pair]] = {}
    for offer in _read("pairs.toml")["offer"]:
        text = offer.pop("text")
        for name, replacements in offer.items():
            pairs.setdefault(name, []).append(Pair(text, _replace(text, replacements)))
    return pairs


def functionality_examples() -> dict[str, list[Example]]:
    """Return, by kind, messages that a model must classify correctly."""
    return {
        name: [Example(text, kind["label"]) for text in kind["texts"]]
        for name, kind in _read("messages.toml").items()
    }


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((_FOLDER / name).read_text(encoding="utf-8"))


def _replace(text: str, replacements: list[list[str]]) -> str:
    for old, new in replacements:
        if old not in text:
            raise ValueError(f"{text!r} has no {old!r} to replace")
        text = text.replace(old, new)
    return text
