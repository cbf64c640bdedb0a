"""The files of a report: metrics, held-out scores, and the page."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from feedsieve.files import open_atomically
from feedsieve.store.feed import FeedItem
from feedsieve.text import fingerprint
from train.classifier.boosting import Fitted
from train.classifier.save import SavedModel
from train.data.dataset import Dataset
from train.evaluation.label_audit import audit, suspects, what_if
from train.report.page import FILE as PAGE_FILE
from train.report.page import write_report

METRICS_FILE = "metrics.json"
HELD_OUT_FILE = "held_out.csv"  # scores of the training part, for train.audit
FILES = (PAGE_FILE, METRICS_FILE, HELD_OUT_FILE)


def write_files(
    folder: Path, data: Dataset, fitted: Fitted, model: SavedModel, preview: Sequence[FeedItem]
) -> None:
    """Write `FILES` into `folder`; `preview` are the first messages of the feed. Raises OSError."""
    train, test = data.parts.train, data.parts.test
    _write_held_out(folder / HELD_OUT_FILE, train, fitted)
    doubts = audit(train, fitted.held_out, data.groups)
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
        audit=what_if(data.labels, fitted.held_out, suspects(doubts), fitted.threshold),
        suspects=len(doubts),
        finetuning=metrics.get("finetuning", ()),
        card=card,
    )
    with open_atomically(folder / METRICS_FILE) as file:
        file.write(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")


def _write_held_out(path: Path, frame: pd.DataFrame, fitted: Fitted) -> None:
    """Write the out-of-fold scores of `frame`."""
    columns = {
        "msg_id": frame["msg_id"],
        "score": fitted.held_out,
        "fingerprint": frame["msg"].map(fingerprint),
    }
    with open_atomically(path) as file:
        pd.DataFrame(columns).to_csv(file, index=False)
