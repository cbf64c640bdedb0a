"""Log lines of a server that starts: who reaches it, who may read and who may write."""

import ipaddress
import logging
from collections.abc import Sequence

import psutil

from feedsieve.settings import Settings
from feedsieve.store.keys import ApiKey, KeyScope

_log = logging.getLogger("feedsieve")


def log_address() -> None:
    """Log the addresses on which this process listens, and from where they are reached."""
    for connection in psutil.Process().net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            host, port = connection.laddr
            shown = f"[{host}]" if ":" in host else host
            _log.info("listening on %s:%d: %s", shown, port, _reached_from(host))


def who_may(settings: Settings, keys: Sequence[ApiKey]) -> list[str]:
    """Return a line each on who may read, score and write, given the valid keys."""
    anyone = "anyone who reaches the server"
    closed = {"reading": settings.reading_needs_key, "scoring": settings.scoring_needs_key}
    scopes: dict[str, KeyScope] = {"reading": "read", "scoring": "score"}
    lines = [
        f"{what}: {_count(keys, scopes[what]) if is_closed else anyone}"
        for what, is_closed in closed.items()
    ]
    if keys:
        return [*lines, f"writing: {_count(keys, 'write')}"]
    return [*lines, f"writing: {anyone}; `feedsieve keys add NAME` closes it"]


def _count(keys: Sequence[ApiKey], scope: KeyScope) -> str:
    count = sum(key.allows(scope) for key in keys)
    if not count:
        return f"nobody; `feedsieve keys add NAME --scope {scope}` adds a key"
    return f"{count} key" if count == 1 else f"{count} keys"


def _reached_from(host: str) -> str:
    address = ipaddress.ip_address(host)
    if address.is_loopback:
        return "only programs of this machine reach it, such as a proxy"
    if address.is_unspecified:
        return "every network of this machine reaches it"
    return "the network of this address reaches it"
