"""`python -m data.generate`: make the sample corpus, so that everything runs without own data.

The messages are of an imagined chat about homes in Limassol, composed at random from
`data/phrases.toml`.
"""

import argparse
import csv
import random
import re
import sqlite3
import sys
from bisect import bisect
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from data.kinds import KINDS, LANGUAGES, Kind
from data.phrases import AWKWARD, ELSEWHERE, LIMASSOL, MONEY, MONTHS, REPOSTED, TABLES, Place

DATABASE = "messages.db"
LABELED = "labeled_messages.csv"

LABELED_SHARE = 0.8
WRONG_SHARE = 0.02  # of the labels, as people make mistakes
REPOSTED_SHARE = 0.12  # of the adverts
TOWN_SHARE = 0.5  # of the adverts name the first place of their table


class Message(NamedTuple):
    """A message, its kind, and its label, which may be wrong, or None without one."""

    identifier: str
    text: str
    kind: str
    language: str
    is_let: bool
    label: int | None = None


_CLOSING_CHANCES = {"tags": 0.2, "sale_tags": 0.2, "night_tags": 0.2, "contact": 0.75}
_USUAL_CLOSING_CHANCE = 0.9
_SEPARATORS = (". ", ". ", ", ", "\n", "\n", "\n- ", "\n• ", " / ", " ", "\n✅ ", "\n\n")
_MONTHLY = {  # euro: lowest, highest, and the addition for each bedroom
    "room": (300, 600, 0),
    "studio": (550, 1000, 0),
    "flat": (600, 1200, 350),
    "house": (900, 2200, 400),
    "commercial": (400, 3000, 0),
    "car": (300, 900, 0),
}
_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_REFERENCE = re.compile(r"\{([a-z_]+)\}")
_LONG_WORD = re.compile(r"[^\W\da-zA-Z_]{6,}")  # not Latin letters, which may be an address
_PHONE = re.compile(r"\+357[ -]?00[ -]?\d{6}")
_RENT = re.compile(r"(?<![\d.,])(?:[2-9]\d\d|[1-9]\d{3})(?= ?(?:€|евро|euro|eur|ευρώ|євро))")


def compose(count: int, seed: int) -> list[Message]:
    """Return `count` messages in the order of the chat, reproducible by the seed."""
    rng = random.Random(seed)
    messages: list[Message] = []
    earlier: dict[str, list[Message]] = {name: [] for name in KINDS}
    for number, name in enumerate(_kinds_in_proportion(count, rng), start=1):
        message = _message(str(number), name, earlier[name], rng)
        earlier[name].append(message)
        messages.append(message)
    return _labeled(messages, rng)


def write(
    messages: Sequence[Message], folder: Path, names: Sequence[str] = (DATABASE, LABELED)
) -> None:
    """Write the named files into `folder` atomically, replacing older ones. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        _write_database(messages, Path(unfinished, DATABASE))
        _write_labeled(messages, Path(unfinished, LABELED))
        for name in names:
            Path(unfinished, name).replace(folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if a file cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m data.generate",
        description=f"Make a sample corpus: {DATABASE}, the messages of an imagined chat about"
        f" homes in Limassol, and {LABELED}, most of them with a label: 1 offers a home in"
        " Limassol for a long let, 0 does not.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, same = parser.add_argument, "the same seed makes the same files, byte for byte"
    add(
        "--out",
        type=Path,
        default=Path("data/sample"),
        metavar="FOLDER",
        help="folder of the files",
    )
    add("--messages", type=_positive, default=4000, metavar="COUNT", help="number of messages")
    add("--seed", type=int, default=7, help=same)
    add("--force", action="store_true", help="replace existing files")
    options = parser.parse_args(arguments)
    missing = [
        name for name in (DATABASE, LABELED) if options.force or not (options.out / name).exists()
    ]
    for name in {DATABASE, LABELED} - {*missing}:
        print(f"{options.out / name} is there already and stays; --force replaces it")
    messages = compose(options.messages, options.seed)
    try:
        if DATABASE in missing and (
            logs := [log for log in _logs(options.out / DATABASE) if log.exists()]
        ):
            raise OSError(f"{logs[0]} shows that a program has the database open")
        write(messages, options.out, missing)
    except OSError as error:
        print(f"cannot write into {options.out}: {error}", file=sys.stderr)
        return 1
    if missing:
        print(_summary(messages, options.out))
    return 0


def _logs(database: Path) -> list[Path]:
    """Return SQLite's logs of a database in use, which it would apply to a new database."""
    return [database.with_name(database.name + suffix) for suffix in ("-wal", "-journal")]


