"""DiscordChatExporter's JSON: one channel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.fields import name_of, read_time, string, text_of, time_of
from feedsieve.sources.json_stream import JsonStream
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart, reason_of

NAME = "discord"
TITLE = "DiscordChatExporter's JSON"
_TEXT_TYPES = ("Default", "Reply", "ThreadStarterMessage", "ChatInputCommand", "ContextMenuCommand")


def recognise(start: FileStart) -> bool:
    """Return whether a file is an object with a guild and a channel."""
    return start.json is not None and {"guild", "channel"} <= start.json.first.keys()


def read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of a channel; without a text, they have those of their embeds.

    Raises InvalidFile.
    """
    members: dict[str, Any] = {}
    has_messages = False
    with path.open(encoding=FileStart(path).encoding) as file:
        stream = JsonStream(file, report)
        try:
            for key in stream.members():
                if key != "messages":
                    members[key] = stream.value()
                    continue
                has_messages = True
                guild, channel = _object(members.get("guild")), _object(members.get("channel"))
                for _ in stream.elements():
                    if message := _message(stream.value(), guild, channel, report):
                        yield message
            if not has_messages:
                raise ValueError("there are no `messages`")
        except (ValueError, RecursionError, OSError) as error:
            raise InvalidFile(
                f"{path}, at character {stream.position}: expected {TITLE}; {reason_of(error)}"
            ) from error


def _message(
    entry: Any, guild: dict[str, Any], channel: dict[str, Any], report: ReadReport
) -> Message | None:
    if not isinstance(entry, dict):
        report.skip("entries that are no messages")
        return None
    if entry.get("type", "Default") not in _TEXT_TYPES:
        report.skip("service messages")
        return None
    identifier, number = string(entry.get("id")), string(channel.get("id"))
    guild_id = string(guild.get("id")) or "0"
    author = _object(entry.get("author"))
    titles = (name_of(guild.get("name")), name_of(channel.get("name")))
    return Message(
        id=identifier,
        text=text_of(entry.get("content")) or _embedded(entry.get("embeds")),
        channel=" / ".join(filter(None, titles)) or None,
        time=time_of(entry.get("timestamp"), report),
        source=f"discord:{number}" if number else "",
        sender=name_of(author.get("nickname")) or name_of(author.get("name")),
        link=f"https://discord.com/channels/{'@me' if guild_id == '0' else guild_id}"
        f"/{number}/{identifier}",
        reply_to=string(_object(entry.get("reference")).get("messageId")) or None,
        edited=read_time(entry.get("timestampEdited")),
    )


def _embedded(embeds: Any) -> str:
    parts = (
        string(_object(embed).get(name))
        for embed in (embeds if isinstance(embeds, list) else [])
        for name in ("title", "description")
    )
    return "\n".join(filter(None, parts))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
