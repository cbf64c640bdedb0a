"""Slack's export: a folder for each channel, with one JSON list for each day."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.fields import read_time, string, text_of, time_of, with_link
from feedsieve.sources.json_stream import JsonStream
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart, reason_of

NAME = "slack"
TITLE = "Slack's export"
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIMESTAMP = re.compile(r"\d{9,}\.\d+")
_ANGLES = re.compile(r"<([^<>|]*)(?:\|([^<>]*))?>")
_LISTS = {  # files beside the folders, by a key that only their objects have
    "users.json": "team_id",
    "channels.json": "members",
    "groups.json": "members",
    "mpims.json": "members",
    "dms.json": "members",
    "integration_logs.json": "service_type",
}
_TEXTS = ("bot_message", "thread_broadcast", "me_message", "file_share", "file_comment")


def recognise(start: FileStart) -> bool:
    """Return whether a file is a list of objects with Slack's `ts`, or a list beside such files."""
    if start.json is None or start.json.form != "list":
        return False
    first = start.json.first
    return _is_row(first) or (_LISTS.get(start.path.name) or "-") in first


def read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of a day, whose channel is the folder's name. Raises InvalidFile."""
    channel = path.resolve().parent.name if _DAY.fullmatch(path.stem) else None
    with path.open(encoding=FileStart(path).encoding) as file:
        stream = JsonStream(file, report)
        try:
            for _ in stream.elements():
                row = stream.value()
                if path.name in _LISTS:
                    report.skip("entries that are no messages")
                elif message := _message(row, channel, report):
                    yield message
        except (ValueError, RecursionError, OSError) as error:
            raise InvalidFile(
                f"{path}, at character {stream.position}: expected {TITLE}; {reason_of(error)}"
            ) from error


def _is_row(row: dict[str, Any]) -> bool:
    return bool(_TIMESTAMP.fullmatch(string(row.get("ts"))))


def _message(row: Any, channel: str | None, report: ReadReport) -> Message | None:
    if not isinstance(row, dict) or not _is_row(row):
        report.skip("entries that are no messages")
        return None
    if row.get("subtype") not in (None, *_TEXTS):
        report.skip("service messages")
        return None
    profile = row.get("user_profile")
    names = profile if isinstance(profile, dict) else {}
    thread = string(row.get("thread_ts"))
    edited = row.get("edited")
    return Message(
        id=row["ts"],
        text=_plain(text_of(row.get("text"))),
        channel=channel,
        time=time_of(row["ts"], report),
        source=f"slack:{channel}" if channel else "",
        sender=string(names.get("display_name"))
        or string(names.get("real_name"))
        or string(row.get("username"))
        or string(row.get("user"))
        or None,
        reply_to=thread if thread and thread != row["ts"] else None,
        edited=read_time(edited.get("ts")) if isinstance(edited, dict) else None,
    )


def _plain(text: str) -> str:
    """Return the text without Slack's marks: `<address|words>`, `<@user>`, `&amp;`."""
    return unescape(_ANGLES.sub(_words, text)) if "<" in text or "&" in text else text


def _words(found: re.Match[str]) -> str:
    target, words = found[1], found[2]
    if target.startswith(("@", "#", "!")):
        name = (words or target[1:]).lstrip("@#")
        return f"{'#' if target[0] == '#' else '@'}{name}" if target[:2] != "!d" else words or ""
    return with_link(words or target, target)
