"""Telegram's own objects, as clients and bots write them in JSON.

Bots' updates and messages have the Bot API's fields; Telethon's and gotd's messages have those of
MTProto, the one in lower case with underscores, the other in capitals.
"""

from collections.abc import Iterable
from typing import Any

from feedsieve.message import Message
from feedsieve.sources.fields import name_of, read_time, string, text_of, time_of, with_link
from feedsieve.sources.keys import bot_api_key, telegram_key
from feedsieve.sources.report import ReadReport

_UPDATES = (
    *("message", "edited_message", "channel_post", "edited_channel_post"),
    *("business_message", "edited_business_message"),
)
_KINDS = {"channelid": "channel", "chatid": "group", "userid": "user"}


def is_update(entry: dict[str, Any]) -> bool:
    """Return whether an object is an update of the Bot API."""
    return "update_id" in entry


def is_bot_message(entry: dict[str, Any]) -> bool:
    """Return whether an object is a message of the Bot API, or Pyrogram's, which is like it."""
    chat = entry.get("chat")
    return isinstance(chat, dict) and isinstance(chat.get("id"), int)


def is_mtproto_message(entry: dict[str, Any]) -> bool:
    """Return whether an object is a message of MTProto."""
    return _kind(entry).startswith("message")


def update_message(update: dict[str, Any], report: ReadReport) -> Message | None:
    """Return the message of an update; None, counted in the report, if it has none."""
    for kind in _UPDATES:
        if isinstance(message := update.get(kind), dict) and is_bot_message(message):
            return bot_message(message, report)
    report.skip("updates without a message")
    return None


def bot_message(entry: dict[str, Any], report: ReadReport) -> Message:
    """Return a message of the Bot API. Without a text, it has the caption or the poll's words."""
    chat = entry["chat"]
    key = bot_api_key(chat["id"])
    identifier = string(entry.get("message_id", entry.get("id")))
    text = text_of(entry.get("text"))
    entities = entry.get("entities")
    if not text:
        text, entities = text_of(entry.get("caption")), entry.get("caption_entities")
    if not text and isinstance(poll := entry.get("poll"), dict):
        options = poll.get("options")
        answers = [text_of(option) for option in (options if isinstance(options, list) else [])]
        text = "\n".join([text_of(poll.get("question")), *(f"- {answer}" for answer in answers)])
    replied = entry.get("reply_to_message")
    return Message(
        id=identifier,
        text=with_links(text, entities),
        channel=_full_name(chat),
        time=time_of(entry.get("date"), report),
        source=key,
        sender=_full_name(entry.get("sender_chat") or entry.get("from") or entry.get("from_user")),
        link=message_link(key, identifier, string(chat.get("username"))),
        reply_to=string(replied.get("message_id")) or None if isinstance(replied, dict) else None,
        edited=read_time(entry.get("edit_date")),
    )


def mtproto_message(entry: dict[str, Any], report: ReadReport) -> Message | None:
    """Return a message of MTProto; None, counted in the report, for a service message."""
    if (kind := _kind(entry)) != "message":
        report.skip("service messages" if kind == "messageservice" else "empty messages")
        return None
    fields = _folded(entry)
    peer = _folded(fields.get("peerid") or fields.get("toid"))
    chat = next(((_KINDS[name], peer[name]) for name in _KINDS if peer.get(name)), None)
    key = telegram_key(chat[0], string(chat[1])) if chat else ""
    identifier = string(fields.get("id"))
    reply = _folded(fields.get("replyto"))
    sender = fields.get("fromid")
    return Message(
        id=identifier,
        text=with_links(text_of(fields.get("message")), fields.get("entities")),
        time=time_of(fields.get("date"), report),
        source=key,
        sender=string(fields.get("postauthor")) or _peer_name(sender),
        link=message_link(key, identifier),
        reply_to=string(reply.get("replytomsgid") or fields.get("replytomsgid")) or None,
        edited=read_time(fields.get("editdate") or None),
    )


def message_link(key: str, identifier: str, username: str = "") -> str | None:
    """Return the address of a message in a channel or supergroup; None for other chats."""
    _, _, chat = key.partition("telegram:channel:")
    if not chat or not identifier.isdecimal():
        return None
    return f"https://t.me/{username or f'c/{chat}'}/{identifier}"


def with_links(text: str, entities: Any) -> str:
    """Return the text with the address of each link that stands behind words after them."""
    links = sorted(_links(entities), reverse=True)
    if not links:
        return text
    units = text.encode("utf-16-le", "surrogatepass")  # Telegram counts in units of UTF-16
    for start, end, address in links:
        words = units[2 * start : 2 * end].decode("utf-16-le", "surrogatepass")
        linked = with_link(words, address).encode("utf-16-le", "surrogatepass")
        units = units[: 2 * start] + linked + units[2 * end :]
    return units.decode("utf-16-le", "surrogatepass")


def _links(entities: Any) -> Iterable[tuple[int, int, str]]:
    for entity in entities if isinstance(entities, list) else []:
        fields = _folded(entity)
        start, length, address = (fields.get(name) for name in ("offset", "length", "url"))
        if isinstance(start, int) and isinstance(length, int) and isinstance(address, str):
            yield start, start + length, address


def _kind(entry: dict[str, Any]) -> str:
    kind = entry.get("_", entry.get("_type"))
    return kind.lower().removeprefix("tl_") if isinstance(kind, str) else ""


def _folded(value: Any) -> dict[str, Any]:
    """Return an object with its keys in lower case and without underscores."""
    if not isinstance(value, dict):
        return {}
    return {str(name).replace("_", "").lower(): member for name, member in value.items()}


def _full_name(chat: Any) -> str | None:
    """Return the title of a chat, or the first and last name of a user."""
    if not isinstance(chat, dict):
        return None
    names = (string(chat.get(name)) for name in ("first_name", "last_name"))
    return string(chat.get("title")) or " ".join(filter(None, names)) or name_of(chat)


def _peer_name(peer: Any) -> str | None:
    if isinstance(peer, dict):
        return next((string(value) for value in peer.values() if isinstance(value, int)), None)
    return string(peer) or None
