"""Makes the sample corpus, so that everything runs, and can be tried out, with no data given.

    python -m data.generate

The messages are those of an imagined chat about homes in Limassol. They are composed from
`data/phrases.py` by chance, and the seed decides every chance.
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

from data.phrases import (
    AWKWARD,
    CARS,
    COMMERCIAL,
    ELSEWHERE,
    HOMES,
    LIMASSOL,
    MONEY,
    MONTHS,
    REPOSTED,
    ROOMS,
    TABLES,
    Place,
    Unit,
)

DATABASE = "messages.db"
LABELED = "labeled_messages.csv"

LANGUAGES = {"ru": 78, "en": 11, "uk": 6, "el": 5}  # percent
LABELED_SHARE = 0.8
WRONG_SHARE = 0.02  # of the labels: people who label err too
REPOSTED_SHARE = 0.12  # of the adverts
TOWN_SHARE = 0.5  # of the adverts name the first place of their table whatever chance would say


class Message(NamedTuple):
    """A message, what it is, and the label given to it, which may be wrong (None: not labelled)."""

    identifier: str
    text: str
    kind: str
    language: str
    is_let: bool
    label: int | None = None


class Kind(NamedTuple):
    """A kind of message: how many percent are of it, and which tables of phrases make it up.

    A message has one opening, at most `most_details` details, and closings by chance. It is about
    one of `units`, which lies outside Limassol with the probability `elsewhere`. A near-miss is
    what people who label may take for a let.
    """

    share: float
    openings: tuple[str, ...]
    details: tuple[str, ...] = ()
    most_details: int = 0
    closings: tuple[str, ...] = ()
    units: dict[str, tuple[Unit, ...]] = HOMES
    elsewhere: float = 0.25
    is_let: bool = False
    is_near_miss: bool = False

    def languages(self) -> list[str]:
        """Return the languages that have words for this kind."""
        return [
            language
            for language in LANGUAGES
            if language in self.units and any(name in TABLES[language] for name in self.openings)
        ]


_INSIDE = ("rooms", "size", "building", "furniture", "kitchen", "condition", "location", "parking")
_HOME = (*_INSIDE, "outside", "pets", "people", "deposit", "term", "bills", "available", "viewing")
_LET_CLOSINGS = ("price_line", "contact", "tags")
_LET_OPENINGS = ("owner_opening", "agent_opening", "brief_opening", "question_opening")

KINDS: dict[str, Kind] = {
    "let by owner": Kind(9, ("owner_opening",), _HOME, 5, _LET_CLOSINGS, elsewhere=0, is_let=True),
    "let by agent": Kind(6, ("agent_opening",), _HOME, 5, _LET_CLOSINGS, elsewhere=0, is_let=True),
    "let in few words": Kind(3, ("brief_opening",), _HOME, 2, ("tags",), elsewhere=0, is_let=True),
    "let as a question": Kind(
        2, ("question_opening",), _HOME, 3, ("contact",), elsewhere=0, is_let=True
    ),
    "room to let": Kind(
        2, ("room_opening",), _HOME, 4, ("contact",), ROOMS, elsewhere=0, is_let=True
    ),
    "let elsewhere": Kind(
        4, _LET_OPENINGS, _HOME, 5, _LET_CLOSINGS, elsewhere=1, is_near_miss=True
    ),
    "commercial let": Kind(
        3,
        ("owner_opening", "agent_opening", "brief_opening"),
        ("commercial_detail", "commercial_detail", "size", "location", "deposit", "available"),
        5,
        _LET_CLOSINGS,
        COMMERCIAL,
        is_near_miss=True,
    ),
    "car for hire": Kind(
        2,
        ("owner_opening", "brief_opening"),
        ("car_detail", "car_detail", "available"),
        4,
        ("night_price_line", "contact", "tags"),
        CARS,
    ),
    "holiday let": Kind(
        4,
        ("short_opening",),
        (*_INSIDE, "outside", "people", *("short_detail",) * 4, "viewing"),
        4,
        ("night_price_line", "contact", "night_tags"),
        is_near_miss=True,
    ),
    "sale": Kind(
        8,
        ("sale_opening",),
        (*_INSIDE, "outside", *("sale_detail",) * 4, "viewing"),
        4,
        ("sale_price_line", "contact", "sale_tags"),
    ),
    "looking": Kind(9.5, ("looking_opening",), ("budget", "tenant", "tenant"), 3, ("contact",)),
    "looking like an offer": Kind(
        2, ("like_offer_opening",), ("furniture", "tenant"), 2, ("contact",), is_near_miss=True
    ),
    "agent seeking owners": Kind(
        1.5, ("seeks_opening",), ("seeks_detail",), 1, ("contact",), is_near_miss=True
    ),
    "let already": Kind(1.5, ("cancelled_opening",), _HOME, 4, ("price_line",), is_near_miss=True),
    "talk about rents": Kind(4.5, ("rent_talk",)),
    "bot notice": Kind(6, ("bot_notice",)),
    "moderation": Kind(2, ("moderation",)),
    "small talk": Kind(8, ("small_talk",)),
    "reply": Kind(8, ("reply",)),
    "question": Kind(4.5, ("question",)),
    "service": Kind(3, ("service",), ("service_detail",), 1, ("contact",)),
    "news": Kind(1.5, ("news",)),
    "job": Kind(2, ("job",), ("job_detail",), 1, ("contact",)),
    "scam": Kind(2.5, ("scam",)),
    "awkward": Kind(0.5, ("reply",)),
}

_CLOSING_CHANCES = {"tags": 0.2, "sale_tags": 0.2, "night_tags": 0.2, "contact": 0.75}
_USUAL_CLOSING_CHANCE = 0.9
_SEPARATORS = (". ", ". ", ", ", "\n", "\n", "\n- ", "\n• ", " / ", " ", "\n✅ ", "\n\n")
_MONTHLY = {  # euro: the least and the most, and what each bedroom adds
    "room": (300, 600, 0),
    "studio": (550, 1000, 0),
    "flat": (600, 1200, 350),
    "house": (900, 2200, 400),
    "commercial": (400, 3000, 0),
    "car": (300, 900, 0),
}
_ALTERNATIVES = re.compile(r"\[([^\[\]]*)\]")
_REFERENCE = re.compile(r"\{([a-z_]+)\}")
_LONG_WORD = re.compile(r"[^\W\da-zA-Z_]{6,}")  # Latin letters may be an address: left alone
_PHONE = re.compile(r"\+357[ -]?00[ -]?\d{6}")
_RENT = re.compile(r"(?<![\d.,])(?:[2-9]\d\d|[1-9]\d{3})(?= ?(?:€|евро|euro|eur|ευρώ|євро))")


def compose(count: int, seed: int) -> list[Message]:
    """Return `count` messages in the order of the chat; the same for the same seed."""
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
    """Write the named files into `folder`, in place of any there. Raises OSError.

    Each file is seen whole or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".unfinished-") as unfinished:
        _write_database(messages, Path(unfinished, DATABASE))
        _write_labeled(messages, Path(unfinished, LABELED))
        for name in names:
            Path(unfinished, name).replace(folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if a file cannot be written."""
    options = _parser().parse_args(arguments)
    missing = [
        name for name in (DATABASE, LABELED) if options.force or not (options.out / name).exists()
    ]
    for name in {DATABASE, LABELED} - {*missing}:
        print(f"{options.out / name} is there already and was left as it is; --force replaces it")
    messages = compose(options.messages, options.seed)
    try:
        if DATABASE in missing and (
            in_use := [log for log in _logs(options.out / DATABASE) if log.exists()]
        ):
            raise OSError(f"{in_use[0]} shows that a program has the database open")
        write(messages, options.out, missing)
    except OSError as error:
        print(f"cannot write into {options.out}: {error}", file=sys.stderr)
        return 1
    if missing:
        print(_summary(messages, options.out))
    return 0


def _logs(database: Path) -> list[Path]:
    """Return what SQLite keeps beside a database in use, and would apply to another one there."""
    return [database.with_name(database.name + suffix) for suffix in ("-wal", "-journal")]


class _Writer:
    """Turns templates into text, with the facts of one message the same in all of its phrases."""

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
        """Return a phrase of the table, or "" where the language has no such table."""
        special = self.tables.get(f"{table}:{self.unit.sort}")
        templates = special or self.tables.get(table)
        return self.expand(self.rng.choice(templates)) if templates else ""

    def expand(self, template: str) -> str:
        """Return `template` with one of each alternatives, and references filled in."""
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
        return self.phrase(name) if name in self.tables else _unknown(name)

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
    """Return one of `places`, often the first, as people name the town more than its districts."""
    return places[0] if rng.random() < TOWN_SHARE else rng.choice(places)


def _unknown(name: str) -> str:
    raise KeyError(f"no fact and no table of phrases is called {name!r}")


def _phone(rng: random.Random) -> str:
    """Return a number that nobody can have: in Cyprus none begins with 00."""
    digits = f"{rng.randrange(10**6):06}"
    form = rng.choice(("+357 00 {}", "+35700{}", "+357 00{}", "+357-00-{}"))
    return form.format(digits)


def _handle(rng: random.Random) -> str:
    """Return a name that nobody can have: in Telegram none begins with an underscore."""
    return f"@_{rng.choice(('home', 'sea', 'olive', 'cat', 'sunny', 'keys'))}{rng.randrange(1000)}"


def _date(language: str, rng: random.Random) -> str:
    month = rng.randrange(12)
    day = rng.choice((1, 1, 5, 10, 15, 20, 25))
    if rng.random() < 0.2:
        return f"{day:02}.{month + 1:02}"
    return f"{day} {MONTHS[language][month]}"


_PASSING_FACTS: dict[str, Callable[[random.Random], str]] = {
    "digit": lambda rng: str(rng.randint(2, 4)),  # those that Russian counts alike
    "number": lambda rng: str(rng.randint(10, 400)),
    "minutes": lambda rng: str(rng.choice((5, 7, 10, 15, 20, 30))),
    "metres": lambda rng: str(rng.randrange(50, 1000, 50)),
    "year": lambda rng: str(rng.randint(1985, 2025)),
    "handle": _handle,
    "link": lambda rng: f"https://example.com/{rng.randrange(10**5)}",
}


def _kinds_in_proportion(count: int, rng: random.Random) -> list[str]:
    """Return `count` names of kinds, shuffled, with every share met to the nearest message."""
    names = list(KINDS)
    limits = list(accumulate(kind.share for kind in KINDS.values()))
    kinds = [names[bisect(limits, (place + 0.5) / count * limits[-1])] for place in range(count)]
    rng.shuffle(kinds)
    return kinds


def _message(identifier: str, name: str, earlier: list[Message], rng: random.Random) -> Message:
    """Return a message of the kind: a new one, or an earlier advert with small changes."""
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
    """Return `text` as people type: some in lower case, some with two letters swapped."""
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
    """Return the text of `original` as its author posts it again, perhaps at a better price."""
    text = original.text
    if rng.random() < 0.4:
        text = _RENT.sub(lambda match: str(int(match[0]) - 50), text)
    if rng.random() < 0.3:
        phone = _phone(rng)
        text = _PHONE.sub(phone, text)
    return rng.choice(REPOSTED[original.language]).replace("#", text)


def _labeled(messages: list[Message], rng: random.Random) -> list[Message]:
    """Return `messages`, most with a label, of which a few, as many of each, are wrong."""
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.generate",
        description=f"Make a sample corpus: {DATABASE}, the messages of an imagined chat about"
        f" homes in Limassol, and {LABELED}, most of them with a label: 1 offers a home in"
        " Limassol for a long let, 0 does not.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("data"), metavar="FOLDER", help="where to write the files"
    )
    parser.add_argument(
        "--messages", type=_at_least_one, default=4000, metavar="COUNT", help="how many to make"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="the same seed makes the same files, byte for byte"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files of these names that are there already"
    )
    return parser


def _at_least_one(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
