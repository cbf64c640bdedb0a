"""JSON lists and JSON Lines of messages: of Telegram's clients and bots, or with plain fields."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.chats import telegram_objects
from feedsieve.sources.fields import fields_of
from feedsieve.sources.json_mending import UnmendableJson, mend
from feedsieve.sources.json_stream import JsonStream
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart, one_line, reason_of

NAME = "json"
TITLE = "JSON messages"


def recognise(start: FileStart) -> bool:
    """Return whether a file is a JSON list, JSON Lines, or the Bot API's answer to getUpdates."""
    if start.json is None or start.json.form == "list":
        return start.json is not None
    is_chat = not {"messages", "chats"}.isdisjoint(start.json.first)
    is_lines = start.json.form == "lines" and not is_chat
    return is_lines or _is_answer(start) or is_row(start.json.first)


def read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of the objects in a file; a missing text becomes an empty string.

    A broken line of JSON Lines, such as the last one of a file that is being written, is counted.
    Raises InvalidFile if a list is damaged, or if no object has an identifier and a text.
    """
    start = FileStart(path)
    rows: Iterator[Any]
    if start.json and start.json.form == "list":
        rows = _read_list(path, report, start.encoding, "")
        report.format = "a JSON list of messages"
    elif _is_answer(start):
        rows = _read_list(path, report, start.encoding, "result")
        report.format = "a bot's updates"
    else:
        rows = _read_lines(path, report, start.encoding)
        report.format = "JSON Lines of messages"
    is_any = False
    seen: dict[str, None] = {}
    for row in rows:
        if not isinstance(row, dict):
            report.skip("entries that are no messages")
        elif not is_row(row):
            report.skip("entries without an identifier and a text")
            seen |= dict.fromkeys(list(row)[:20])
        else:
            is_any = True
            if message := read_row(row, report):
                yield message
    if report.skipped and not is_any:
        keys = [f"the keys are {one_line(', '.join(map(str, seen)))}"] if seen else []
        raise InvalidFile(
            f"{path}: expected JSON objects with an identifier and a text, such as id and text;"
            f" {', '.join(keys + report.notes) or 'there are none'}"
        )


def _is_answer(start: FileStart) -> bool:
    return start.json is not None and {"ok", "result"} <= start.json.first.keys()


def is_row(row: dict[str, Any]) -> bool:
    """Return whether an object is a message of a known kind, or has an identifier and a text."""
    return (
        telegram_objects.is_update(row)
        or telegram_objects.is_bot_message(row)
        or telegram_objects.is_mtproto_message(row)
        or fields_of(tuple(row)).are_a_message
    )


def read_row(row: dict[str, Any], report: ReadReport) -> Message | None:
    """Return the message of an object; None, counted in the report, if it has none."""
    if telegram_objects.is_update(row):
        return telegram_objects.update_message(row, report)
    if telegram_objects.is_bot_message(row):
        return telegram_objects.bot_message(row, report)
    if telegram_objects.is_mtproto_message(row):
        return telegram_objects.mtproto_message(row, report)
    if row.get("type") == "service":
        report.skip("service messages")
        return None
    return fields_of(tuple(row)).message(row, report)


def _read_list(path: Path, report: ReadReport, encoding: str, member: str) -> Iterator[Any]:
    """Yield the elements of a list, which is the whole file or a member of its object."""
    cause: Exception | None = None
    with path.open(encoding=encoding) as file:
        stream = JsonStream(file, report)
        try:
            for key in stream.members() if member else ("",):
                if key == member:
                    for _ in stream.elements():
                        yield stream.value()
                else:
                    stream.value()
            if not stream.peek():
                return
            reason = "something follows the list"
        except (ValueError, RecursionError, OSError) as error:
            reason, cause = reason_of(error), error
    raise InvalidFile(
        f"{path}, after character {stream.position}: expected a JSON list; {reason}"
    ) from cause


def _read_lines(path: Path, report: ReadReport, encoding: str) -> Iterator[Any]:
    broken = 0
    is_whole = True
    # Bytes that are no text become lone surrogates, so that their line alone is broken.
    with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                if broken:
                    report.note(f"line {broken} is broken")
                    broken = 0
                is_whole = line.endswith("\n")
                try:
                    yield _decode(line, report)
                except (ValueError, RecursionError):
                    report.skip("broken lines")
                    broken = number
        except OSError as error:
            raise InvalidFile(f"{path}: {reason_of(error)}") from error
    if broken and is_whole:
        report.note(f"line {broken} is broken")
    elif broken:
        report.note(f"the last line, {broken}, is cut off; import the file again when it is whole")


def _decode(line: str, report: ReadReport) -> Any:
    """Return the value in a line. Raises ValueError if it is not JSON."""
    if not line.isascii():
        line.encode()
    try:
        return json.loads(line.lstrip("\ufeff"))
    except json.JSONDecodeError as error:
        try:
            mended = mend(line)
        except UnmendableJson:
            mended = None
        if mended is None or line[mended.end :].strip():
            raise error
        for fault, count in mended.faults.items():
            report.mend(fault, count)
        return json.loads(mended.text)
