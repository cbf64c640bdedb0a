"""Logging without line breaks, texts and keys from requests, with the request's id; or as JSON."""

import json
import logging
import re
import time
import traceback
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from feedsieve.errors import FeedsieveError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_KEY = re.compile("fs_[0-9a-f]{8,}")  # see feedsieve/store/keys.py
_LOGGERS = (None, "bentoml", "uvicorn.error", "circus")  # those that have handlers; None: the root


@dataclass(slots=True)
class RequestContext:
    """A request in progress: its id, and the name of the API key that it was sent with."""

    id: str
    key: str | None = None


request_context: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)


class OneLine(logging.Filter):
    """Escapes control characters in log messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        record.msg = _CONTROL.sub(lambda match: ascii(match[0])[1:-1], message)
        record.args = ()
        return True


class ServerLines(OneLine):
    """Also hides API keys and the messages of unexpected exceptions, which may quote texts."""

    def __init__(self, *, names_request: bool) -> None:
        """With `names_request` the id of the request in progress is put behind each message."""
        super().__init__()
        self._names_request = names_request

    def filter(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "request"):  # another handler had it
            return True
        super().filter(record)
        record.msg = _KEY.sub("fs_...", record.msg)
        context = request_context.get()
        record.request = context.id if context else None
        if context and self._names_request:
            record.msg += f" (request {context.id})"
        if record.exc_info and record.exc_info[1]:
            record.exc_text = trace(record.exc_info[1])
        return True


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": utc(int(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": getattr(record, "request", None),
            "exception": record.exc_text,
        }
        return json.dumps({name: value for name, value in line.items() if value is not None})


def install(form: Literal["text", "json"]) -> None:
    """Let the handlers of this process log `feedsieve` from INFO on, in this form."""
    logging.getLogger("feedsieve").setLevel(logging.INFO)
    lines = ServerLines(names_request=form == "text")
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(lines)
            if form == "json":
                handler.setFormatter(JsonLines())


@lru_cache(maxsize=1)
def utc(seconds: int) -> str:
    """Return a time, in seconds since 1970, as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def trace(error: BaseException) -> str:
    """Return where an exception and its causes were raised, and their types.

    Their messages are left out, but for errors that we word ourselves and those of the system.
    """
    parts: list[str] = []
    following: BaseException | None = error
    while following:
        message = f": {following}" if isinstance(following, FeedsieveError | OSError) else ""
        place = "".join(traceback.format_tb(following.__traceback__))
        parts.append(
            f"Traceback (most recent call last):\n{place}{type(following).__name__}{message}"
        )
        hidden = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or hidden
    return "\n\ncaused\n\n".join(reversed(parts))
