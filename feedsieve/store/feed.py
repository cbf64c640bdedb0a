"""Pages of the feed: the cursor, the items, and the statements that read them."""

import base64
import json
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, TypeAdapter
from sqlalchemy import Connection, Select, bindparam, func, select

from feedsieve.message import Label
from feedsieve.store.schema import messages, models, scores

_MAX_CURSOR = 2048  # characters
_MAX_RANK = 2**53


class Cursor(NamedTuple):
    """The last item of a page: the model that ranked it, its score, fingerprint and rank."""

    model: Annotated[str, Field(pattern=r"^[^\x00]+$")]
    score: Annotated[float, Field(allow_inf_nan=False)]
    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    rank: Annotated[int, Field(ge=1, le=_MAX_RANK)]

    def encode(self) -> str:
        """Return the cursor for a URL: a compact JSON array in URL-safe base64, unpadded."""
        fields = json.dumps(self, separators=(",", ":"))
        return base64.urlsafe_b64encode(fields.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Cursor":
        """Return the cursor that encodes as `text`. Raises ValueError for any other text."""
        try:
            if len(text) <= _MAX_CURSOR:
                fields = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
                cursor = _CURSOR.validate_json(fields)
                if cursor.encode() == text:  # not the same fields in another spelling
                    return cursor
        except (ValueError, TypeError):
            pass
        raise ValueError("not a cursor: pass the `next` of an earlier page unchanged")


_CURSOR = TypeAdapter(Cursor, config=ConfigDict(strict=True))


class FeedItem(BaseModel, frozen=True):
    """A message in the feed; messages with the same text are one item."""

    id: str
    text: str
    score: float = Field(ge=0, le=1)
    label: Label
    rank: int = Field(ge=1, description="continues from page to page")
    copies: int = Field(ge=1, exclude=True)  # messages with this text, this one included


class FeedPage(BaseModel, frozen=True):
    """A page of the feed; pass `next` as `cursor` to get the following one."""

    model: str = Field(description="tag of the classifier")
    items: list[FeedItem] = Field(description="by falling score")
    next: Annotated[Cursor, PlainSerializer(Cursor.encode, return_type=str)] | None = Field(
        description="null on the last page"
    )
    notice: str | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="present if new messages and scores cannot be stored: why",
    )


def read_page(connection: Connection, model: str, limit: int, after: Cursor | None) -> FeedPage:
    """Return up to `limit` items ranked by `model`, or those that follow a cursor of its model."""
    values: dict[str, Any] = {"model": after.model if after else model}
    statements = [_RANKED]
    if after:
        statements = [_SAME_SCORE, _LOWER_SCORE]
        values |= {"last_score": after.score, "last_fingerprint": after.fingerprint}
    rows: list[Any] = []
    for statement in statements:
        if len(rows) <= limit:  # one more shows whether another page follows
            rows += connection.execute(statement, values | {"rows": limit + 1 - len(rows)})
    items = [
        FeedItem(
            id=row.id,
            text=row.text,
            score=row.score,
            label="positive" if row.score >= row.threshold else "negative",
            rank=rank,
            copies=row.copies,
        )
        for rank, row in enumerate(rows[:limit], after.rank + 1 if after else 1)
    ]
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = Cursor(last.model, last.score, last.fingerprint, items[-1].rank)
    return FeedPage(model=values["model"], items=items, next=following)


def model_to_show(connection: Connection, current: str) -> str:
    """Return `current` if it was complete once, else the model that was complete last, if any."""
    return connection.execute(_SHOWN, {"current": current}).scalar_one_or_none() or current


def _ranked() -> Select[Any]:
    twins = messages.alias("twins")
    same_text = twins.c.fingerprint == scores.c.fingerprint
    first = select(func.min(twins.c.id)).where(same_text).scalar_subquery()
    copies = select(func.count()).select_from(twins).where(same_text).scalar_subquery()
    return (
        select(scores, models.c.threshold, messages.c.id, messages.c.text, copies.label("copies"))
        .join_from(scores, messages, messages.c.id == first)
        .join(models, models.c.tag == scores.c.model)
        .where(scores.c.model == bindparam("model"))
        .order_by(scores.c.score.desc(), scores.c.fingerprint)
        .limit(bindparam("rows"))
    )


# Built once: SQLAlchemy takes longer for that than the database takes to answer.
_RANKED = _ranked()
# The items after a cursor are two ranges of the index; one condition with OR would read all before.
_SAME_SCORE = _RANKED.where(
    scores.c.score == bindparam("last_score"),
    scores.c.fingerprint > bindparam("last_fingerprint"),
)
_LOWER_SCORE = _RANKED.where(scores.c.score < bindparam("last_score"))
_SHOWN = (
    select(models.c.tag)
    .where(models.c.completed_at.is_not(None))
    .order_by(models.c.tag != bindparam("current"), models.c.completed_at.desc(), models.c.tag)
    .limit(1)
)
