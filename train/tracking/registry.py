"""The registered model in MLflow: a version for each trained pair, and the alias of the champion.

A version holds the tags of two models in the BentoML model store, and the models themselves as
artifacts: see `shared_models`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from feedsieve.errors import FeedsieveError
from train.tracking import mlflow_run, shared_models
from train.tracking.shared_models import FOLDER, StoredModels

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "feedsieve"
CHALLENGER = "challenger"  # the newest version
CHAMPION = "champion"  # the version to serve, set by train.promote
FORMER = "former"  # the previous champion
PAIR_FILE = "pair.json"


@dataclass(frozen=True)
class Pair:
    """Two models of the BentoML model store that belong together, and their training data."""

    classifier_tag: str
    encoder_tag: str
    data_fingerprint: str


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    number: int  # from 1
    pair: Pair
    run_id: str
    aliases: frozenset[str]
    created: datetime
    stored: StoredModels

    def fetch(self) -> None:
        """Add the pair to this machine's model store if it lacks them.

        Raises ModelNotFound and TrackingUnavailable.
        """
        tags = self.pair.classifier_tag, self.pair.encoder_tag
        shared_models.fetch(self.run_id, tags, self.stored)


class VersionNotFound(FeedsieveError, LookupError):
    """The registered model has no such version."""


def register(run: mlflow_run.Run, pair: Pair, stored: StoredModels | None = None) -> int:
    """Register the pair of `run` as a version and return its number. The newest is the challenger.

    `stored` says where its models are; without it other machines cannot fetch them.
    Raises MLflow's errors; see `Run.recording`.
    """
    from mlflow.exceptions import MlflowException

    client = run.client
    run.log_texts({f"{FOLDER}/{PAIR_FILE}": json.dumps(asdict(pair), indent=2) + "\n"})
    try:
        client.create_registered_model(NAME)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = asdict(pair) | (asdict(stored) if stored else {})
    made = client.create_model_version(NAME, f"runs:/{run.id}/{FOLDER}", run.id, tags=tags)
    # Another run may have registered a newer one meanwhile.
    newest = max(int(one.version) for one in client.search_model_versions(f"name='{NAME}'"))
    client.set_registered_model_alias(NAME, CHALLENGER, str(newest))
    return int(made.version)


def versions() -> list[Version]:
    """Return all versions, the newest first. Raises TrackingUnavailable."""
    with _registry() as client:
        found = client.search_model_versions(f"name='{NAME}'")
        by_alias = client.get_registered_model(NAME).aliases if found else {}
    return [
        Version(
            int(one.version),
            Pair(*(one.tags.get(name, "") for name in Pair.__dataclass_fields__)),
            one.run_id or "",
            frozenset(
                alias for alias, number in by_alias.items() if int(number) == int(one.version)
            ),
            datetime.fromtimestamp(one.creation_timestamp / 1000, UTC),
            StoredModels(*(one.tags.get(name, "") for name in StoredModels.__dataclass_fields__)),
        )
        for one in sorted(found, key=lambda one: -int(one.version))
    ]


def behind(alias: str) -> Version | None:
    """Return the version with `alias`, or None. Raises TrackingUnavailable."""
    return next((version for version in versions() if alias in version.aliases), None)


def champion_tag(*, fetch: bool = True) -> str:
    """Return the tag of the champion's classifier, whose pair is then in the model store.

    Without `fetch` it may be absent from this machine's.
    Raises VersionNotFound, ModelNotFound and TrackingUnavailable.
    """
    champion = behind(CHAMPION) if mlflow_run.in_use() else None
    if champion is None:
        raise VersionNotFound("there is no champion; `python -m train.promote` makes one")
    if fetch:
        champion.fetch()
    return champion.pair.classifier_tag


def with_tag(tag: str) -> Version:
    """Return the version of the classifier `tag`. Raises VersionNotFound, TrackingUnavailable."""
    for version in versions():
        if version.pair.classifier_tag == tag:
            return version
    raise VersionNotFound(f"{NAME} has no version in MLflow whose classifier is {tag}")


def move(alias: str, number: int) -> None:
    """Move `alias` to the version `number`. Raises VersionNotFound and TrackingUnavailable."""
    numbers = [version.number for version in versions()]
    if number not in numbers:
        existing = ", ".join(map(str, numbers)) or "none"
        raise VersionNotFound(f"{NAME} has no version {number} in MLflow; it has {existing}")
    with _registry() as client:
        client.set_registered_model_alias(NAME, alias, str(number))


@contextmanager
def _registry() -> Iterator["MlflowClient"]:
    client = mlflow_run.connect()
    with mlflow_run.available(client.tracking_uri):
        yield client
