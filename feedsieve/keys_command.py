"""`feedsieve keys`: keys that programs and people show to the server."""

import json
import re
from datetime import datetime

import click

from feedsieve.known_store import known_store
from feedsieve.serving.key_cache import REFRESH
from feedsieve.store.keys import SCOPES, ApiKey, KeyScope

DEFAULT_SCOPES: tuple[KeyScope, ...] = ("read", "score", "write")
MAX_RATE = 1_000_000  # requests a minute
_NAME = re.compile(r"[\w@][\w.@-]{0,63}")  # stands in logs as it is


@click.group()
def keys() -> None:
    """API keys: add, list, revoke.

    Keys are in the store at FEEDSIEVE_DB, as hashes. Once there is one, the server refuses to write
    without a key of the scope `write`. A running server knows of a change within seconds.
    """


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    help="What the key allows; may be repeated. `admin` is all of it."
    f"  [default: {', '.join(DEFAULT_SCOPES)}]",
)
@click.option(
    "--rate",
    metavar="N",
    type=click.IntRange(1, MAX_RATE),
    help="At most N requests a minute with this key, by each server.  [default: no limit]",
)
def add(name: str, scopes: tuple[KeyScope, ...], rate: int | None) -> None:
    """Add a key and print it.

    The key is printed on stdout, this once: the store has only a hash of it. NAME says whose key it
    is, in lists and logs. To change a key, add another one of a new name, give it to its users, and
    revoke the first.
    """
    if not _NAME.fullmatch(name):
        raise click.BadParameter(
            "up to 64 letters, digits and ._@- are allowed, and it starts with a letter or digit",
            param_hint="NAME",
        )
    store = known_store()
    key = store.add_key(name, scopes or DEFAULT_SCOPES, rate)
    click.echo(f"{name} may {_joined(scopes or DEFAULT_SCOPES)}; the key is shown once:", err=True)
    click.echo(key)
    if not any(each.allows("write") for each in store.valid_keys()):
        click.echo("nobody may write now: no key has the scope write", err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(as_json: bool) -> None:
    """List the keys, with those that are revoked.

    Times are in UTC. Use is recorded once a minute.
    """
    found = known_store().api_keys()
    if as_json:
        click.echo(json.dumps([_fields(key) for key in found]))
        return
    for key in found:
        limit = (
            f", {key.requests_per_minute:,} requests a minute" if key.requests_per_minute else ""
        )
        used = f"last used {_time(key.last_used_at)}" if key.last_used_at else "never used"
        end = f", revoked {_time(key.revoked_at)}" if key.revoked_at else ""
        allowed = ", ".join(scope for scope in SCOPES if scope in key.scopes)
        click.echo(f"{key.name}: {allowed}{limit}; added {_time(key.created_at)}, {used}{end}")
    if not any(key.revoked_at is None for key in found):
        click.echo("no key is valid: anyone who reaches the server may write", err=True)


@keys.command()
@click.argument("name")
@click.option("--last", is_flag=True, help="Revoke the last key, which opens writing to everyone.")
def revoke(name: str, last: bool) -> None:
    """Revoke a key.

    Servers that run refuse it within seconds. The last key is not revoked without --last: with none
    left, anyone who reaches the server may write. Add another one first.
    """
    known_store().revoke_key(name, may_be_last=last)
    click.echo(f"{name} is revoked; running servers refuse it within {REFRESH + 1:.0f} seconds")


def _fields(key: ApiKey) -> dict[str, object]:
    def written(time: datetime | None) -> str | None:
        return time.isoformat() if time else None

    return {
        "name": key.name,
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "requests_per_minute": key.requests_per_minute,
        "created_at": written(key.created_at),
        "last_used_at": written(key.last_used_at),
        "revoked_at": written(key.revoked_at),
    }


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _joined(scopes: tuple[KeyScope, ...]) -> str:
    *others, last = scopes
    return f"{', '.join(others)} and {last}" if others else last
