"""Shadows: the model that is compared with the one in service, and the scores of both."""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, delete, insert, select

from feedsieve.store.batches import insert_all
from feedsieve.store.schema import shadow_outcomes, shadow_pairs, shadows, upsert

MAX_PAIRS = 10_000
"""Pairs of scores that a store keeps, the newest."""


@dataclass(frozen=True, slots=True)
class Shadow:
    """A model that was to be compared with the served one from some time on."""

    number: int  # from 1
    tag: str | None  # of the classifier, exact; None: no model
    share: float  # of the texts, in (0, 1]
    time: datetime
    who: str


@dataclass(frozen=True, slots=True)
class ShadowOutcome:
    """A server's answer to the last shadow."""

    server: str
    reason: str | None  # why it does not score with it; None: it does
    time: datetime


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """Scores and decisions of the served model and of its shadow, for one text."""

    fingerprint: str
    score: float
    shadow_score: float
    is_positive: bool
    shadow_is_positive: bool
    time: datetime


class ShadowMethods:
    """The methods of the message store that are about shadows.

    Every method raises StoreUnavailable as those of `MessageStore` do.
    """

    @abstractmethod
    def _transaction(self, *, writes: bool = False) -> AbstractContextManager[Connection]: ...

    def shadow(self) -> Shadow | None:
        """Return the last shadow, or None if there was none."""
        statement = select(shadows).order_by(shadows.c.number.desc()).limit(1)
        with self._transaction() as connection:
            row = connection.execute(statement).one_or_none()
        return Shadow(*row) if row else None

    def set_shadow(self, tag: str | None, share: float, who: str) -> Shadow:
        """Store that servers are to compare `tag` on a share of the texts; forget their answers.

        Raises ValueError for a share that is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise ValueError(f"share {share} is not above 0 and at most 1")
        now = datetime.now(UTC)
        with self._transaction(writes=True) as connection:
            connection.execute(delete(shadow_outcomes))
            statement = insert(shadows).values(tag=tag, share=share, time=now, who=who)
            number = connection.execute(statement.returning(shadows.c.number)).scalar_one()
        return Shadow(number, tag, share, now, who)

    def save_shadow_outcome(self, number: int, outcome: ShadowOutcome) -> None:
        """Store a server's answer to the shadow `number`; replace its earlier one."""
        row = asdict(outcome)
        with self._transaction(writes=True) as connection:
            statement = upsert(connection, shadow_outcomes).values(row | {"number": number})
            connection.execute(
                statement.on_conflict_do_update(index_elements=["number", "server"], set_=row)
            )

    def shadow_outcomes(self, number: int) -> list[ShadowOutcome]:
        """Return the servers' answers to the shadow `number`, by name."""
        columns = [shadow_outcomes.c[name] for name in ShadowOutcome.__dataclass_fields__]
        statement = (
            select(*columns)
            .where(shadow_outcomes.c.number == number)
            .order_by(shadow_outcomes.c.server)
        )
        with self._transaction() as connection:
            return [ShadowOutcome(*row) for row in connection.execute(statement)]

    def save_pairs(self, model: str, shadow: str, pairs: Sequence[ShadowPair]) -> None:
        """Store scores of the same texts by two models; the first pair of a text stays.

        Delete the oldest pairs beyond `MAX_PAIRS`, whatever their models are.
        """
        if not pairs:
            return
        rows = [{"model": model, "shadow": shadow, **asdict(pair)} for pair in pairs]
        numbers = select(shadow_pairs.c.number).order_by(shadow_pairs.c.number.desc())
        newest_to_go = numbers.offset(MAX_PAIRS).limit(1).scalar_subquery()
        with self._transaction(writes=True) as connection:
            insert_all(connection, upsert(connection, shadow_pairs).on_conflict_do_nothing(), rows)
            connection.execute(delete(shadow_pairs).where(shadow_pairs.c.number <= newest_to_go))

    def pairs(self, model: str, shadow: str) -> list[ShadowPair]:
        """Return the scores of the texts that two models have both scored, the oldest first."""
        columns = [shadow_pairs.c[name] for name in ShadowPair.__dataclass_fields__]
        statement = (
            select(*columns)
            .where(shadow_pairs.c.model == model, shadow_pairs.c.shadow == shadow)
            .order_by(shadow_pairs.c.number)
        )
        with self._transaction() as connection:
            return [ShadowPair(*row) for row in connection.execute(statement)]

    def last_compared(self, shadow: str | None = None) -> tuple[str, str] | None:
        """Return the model and the shadow of the newest pair, or None if there is none.

        With `shadow` that shadow's newest pair counts.
        """
        statement = select(shadow_pairs.c.model, shadow_pairs.c.shadow)
        if shadow:
            statement = statement.where(shadow_pairs.c.shadow == shadow)
        statement = statement.order_by(shadow_pairs.c.number.desc()).limit(1)
        with self._transaction() as connection:
            row = connection.execute(statement).one_or_none()
        return (row.model, row.shadow) if row else None
