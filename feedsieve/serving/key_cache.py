"""API keys in memory: a thread reads them from the message store and records their use."""

import hmac
import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from feedsieve.errors import FeedsieveError
from feedsieve.message import StoreUnavailable
from feedsieve.serving.startup_log import log_address, who_may
from feedsieve.serving.watching import HasStore
from feedsieve.settings import Settings
from feedsieve.store.keys import KEY_LENGTH, ApiKey, hash_key
from feedsieve.store.store import MessageStore

_log = logging.getLogger("feedsieve")

REFRESH = 2.0  # seconds between two reads: a key is revoked or valid after as long
MAX_AGE = 15.0  # seconds that keys are used without being read again
RECORD_INTERVAL = 60.0  # seconds between two records of the use of a key


class KeysUnknown(FeedsieveError):
    """The API keys cannot be read, so that requests which need one are refused."""


class KeyCache:
    """The valid API keys, at most `REFRESH` seconds old while the store can be read.

    `read` and the thread replace the keys; everything else is called on the event loop.
    """

    def __init__(self, settings: Settings, holder: HasStore) -> None:
        self._settings = settings
        self._holder = holder
        self._keys: Sequence[ApiKey] = ()
        self._read_at: float | None = None  # by time.monotonic
        self._buckets: dict[int, TokenBucket] = {}  # by the number of the key
        self._used: dict[int, float] = {}  # seconds since 1970, by the number of the key
        self._recorded: dict[int, tuple[float, float]] = {}  # what was stored of it, and when
        self._announced: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._recording: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, and log who reaches the server."""
        log_address()
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end; do not wait for it."""
        self._stopping.set()

    def read(self, store: MessageStore) -> None:
        """Read the keys, and log who may read and write if that changed.

        Raises StoreUnavailable.
        """
        started = time.monotonic()
        self._keys = store.valid_keys()
        self._read_at = started
        lines = who_may(self._settings, self._keys)
        for line in lines:
            if line not in self._announced:
                _log.info("%s", line)
        self._announced = lines

    def valid(self) -> Sequence[ApiKey]:
        """Return the keys that are valid. Raises KeysUnknown."""
        if self._read_at is None or time.monotonic() - self._read_at > MAX_AGE:
            raise KeysUnknown("the API keys cannot be read from the message store")
        return self._keys

    def find(self, key: str) -> ApiKey | None:
        """Return the valid key that this is, and note its use. Raises KeysUnknown."""
        found = None
        valid = self.valid()
        if len(key) == KEY_LENGTH:  # any other is none, and need not be hashed
            hashed = hash_key(key)
            for one in valid:  # the time does not depend on where the hashes differ
                if hmac.compare_digest(one.hash, hashed):
                    found = one
        if found:
            self._used[found.number] = time.time()
        return found

    def seconds_to_wait(self, key: ApiKey) -> float:
        """Take a request from the key's limit; return 0, or if there is none left until when."""
        if key.requests_per_minute is None:
            return 0.0
        bucket = self._buckets.get(key.number)
        if bucket is None:
            bucket = self._buckets[key.number] = TokenBucket(key.requests_per_minute)
        return bucket.take()

    def _run(self) -> None:
        while not self._stopping.wait(REFRESH):
            try:
                self.read(self._holder.store)
            except StoreUnavailable as error:
                if self._announced:
                    _log.error("%s", error)
                    self._announced = []
            except Exception:
                _log.exception("the API keys cannot be read; trying again")
            # In a thread of its own: it may wait for a writer for a minute.
            is_recording = self._recording is not None and self._recording.is_alive()
            if not is_recording and self._unrecorded():
                self._recording = threading.Thread(target=self._record, daemon=True)
                self._recording.start()

    def _unrecorded(self) -> dict[int, datetime]:
        """Return when keys were last used of which that has not been stored for a minute."""
        now, unrecorded = time.time(), {}
        for number, used in self._used.copy().items():
            stored, at = self._recorded.get(number, (0.0, 0.0))
            if used > stored and now - at >= RECORD_INTERVAL:
                unrecorded[number] = datetime.fromtimestamp(used, UTC)
        return unrecorded

    def _record(self) -> None:
        times = self._unrecorded()
        try:
            self._holder.store.record_use(times)
        except StoreUnavailable as error:
            _log.warning("the use of API keys is not recorded: %s", error)
        now = time.time()  # after a failure too: a full disk fills no log
        self._recorded |= {number: (used.timestamp(), now) for number, used in times.items()}


class TokenBucket:
    """Limits requests to `per_minute`, of which all may come at once."""

    def __init__(self, per_minute: int) -> None:
        self._most = float(per_minute)
        self._per_second = per_minute / 60
        self._tokens = self._most
        self._at = time.monotonic()

    def take(self) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        now = time.monotonic()
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._per_second
