"""Names of columns, as programs and people write them."""

import re
from collections.abc import Collection, Sequence

ROLES = {
    "id": ("msgid", "messageid", "id", "postid", "tgid", "номер"),
    "text": ("msg", "text", "message", "content", "body", "messagetext", "сообщение", "текст"),
    "channel": (
        *("channel", "chat", "chattitle", "chatname", "channeltitle", "channelname"),
        *("group", "grouptitle", "groupname", "source", "чат", "канал", "источник"),
    ),
    "chat": ("chatid", "channelid", "peerid", "groupid"),
    "time": ("time", "datetime", "timestamp", "date", "createdat", "sentat", "дата", "время"),
    "sender": (
        *("sender", "from", "author", "sendername", "fromname", "authorname", "username", "user"),
        *("senderid", "fromid", "authorid", "userid", "отправитель", "автор"),
    ),
    "link": ("link", "url", "permalink", "messagelink", "ссылка"),
    "reply_to": ("replyto", "replytoid", "replytomsgid", "replytomessageid"),
    "edited": ("edited", "editedat", "editdate", "edittime"),
    "label": ("label", "labels", "target", "метка"),
}
"""For each part of a message the names of its column, the preferred ones first, as in `compact`."""

KNOWN = frozenset(name for names in ROLES.values() for name in names)
PLACE = " place"
"""The column of a row's place in the file. No file has it: spaces are stripped from names."""

_NOT_LETTERS = re.compile(r"[\W_]+")
_SHOWN = 200  # characters


class Repeated(ValueError):
    """Two columns of one name, of which one is needed."""


def compact(name: str) -> str:
    """Return the letters and digits of a name in lower case: `Message ID` is `messageid`."""
    return _NOT_LETTERS.sub("", name).casefold()


def find(header: Sequence[str], names: Collection[str]) -> int | None:
    """Return the index of the first of `names` that is in the header. Raises Repeated."""
    present = [compact(name) for name in header]
    for name in names:
        if count := present.count(name):
            if count > 1:
                column = header[present.index(name)]
                raise Repeated(f"column {column!r} is there {count} times; rename the others")
            return present.index(name)
    return None


def listed(header: Sequence[str]) -> str:
    """Return the names of columns for an error, quoted and shortened."""
    return repr(",".join(header)[:_SHOWN])