class _Writer:
    """Expands templates to text with the facts of one message."""

    def __init__(self, kind: Kind, language: str, rng: random.Random) -> None:
        self.language = language
        self.rng = rng
        self.tables = TABLES[language]
        self.unit = rng.choice(kind.units[language])
        places = ELSEWHERE if rng.random() < kind.elsewhere else LIMASSOL
        self.facts = self._facts_of_unit() | {
            "place": (place := _place(places[language], rng)).name,
            "in_place": place.inside,
            "tag_place": re.sub(r"[ -]", "", place.name.lower()),
        }

    def phrase(self, table: str) -> str:
        """Return a phrase of the table, or "" if the language has no such table."""
        special = self.tables.get(f"{table}:{self.unit.sort}")
        templates = special or self.tables.get(table)
        return self.expand(self.rng.choice(templates)) if templates else ""

    def expand(self, template: str) -> str:
        """Return `template` with alternatives chosen and references filled in."""
        while _ALTERNATIVES.search(template):
            template = _ALTERNATIVES.sub(
                lambda match: self.rng.choice(match[1].split("|")), template
            )
        return _REFERENCE.sub(lambda match: self._refer(match[1]), template)

    def _refer(self, name: str) -> str:
        if name in self.facts:
            return self.expand(self.facts[name])
        if name in _PASSING_FACTS:
            return _PASSING_FACTS[name](self.rng)
        if name == "date":
            return _date(self.language, self.rng)
        if name not in self.tables:
            raise KeyError(f"no fact and no table of phrases is called {name!r}")
        return self.phrase(name)

    def _facts_of_unit(self) -> dict[str, str]:
        rng = self.rng
        bedrooms = rng.choice(self.unit.bedrooms)
        least, most, per_bedroom = _MONTHLY[self.unit.sort]
        rent = rng.randrange(least, most + 1, 50) + per_bedroom * bedrooms
        floor = rng.randint(1, 3)
        return {
            "unit": self.unit.name,
            "unit_acc": self.unit.accusative,
            "unit_gen": self.unit.genitive,
            "bedrooms": str(bedrooms),
            "bathrooms": str(max(1, bedrooms - 1)),
            "area": str(rng.randint(28, 50) + 28 * bedrooms),
            "floor": str(floor),
            "floors": str(floor + 1),
            "rent": self._money(rent),
            "lower_rent": self._money(rent - rng.choice((50, 100, 150))),
            "night_rate": self._money(rng.randrange(20, 200, 5)),
            "sale_price": self._money(round(rent * rng.uniform(150, 230), -3)),
            "phone": _phone(rng),
        }

    def _money(self, amount: float) -> str:
        thousands = self.rng.choice(("", "", " ", ".", ","))
        written = f"{int(amount):,}".replace(",", thousands)
        return self.rng.choice(MONEY[self.language]).replace("#", written)


def _place(places: Sequence[Place], rng: random.Random) -> Place:
    """Return one of `places`, often the first: people name the town more than its districts."""
    return places[0] if rng.random() < TOWN_SHARE else rng.choice(places)


def _phone(rng: random.Random) -> str:
    """Return a telephone number that cannot exist: in Cyprus none begins with 00."""
    digits = f"{rng.randrange(10**6):06}"
    form = rng.choice(("+357 00 {}", "+35700{}", "+357 00{}", "+357-00-{}"))
    return form.format(digits)


def _handle(rng: random.Random) -> str:
    """Return a handle that cannot exist: in Telegram none begins with an underscore."""
    return f"@_{rng.choice(('home', 'sea', 'olive', 'cat', 'sunny', 'keys'))}{rng.randrange(1000)}"


def _date(language: str, rng: random.Random) -> str:
    month = rng.randrange(12)
    day = rng.choice((1, 1, 5, 10, 15, 20, 25))
    if rng.random() < 0.2:
        return f"{day:02}.{month + 1:02}"
    return f"{day} {MONTHS[language][month]}"


_PASSING_FACTS: dict[str, Callable[[random.Random], str]] = {
    "digit": lambda rng: str(rng.randint(2, 4)),  # Russian declines nouns alike after these
    "number": lambda rng: str(rng.randint(10, 400)),
    "minutes": lambda rng: str(rng.choice((5, 7, 10, 15, 20, 30))),
    "metres": lambda rng: str(rng.randrange(50, 1000, 50)),
    "year": lambda rng: str(rng.randint(1985, 2025)),
    "handle": _handle,
    "link": lambda rng: f"https://example.com/{rng.randrange(10**5)}",
}


