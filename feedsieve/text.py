"""What a message's text is before anything else looks at it, and how two texts are told apart."""

import hashlib
import re
import unicodedata
from functools import lru_cache

LONGEST = 10_000  # characters of a text that are read at all
_LONGEST_REMEMBERED = 2_000  # so that what is remembered takes 8 MB at most
_SPACES = re.compile("[\t\n\r\u200b-\u200d\ufeff]")
_CONTROLS = re.compile(
    "[\0-\x1f\x7f-\x9f\ud800-\udfff]"
)  # and surrogates, which have no UTF-8 form
_EMOJI = re.compile(  # but for digits, ©, ® and ™, and those that normalising turns into letters
    "[\u20e3\u2194-\u21aa\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u27bf\u2934\u2935"
    "\u2b00-\u2bff\u3030\u303d\ufe0e\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f]+"
)


def plain(text: str) -> str:
    """Return the form of `text` that models read: normalised, in lower case, without emoji.

    Who writes in capitals or adds a smile says the same, and is to get the same score. What comes
    after `LONGEST` characters is not read.
    """
    return _remembered(text) if len(text) <= _LONGEST_REMEMBERED else _plain(text)


def _plain(text: str) -> str:
    return " ".join(_EMOJI.sub(" ", normalise(text)[:LONGEST]).lower().split())


# Encoder, lexicon and traits each ask for it, of the texts of a service's two batches at most. Of
# a long text it is little beside what the encoder takes.
_remembered = lru_cache(512)(_plain)


def normalise(text: str) -> str:
    """Return the form of `text` that the fingerprint is taken of.

    NFKC; line ends, tabs and zero-width characters become spaces; other control characters and
    lone surrogates go; runs of spaces fold into one. The result always encodes as UTF-8, and
    normalising it again changes nothing.
    """
    kept = _SPACES.sub(" ", text)
    if not kept.isprintable():  # which is known several times as fast as what to take away
        kept = _CONTROLS.sub("", kept)
    return " ".join(unicodedata.normalize("NFKC", kept).split())


def fingerprint(text: str) -> str:
    """Return 32 hexadecimal digits; texts that share them are the same but for spaces and form."""
    return hashlib.blake2b(normalise(text).encode(), digest_size=16).hexdigest()


def storable(text: str) -> str:
    """Return `text` as it can be kept and shown: NUL dropped, lone surrogates as U+FFFD.

    Two surrogates that make a pair, as some exports write them, become the character they mean.
    """
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return joined.replace("\x00", "")
