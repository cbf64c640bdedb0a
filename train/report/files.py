"""The files of a report: metrics, held-out scores, and the page."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from feedsieve.files import open_atomically
from feedsieve.store.feed import FeedItem
from feedsieve.text import fingerprint
from train.classifier.boosting import Fitted
from train.classifier.save import SavedModel
from train.data.dataset import Dataset
from train.evaluation.label_audit import SCORE, audit
from train.report.file_names import HELD_OUT_FILE, METRICS_FILE
from train.report.page import write_report

KINDS = 10  # of wrong labels to show


def write_files(
    folder: Path, data: Dataset, fitted: Fitted, model: SavedModel, preview: Sequence[FeedItem]
) -> None:
    """Write the `FILES` into `folder`; `preview` are the first messages of the feed.

    Raises OSError.
    """
    train, test = data.parts.train, data.parts.test
    _write_held_out(folder / HELD_OUT_FILE, train, fitted)
    found = audit(train, _views(fitted), data.groups)
    metrics, card = model.metrics, model.card
    write_report(
        folder,
        metrics=metrics,
        labels=data.test_labels,
        scores=model.test_scores,
        threshold=fitted.threshold,
        texts=data.test_texts,
        identifiers=test["msg_id"].tolist(),
        feed_preview=[(item.id, item.text, item.score) for item in preview],
        comparison=metrics["precision"],
        slices=card.slices,
        behaviour=card.behaviour.as_table() if card.behaviour else None,
        audit=found.progress(),
        kinds=[str(kind) for kind in found.kinds[:KINDS]],
        finetuning=metrics.get("finetuning", ()),
        card=card,
    )
    with open_atomically(folder / METRICS_FILE) as file:
        file.write(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def _write_held_out(path: Path, frame: pd.DataFrame, fitted: Fitted) -> None:
    """Write the out-of-fold scores of `frame`."""
    columns = {
        "msg_id": frame["msg_id"],
        **_views(fitted),
        "fold": fitted.folds,
        "fingerprint": frame["msg"].map(fingerprint),
    }
    with open_atomically(path) as file:
        # With both line ends, pandas also quotes identifiers that have only one of them.
        pd.DataFrame(columns).to_csv(file, index=False, lineterminator="\r\n")


def _views(fitted: Fitted) -> dict[str, np.ndarray]:
    return {SCORE: fitted.held_out, **fitted.views}
