"""The kinds of messages of the sample corpus, and their shares."""

from typing import Any, NamedTuple

from data.phrases import CARS, COMMERCIAL, HOMES, ROOMS, TABLES, Unit

LANGUAGES = {"ru": 78, "en": 11, "uk": 6, "el": 5}  # percent


class Kind(NamedTuple):
    """A kind of message, and the tables of phrases that it is composed of.

    A message has one opening, at most `most_details` details, and random closings. It is about one
    of `units`, outside Limassol with probability `elsewhere`. A near-miss may be labelled as a let.
    """

    share: float  # percent of the messages
    openings: tuple[str, ...]
    details: tuple[str, ...] = ()
    most_details: int = 0
    closings: tuple[str, ...] = ()
    units: dict[str, tuple[Unit, ...]] = HOMES
    elsewhere: float = 0.25
    is_let: bool = False
    is_near_miss: bool = False

    def languages(self) -> list[str]:
        """Return the languages with phrases for this kind."""
        return [
            language
            for language in LANGUAGES
            if language in self.units and any(name in TABLES[language] for name in self.openings)
        ]


_INSIDE = ("rooms", "size", "building", "furniture", "kitchen", "condition", "location", "parking")
_HOME = (*_INSIDE, "outside", "pets", "people", "deposit", "term", "bills", "available", "viewing")
_LET_CLOSINGS = ("price_line", "contact", "tags")
_LET_OPENINGS = ("owner_opening", "agent_opening", "brief_opening", "question_opening")
_NEAR_MISS: dict[str, Any] = {"is_near_miss": True}
_LET: dict[str, Any] = {"elsewhere": 0, "is_let": True}

KINDS: dict[str, Kind] = {
    "let by owner": Kind(9, ("owner_opening",), _HOME, 5, _LET_CLOSINGS, **_LET),
    "let by agent": Kind(6, ("agent_opening",), _HOME, 5, _LET_CLOSINGS, **_LET),
    "let in few words": Kind(3, ("brief_opening",), _HOME, 2, ("tags",), **_LET),
    "let as a question": Kind(2, ("question_opening",), _HOME, 3, ("contact",), **_LET),
    "room to let": Kind(2, ("room_opening",), _HOME, 4, ("contact",), ROOMS, **_LET),
    "let elsewhere": Kind(4, _LET_OPENINGS, _HOME, 5, _LET_CLOSINGS, elsewhere=1, **_NEAR_MISS),
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
        **_NEAR_MISS,
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
        2, ("like_offer_opening",), ("furniture", "tenant"), 2, ("contact",), **_NEAR_MISS
    ),
    "agent seeking owners": Kind(
        1.5, ("seeks_opening",), ("seeks_detail",), 1, ("contact",), **_NEAR_MISS
    ),
    "let already": Kind(1.5, ("cancelled_opening",), _HOME, 4, ("price_line",), **_NEAR_MISS),
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
