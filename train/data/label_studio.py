"""Label Studio's exports as labelled rows: one label for each task, by the majority."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from feedsieve.errors import first_few, quote
from feedsieve.sources.columns import PLACE
from feedsieve.sources.labels.label_studio import (
    Decision,
    annotations,
    decide,
    flat_annotations,
    is_full_export,
    tasks_of,
)

_log = logging.getLogger(__name__)


def from_json(document: Any) -> list[dict[str, str]]:
    """Return the labelled rows of a JSON or JSON-MIN export; see `from_flat`.

    Raises `ValueError` if the document is not a list of tasks.
    """
    tasks = tasks_of(document)
    if not is_full_export(tasks):
        return from_flat([task | {PLACE: f"row {n}"} for n, task in enumerate(tasks, 1)])
    given = annotations(tasks)
    labelled = {annotation.place for annotation in given if any(annotation.choices.values())}
    return _rows(decide(given), len(tasks) - len(labelled))


def from_flat(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a row of `msg_id`, `msg`, `label` (and `subset`) for each labelled task.

    `rows` are those of a CSV or JSON-MIN export, one for each annotation, with their `PLACE`.
    The task's `id` stands in for a missing `msg_id`, and `text` for `msg`. The majority of
    annotators decides, each by their latest annotation; ties are left out.
    Raises `ValueError` if it is unclear which column holds the labels.
    """
    given = flat_annotations(rows)
    decided = decide(given)
    return _rows(decided, len({annotation.task for annotation in given}) - len(decided))


def decisions(document: Any) -> list[Decision]:
    """Return the decision on each labelled task of a JSON export, in its order.

    Each annotator has one vote, their latest annotation that was not cancelled.
    Raises `ValueError` for another document, or if it is unclear where the labels are.
    """
    return decide(annotations(tasks_of(document)))


def _rows(decided: Sequence[Decision], unlabelled: int) -> list[dict[str, str]]:
    """Return a row for each labelled task, in the order of the file."""
    if unlabelled:
        _log.info("%d tasks have no label and are left out", unlabelled)
    if ties := [
        f"{decision.row[PLACE]}, msg_id {quote(decision.row['msg_id'])}"
        for decision in decided
        if decision.label is None
    ]:
        _log.warning("annotators are tied on %d tasks, left out: %s", len(ties), first_few(ties))
    return [
        {**decision.row, "label": decision.label}
        for decision in decided
        if decision.label is not None
    ]
