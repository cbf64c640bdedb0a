"""Text normalisation and fingerprints."""

import hashlib
import re
import unicodedata
from functools import cache, lru_cache
from itertools import islice

LONGEST = 10_000  # characters of a text that models read
_LONGEST_CACHED = 2_000  # characters; bounds the caches to 8 and 16 MB
_SPACES = re.compile("[\t\n\r\u200b-\u200d\ufeff]")
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # surrogates have no UTF-8 form
_LINE_ENDS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
MOST_MARKS = 30  # in a row, as in Unicode's Stream-Safe Text Format (UAX #15)
MOST_LIGATURES = 1_000  # of a text: a long one of nothing else would take a tenth of a second
# NFKC makes 18 and 8 characters of one, and at most six of any other.
_LIGATURES = re.compile("[\ufdfa\ufdfb]")
# Some characters in a row that may be combining marks: neither ASCII, nor Latin, Greek or Cyrillic
# letters, nor symbols. Half of `MOST_MARKS`, since NFKC makes two of some. Most texts have none.
_PERHAPS_MARKS = re.compile(
    f"[^\0-\u02ff\u0370-\u0482\u048a-\u0590\u2000-\u20cf\u2100-\u2ce0]{{{MOST_MARKS // 2 + 1}}}"
)
_MARKS_END = 0x1F000  # no combining marks from here on
_EMOJI = re.compile(  # except digits, ©, ®, ™ and emoji that NFKC turns into letters
    "[\u20e3\u2194-\u21aa\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u27bf\u2934\u2935"
    "\u2b00-\u2bff\u3030\u303d\ufe0e\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f]+"
)


def plain(text: str) -> str:
    """Return the form of `text` that models read: normalised, in lower case, without emoji.

    Capitals and emoji do not change a score. The text is cut after `LONGEST` characters.
    """
    return _cached_plain(text) if len(text) <= _LONGEST_CACHED else _plain(text)


def _plain(text: str) -> str:
    return " ".join(_EMOJI.sub(" ", normalise(text)[:LONGEST]).lower().split())


# Encoder, word model and handcrafted features all read the same texts, at most two batches of the
# service. For a long text this takes little of the time that the encoder takes.
_cached_plain = lru_cache(512)(_plain)


def normalise(text: str) -> str:
    """Return the form of `text` that is fingerprinted.

    NFKC, with at most `MOST_MARKS` combining marks in a row, and at most `MOST_LIGATURES` Arabic
    ligatures of whole phrases. Line ends, tabs and zero-width characters become spaces, other
    control characters and lone surrogates are removed, runs of spaces become one. The result always
    encodes as UTF-8, and normalising it again changes nothing.
    """
    return _cached_normal(text) if len(text) <= _LONGEST_CACHED else _normalise(text)


def _normalise(text: str) -> str:
    text = _SPACES.sub(" ", text)
    if not text.isprintable():  # several times as fast as the pattern
        text = _CONTROLS.sub("", text)
    return " ".join(_nfkc(text).split())


def _nfkc(text: str) -> str:
    """Return the NFKC of `text` in linear time: it sorts a row of marks in quadratic time."""
    if len(text) > MOST_LIGATURES and ("\ufdfa" in text or "\ufdfb" in text):
        text = _with_few_ligatures(text)
    if not _PERHAPS_MARKS.search(text):
        return unicodedata.normalize("NFKC", text)
    surplus = _surplus_marks()
    text = unicodedata.normalize("NFKC", surplus.sub(r"\1", text))
    return surplus.sub(r"\1", text)


def _with_few_ligatures(text: str) -> str:
    found = islice(_LIGATURES.finditer(text), MOST_LIGATURES, None)
    if first := next(found, None):
        return text[: first.start()] + _LIGATURES.sub("", text[first.start() :])
    return text


@cache
def _surplus_marks() -> re.Pattern[str]:
    """Return the pattern of too many marks, whose group 1 stays."""
    is_mark = [
        char.isprintable() and unicodedata.combining(unicodedata.normalize("NFKD", char)[0]) > 0
        for char in map(chr, range(_MARKS_END))
    ]
    # As ranges: a pattern of single characters takes three times as long.
    starts = [code for code in range(0x300, _MARKS_END) if is_mark[code] and not is_mark[code - 1]]
    ends = [code for code in range(0x300, _MARKS_END) if is_mark[code - 1] and not is_mark[code]]
    marks = "".join(f"{chr(a)}-{chr(b - 1)}" for a, b in zip(starts, ends, strict=True))
    return re.compile(f"([{marks}]{{{MOST_MARKS}}})[{marks}]+")


# An import normalises a text for its fingerprint, its facts and its language, a thousand at a time.
_cached_normal = lru_cache(2048)(_normalise)


def fingerprint(text: str) -> str:
    """Return 32 hexadecimal digits, equal for texts that are equal when normalised."""
    return hashlib.blake2b(normalise(text).encode(), digest_size=16).hexdigest()


def route_id(identifier: str) -> str:
    """Return an identifier as routes have it: storable, and control characters as spaces.

    The server's router finds no path with a line end.
    """
    if identifier.isprintable():  # most are
        return identifier
    return _LINE_ENDS.sub(" ", storable(identifier))


def storable(text: str) -> str:
    """Return `text` as it can be stored and shown: NUL removed, lone surrogates as U+FFFD.

    A pair of surrogates, as some exports write them, becomes its character.
    """
    if "\x00" not in text:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return joined.replace("\x00", "")
