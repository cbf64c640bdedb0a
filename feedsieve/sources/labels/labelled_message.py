"""A labelled message, as files and exports have it."""

from dataclasses import dataclass
from datetime import datetime

from feedsieve.message import Label, Message


@dataclass(frozen=True, slots=True)
class LabelledMessage:
    """A message with the text that a person labelled, and the label.

    The message's identifier is empty if the file has none, its source if that is unknown.
    """

    message: Message
    label: Label | None  # None: withdrawn
    who: str
    time: datetime | None  # None: unknown
    origin: str
    note: str | None = None
    is_ground_truth: bool = False
