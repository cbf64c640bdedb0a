"""Sources of messages whose file does not name them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePath

from feedsieve.message import Message
from feedsieve.sources.keys import file_key, is_stable, name_key


@dataclass(slots=True)
class SourceCount:
    """The messages of one source in a file."""

    key: str
    title: str | None
    messages: int = 0

    def __str__(self) -> str:
        return f'{self.key} "{self.title}"' if self.title else self.key


class NamedMessages(Iterator[Message]):
    """Messages with a source each, counted by source.

    A source whose identifier is in the file stays. Otherwise it is `name`, with the channel after
    it if there is one; without a name, it is the channel or else the file.
    """

    def __init__(self, messages: Iterable[Message], path: PurePath, name: str | None) -> None:
        self._messages = iter(messages)
        self._name = name
        self._file = file_key(path)
        self.sources: dict[str, SourceCount] = {}
        self.is_name_used = False

    def __next__(self) -> Message:
        message = next(self._messages)
        if not message.source or (self._name and not is_stable(message.source)):
            message = self._named(message)
        count = self.sources.get(message.source)
        if count is None:
            count = SourceCount(message.source, message.channel)
            self.sources[message.source] = count
        count.messages += 1
        count.title = message.channel or count.title
        return message

    def _named(self, message: Message) -> Message:
        channel, name = message.channel, self._name
        if name:
            self.is_name_used = True
            by_name = message.source.startswith("name:")  # of the channel, or its identifier
            part = message.source.partition(":")[2] if by_name else channel
            key = f"{name}/{part}" if part else name
            return replace(message, source=name_key(key), channel=channel or name)
        return replace(message, source=name_key(channel) or self._file)
