"""RSS and Atom feeds, fetched again and again, read by feedparser."""

import asyncio
import calendar
import hashlib
import io
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import feedparser
import httpx

from feedsieve import __version__
from feedsieve.message import Message, clean
from feedsieve.sources.keys import shown_key
from feedsieve.sources.live.html_text import plain_text
from feedsieve.sources.live.source import Batch, InvalidSource, SourceUnavailable
from feedsieve.sources.report import ReadReport
from feedsieve.text import fingerprint

MAX_BYTES = 10_000_000  # of a feed, unpacked
_REQUEST_SECONDS = 20.0  # without a byte
_FETCH_SECONDS = 60.0  # in all, redirects included
_MAX_REDIRECTS = 5
_MAX_RETRY_AFTER = 86_400.0  # seconds
_HEADERS = {
    "User-Agent": f"feedsieve/{__version__}",
    "Accept": "application/atom+xml, application/rss+xml, application/xml;q=0.9, */*;q=0.5",
}
_VALIDATORS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}

logging.getLogger("httpx").setLevel(logging.CRITICAL + 1)  # it logs URLs with their passwords


class Feed:
    """An RSS or Atom feed."""

    def __init__(self, url: str, interval: float) -> None:
        """Fetch `url` every `interval` seconds. Raises InvalidSource for a URL without a host."""
        try:
            self._url = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):
            self._url = httpx.URL()
        if not self._url.host:
            name = url.rpartition("@")[2].partition("?")[0]
            raise InvalidSource(f"{name[:200]}: not a URL of a feed")
        # The key of the position, which nobody sees, is that of earlier versions: while one of them
        # follows the feed, this one waits.
        self.key = f"rss:{self._url.copy_with(userinfo=b'', fragment=None)}"
        self._source = shown_key(self.key)
        self.label = self._source.removeprefix("rss:")
        self._interval = interval

    async def batches(self, position: str | None, *, once: bool) -> AsyncGenerator[Batch, None]:
        """Yield a batch for each fetch, empty if nothing changed. Raises SourceUnavailable."""
        seen: dict[str, str] = json.loads(position) if position else {}
        async with httpx.AsyncClient(
            follow_redirects=True,
            max_redirects=_MAX_REDIRECTS,
            timeout=_REQUEST_SECONDS,
            headers=_HEADERS,
        ) as client:
            while True:
                batch, seen = await self._fetch(client, seen)
                yield batch
                if once:
                    return
                await asyncio.sleep(self._interval)

    async def _fetch(
        self, client: httpx.AsyncClient, seen: dict[str, str]
    ) -> tuple[Batch, dict[str, str]]:
        """Return what is new, and what to send and compare next time."""
        headers = {
            header: seen[name]
            for name, header in _VALIDATORS.items()
            if name in seen and seen[name].isascii()  # a header of a request has to be
        }
        try:
            async with (
                asyncio.timeout(_FETCH_SECONDS),
                client.stream("GET", self._url, headers=headers) as response,
            ):
                if response.status_code == httpx.codes.NOT_MODIFIED:
                    return Batch(), seen
                if response.status_code != httpx.codes.OK:
                    raise SourceUnavailable(
                        f"{self.label}: answers {response.status_code}",
                        _retry_after(response.headers.get("retry-after", "")),
                    )
                body = await self._read(response)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise SourceUnavailable(f"{self.label}: cannot be fetched: {reason[:200]}") from None
        digest = hashlib.blake2b(body, digest_size=16).hexdigest()
        if digest == seen.get("digest"):
            return Batch(), seen
        seen = {name: response.headers[name] for name in _VALIDATORS if name in response.headers}
        seen["digest"] = digest
        kind = response.headers.get("content-type", "")
        batch = await asyncio.to_thread(self._parse, body, kind, str(response.url), seen)
        return batch, seen

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise SourceUnavailable(f"{self.label}: has over {MAX_BYTES:,} bytes")
        return bytes(body)

    def _parse(self, body: bytes, kind: str, address: str, seen: Mapping[str, str]) -> Batch:
        """Return the entries of a feed, oldest first. Raises SourceUnavailable if it is none."""
        headers = {"content-type": kind, "content-location": address}
        parsed = feedparser.parse(io.BytesIO(body), response_headers=headers)
        if not parsed.get("version"):
            raise SourceUnavailable(f"{self.label}: the answer is neither RSS nor Atom")
        title = plain_text(parsed.feed.get("title", "")) or self._url.host
        report, messages = ReadReport(), []
        read = [clean(_message(entry, self._source, title)) for entry in reversed(parsed.entries)]
        ids = Counter((message.id, message.link) for message in read)
        for message in read:
            if message.id == message.link and ids[message.id, message.link] > 1:
                # Several entries link to one page: their texts tell them apart.
                message = replace(message, id=f"{message.id}#{fingerprint(message.text)}")
            if message.is_blank:
                report.skip("without text")
            else:
                messages.append(message)
        return Batch(messages, json.dumps(dict(seen)), repr(title), report)


def _message(entry: Any, source: str, title: str) -> Message:
    text = _entry_text(entry)
    published = _time(entry, "published_parsed")
    updated = _time(entry, "updated_parsed")
    link = entry.get("link")
    return Message(
        # RSS demands neither; the text then tells entries apart.
        id=entry.get("id") or link or fingerprint(text),
        text=text,
        channel=title,
        time=published or updated,
        source=source,
        sender=entry.get("author"),
        link=link,
        edited=updated if published and updated != published else None,
    )


def _entry_text(entry: Any) -> str:
    """Return title and content, or the content alone if it starts with the title."""
    contents = [*entry.get("content", []), entry.get("summary_detail")]
    bodies = (_plain(content) for content in contents if content)
    body = next(filter(None, bodies), "")
    title = _plain(entry.get("title_detail") or {})
    return body if _starts_with(body, title) else "\n\n".join(filter(None, (title, body)))


def _starts_with(body: str, title: str) -> bool:
    """Return whether the title repeats the start of the content, perhaps cut off."""
    start = " ".join(title.removesuffix("…").removesuffix("...").split())
    text = " ".join(body.split())
    is_cut = title.endswith(("…", "..."))
    after = text[len(start) : len(start) + 1]
    return text.startswith(start) and (is_cut or not after.isalnum())


def _plain(detail: Mapping[str, Any]) -> str:
    value = detail.get("value") or ""
    if detail.get("type") == "text/plain":
        return "\n".join(filter(None, (" ".join(line.split()) for line in value.splitlines())))
    return plain_text(value)


def _time(entry: Any, name: str) -> datetime | None:
    if name not in entry or entry[name] is None:
        return None
    try:
        return datetime.fromtimestamp(calendar.timegm(entry[name]), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _retry_after(value: str) -> float:
    """Return the seconds of a Retry-After header, at most a day; 0 if there is none."""
    seconds = 0.0
    if value.strip().isdecimal():
        seconds = float(value)
    else:
        with suppress(ValueError, TypeError, OverflowError):
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER)
