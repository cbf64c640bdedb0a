"""API keys in the message store: their hashes, what they allow, and the methods of the store."""

import hashlib
import secrets
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row, bindparam, or_, select, update

from feedsieve.errors import FeedsieveError, quote
from feedsieve.store.schema import api_keys

KeyScope = Literal["read", "score", "write", "admin"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
PREFIX = "fs_"
"""The start of every key, by which scanners for secrets recognise one."""
KEY_PATTERN = PREFIX + "[0-9a-f]{64}"

_BYTES = 32  # of a key
KEY_LENGTH = len(PREFIX) + 2 * _BYTES  # characters


class KeyNameTaken(FeedsieveError, ValueError):
    """A key of this name exists and is not revoked. The message says what to do."""


class KeyNotFound(FeedsieveError, ValueError):
    """No key of this name exists that is not revoked. The message says what to do."""


class LastKey(FeedsieveError):
    """Revoking this key would open writing to everyone. The message says what to do."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as it is stored, without the key itself. Times are in UTC."""

    number: int  # never given to another key
    name: str
    hash: str  # of the key, see `hash_key`
    scopes: frozenset[KeyScope]
    requests_per_minute: int | None  # None: no limit
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None

    def allows(self, scope: KeyScope) -> bool:
        """Return whether the key has this scope; `admin` implies all."""
        return scope in self.scopes or "admin" in self.scopes


def new_key() -> str:
    """Return a random key: `PREFIX` and 256 bits as 64 hexadecimal digits."""
    return PREFIX + secrets.token_hex(_BYTES)


def hash_key(key: str) -> str:
    """Return the SHA-256 of a key as 64 hexadecimal digits.

    A slow hash with salt protects passwords, which can be guessed. A key is 256 random bits, so
    that nobody finds it by trying, however fast the hash is; and it is computed for each request.
    """
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


class KeyMethods:
    """API keys of the server.

    Every method raises StoreUnavailable as those of `MessageStore` do.
    """

    @abstractmethod
    def _transaction(self, *, writes: bool = False) -> AbstractContextManager[Connection]: ...

    def add_key(
        self, name: str, scopes: Iterable[KeyScope], requests_per_minute: int | None = None
    ) -> str:
        """Store the hash of a new key; return the key, which nobody can read again.

        Raises KeyNameTaken, and ValueError without a scope.
        """
        allowed = frozenset(scopes)
        if not allowed or not allowed <= set(SCOPES):
            raise ValueError(f"scopes are {', '.join(SCOPES)}; at least one is needed")
        key = new_key()
        row = {
            "name": name,
            "hash": hash_key(key),
            "scopes": " ".join(scope for scope in SCOPES if scope in allowed),
            "requests_per_minute": requests_per_minute,
            "created_at": datetime.now(UTC),
        }
        with self._transaction(writes=True) as connection:
            if connection.execute(_VALID.where(api_keys.c.name == name)).first():
                raise KeyNameTaken(f"a key named {quote(name)} exists; revoke it or name another")
            connection.execute(api_keys.insert(), row)
        return key

    def revoke_key(self, name: str, *, may_be_last: bool = True) -> None:
        """Revoke the key of this name for good; the name may be given again.

        Raises KeyNotFound, and LastKey for the last valid key unless it `may_be_last`.
        """
        valid = api_keys.c.name == name, api_keys.c.revoked_at.is_(None)
        with self._transaction(writes=True) as connection:  # so that nobody revokes another one
            if not may_be_last and [row.name for row in connection.execute(_VALID)] == [name]:
                raise LastKey(
                    f"{quote(name)} is the last key, and without one anyone who reaches the server"
                    " may write: add another one first, or revoke this one with --last"
                )
            now = datetime.now(UTC)
            if not connection.execute(
                update(api_keys).where(*valid).values(revoked_at=now)
            ).rowcount:
                raise KeyNotFound(
                    f"no valid key is named {quote(name)}; `feedsieve keys list` shows the names"
                )

    def api_keys(self) -> list[ApiKey]:
        """Return all keys in the order of their creation, with those that are revoked."""
        with self._transaction() as connection:
            return [_key(row) for row in connection.execute(_ALL)]

    def valid_keys(self) -> list[ApiKey]:
        """Return the keys that are not revoked, in the order of their creation."""
        with self._transaction() as connection:
            return [_key(row) for row in connection.execute(_VALID)]

    def record_use(self, times: Mapping[int, datetime]) -> None:
        """Store when keys were last used, by their numbers; an earlier time changes nothing."""
        rows = [{"key": number, "time": time} for number, time in times.items()]
        if not rows:
            return
        with self._transaction(writes=True) as connection:
            connection.execute(_USED, rows)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(**{**row._mapping, "scopes": frozenset(row.scopes.split())})


_ALL = select(*api_keys.c).order_by(api_keys.c.number)
_VALID = _ALL.where(api_keys.c.revoked_at.is_(None))
_USED = (
    update(api_keys)
    .where(
        api_keys.c.number == bindparam("key"),
        or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("time")),
    )
    .values(last_used_at=bindparam("time"))
)
