"""Live sources by the names that users write."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from feedsieve.sources.live.source import InvalidSource, LiveSource

_START = re.compile(r"(telegram:|https?://|[/~.])")
_URL = re.compile("https?://", re.IGNORECASE)


@dataclass(frozen=True)
class SourceOptions:
    """Settings of live sources; `interval` is the seconds between two fetches of a feed."""

    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    api: str = "https://api.telegram.org"
    interval: float = 300.0
    ignored: frozenset[Path] = frozenset()  # files that are no exports


def split_sources(text: str) -> list[str]:
    """Return the sources in a list separated by spaces or commas. A URL may contain commas."""
    sources: list[str] = []
    for word in text.split():
        previous = ""
        for part in filter(None, word.split(",")):
            if _URL.match(previous) and not _START.match(part):
                previous = f"{sources.pop()},{part}"
            else:
                previous = part
            sources.append(previous)
    return sources


def label_of(name: str) -> str:
    """Return a label for a source that cannot be opened, whose name may have a token."""
    if name.lower().startswith("telegram:"):
        return "telegram"
    return "feed" if _URL.match(name) else name


def open_source(name: str, options: SourceOptions) -> LiveSource:
    """Return a live source: `telegram:` or `telegram:bot`, a URL, or the path of a folder.

    Raises InvalidSource.
    """
    try:
        if name.lower().startswith("telegram:"):
            if name.lower() not in ("telegram:", "telegram:bot"):  # perhaps with a token
                raise InvalidSource(
                    "telegram: nothing may follow the colon; the token is in"
                    " FEEDSIEVE_TELEGRAM_TOKEN or the file FEEDSIEVE_TELEGRAM_TOKEN_FILE"
                )
            from feedsieve.sources.live.telegram_bot import TelegramBot

            return TelegramBot(_token(options), options.api)
        if _URL.match(name):
            from feedsieve.sources.live.feeds import Feed

            return Feed(name, options.interval)
        from feedsieve.sources.live.folder import Folder

        return Folder(Path(name), options.ignored)
    except ImportError as error:
        raise InvalidSource(
            f"live sources need libraries: pip install -c constraints.txt -e '.[watch]' ({error})"
        ) from error


def _token(options: SourceOptions) -> str:
    if options.token:
        return options.token
    if options.token_file is None:
        raise InvalidSource(
            "telegram: needs the bot's token, in FEEDSIEVE_TELEGRAM_TOKEN or in a file that"
            " FEEDSIEVE_TELEGRAM_TOKEN_FILE names"
        )
    try:
        return options.token_file.expanduser().read_text(encoding="utf-8")
    except RuntimeError:  # of expanduser
        raise InvalidSource(f"telegram: {options.token_file}: there is no such user") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InvalidSource(f"telegram: {options.token_file}: {reason}") from None
