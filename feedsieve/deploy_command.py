"""`feedsieve deploy`: the model that all servers of a message store are to serve."""

import getpass
import json
import os
import re
import socket
from dataclasses import asdict
from typing import Any

import click

from feedsieve.errors import FeedsieveError
from feedsieve.registry import CHAMPION, NoRegistry, champion
from feedsieve.scoring.model_store import ModelNotFound, find_pair
from feedsieve.settings import settings
from feedsieve.store.deployments import Deployment, previous
from feedsieve.store.store import MessageStore

_EXACT = re.compile(r"[^:\s]+:(?!latest\Z)[^:\s]+")  # a tag that means the same on every machine
_OWN = "what each server's FEEDSIEVE_MODEL names"


class CannotDeploy(FeedsieveError):
    """The model cannot be wanted; the message says what to do."""


@click.command()
@click.argument("model", metavar="[TAG|champion]", required=False)
@click.option("--rollback", is_flag=True, help="Go back to the model that was wanted before.")
@click.option(
    "--reset", is_flag=True, help="Let each server serve what its FEEDSIEVE_MODEL names, as before."
)
@click.option(
    "--elsewhere",
    is_flag=True,
    help="Do not look for the model on this machine: the servers' machines have it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def deploy(model: str | None, rollback: bool, reset: bool, elsewhere: bool, as_json: bool) -> None:
    """Change the model of all servers, or print which one is wanted.

    All servers of the message store at FEEDSIEVE_DB load the model within seconds, check it against
    its reference outputs, and switch to it between two batches. One that cannot load it keeps its
    model. TAG is a classifier in this machine's BentoML model store, such as
    feedsieve-classifier:latest; champion is the one that `python -m train.promote` made champion.
    Without arguments this prints the wanted model, and what each server serves since.
    """
    if bool(model) + rollback + reset > 1:
        raise click.UsageError("pass one of TAG, champion, --rollback and --reset")
    tag = _exact(model, elsewhere) if model else None
    store = MessageStore.open(settings().db)
    if rollback and not elsewhere and (before := previous(store.deployments())):
        _exact(before, elsewhere)
    if rollback:
        store.roll_back(_who())
    elif model or reset:
        store.deploy(tag, _who())
    if as_json:
        click.echo(json.dumps(_state(store), default=str))
        return
    for line in _lines(store):
        click.echo(line)
    if model or rollback or reset:
        click.echo("servers follow within seconds; `feedsieve deploy` shows which did")


def _exact(model: str, elsewhere: bool) -> str:
    """Return the exact tag of `model`. Raises CannotDeploy."""
    tag = _champion(fetch=not elsewhere) if model == CHAMPION else model
    if elsewhere:
        if not _EXACT.fullmatch(tag):
            raise CannotDeploy(
                f"{tag} may be another model on each machine; pass an exact tag, NAME:VERSION"
            )
        return tag
    try:
        return find_pair(tag)[0]
    except ModelNotFound as error:
        raise CannotDeploy(
            f"{error}. `python -m train.promote --fetch {tag}` adds one that MLflow has. If it is"
            " in the model store of the servers' machines, add --elsewhere"
        ) from error


def _champion(fetch: bool) -> str:
    """Return the champion's tag. Raises CannotDeploy, and the registry's errors."""
    try:
        return champion(fetch=fetch)
    except NoRegistry as error:
        raise CannotDeploy(
            "which model is champion is known where models are trained; deploy the tag that"
            f" `python -m train.promote --champion` prints there ({error})"
        ) from error


def _who() -> str:
    """Return the user and the machine, as `user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _state(store: MessageStore) -> dict[str, Any]:
    """Return the wanted model, the one before, and the servers' answers."""
    wanted, before = _last_two(store)
    state = asdict(wanted) if wanted else dict.fromkeys(Deployment.__dataclass_fields__)
    servers = store.deployment_outcomes(wanted.number) if wanted else []
    return {
        "wanted": state.pop("tag"),
        "before": before.tag if before else None,
        **state,
        "servers": [asdict(one) for one in servers],
    }


def _lines(store: MessageStore) -> list[str]:
    wanted, before = _last_two(store)
    if wanted is None:
        return [f"wanted: {_OWN}; nothing was deployed"]
    since = wanted.time.isoformat(" ", "seconds")
    lines = [
        f"wanted: {wanted.tag or _OWN}, since {since} by {wanted.who}",
        f"before: {before.tag if before and before.tag else _OWN}",
    ]
    for one in store.deployment_outcomes(wanted.number):
        reason = f"; refused: {one.reason}" if one.reason else ""
        lines.append(f"{one.server} serves {one.model}{reason}")
    return lines


def _last_two(store: MessageStore) -> list[Deployment | None]:
    """Return the last deployment and the one before it."""
    return [*store.deployments()[:2], None, None][:2]
