"""Requests and answers of the routes, as OpenAPI documents them."""

from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, Field, TypeAdapter

from feedsieve.message import Label
from feedsieve.scoring.explain import Explanation
from feedsieve.scoring.scorer import By
from feedsieve.text import LONGEST

MAX_TEXTS = 256  # a request
MAX_BODY = MAX_TEXTS * LONGEST * 12 + 1024  # bytes, if all characters are \uD83D\uDE00

Text = Annotated[str, Field(max_length=LONGEST)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
Limit = Annotated[int, Query(ge=1, le=100, description="how many, 1 to 100")]
Explain = Annotated[
    Literal["0", "1", "false", "true"],
    Query(description="1 or true: explain the score"),
]


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
    model: str = Field(description="tag of the classifier")
    encoder: str = Field(description="tag of the encoder")
    backend: Backend
