"""The methods of the message store that are about labels."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from sqlalchemy import Connection

from feedsieve.sources.labels.labelled_message import LabelledMessage
from feedsieve.store.label_import import LabelImport, import_labels, labelled_messages
from feedsieve.store.labels import (
    GivenLabel,
    LabelCounts,
    ResolvedLabel,
    add_labels,
    label_history,
    resolve,
)
from feedsieve.text import route_id


class LabelMethods:
    """Labels of messages: every one that people gave, and the one that counts.

    Every method raises StoreUnavailable as those of `MessageStore` do.
    """

    @abstractmethod
    def _transaction(self, *, writes: bool = False) -> AbstractContextManager[Connection]: ...

    def add_labels(self, given: Iterable[GivenLabel]) -> LabelCounts:
        """Store labels, all or none; those that are known change nothing.

        Raises ValueError for a label without a person or an origin, and for unknown values.
        """
        with self._transaction(writes=True) as connection:
            return add_labels(connection, given)

    def import_labels(self, given: Sequence[LabelledMessage], key: str) -> LabelImport:
        """Store labels, and their messages that are not there, with the source `key`; all or none.

        Messages that are there do not change. Raises ValueError as `add_labels` does, and
        SourceConflict if `key` seems to be another chat of that name.
        """
        with self._transaction(writes=True) as connection:
            return import_labels(connection, given, key)

    def label_history(self, identifier: str) -> list[GivenLabel]:
        """Return every label of a message, the oldest first, with those of earlier texts."""
        with self._transaction() as connection:
            return label_history(connection, route_id(identifier))

    def labels(self) -> list[ResolvedLabel]:
        """Return the messages that people have labelled, with the label that counts.

        A person's last label of the present text counts. Ground truth comes first, then the
        majority; the label of a tie is None.
        """
        with self._transaction() as connection:
            return resolve(connection)

    def labelled_messages(self) -> list[LabelledMessage]:
        """Return every label with its message as it was labelled.

        The message's identifier is the one in its source. The text is empty if the store never had
        it.
        """
        with self._transaction() as connection:
            return list(labelled_messages(connection))
