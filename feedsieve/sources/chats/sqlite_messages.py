"""SQLite databases of messages: chat dumps, other programs' archives, and stores of our own."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.chats import sqlite_dump
from feedsieve.sources.chats.sqlite_dump import columns, quoted, tables
from feedsieve.sources.chats.telegram_objects import message_link
from feedsieve.sources.fields import Fields, fields_of, read_time, string, time_of
from feedsieve.sources.keys import bot_api_key, file_key
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart, one_line

NAME = "sqlite"
TITLE = "SQLite database"
_OF_MESSAGES = ("message", "msg", "post", "chat")  # in the names of tables
_EXPECTED = f"a table {sqlite_dump.RAW_TABLES}, or one with columns for an identifier and a text"


def recognise(start: FileStart) -> bool:
    """Return whether the file has SQLite's header."""
    return start.data.startswith(sqlite_dump.HEADER)


def read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of a database; NULL becomes an empty string. Raises InvalidFile."""
    try:
        with sqlite_dump.open_read_only(path) as connection:
            connection.row_factory = sqlite3.Row
            yield from _read(connection, path, report)
    except (sqlite3.Error, OSError) as error:
        raise InvalidFile(f"{path}: expected an SQLite database; {_way_out(error)}") from error


def _way_out(error: Exception) -> str:
    reason = str(error)
    if "locked" in reason:
        return f"{reason}; close the program that is using it"
    if "no such module" in reason or "no such" in reason or not isinstance(error, sqlite3.Error):
        return reason
    return f"{reason}; copy it again, or repair it with sqlite3 OLD .recover | sqlite3 NEW"


def _read(connection: sqlite3.Connection, path: Path, report: ReadReport) -> Iterator[Message]:
    readable = _columns(connection, report)
    present = {name.lower(): {column.lower() for column in readable[name]} for name in readable}
    raw = sqlite_dump.raw_tables(connection)
    messages = present.get("messages", set())
    if {"fingerprint", "seen_at"} <= messages and "scores" in present:
        report.format = "a message store of feedsieve"
        if raw:
            report.note(f"tables not read, since the store has their messages: {', '.join(raw)}")
        yield from _read_store(connection, present)
    elif raw:
        report.format = "SQLite chat dump"
        for table in raw:
            yield from sqlite_dump.rows(connection, table)
    elif {"contextid", "id", "message"} <= present.get("message", set()):
        report.format = "telegram-export's database"
        yield from _read_telegram_export(connection, present, report)
    elif {"id", "type", "date", "content", "user_id"} <= messages:
        report.format = "tg-archive's database"
        yield from _read_tg_archive(connection, present, report)
    else:
        yield from _read_other(connection, readable, path, report)


def _columns(connection: sqlite3.Connection, report: ReadReport) -> dict[str, tuple[str, ...]]:
    """Return the columns of each table and view that can be read."""
    found: dict[str, tuple[str, ...]] = {}
    for table in tables(connection).values():
        try:
            found[table] = tuple(columns(connection, table).values())
        except sqlite3.OperationalError as error:  # a view of a table that is gone
            report.note(f"{one_line(table)} cannot be read: {one_line(error)}")
    return found


def _read_store(connection: sqlite3.Connection, present: dict[str, set[str]]) -> Iterator[Message]:
    if "sources" not in present:  # a store of the first version
        for row in connection.execute("SELECT id, text, channel, time FROM messages"):
            yield Message(row["id"], row["text"], row["channel"], read_time(row["time"]))
        return
    for row in connection.execute(
        "SELECT messages.*, sources.key, sources.title FROM messages"
        " JOIN sources ON sources.number = messages.source"
    ):
        yield Message(
            id=row["source_id"],
            text=row["text"],
            channel=row["title"],
            time=read_time(row["time"]),
            source=row["key"],
            sender=row["sender"],
            link=row["link"],
            reply_to=row["reply_to"],
            edited=read_time(row["edited"]),
        )


def _read_telegram_export(
    connection: sqlite3.Connection, present: dict[str, set[str]], report: ReadReport
) -> Iterator[Message]:
    titles: dict[int, str] = {}
    for table in ("channel", "supergroup", "chat"):
        if {"id", "title", "dateupdated"} <= present.get(table, set()):
            rows = connection.execute(f"SELECT ID, Title FROM {table} ORDER BY DateUpdated")
            titles.update((number, title) for number, title in rows)
    fields = present["message"]
    for row in connection.execute("SELECT * FROM Message"):
        if "serviceaction" in fields and row["ServiceAction"] is not None:
            report.skip("service messages")
            continue
        number, identifier = row["ContextID"], string(row["ID"])
        key = bot_api_key(number) if isinstance(number, int) else f"name:{string(number)}"
        yield Message(
            id=identifier,
            text=string(row["Message"]),
            channel=titles.get(number),
            time=time_of(row["Date"], report) if "date" in fields else None,
            source=key,
            sender=string(row["FromID"]) or None if "fromid" in fields else None,
            link=message_link(key, identifier),
            reply_to=string(row["ReplyMessageID"]) or None if "replymessageid" in fields else None,
        )


def _read_tg_archive(
    connection: sqlite3.Connection, present: dict[str, set[str]], report: ReadReport
) -> Iterator[Message]:
    senders: dict[object, str] = {}
    if {"id", "username", "first_name", "last_name"} <= present.get("users", set()):
        for user in connection.execute("SELECT id, username, first_name, last_name FROM users"):
            names = " ".join(filter(None, (user["first_name"], user["last_name"])))
            senders[user["id"]] = names or string(user["username"])
    has_replies = "reply_to" in present["messages"]
    for row in connection.execute("SELECT * FROM messages"):
        if row["type"] != "message":
            report.skip("service messages")
            continue
        yield Message(
            id=string(row["id"]),
            text=string(row["content"]),
            time=time_of(row["date"], report),
            sender=senders.get(row["user_id"]) or string(row["user_id"]) or None,
            reply_to=string(row["reply_to"]) or None if has_replies else None,
            edited=read_time(row["edit_date"]) if "edit_date" in present["messages"] else None,
        )


def _read_other(
    connection: sqlite3.Connection,
    readable: dict[str, tuple[str, ...]],
    path: Path,
    report: ReadReport,
) -> Iterator[Message]:
    """Yield the messages of all tables that look like it; each is a source if there are several."""
    found = {
        table: fields
        for table, names in readable.items()
        if (fields := fields_of(names)).are_a_message
    }
    chosen = _chosen(connection, found)
    if not chosen:
        seen = ", ".join(f"{table}({', '.join(names)})" for table, names in readable.items())
        having = f"it has {one_line(seen, 300)}" if seen else "it has no tables"
        raise InvalidFile(f"{path}: expected {_EXPECTED}; {having}")
    if others := [name for name in found if name not in chosen]:
        report.note(f"tables not read: {one_line(', '.join(others))}")
    for table in chosen:
        report.note(f"read from {one_line(table)}: {_described(found[table])}")
        for row in connection.execute(f"SELECT * FROM {quoted(table)}"):
            message = found[table].message(row, report)
            if len(chosen) > 1 and not message.source:
                source = f"{file_key(path)}/{table}"
                message = replace(message, source=source, channel=table)
            yield message


def _chosen(connection: sqlite3.Connection, found: dict[str, Fields]) -> list[str]:
    """Return the tables to read: those named after messages, if any is.

    Full-text indices and views repeat tables, and are read only where no table has messages.
    """
    kinds: dict[str, list[str]] = {"table": [], "virtual": [], "view": []}
    for name, kind in connection.execute(
        "SELECT name, CASE WHEN sql LIKE 'CREATE VIRTUAL%' THEN 'virtual' ELSE type END"
        " FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY rowid"
    ):
        if name in found:
            kinds[kind].append(name)
    for names in kinds.values():
        named = [name for name in names if any(part in name.lower() for part in _OF_MESSAGES)]
        if names:
            return named or names
    return []


def _described(fields: Fields) -> str:
    names = (fields.id, fields.text, fields.channel, fields.time, fields.sender)
    return one_line(", ".join(filter(None, names)))
