"""Keys of sources: a key names a chat, a feed or a file, and stays the same when it is renamed.

| key | source |
|---|---|
| `telegram:channel:ID`, `telegram:group:ID`, `telegram:user:ID` | a chat of Telegram |
| `rss:URL` | an RSS or Atom feed; `#` and a hash in place of a query, which may have a token |
| `discord:ID`, `slack:NAME`, `whatsapp:NAME` | a chat of another messenger |
| `name:NAME` | given by the user with `--source`, or the channel in a table |
| `file:NAME` | a file that names no source: its name without the ending |
| the empty string | unknown |
"""

import hashlib
from pathlib import PurePath

TELEGRAM_KINDS = {
    "private_channel": "channel",
    "public_channel": "channel",
    "private_supergroup": "channel",
    "public_supergroup": "channel",
    "private_group": "group",
}
"""Telegram Desktop's types of chats and the kind in the key; other types are `user`.

Supergroups and channels share one range of ids (https://core.telegram.org/api/bots/ids).
"""

UNKNOWN_KIND = "?"
"""The kind of chats that were imported before kinds were stored."""

_SERVICES = ("telegram:", "rss:", "discord:", "slack:", "whatsapp:", "name:", "file:")
_CHANNEL_OFFSET = 10**12  # the Bot API writes a channel's id as -100 and 10 digits


def telegram_key(kind: str, chat_id: int | str) -> str:
    """Return the key of a chat by its kind (channel, group or user) and id, as Telegram has it."""
    return f"telegram:{kind}:{chat_id}"


def bot_api_key(chat_id: int) -> str:
    """Return the key of a chat by its id in the Bot API, whose sign and size tell the kind."""
    if chat_id > 0:
        return telegram_key("user", chat_id)
    if -chat_id > _CHANNEL_OFFSET:
        return telegram_key("channel", -chat_id - _CHANNEL_OFFSET)
    return telegram_key("group", -chat_id)


def name_key(name: str | None) -> str:
    """Return the key of a source that has only a name; the empty key if it has none."""
    return f"name:{name}" if name else ""


def shown_key(key: str) -> str:
    """Return a key as it may be shown: earlier versions stored the query of a feed's URL."""
    kind, colon, url = key.partition(":")
    address, _, query = url.partition("?")
    if kind != "rss" or not query:
        return key
    digest = hashlib.blake2b(query.encode(), digest_size=4).hexdigest()
    return f"{kind}{colon}{address}#{digest}"


def given_key(source: str) -> str:
    """Return the key of a source that a user names: a key as it is, otherwise a name.

    It is empty for blanks, and for the start of a key alone.
    """
    if not source.strip() or source.strip() in _SERVICES:
        return ""
    return source if source.startswith(_SERVICES) else name_key(source)


def title_of(key: str) -> str | None:
    """Return the name in a key that is made of one, None for other keys."""
    kind, _, name = key.partition(":")
    return name if kind == "name" and name else None


def file_key(path: PurePath) -> str:
    """Return the key of a file that names no source."""
    return f"file:{path.name.split('.')[0] or path.name}"


def is_stable(key: str) -> bool:
    """Return whether the key identifies a source for certain, whatever its name is."""
    return bool(key) and not key.startswith(("name:", "file:"))
