"""Feast: the features of messages, as they were when a label was given, and as they are now."""

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

from feedsieve.text import fingerprint

REPOSITORY = Path("feature_repo")
EMBEDDING, TRAITS, COPIES = "message_embedding", "message_traits", "text_copies"  # the views
MESSAGE, TEXT = "message_id", "fingerprint"  # the keys of the two entities
EVENT_TIME = "event_time"
EMBEDDING_FEATURES = [f"{EMBEDDING}:{name}" for name in ("embedding", "encoder", "embedded_text")]
MISSING = "Feast is missing: pip install -c constraints.txt -e '.[features]'"
_READ_AT_ONCE = 500  # messages; a database takes only so many variables in one query


class NoFeatures(RuntimeError):
    """There are no features that can be read; the message says which, and what makes them."""


class FeatureStore:
    """The Feast repository in a folder, and the online store that its settings name."""

    def __init__(self, folder: Path) -> None:
        """Raises NoFeatures if Feast is not installed or the folder's settings are amiss."""
        try:
            import feast  # an extra, and seconds to import
        except ImportError as error:
            raise NoFeatures(f"{MISSING} ({error})") from error
        self.folder = folder.resolve()
        given = os.environ.get("FEAST_FS_YAML_FILE_PATH")  # Feast's own setting
        settings = Path(given) if given else self.folder / "feature_store.yaml"
        try:
            variables = re.findall(r"\$\{(\w+)\}", settings.read_text(encoding="utf-8"))
        except OSError as error:
            raise NoFeatures(f"{settings} cannot be read: {error.strerror}") from error
        if unset := [name for name in variables if name not in os.environ]:
            raise NoFeatures(f"{settings} needs {', '.join(unset)} in the environment")
        with self._refusing(settings):
            self._feast: Any = feast.FeatureStore(str(self.folder), fs_yaml_file=settings)

    @property
    def encoder_tag(self) -> str:
        """The encoder whose embeddings these are. Raises NoFeatures if none were computed yet."""
        return self._tags["encoder"]

    @property
    def is_finetuned(self) -> bool:
        """Whether that encoder has learnt labels. Raises NoFeatures if none were computed yet."""
        return self._tags["finetuned"] == "true"

    def apply(self) -> set[str]:
        """Make the views known as definitions.py has them; return those that read other files now.

        Raises NoFeatures.
        """
        from feast import Entity, FeatureView

        before = self._sources()
        found = runpy.run_path(str(self.folder / "definitions.py")).values()
        with self._refusing("its definitions"):
            self._feast.apply([value for value in found if isinstance(value, Entity | FeatureView)])
        return {view for view, path in self._sources().items() if before.get(view) != path}

    def materialized_until(self, view: str) -> datetime | None:
        """Return the moment up to which the online store has what was computed, None if never."""
        return self._feast.get_feature_view(view).most_recent_end_time

    def materialize(self, view: str, since: datetime) -> None:
        """Copy the rows of a view from an event time on into the online store.

        Raises NoFeatures.
        """
        with self._refusing("the online store"):
            self._feast.materialize(since, datetime.now(UTC), [view])

    def as_of_labels(self, labeled: pd.DataFrame, features: Sequence[str]) -> pd.DataFrame:
        """Return the features of labelled messages as they were when the labels were given.

        `labeled` is what `train.data.read_labeled` returns; a label of unknown time counts as given
        now. `features` are VIEW:NAME. The answer has a row for each of `labeled`, in their order:
        the keys, `event_timestamp`, which is the label's time, and a column a feature, NaN where
        there was none yet. Raises NoFeatures.
        """
        now = pd.Timestamp.now(UTC)
        given = labeled["labeled_at"].fillna(now) if "labeled_at" in labeled else now
        entities = pd.DataFrame(
            {
                MESSAGE: labeled["msg_id"],
                TEXT: labeled["msg"].map(fingerprint),
                "event_timestamp": given,
            }
        )
        answer = entities
        views = dict.fromkeys(feature.partition(":")[0] for feature in features)
        with self._refusing("the offline store"):
            for view in views:
                asked = [feature for feature in features if feature.startswith(f"{view}:")]
                found = self._history(view, entities, asked)
                answer = answer.merge(found, "left", list(entities))
        return answer

    def embeddings_as_of_labels(self, labeled: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return the embeddings of labelled messages by the fingerprints of their texts.

        Those that the store had not when the labels were given are left out. Raises NoFeatures.
        """
        return self._by_text(self.as_of_labels(labeled, EMBEDDING_FEATURES))

    def embeddings_now(self, identifiers: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the embeddings of messages from the online store, by fingerprint, with a bar.

        Those that it has not are left out. Raises NoFeatures.
        """
        found: dict[str, np.ndarray] = {}
        with tqdm(total=len(identifiers), desc="read online", unit="message") as progress:
            for start in range(0, len(identifiers), _READ_AT_ONCE):
                part = identifiers[start : start + _READ_AT_ONCE]
                with self._refusing("the online store"):
                    answer = self._feast.get_online_features(
                        EMBEDDING_FEATURES, [{MESSAGE: identifier} for identifier in part]
                    )
                found |= self._by_text(pd.DataFrame(answer.to_dict()))
                progress.update(len(part))
        return found

    def _history(self, view: str, entities: pd.DataFrame, features: list[str]) -> pd.DataFrame:
        """Return the features of those `entities` for which a view has a row that is early enough.

        Only those are asked for: Feast drops a row that finds nothing, and fails if all do.
        """
        source, [key] = self._sources()[view], self._feast.get_feature_view(view).join_keys
        times = pd.read_parquet(self.folder / source, columns=[key, EVENT_TIME])
        first = times.groupby(key)[EVENT_TIME].min()
        asked = entities[entities[key].map(first) <= entities["event_timestamp"]]
        if asked.empty:
            names = [feature.partition(":")[2] for feature in features]
            return asked.reindex(columns=[*asked, *names])
        return self._feast.get_historical_features(asked.drop_duplicates(), features).to_df()

    def _by_text(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return the embeddings by this encoder among `rows`, by fingerprint."""
        rows = rows[rows["encoder"] == self.encoder_tag]
        return {
            mark: np.asarray(embedding, np.float32)
            for mark, embedding in zip(rows["embedded_text"], rows["embedding"], strict=True)
        }

    @property
    def _tags(self) -> dict[str, str]:
        if EMBEDDING not in self._sources():
            raise NoFeatures(
                f"{self.folder} has no features yet; `make features` or"
                " `python -m train.features --db MESSAGES.db` computes them"
            )
        return self._feast.get_feature_view(EMBEDDING).tags

    def _sources(self) -> dict[str, str]:
        """Return the folder of each view's files, of the views that are known."""
        with self._refusing("the registry"):
            views: list[Any] = self._feast.list_feature_views()
            return {view.name: view.batch_source.path for view in views}

    @contextmanager
    def _refusing(self, what: object) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each kind of store has its own
            raise NoFeatures(f"Feast in {self.folder}: {what}: {error}") from error
