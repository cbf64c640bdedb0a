"""The registered model in MLflow: which pair of models each training made, and which is champion.

A version points to the BentoML model store by its tags, and holds no model itself.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from train import tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "feedsieve"
CHALLENGER = "challenger"  # the newest version
CHAMPION = "champion"  # the version to serve; `train.promote` says which
FORMER = "former"  # the version that was champion before
FOLDER = "model"  # of the run's artifacts, that a version's source names
PAIR_FILE = "pair.json"


@dataclass(frozen=True)
class Pair:
    """Two models of the BentoML store that belong together, and what they have learnt from."""

    classifier_tag: str
    encoder_tag: str
    data_fingerprint: str


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    number: int  # 1 for the first
    pair: Pair
    run_id: str
    aliases: frozenset[str]
    created: datetime


class NoVersion(LookupError):
    """The registered model has no such version; the message says which it has."""


def register(run: tracking.Run, pair: Pair) -> int:
    """Make a version of what `run` trained; return its number. The newest is the challenger.

    What it raises is MLflow's; see `tracking.Run.recording`.
    """
    from mlflow.exceptions import MlflowException

    client = run.client
    run.log_texts({f"{FOLDER}/{PAIR_FILE}": json.dumps(asdict(pair), indent=2) + "\n"})
    try:
        client.create_registered_model(NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(NAME, f"runs:/{run.id}/{FOLDER}", run.id, tags=asdict(pair))
    newest = max(int(one.version) for one in client.search_model_versions(f"name='{NAME}'"))
    client.set_registered_model_alias(NAME, CHALLENGER, str(newest))  # of another run, perhaps
    return int(made.version)


def versions() -> list[Version]:
    """Return all versions, the newest first. Raises TrackingUnavailable."""
    with _registry() as client:
        found = client.search_model_versions(f"name='{NAME}'")
        by_alias = client.get_registered_model(NAME).aliases if found else {}
    numbers = [(int(one.version), one) for one in found]
    return [
        Version(
            number,
            Pair(**{name: one.tags.get(name, "") for name in Pair.__dataclass_fields__}),
            one.run_id or "",
            frozenset(alias for alias, at in by_alias.items() if int(at) == number),
            datetime.fromtimestamp(one.creation_timestamp / 1000, UTC),
        )
        for number, one in sorted(numbers, key=lambda entry: -entry[0])
    ]


def behind(alias: str) -> Version | None:
    """Return the version that `alias` points to, None if none does. Raises TrackingUnavailable."""
    return next((version for version in versions() if alias in version.aliases), None)


def move(alias: str, number: int) -> None:
    """Let `alias` point to the version `number`. Raises NoVersion and TrackingUnavailable."""
    there = [version.number for version in versions()]
    if number not in there:
        has = ", ".join(map(str, there)) or "none"
        raise NoVersion(f"{NAME} has no version {number} in MLflow; it has {has}")
    with _registry() as client:
        client.set_registered_model_alias(NAME, alias, str(number))


@contextmanager
def _registry() -> Iterator["MlflowClient"]:
    client = tracking.connect()
    with tracking.available(client.tracking_uri):
        yield client
