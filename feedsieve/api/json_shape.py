"""A bound on the shape of large JSON bodies, checked before a parser sees them.

Parsers hold Python's lock until they are done. 4 MB of texts take them 15 ms, but as many bytes of
`{},{},{}` half a second, in which nothing else runs.
"""

import re

MAX_STRINGS = 20_000  # 256 messages have 4,608, names of their fields included
MAX_OTHER = 300_000  # bytes outside of strings; 256 messages, indented, have 60,000

# Possessive, so that each byte is looked at once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


def is_plain(body: bytes) -> bool:
    """Return whether JSON has few values, so that parsing it takes no longer than its texts do.

    It holds for other bytes as well: up to the error, parsers read strings as this does.
    """
    strings, other, at = 0, 0, 0
    while (begin := body.find(b'"', at)) >= 0:
        strings += 1
        other += begin - at
        string = _STRING.match(body, begin)
        if string is None:
            return other <= MAX_OTHER
        at = string.end()
        if strings > MAX_STRINGS or other > MAX_OTHER:
            return False
    return other + len(body) - at <= MAX_OTHER
