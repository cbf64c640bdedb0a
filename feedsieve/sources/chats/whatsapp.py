"""WhatsApp's text file of a chat ("Export chat"), as Android and iOS write it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

from feedsieve.message import InvalidFile, Message
from feedsieve.sources.report import ReadReport
from feedsieve.sources.start import FileStart, one_line, reason_of

NAME = "whatsapp"
TITLE = "WhatsApp's text file"
_MARKS = "\u200e\u200f\u202a-\u202e\ufeff"  # directions of writing; iOS puts them anywhere
_SPACE = r"[ \u00a0\u202f]"
_TIME = (
    rf"(?P<a>\d{{1,4}})(?P<mark>[./-])(?P<b>\d{{1,2}})(?P=mark)(?P<c>\d{{1,4}})\.?,?{_SPACE}+"
    rf"(?:\w{{1,3}}{_SPACE})?(?P<hour>\d{{1,2}})[:.](?P<minute>\d\d)(?:[:.](?P<second>\d\d))?"
    rf"(?:{_SPACE}*(?P<half>[apAP])\.?{_SPACE}?[mM]\.?)?"
)
_IOS = re.compile(rf"[{_MARKS}]*\[{_TIME}\]{_SPACE}(?P<rest>.*)", re.DOTALL)
_ANDROID = re.compile(rf"[{_MARKS}]*{_TIME}{_SPACE}[-–]{_SPACE}(?P<rest>.*)", re.DOTALL)
_SENDER = re.compile(r'(?P<name>[^:"“«\n]{1,100}):(?: |(?=\n)|$)(?P<text>.*)', re.DOTALL)
_MEDIA = "jpe?g|png|webp|gif|mp4|mov|3gp|opus|ogg|m4a|mp3|aac|vcf"
_ATTACHMENT = re.compile(
    rf"[{_MARKS}]+<[^<>\n]+: [^<>\n]+>|^[{_MARKS}]*<[^<>\n]{{3,80}}>$"
    rf"|^[{_MARKS}]*\S+\.(?:{_MEDIA}) \([^()\n]{{3,40}}\)\n?"
)
_EDITED = re.compile(rf" ?[{_MARKS}]*<(?:This message was edited|Сообщение изменено)>$")
_DELETED = (
    *("This message was deleted", "You deleted this message"),
    *("Данное сообщение удалено", "Вы удалили данное сообщение"),
)
_FILE_NAMES = re.compile(
    r"(?:WhatsApp Chat (?:with|-)|Чат WhatsApp(?: с контактом| с группой| с| -)) (.+)"
)


def recognise(start: FileStart) -> bool:
    """Return whether one of the first lines has WhatsApp's time and something after it."""
    return any(map(_parts, start.text.splitlines()[:5]))


def read(path: Path, report: ReadReport) -> Iterator[Message]:
    """Yield the messages of a chat, with identifiers made of time, sender, text and repetition.

    The whole file shows whether the day or the month comes first. Raises InvalidFile.
    """
    encoding = FileStart(path).encoding
    title = _title(path)
    report.note(
        "WhatsApp has no identifiers: they are made of time, sender and text; times are without a"
        " zone and count as UTC"
    )
    try:
        with path.open(encoding=encoding) as file:
            order = _order_of(filter(None, map(_parts, file)), report)
        seen: Counter[str] = Counter()
        with path.open(encoding=encoding) as file:
            for entry in _entries(file):
                if message := _message(entry, order, seen, report):
                    yield Message(
                        *(message.id, message.text, title, message.time),
                        source=f"whatsapp:{title}" if title else "",
                        sender=message.sender,
                    )
    except (OSError, ValueError) as error:
        raise InvalidFile(f"{path}: expected {TITLE}; {reason_of(error)}") from error


def _title(path: Path) -> str | None:
    """Return the chat's name, which is in the name of the file or of its folder."""
    for name in (path.stem, path.resolve().parent.name):
        if found := _FILE_NAMES.fullmatch(name.removesuffix(".zip")):
            return found[1]
    return None


def _parts(line: str) -> re.Match[str] | None:
    return _IOS.match(line) or _ANDROID.match(line)


def _entries(lines: Iterable[str]) -> Iterator[re.Match[str]]:
    """Yield the parts of each entry, whose text may go over several lines."""
    entry = ""
    for line in lines:
        if _parts(line):
            if parts := _parts(entry.rstrip("\n")):
                yield parts
            entry = line
        else:
            entry += line
    if parts := _parts(entry.rstrip("\n")):
        yield parts


def _date(parts: re.Match[str], order: str) -> tuple[int, int, int]:
    """Return year, month and day; `order` is dmy or mdy, and a long first number is a year."""
    a, b, c = int(parts["a"]), int(parts["b"]), int(parts["c"])
    if len(parts["a"]) > 2:
        return a, b, c
    year = c if len(parts["c"]) > 2 else 2000 + c
    return (year, b, a) if order == "dmy" else (year, a, b)


def _order_of(entries: Iterable[re.Match[str]], report: ReadReport) -> str:
    """Return dmy or mdy: the order in which all dates exist, or else in which they rise."""
    impossible: Counter[str] = Counter()
    falls: Counter[str] = Counter()
    last = {"dmy": (0, 0, 0), "mdy": (0, 0, 0)}
    is_american = True
    for parts in entries:
        is_american = is_american and parts["mark"] == "/" and bool(parts["half"])
        for order, previous in last.items():
            date = _date(parts, order)
            impossible[order] += date[1] > 12
            falls[order] += date < previous
            last[order] = date
    if impossible["dmy"] and impossible["mdy"]:
        raise ValueError("in some dates the day comes first, in others the month")
    for count in (impossible, falls):
        if count["dmy"] != count["mdy"]:
            return min(("dmy", "mdy"), key=count.__getitem__)
    if last["dmy"] != last["mdy"]:
        first = "month" if is_american else "day"
        report.note(f"the dates do not show whether the day comes first; here the {first} does")
    return "mdy" if is_american else "dmy"


def _time(parts: re.Match[str], order: str) -> datetime:
    hour = int(parts["hour"])
    if parts["half"]:
        hour = hour % 12 + (12 if parts["half"] in "pP" else 0)
    try:
        return datetime(*_date(parts, order), hour, int(parts["minute"]), int(parts["second"] or 0))
    except ValueError as error:
        raise ValueError(f"{error}: {one_line(parts[0], 60)}") from None


def _message(
    parts: re.Match[str], order: str, seen: Counter[str], report: ReadReport
) -> Message | None:
    found = _SENDER.fullmatch(parts["rest"])
    if not found:
        report.skip("service messages")
        return None
    time = _time(parts, order)
    sender = found["name"].strip().strip("\u200e\u202a\u202c")
    text = _EDITED.sub("", _ATTACHMENT.sub("", found["text"])).strip()
    if text.startswith("\u200e") and "\n" not in text:  # iOS: a picture, a call, a notice
        report.skip("attachments and notices")
        return None
    text = re.sub(f"[{_MARKS}]", "", text).strip()
    if not text or text.rstrip(".") in _DELETED:
        report.skip("deleted messages" if text else "attachments and notices")
        return None
    written = f"{time.isoformat()}\n{sender}\n{text}"
    seen[written] += 1
    if seen[written] > 1:
        written += f"\n{seen[written]}"
    identifier = blake2b(written.encode(errors="replace"), digest_size=8).hexdigest()
    return Message(identifier, text, time=time, sender=sender)
