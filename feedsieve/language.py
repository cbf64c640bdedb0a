"""Language detection by letters."""

import re

from feedsieve.text import plain

OTHER, MIXED = "other", "mixed"
LANGUAGES = ("Russian", "Ukrainian", "English", "Greek", OTHER, MIXED)
_ADDRESS = re.compile(r"://|@|\bwww\.|\bt\.me/")  # Latin in every language
_IN_ADDRESSES = "://", "@", "www.", "t.me/"  # found faster than the pattern
_LETTERS = re.compile(r"[^\W\d_]+")
_SCRIPTS = {
    "Russian": re.compile("[\u0400-\u052f]+"),
    "English": re.compile("[a-z\u00df-\u024f]+"),
    "Greek": re.compile("[\u0370-\u03ff\u1f00-\u1fff]+"),
}
_UKRAINIAN, _RUSSIAN = re.compile("[іїєґ]"), re.compile("[ыэъё]")  # not in the other


def language(text: str) -> str:
    """Return one of `LANGUAGES`, by the script of two thirds of the letters.

    Latin counts as English. Cyrillic counts as Ukrainian if more letters are only in Ukrainian than
    only in Russian, else as Russian. A text in which no script has two thirds is mixed. A text in
    another script, or without letters, is other. Links, mail addresses and handles are ignored.
    """
    lower = plain(text)
    if any(map(lower.__contains__, _IN_ADDRESSES)):
        lower = " ".join(word for word in lower.split() if not _ADDRESS.search(word))
    letters = "".join(_LETTERS.findall(lower))
    if not letters.isalpha():  # fractions and the like are alphanumeric, and no digits
        letters = "".join(filter(str.isalpha, letters))
    counts = {name: len("".join(script.findall(letters))) for name, script in _SCRIPTS.items()}
    counts[OTHER] = len(letters) - sum(counts.values())
    largest = max(counts, key=lambda name: counts[name])
    if not letters:
        return OTHER
    if 3 * counts[largest] < 2 * len(letters):
        return MIXED
    if largest == "Russian" and len(_UKRAINIAN.findall(letters)) > len(_RUSSIAN.findall(letters)):
        return "Ukrainian"
    return largest
