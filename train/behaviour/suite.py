"""Behaviour tests: messages and required behaviour, read from a TOML file.

The project's own are in this folder: `flats.toml` is the example for files of other chats.
"""

import tomllib
from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feedsieve.errors import FeedsieveError
from train.behaviour.changes import changes

SUITES = ("flats", "sample")  # that commands take by name
_FOLDER = Path(__file__).parent
_MEASURES = {  # that may be required, by kind of check
    "invariance": ("mean move", "largest move"),
    "direction": ("share that falls", "mean fall"),
    "functionality": ("accuracy",),
}

Bounds = Mapping[str, float]  # by measure


class InvalidSuite(FeedsieveError):
    """A file of behaviour tests that cannot be read; the message names the file and the place."""


class Pair(NamedTuple):
    """A message before and after a change."""

    before: str
    after: str


class Example(NamedTuple):
    """A message and its label, 0 or 1."""

    text: str
    label: int


@dataclass(frozen=True)
class Suite:
    """Messages by check, and the bounds that are required of each check's measures."""

    name: str
    invariance: Mapping[str, list[Pair]]  # whose scores should be alike, by change
    direction: Mapping[str, list[Pair]]  # whose scores should fall, by change
    functionality: Mapping[str, list[Example]]  # to be classified correctly, by kind
    required: Mapping[str, Bounds]  # by name of a check

    @property
    def texts(self) -> list[str]:
        """Every distinct text to be scored."""
        pairs = chain(*self.invariance.values(), *self.direction.values())
        examples = chain(*self.functionality.values())
        return list(dict.fromkeys([*chain(*pairs), *(example.text for example in examples)]))


def read_suite(name: str) -> Suite:
    """Read one of `SUITES`, or a file. Raises InvalidSuite."""
    path = _find(name, Path())
    content = _content(path)
    try:
        return _suite(path.name, _File.model_validate(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidSuite(f"{path}: {place}: {first['msg']}") from None
    except ValueError as error:
        raise InvalidSuite(f"{path}: {error}") from None


def suite_argument(name: str) -> Suite:
    """Read the suite that an argument of a command names. Raises ArgumentTypeError."""
    try:
        return read_suite(name)
    except InvalidSuite as error:
        raise ArgumentTypeError(str(error)) from None


def _find(name: str, folder: Path) -> Path:
    """Return the file of one of `SUITES`, or the file that is called so from `folder`."""
    return _FOLDER / f"{name}.toml" if name in SUITES else folder / name


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Message(_Strict):
    text: str
    language: str = ""


class _Original(BaseModel):
    """A text; more fields are changes, each a list of words and their replacements."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, list[tuple[str, str]]] = Field(init=False)
    text: str


class _Kind(_Strict):
    label: Literal[0, 1]
    texts: list[str] = Field(min_length=1)


class _File(_Strict):
    hashtags: str = ""
    names: dict[str, str] = {}
    signatures: dict[str, str] = {}
    required: Mapping[str, Bounds] = {}
    invariance: list[_Message] = []
    direction: list[_Original] = []
    functionality: dict[str, _Kind] = {}


def _content(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the tables of a file, with those of the file that it extends where it has none."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        known = ", ".join(SUITES)
        raise InvalidSuite(f"{path}: {error.strerror}; a TOML file, or {known}") from None
    except UnicodeDecodeError:
        raise InvalidSuite(f"{path}: not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSuite(f"{path}: {error}") from None
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise InvalidSuite(f"{path}: extends: must be the name of a file")
    extending = (*extending, path.resolve())
    extended = _find(base, path.parent)
    if extended.resolve() in extending:
        raise InvalidSuite(f"{path}: extends: {base} extends this file itself")
    inherited = _content(extended, extending)
    former, own = inherited.get("required"), content.get("required")
    if isinstance(former, dict) and isinstance(own, dict):
        content["required"] = former | own
    return inherited | content


def _suite(name: str, file: _File) -> Suite:
    """Return the suite of a file. Raises ValueError that names the place."""
    alike = {}
    for change_name, change in changes(file.names, file.signatures, file.hashtags).items():
        pairs = [Pair(one.text, change(one.text, one.language)) for one in file.invariance]
        if changed := [pair for pair in pairs if pair.before != pair.after]:
            alike[change_name] = changed
    less: dict[str, list[Pair]] = {}
    for original in file.direction:
        for change_name, replacements in original.__pydantic_extra__.items():
            pair = Pair(original.text, _replace(original.text, replacements))
            less.setdefault(change_name, []).append(pair)
    examples = {
        kind: [Example(text, one.label) for text in one.texts]
        for kind, one in file.functionality.items()
    }
    checks: dict[str, Mapping[str, object]] = {
        "invariance": alike,
        "direction": less,
        "functionality": examples,
    }
    _check_names(checks)
    _check_required(file.required, checks)
    return Suite(name, alike, less, examples, file.required)


def _check_names(checks: Mapping[str, Mapping[str, object]]) -> None:
    names = list(chain.from_iterable(checks.values()))
    if not names:
        raise ValueError("no messages: invariance, direction and functionality are empty")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two checks are called {twice[0]!r}")


def _check_required(
    required: Mapping[str, Bounds], checks: Mapping[str, Mapping[str, object]]
) -> None:
    for name, bounds in required.items():
        kinds = [kind for kind, names in checks.items() if name in names]
        if not kinds:
            raise ValueError(f"required: no check is called {name!r}")
        for measure in bounds:
            if measure not in _MEASURES[kinds[0]]:
                known = ", ".join(_MEASURES[kinds[0]])
                raise ValueError(f"required: {name!r} is measured by {known}, not by {measure}")


def _replace(text: str, replacements: list[tuple[str, str]]) -> str:
    for old, new in replacements:
        if old not in text:
            raise ValueError(f"direction: {text!r} has no {old!r} to replace")
        text = text.replace(old, new)
    return text
