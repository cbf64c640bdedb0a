"""`feedsieve deploy`: the model that all servers of a store serve, and the one on trial."""

import getpass
import json
import os
import re
import socket
from dataclasses import asdict
from typing import Any

import click

from feedsieve.errors import FeedsieveError
from feedsieve.known_store import known_store
from feedsieve.registry import CHAMPION, NoRegistry, champion
from feedsieve.scoring.model_store import ModelNotFound, find_pair
from feedsieve.shadow_report import ShadowReport
from feedsieve.store.deployments import Deployment, previous
from feedsieve.store.shadows import Shadow, ShadowOutcome
from feedsieve.store.store import MessageStore

_EXACT = re.compile(r"[^:\s]+:(?!latest\Z)[^:\s]+")  # a tag that means the same on every machine
_SHARE = 0.1  # of the texts that a shadow scores
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
    "--shadow",
    metavar="TAG|champion",
    help="Let this model score live texts in the background, for comparison only.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"Share of the texts that --shadow scores.  [default: {_SHARE}]",
)
@click.option("--no-shadow", is_flag=True, help="Stop the comparison. Its scores stay.")
@click.option("--shadow-report", is_flag=True, help="Print how shadow and served model differ.")
@click.option(
    "--elsewhere",
    is_flag=True,
    help="Do not look for the model on this machine: the servers' machines have it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def deploy(
    model: str | None,
    rollback: bool,
    reset: bool,
    shadow: str | None,
    share: float | None,
    no_shadow: bool,
    shadow_report: bool,
    elsewhere: bool,
    as_json: bool,
) -> None:
    """Change the model of all servers, try one in the shadow, or print which ones are wanted.

    All servers of the message store at FEEDSIEVE_DB load the model within seconds, check it against
    its reference outputs, and switch to it between two batches. One that cannot load it keeps its
    model. TAG is a classifier in this machine's BentoML model store, such as
    feedsieve-classifier:latest; champion is the one that `python -m train.promote` made champion.
    Without arguments this prints the wanted model and its shadow, and what each server made of
    them.
    """
    actions = bool(model), rollback, reset, bool(shadow), no_shadow, shadow_report
    if sum(actions) > 1:
        raise click.UsageError(
            "pass one of TAG, champion, --rollback, --reset, --shadow, --no-shadow and"
            " --shadow-report"
        )
    if share is not None and not shadow:
        raise click.UsageError("--share needs --shadow")
    wanted = model or shadow
    tag = _exact(wanted, elsewhere) if wanted else None
    store = known_store()
    if shadow_report:
        _print_report(ShadowReport.read(store), as_json)
        return
    if rollback and not elsewhere and (before := previous(store.deployments())):
        _exact(before, elsewhere)
    if rollback:
        store.roll_back(_who())
    elif model or reset:
        store.deploy(tag, _who())
    elif shadow or no_shadow:
        _set_shadow(store, tag, share or _SHARE)
    if as_json:
        click.echo(json.dumps(_state(store), default=str))
        return
    for line in _lines(store):
        click.echo(line)
    if any(actions):
        click.echo("servers follow within seconds; `feedsieve deploy` shows which did")


def _set_shadow(store: MessageStore, tag: str | None, share: float) -> None:
    """Raises CannotDeploy for the model that is wanted for service."""
    wanted = store.wanted()
    if tag and wanted and wanted.tag == tag:
        raise CannotDeploy(f"{tag} is in service; its shadow has to be another model")
    store.set_shadow(tag, share, _who())


def _print_report(report: ShadowReport, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.fields(), default=str))
        return
    for line in report.lines():
        click.echo(line)


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
        "shadow": _shadow_state(store),
    }


def _shadow_state(store: MessageStore) -> dict[str, Any] | None:
    """Return the wanted shadow and the servers' answers, or None."""
    shadow = _shadow(store)
    if shadow is None:
        return None
    servers = store.shadow_outcomes(shadow.number)
    return {**asdict(shadow), "servers": [asdict(one) for one in servers]}


def _shadow(store: MessageStore) -> Shadow | None:
    shadow = store.shadow()
    return shadow if shadow and shadow.tag else None


def _lines(store: MessageStore) -> list[str]:
    wanted, before = _last_two(store)
    if wanted is None:
        return [f"wanted: {_OWN}; nothing was deployed", *_shadow_lines(store, None)]
    since = wanted.time.isoformat(" ", "seconds")
    lines = [
        f"wanted: {wanted.tag or _OWN}, since {since} by {wanted.who}",
        f"before: {before.tag if before and before.tag else _OWN}",
    ]
    for one in store.deployment_outcomes(wanted.number):
        reason = f"; refused: {one.reason}" if one.reason else ""
        lines.append(f"{one.server} serves {one.model}{reason}")
    return [*lines, *_shadow_lines(store, wanted.tag)]


def _shadow_lines(store: MessageStore, wanted: str | None) -> list[str]:
    shadow = _shadow(store)
    if shadow is None:
        return []
    since = f"since {shadow.time.isoformat(' ', 'seconds')} by {shadow.who}"
    line = f"shadow: {shadow.tag}, {shadow.share:.3g} of the texts, {since}"
    if shadow.tag == wanted:
        return [line, "it is in service now, so that there is nothing to compare it with"]
    return [line, *map(_shadow_answer, store.shadow_outcomes(shadow.number))]


def _shadow_answer(one: ShadowOutcome) -> str:
    if one.reason:
        return f"{one.server} does not score with it: {one.reason}"
    return f"{one.server} scores with it"


def _last_two(store: MessageStore) -> list[Deployment | None]:
    """Return the last deployment and the one before it."""
    return [*store.deployments()[:2], None, None][:2]
