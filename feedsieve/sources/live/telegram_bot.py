"""A Telegram bot, followed by long polling of the Bot API with python-telegram-bot."""

import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import telegram
from telegram.error import Conflict, InvalidToken, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

from feedsieve.sources.chats.telegram_objects import update_message
from feedsieve.sources.live.source import Batch, InvalidSource, SourceEnded, SourceUnavailable
from feedsieve.sources.readers import Messages
from feedsieve.sources.report import ReadReport

Answer = TypeVar("Answer")
Update = dict[str, Any]

_KINDS = ["message", "edited_message", "channel_post", "edited_channel_post"]
_AT_ONCE = 100  # updates; the Bot API's largest number
_POLL_SECONDS = 25  # of one long poll; proxies end requests after 30 or 60
# Seconds; the one for reading is on top of the long poll.
_CONNECTION: Any = {"connection_pool_size": 1, "connect_timeout": 10.0, "read_timeout": 15.0}
_OFFSET_SECONDS = 6 * 86_400  # after a week without updates Telegram counts from a random number
_LONGEST_REASON = 200  # characters
_TOKEN = re.compile(r"(\d{1,20}):[\w-]{10,200}", re.ASCII)
_LOGGERS_WITH_TOKEN = ("httpx", "httpcore", "telegram")

# httpx logs each URL, and a bot's contains its token. python-telegram-bot logs updates that it
# cannot read, with the text.
for _name in _LOGGERS_WITH_TOKEN:
    logging.getLogger(_name).setLevel(logging.CRITICAL + 1)


class TelegramBot:
    """The chats that a bot is a member of. Its token is in no message, log line or exception."""

    label = "telegram"

    def __init__(self, token: str, api: str) -> None:
        """Raises InvalidSource if the token does not look like one."""
        token = token.strip()
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            raise InvalidSource(
                "telegram: the token is not one of @BotFather's, which are digits, a colon and"
                " letters; see FEEDSIEVE_TELEGRAM_TOKEN"
            )
        self.key = f"telegram:bot:{parts[1]}"
        self._token = token
        self._api = api.rstrip("/")

    async def batches(self, position: str | None, *, once: bool) -> AsyncGenerator[Batch, None]:
        """Yield a batch for each answer of the Bot API.

        An answer is confirmed by asking for the next one. Unconfirmed updates come again, for up to
        24 hours. Raises SourceUnavailable and SourceEnded.
        """
        offset, seen_at = self._read_position(position)
        polls = _Polls(**_CONNECTION)
        bot = telegram.Bot(
            self._token,
            f"{self._api}/bot",
            request=HTTPXRequest(**_CONNECTION),
            get_updates_request=polls,
        )
        try:
            await self._ask(bot.initialize())
            while True:
                if time.time() - seen_at > _OFFSET_SECONDS:
                    offset = None  # everything before is confirmed, and new numbers may be lower
                if updates := await self._ask(self._poll(bot, polls, offset, once=once)):
                    offset, seen_at = int(updates[-1]["update_id"]) + 1, time.time()
                    yield _batch(updates, self._position(offset, seen_at))
                else:
                    yield Batch()
                    if once:
                        return
        finally:
            await bot.shutdown()

    async def _poll(
        self, bot: telegram.Bot, polls: "_Polls", offset: int | None, *, once: bool
    ) -> list[Update]:
        """Return the next updates as they were sent.

        The library reads all updates of an answer or none: it rejects a message for a field that it
        does not know how to read, and feedsieve needs few.
        """
        with suppress(TypeError, ValueError, KeyError, AttributeError):
            await bot.get_updates(
                offset=offset,
                limit=_AT_ONCE,
                timeout=0 if once else _POLL_SECONDS,
                allowed_updates=_KINDS,
            )
        return polls.updates()

    def _position(self, offset: int, seen_at: float) -> str:
        return json.dumps({"offset": offset, "seen_at": int(seen_at), "api": self._api})

    def _read_position(self, position: str | None) -> tuple[int | None, float]:
        """Return offset and time; another Bot API server has other numbers."""
        saved = json.loads(position) if position else {}
        if saved.get("api") != self._api:
            return None, 0.0
        return saved["offset"], saved["seen_at"]

    async def _ask(self, call: Awaitable[Answer]) -> Answer:
        """Return the answer of a call. Raises SourceUnavailable and SourceEnded."""
        failure: SourceUnavailable | SourceEnded
        try:
            return await call
        except InvalidToken:
            failure = SourceEnded(
                f"telegram: {self._api} rejects the token; check FEEDSIEVE_TELEGRAM_TOKEN, or ask"
                " @BotFather for a new one"
            )
        except Conflict as error:
            failure = SourceUnavailable(
                "telegram: another program polls this bot, or it has a webhook; end that one, or"
                f" use a bot of your own ({self._reason(error)})"
            )
        except RetryAfter as error:
            seconds = float(error.__reduce__()[1][0])  # the attribute's type is about to change
            failure = SourceUnavailable(f"telegram: {self._api} asks to wait", seconds)
        except TelegramError as error:
            failure = SourceUnavailable(
                f"telegram: {self._api} does not answer as it should: {self._reason(error)}"
            )
        except Exception as error:  # such as an update that the library cannot read
            failure = SourceUnavailable(
                f"telegram: an answer cannot be read: {type(error).__name__} in python-telegram-bot"
            )
        raise failure  # not chained: the cause has the token, or a message's text

    def _reason(self, error: Exception) -> str:
        reason = str(error).replace(self._token, "***")
        return " ".join(reason.split())[:_LONGEST_REASON]


class _Polls(HTTPXRequest):
    """Keeps the last answer."""

    _answer = b""

    async def do_request(self, *arguments: Any, **options: Any) -> tuple[int, bytes]:
        self._answer = b""
        status, self._answer = await super().do_request(*arguments, **options)
        return status, self._answer

    def updates(self) -> list[Update]:
        """Return the updates of the last answer. Raises ValueError."""
        updates: list[Update] = json.loads(self._answer)["result"]
        return updates


def _batch(updates: Sequence[Update], position: str) -> Batch:
    report = ReadReport()
    found = filter(None, (update_message(update, report) for update in updates))
    messages = list(Messages(found, report))
    titles = dict.fromkeys(repr(message.channel or message.source) for message in messages)
    return Batch(messages, position, ", ".join(titles), report)
