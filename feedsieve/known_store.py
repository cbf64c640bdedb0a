"""The message store for commands that bring no messages in."""

from pathlib import Path

from feedsieve.errors import FeedsieveError
from feedsieve.settings import OWN_DB, settings
from feedsieve.store.store import MessageStore


class NoStore(FeedsieveError):
    """There is no message store, and none is named."""


def known_store() -> MessageStore:
    """Open the message store of the settings, but never create the default one.

    An empty store would count as the user's own data, and commands would stop using the sample.
    Raises NoStore and StoreUnavailable.
    """
    is_default = not settings().is_db_named and not settings().is_sample
    if is_default and not Path(OWN_DB).exists():
        raise NoStore(
            f"there is no message store yet: `feedsieve import FILE` makes {OWN_DB}, and"
            " FEEDSIEVE_DB names another"
        )
    return MessageStore.open(settings().db)
