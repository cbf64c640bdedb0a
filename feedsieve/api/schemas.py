"""Requests and answers of the routes, as OpenAPI documents them."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    RootModel,
    TypeAdapter,
    model_validator,
)

from feedsieve.message import Label, Message, clean
from feedsieve.scoring.explain import Explanation
from feedsieve.scoring.scorer import By
from feedsieve.sources.keys import given_key
from feedsieve.store.ingest import Outcome
from feedsieve.text import LONGEST

MAX_TEXTS = 256  # a request
# Bytes. As many texts of 10,000 Cyrillic letters have 5.1 MB, and as many of Telegram's longest
# messages, 4,096 characters escaped as \u0444, have 6.3 MB.
MAX_BODY = 6_500_000

Text = Annotated[str, Field(max_length=LONGEST)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
Limit = Annotated[int, Query(ge=1, le=100, description="how many, 1 to 100")]
Flag = Literal["0", "1", "false", "true"]
Explain = Annotated[Flag, Query(description="1 or true: explain the score")]
Wait = Annotated[Flag, Query(description="0 or false: answer before the messages are scored")]


class ScoreRequest(BaseModel):
    """Texts to score; the encoder reads the first 256 tokens of each, fine-tuned the first 160."""

    texts: Texts


class Score(BaseModel):
    """The score of one text."""

    score: float = Field(ge=0, le=1, description="calibrated probability of positive")
    label: Label
    by: By = Field(description="what gave the score: the word model alone, or the encoder")


SCORES = TypeAdapter(list[Score])


class MessageAnswer(BaseModel):
    """One message with its score."""

    id: str
    text: str
    score: float = Field(ge=0, le=1)
    label: Label
    model: str = Field(description="tag of the classifier")
    explanation: Explanation | None = Field(
        None, exclude_if=lambda value: value is None, description="present if requested"
    )


Name = Annotated[str, Field(max_length=500)]


class NewMessage(BaseModel):
    """A message to store. Source and id say which it is: the same ones again are an edit."""

    model_config = ConfigDict(extra="forbid")

    source: Name = Field(
        "", description="key of the chat, such as telegram:channel:1234, or a name of your own"
    )
    id: Name = Field(description="identifier in the source")
    text: Text
    channel: Name | None = Field(None, description="title of the chat; the source if none is given")
    sender: Name | None = None
    time: AwareDatetime | None = Field(None, description="when it was written")
    edited: AwareDatetime | None = Field(None, description="when its text was last changed")
    link: Annotated[str, Field(max_length=2000)] | None = Field(None, description="to the original")
    reply_to: Name | None = Field(None, description="identifier of another message in the source")

    _message: Message = PrivateAttr()

    @model_validator(mode="after")
    def _check(self) -> "NewMessage":
        fields = self.model_dump() | {"source": given_key(self.source)}
        message = self._message = clean(Message(**fields))
        if message.is_blank:
            raise ValueError("id and text must not be blank")
        if not message.source:
            raise ValueError("source or channel must say where the message is from")
        return self

    def message(self) -> Message:
        """Return the message as the store has it."""
        return self._message


def _several(body: object) -> object:
    return [body] if isinstance(body, dict) else body


NewMessages = Annotated[
    list[NewMessage],
    Field(min_length=1, max_length=MAX_TEXTS, description="one message, or an array of up to 256"),
    BeforeValidator(_several, json_schema_input_type=NewMessage | list[NewMessage]),
]


class NewMessagesBody(RootModel[NewMessages]):
    """The body of `POST /messages`."""


class StoredMessage(BaseModel):
    """The outcome of posting one message."""

    id: str = Field(description="identifier in /messages/{identifier}")
    outcome: Outcome = Field(description="deleted: it was deleted before, and is not stored again")
    score: float | None = Field(ge=0, le=1, description="null if it is scored later")
    label: Label | None


STORED = TypeAdapter(list[StoredMessage])


class MessageIds(BaseModel):
    """Identifiers of messages drawn at random."""

    msg_ids: list[str]


class Backend(BaseModel):
    """The encoder's backend and why it was chosen; cosines are to the model's reference outputs."""

    backend: str
    reason: str
    cpu: str
    lowest_cosine: float | None = Field(description="null if the model has no reference outputs")
    mean_cosine: float | None
    passed_over: dict[str, str] = Field(description="backends rejected on this CPU, and why")


class Version(BaseModel):
    """Versions of feedsieve and its models, and the encoder's backend."""

    version: str = Field(description="feedsieve's own")
    commit: str | None = Field(description="git's, with -dirty if files differ; null if unknown")
    model: str = Field(description="tag of the classifier")
    encoder: str = Field(description="tag of the encoder")
    backend: Backend