def _kinds_in_proportion(count: int, rng: random.Random) -> list[str]:
    """Return `count` shuffled names of kinds, with exact shares."""
    names = list(KINDS)
    limits = list(accumulate(kind.share for kind in KINDS.values()))
    kinds = [names[bisect(limits, (place + 0.5) / count * limits[-1])] for place in range(count)]
    rng.shuffle(kinds)
    return kinds


def _message(identifier: str, name: str, earlier: list[Message], rng: random.Random) -> Message:
    """Return a new message of the kind, or an earlier advert with small changes."""
    kind = KINDS[name]
    if kind.closings and earlier and rng.random() < REPOSTED_SHARE:
        original = rng.choice(earlier)
        return original._replace(identifier=identifier, text=_reposted(original, rng))
    languages = kind.languages()
    language = rng.choices(languages, [LANGUAGES[language] for language in languages])[0]
    text = rng.choice(AWKWARD) if name == "awkward" else _text(kind, _Writer(kind, language, rng))
    return Message(identifier, text, name, language, kind.is_let)


def _text(kind: Kind, writer: _Writer) -> str:
    rng = writer.rng
    openings = [name for name in kind.openings if name in writer.tables]
    details = rng.sample(kind.details, min(rng.randint(0, kind.most_details), len(kind.details)))
    closings = [
        name
        for name in kind.closings
        if rng.random() < _CLOSING_CHANCES.get(name, _USUAL_CLOSING_CHANCE)
    ]
    phrases = [writer.phrase(name) for name in (rng.choice(openings), *details, *closings)]
    text = rng.choice(_SEPARATORS).join(phrase for phrase in phrases if phrase)
    return _as_typed(text.strip(), rng)


def _as_typed(text: str, rng: random.Random) -> str:
    """Return `text` as people type it: sometimes in lower case or with two letters swapped."""
    if rng.random() < 0.12:
        text = text.lower()
    elif rng.random() < 0.7:
        text = text[:1].upper() + text[1:]
    words = list(_LONG_WORD.finditer(text))
    if words and rng.random() < 0.12:
        start = rng.choice(words).start() + rng.randint(1, 3)
        text = text[:start] + text[start + 1] + text[start] + text[start + 2 :]
    return text


def _reposted(original: Message, rng: random.Random) -> str:
    """Return the text of `original` as its author posts it again, perhaps with a lower rent."""
    text = original.text
    if rng.random() < 0.4:
        text = _RENT.sub(lambda match: str(int(match[0]) - 50), text)
    if rng.random() < 0.3:
        phone = _phone(rng)
        text = _PHONE.sub(phone, text)
    return rng.choice(REPOSTED[original.language]).replace("#", text)


def _labeled(messages: list[Message], rng: random.Random) -> list[Message]:
    """Return `messages`, most with a label; a few are wrong, as many of lets as of others."""
    chosen = rng.sample(range(len(messages)), round(LABELED_SHARE * len(messages)))
    lets = [place for place in chosen if messages[place].is_let]
    near_misses = [place for place in chosen if KINDS[messages[place].kind].is_near_miss]
    half = round(WRONG_SHARE * len(chosen) / 2)
    wrong = {*lets[:half], *near_misses[:half]}
    labels = {place: int(messages[place].is_let != (place in wrong)) for place in chosen}
    return [message._replace(label=labels.get(place)) for place, message in enumerate(messages)]


def _write_database(messages: Sequence[Message], path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE raw_rent_messages (msg_id TEXT PRIMARY KEY, msg TEXT)")
        connection.executemany(
            "INSERT INTO raw_rent_messages VALUES (?, ?)",
            ((message.identifier, message.text) for message in messages),
        )


def _write_labeled(messages: Sequence[Message], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("msg_id", "msg", "label"))
        table.writerows(
            (message.identifier, message.text, message.label)
            for message in messages
            if message.label is not None
        )


def _summary(messages: Sequence[Message], folder: Path) -> str:
    labels = [message.label for message in messages if message.label is not None]
    positive = sum(labels)
    share = positive / len(labels) if labels else 0.0
    return (
        f"{folder / DATABASE}: {len(messages):,} messages\n"
        f"{folder / LABELED}: {len(labels):,} labelled, {positive:,} of them positive ({share:.1%})"
    )


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
