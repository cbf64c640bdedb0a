"""Read labelled messages from CSV and from Label Studio's exports."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from feedsieve.sources.columns import PLACE
from feedsieve.sources.json_text import parse
from feedsieve.sources.labels.label_studio import is_flat_export
from feedsieve.text import storable
from train.data import label_studio
from train.data.label_tables import labelled, read_table, read_text, starts_as_json
from train.data.validation import ADJUDICATED, GROUND_TRUTH, InvalidData, validate

_COLUMNS = ["msg_id", "msg", "label", "subset", "labeled_at", ADJUDICATED, GROUND_TRUTH]


def read_labeled(path: Path | str) -> pd.DataFrame:
    """Return labelled messages with `msg_id`, `msg` (text) and `label` (0 or 1).

    Reads CSV with these columns, and Label Studio's CSV, JSON and JSON-MIN exports. A label in the
    file is one of `validation.LABELS` in any case; rows without one are left out. More columns are
    returned if the file has them: `subset`, train or test; `labeled_at`, in UTC, NaT where it is
    unknown; and `adjudicated`, 0 or 1, the label after review, which models are judged by and not
    trained on, and where it is empty, nobody objected to the label; and `ground_truth`, bool, for
    labels that somebody has checked, which training and audits believe.
    Raises `InvalidData` with every problem and its place in the file.
    """
    path = Path(path)
    columns, rows, problems = read_rows(path)
    present = {name for row in rows for name in row} if rows else set(columns)
    names = [name for name in _COLUMNS if name in present]
    cells = [[storable(row[name]) if name in row else "" for name in names] for row in rows]
    frame = pd.DataFrame(cells, columns=names, dtype=str)
    frame[PLACE] = pd.Series([row[PLACE] for row in rows], dtype=str)
    return validate(frame, path, problems)


def read_rows(path: Path) -> tuple[Sequence[str], list[dict[str, str]], list[str]]:
    """Return columns, rows as text, and problems of a file in one of `read_labeled`'s formats.

    The values are not checked; rows without a label are left out. Raises `InvalidData` for another
    format.
    """
    problems: list[str] = []
    columns: Sequence[str] = []
    try:
        if starts_as_json(path):
            return columns, label_studio.from_json(parse(read_text(path))), problems
        columns, rows, problems = read_table(path)
        if is_flat_export(columns):
            return columns, label_studio.from_flat(rows), problems
    except InvalidData:
        raise
    except ValueError as error:
        raise InvalidData(path, [*problems, str(error)]) from error
    rows, contradictions = labelled(rows)
    return columns, rows, [*problems, *contradictions]
