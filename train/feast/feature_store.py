"""Feast: the features of messages, as of the time of a label and as of now."""

import os
import re
import runpy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from feedsieve.errors import FeedsieveError
from feedsieve.text import fingerprint

REPOSITORY = Path("feature_repo")
EMBEDDING, HANDCRAFTED_VIEW, COPIES = "message_embedding", "message_traits", "text_copies"  # views
MESSAGE, TEXT = "message_id", "fingerprint"  # the keys of the two entities
EVENT_TIME = "event_time"
EMBEDDING_FEATURES = [f"{EMBEDDING}:{name}" for name in ("embedding", "encoder", "embedded_text")]
MISSING = "Feast is missing: pip install -c constraints.txt -e '.[features]'"
_BATCH = 500  # messages; databases limit the variables in a query


class FeaturesUnavailable(FeedsieveError):
    """Features cannot be read; the message says why, and which command computes them."""


class FeatureStore:
    """The Feast repository in a folder, with its offline and online stores."""

    def __init__(self, folder: Path) -> None:
        """Open the repository; FEAST_FS_YAML_FILE_PATH may name other settings.

        Raises FeaturesUnavailable if Feast is not installed or its settings are wrong.
        """
        try:
            import feast  # an optional dependency that takes seconds to import
        except ImportError as error:
            raise FeaturesUnavailable(f"{MISSING} ({error})") from error
        self.folder = folder.resolve()
        path = os.environ.get("FEAST_FS_YAML_FILE_PATH")  # Feast's own variable
        settings = Path(path) if path else self.folder / "feature_store.yaml"
        try:
            variables = re.findall(r"\$\{(\w+)\}", settings.read_text(encoding="utf-8"))
        except OSError as error:
            raise FeaturesUnavailable(f"{settings} cannot be read: {error.strerror}") from error
        if unset := [name for name in variables if name not in os.environ]:
            raise FeaturesUnavailable(f"{settings} needs {', '.join(unset)} in the environment")
        with self._errors_named(settings):
            self._feast: Any = feast.FeatureStore(str(self.folder), fs_yaml_file=settings)

    @property
    def encoder_tag(self) -> str:
        """The tag of the encoder that computed the embeddings.

        Raises FeaturesUnavailable if there are none yet.
        """
        return self._tags["encoder"]

    @property
    def is_finetuned(self) -> bool:
        """True if that encoder was trained on labels.

        Raises FeaturesUnavailable if there are no embeddings yet.
        """
        return self._tags["finetuned"] == "true"

    def apply(self) -> set[str]:
        """Apply definitions.py; return the views whose files have changed.

        Raises FeaturesUnavailable.
        """
        from feast import Entity, FeatureView

        before = self._sources()
        definitions = runpy.run_path(str(self.folder / "definitions.py")).values()
        with self._errors_named("its definitions"):
            self._feast.apply(
                [value for value in definitions if isinstance(value, Entity | FeatureView)]
            )
        return {view for view, path in self._sources().items() if before.get(view) != path}

    def materialized_until(self, view: str) -> datetime | None:
        """Return the time up to which computed rows are online, or None if none are."""
        return self._feast.get_feature_view(view).most_recent_end_time

    def materialize(self, view: str, since: datetime) -> None:
        """Copy rows of a view with event times from `since` on into the online store.

        Raises FeaturesUnavailable.
        """
        with self._errors_named("the online store"):
            self._feast.materialize(since, datetime.now(UTC), [view])

    def as_of_labels(self, labeled: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
        """Return the features of labelled messages as of the time of the label.

        `labeled` is a frame of `train.data.labelled.read_labeled`; a label without a time counts as
        given now. `features` are named VIEW:NAME. The result has the rows of `labeled`, in order:
        the keys, `event_timestamp` (the label's time), and a column per feature, NaN where there
        was no value yet. Raises FeaturesUnavailable.
        """
        now = pd.Timestamp.now(UTC)
        times = labeled["labeled_at"].fillna(now) if "labeled_at" in labeled else now
        entities = pd.DataFrame(
            {
                MESSAGE: labeled["msg_id"],
                TEXT: labeled["msg"].map(fingerprint),
                "event_timestamp": times,
            }
        )
        result = entities
        views = dict.fromkeys(feature.partition(":")[0] for feature in features)
        with self._errors_named("the offline store"):
            for view in views:
                columns = [feature for feature in features if feature.startswith(f"{view}:")]
                history = self._history(view, entities, columns)
                result = result.merge(history, "left", list(entities))
        return result

    def embeddings_as_of_labels(self, labeled: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return the embeddings of labelled messages by fingerprint, (dimension,) each.

        Embeddings that did not exist at the time of the label are left out. Raises
        FeaturesUnavailable.
        """
        return self._by_text(self.as_of_labels(labeled, EMBEDDING_FEATURES))

    def embeddings_now(self, identifiers: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the embeddings of messages in the online store by fingerprint, with a bar.

        Raises FeaturesUnavailable.
        """
        embeddings: dict[str, np.ndarray] = {}
        with tqdm(total=len(identifiers), desc="read online", unit="message") as progress:
            for start in range(0, len(identifiers), _BATCH):
                part = identifiers[start : start + _BATCH]
                with self._errors_named("the online store"):
                    response = self._feast.get_online_features(
                        EMBEDDING_FEATURES, [{MESSAGE: identifier} for identifier in part]
                    )
                embeddings |= self._by_text(pd.DataFrame(response.to_dict()))
                progress.update(len(part))
        return embeddings

    def _history(self, view: str, entities: pd.DataFrame, features: list[str]) -> pd.DataFrame:
        """Return the features of the entities that have a row in the view early enough.

        Feast drops entities without such a row, and fails if none has one.
        """
        source, [key] = self._sources()[view], self._feast.get_feature_view(view).join_keys
        times = pd.read_parquet(self.folder / source, columns=[key, EVENT_TIME])
        first = times.groupby(key)[EVENT_TIME].min()
        present = entities[entities[key].map(first) <= entities["event_timestamp"]]
        if present.empty:
            names = [feature.partition(":")[2] for feature in features]
            return present.reindex(columns=[*present, *names])
        return self._feast.get_historical_features(present.drop_duplicates(), features).to_df()

    def _by_text(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return the embeddings in `rows` by this encoder, by fingerprint."""
        rows = rows[rows["encoder"] == self.encoder_tag]
        return {
            key: np.asarray(embedding, np.float32)
            for key, embedding in zip(rows["embedded_text"], rows["embedding"], strict=True)
        }

    @property
    def _tags(self) -> dict[str, str]:
        if EMBEDDING not in self._sources():
            raise FeaturesUnavailable(
                f"{self.folder} has no features yet; `make features` or"
                " `python -m train.features --db MESSAGES.db` computes them"
            )
        return self._feast.get_feature_view(EMBEDDING).tags

    def _sources(self) -> dict[str, str]:
        """Return the folder of each registered view's files."""
        with self._errors_named("the registry"):
            views: list[Any] = self._feast.list_feature_views()
            return {view.name: view.batch_source.path for view in views}

    @contextmanager
    def _errors_named(self, what: object) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each kind of store raises its own
            raise FeaturesUnavailable(f"Feast in {self.folder}: {what}: {error}") from error
