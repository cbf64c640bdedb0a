"""The phrases of the sample corpus, from `phrases.toml`, by language."""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple


class Place(NamedTuple):
    """A town or district: its name, and the words for "in it"."""

    name: str
    inside: str


class Unit(NamedTuple):
    """Something to let: its name in the cases that phrases need, and its numbers of bedrooms."""

    name: str
    accusative: str
    genitive: str
    sort: str
    bedrooms: tuple[int, ...]


def _places(name: str) -> dict[str, tuple[Place, ...]]:
    places = _PHRASES["places"][name]
    return {language: tuple(Place(*row) for row in rows) for language, rows in places.items()}


def _units(name: str) -> dict[str, tuple[Unit, ...]]:
    units = _PHRASES["units"][name]
    return {language: tuple(Unit(*row) for row in rows) for language, rows in units.items()}


_PHRASES: dict[str, Any] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)
LIMASSOL, ELSEWHERE = _places("limassol"), _places("elsewhere")
HOMES, ROOMS = _units("homes"), _units("rooms")
COMMERCIAL, CARS = _units("commercial"), _units("cars")
MONTHS: dict[str, list[str]] = _PHRASES["months"]
MONEY: dict[str, list[str]] = _PHRASES["money"]
TABLES: dict[str, dict[str, list[str]]] = _PHRASES["tables"]
REPOSTED: dict[str, list[str]] = _PHRASES["reposted"]
AWKWARD: list[str] = _PHRASES["awkward"]
