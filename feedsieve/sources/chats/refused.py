"""Files that are recognised and not read, each with the way to a file that is."""

import re
from collections.abc import Iterator
from pathlib import Path

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart

NAME = "refused"
TITLE = ""
_MAGIC = {
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GIF8": "a picture",
    b"%PDF": "a PDF document; save its table or chat as CSV",
    b"PAR1": "a Parquet file; save it as CSV, for example with pandas' to_csv",
    b"PGDMP": "a dump of PostgreSQL; export the table of messages as CSV, with \\copy",
    b"\x00\x05\x16\x07": "macOS's attributes of a file, not the file",
    b"SQLite format 3": "a damaged SQLite database; copy it again from its program",
    b"\xd0\xcf\x11\xe0": "a file of an old Microsoft Office; save it as CSV",
    b"PK\x03\x04": "a ZIP archive; unpack it and import the files in it",
    b"\x1f\x8b": "a gzip file; unpack it with gunzip and import the file in it",
}
# Possessive and atomic: anything else takes exponential time for a file of dashes or comments.
_HTML = re.compile(
    r"(?:<\?xml[^>]*+>\s*+|(?><!--.*?-->)\s*+)*+<(?:!doctype html|html)\b", re.I | re.S
)
_SQL = re.compile(
    r"(?:(?:--[^\n]*+|(?>/\*.*?\*/);?+|\\restrict[^\n]*+|SELECT pg_catalog[^;]*+;"
    r"|(?:PRAGMA|SET|BEGIN|USE|LOCK|DROP|CREATE DATABASE)\b[^;]*+;)\s*+)*+"
    r"(?:CREATE TABLE|CREATE SCHEMA|ALTER TABLE|INSERT INTO|COPY \S+ \()",
    re.I | re.S,
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")


def recognise(start: FileStart) -> bool:
    """Return whether the file has a known form that is not read."""
    return bool(_reason(start))


def read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Raise InvalidFile."""
    raise InvalidFile(f"{path}: this is {_reason(FileStart(path))}")


def _reason(start: FileStart) -> str:
    for magic, reason in _MAGIC.items():
        if start.data.startswith(magic):
            return reason
    if _HTML.match(start.text):
        return _html(start)
    if start.text.startswith("<?xml"):
        return "an XML file; export the chat as JSON or CSV"
    if _SQL.match(start.text):
        return _sql(start)
    if start.text.startswith("=====") and "\nGuild:" in start.text[:500]:
        return (
            "DiscordChatExporter's text file, which has no identifiers; export the channel again"
            " with --format Json"
        )
    sample = start.data[:4096]
    if not start.is_unicode and 20 * len(_CONTROL.findall(sample)) > len(sample):
        return _binary(start.path)
    return ""


def _html(start: FileStart) -> str:
    if "tgme_" in start.text or "clearfix" in start.text or "Exported Data" in start.text:
        return (
            "Telegram Desktop's export as HTML; export the chat again with the format"
            " 'Machine-readable JSON' and import its result.json"
        )
    if "message__header" in start.text or 'content="VK' in start.text:
        return (
            "VK's archive as HTML, which is not read; write the messages to a CSV file with columns"
            " id,text,channel,time"
        )
    if "DiscordChatExporter" in start.text or "chatlog__" in start.text:
        return "DiscordChatExporter's page as HTML; export the channel again with --format Json"
    return "a page in HTML; export the chat as JSON or CSV"


def _sql(start: FileStart) -> str:
    head = start.text[:2000].lower()
    if "mysql" in head or "mariadb" in head or "`" in head:
        return "a dump of MySQL as text; export the table of messages as CSV"
    if "postgresql" in head or re.match(r"copy|set ", head):
        return "a dump of PostgreSQL as text; export the table of messages as CSV, with \\copy"
    stem = start.path.stem
    return (
        "an SQL dump as text; make a database of it and import that:"
        f" sqlite3 {stem}.db < {start.path.name}"
    )


def _binary(path: Path) -> str:
    if re.fullmatch(r"\.crypt\d*", path.suffix):
        return "WhatsApp's encrypted backup; export the chat from the app as a text file"
    return (
        "neither text nor a known binary format; if it is an encrypted database, as of SQLCipher"
        " or Signal, export it decrypted with its program; if it was copied, copy it again"
    )
